"""flask findings: list for operators, and recompute."""

import json
from datetime import timedelta

import pytest

from app.detection import Kind
from tests.support.command_line import assert_one_clear_error
from tests.support.findings import START, stored

DAY = timedelta(days=1)


@pytest.fixture
def two(database):
    """An open spike of one organization, and a resolved silence of another."""
    stored(database, {})
    silence = {"kind": Kind.SILENCE, "detail": "silent", "id": "1" * 32}
    stored(database, silence | {"resolved_at": START + DAY, "resolution": "ended"}, tenant="org-b")


def lines(done):
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_list_has_a_line_for_each_finding(flask, two):
    """By default it has the open findings of all organizations."""
    (found,) = lines(flask("findings", "list", "--json"))
    assert (found["organizationId"], found["kind"], found["status"]) == ("org-a", "spike", "open")
    text = flask("findings", "list", "--status", "all").stdout
    assert "org-a  Tue 14 Apr" in text
    assert "silence" in text


@pytest.mark.parametrize(
    ("options", "organizations"),
    [
        (["--status", "all"], ["org-a", "org-b"]),
        (["--status", "resolved"], ["org-b"]),
        (["--status", "all", "--kind", "silence"], ["org-b"]),
        (["--status", "all", "--organization", "org-a"], ["org-a"]),
        (["--status", "all", "--from", "2026-04-14", "--to", "2026-04-14"], ["org-a", "org-b"]),
        (["--status", "all", "--from", "2026-04-15"], []),
        (["--status", "all", "--to", "2026-04-13"], []),
    ],
)
def test_options_keep_what_matches(flask, two, options, organizations):
    found = lines(flask("findings", "list", "--json", *options))
    assert [one["organizationId"] for one in found] == organizations


def test_without_findings_the_list_says_so(flask):
    assert flask("findings", "list").stdout == "no findings\n"
    assert flask("findings", "list", "--json").stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "--kind", "spikes"],
        ["list", "--from", "2026-4-1"],
        ["list", "--from", "2026-04-02", "--to", "2026-04-01"],
        ["list", "--organization", ""],
        ["recompute", "--from", "2026-04-01"],
        ["recompute", "--from", "2026-04-02", "--to", "2026-04-01"],
    ],
)
def test_wrong_usage_is_refused(flask, arguments):
    assert flask("findings", *arguments).returncode == 2


def test_nothing_is_recomputed_before_the_first_run(flask):
    done = flask("findings", "recompute", "--from", "2026-04-01", "--to", "2026-04-02")
    assert "flask rollup run" in assert_one_clear_error(done)


def test_a_recompute_tells_what_it_changed(flask, database, issue, roll_up, two):
    """What no count shows is corrected, once."""
    issue("2026-04-14T09:00:00Z", 3)
    roll_up()
    command = ["findings", "recompute", "--from", "2026-04-14", "--to", "2026-04-14", "--json"]
    first, again = (json.loads(flask(*command).stdout) for _ in range(2))
    assert first == {"organizations": 1, "opened": 0, "changed": 0, "corrected": 1}
    assert again == first | {"corrected": 0}
