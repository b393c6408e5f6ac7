"""flask report: organizations, tokens and agents, for operators with a shell."""

import csv
import io
import json
from datetime import date

import pytest
import sqlalchemy as sa

from app.intake.agent_names import set_names
from app.storage.tables import rollup_state
from tests.support.command_line import assert_one_clear_error
from tests.support.findings import stored
from tests.support.settings import NOW

APRIL = ("--from", "2026-04-01", "--to", "2026-04-14")


@pytest.fixture
def three(database, issue, roll_up):
    """Organization b has grown, =c is new and has the most tokens, a has none in April."""
    for tenant, day, count, agent in (
        ("b", "2026-03-20", 2, "x"),
        ("b", "2026-04-01", 3, "x"),
        ("b", "2026-04-14", 1, "y"),
        ("b", "2026-04-15", 9, "y"),
        ("=c", "2026-04-14", 12, "x"),
        ("a", "2026-01-01", 5, "x"),
    ):
        issue(f"{day}T23:59:59Z", count, tenant=tenant, agent=agent)
    set_names(database, "b", {"x": "billing"}, NOW, by="tester")
    stored(database, {}, tenant="b")
    roll_up()


def lines(done):
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.usefixtures("three")
def test_organizations_are_listed_by_tokens(flask):
    """Change, share, agents, last day and findings; a share is always of all organizations."""
    found = lines(flask("report", "organizations", *APRIL, "--json"))
    assert [one["organizationId"] for one in found] == ["=c", "b", "a"]
    assert found[1] == {
        "organizationId": "b",
        "tokenCount": 4,
        "previousTokenCount": 2,
        "change": 1.0,
        "share": 0.25,
        "activeAgents": 2,
        "lastDay": "2026-04-15",
        "openFindings": 1,
    }
    assert (found[0]["change"], found[2]["tokenCount"], found[2]["share"]) == (None, 0, 0)
    only = lines(flask("report", "organizations", *APRIL, "--organization", "b", "--json"))
    assert only == [found[1]]
    assert lines(flask("report", "organizations", *APRIL, "--limit", "1", "--json")) == found[:1]
    text = flask("report", "organizations", *APRIL).stdout.splitlines()
    assert text[0] == "2026-04-01 to 2026-04-14"
    assert text[3].split() == ["4", "+100.0%", "25.0%", "2", "2026-04-15", "1", "b"]


@pytest.mark.usefixtures("three")
def test_csv_has_the_same_rows(flask):
    """CSV has the names and values of the JSON, and formulas are escaped."""
    for report in ("organizations", "tokens", "agents"):
        found = lines(flask("report", report, *APRIL, "--json"))
        rows = list(csv.DictReader(io.StringIO(flask("report", report, *APRIL, "--csv").stdout)))
        plain = [
            {name: "" if value is None else str(value) for name, value in one.items()}
            for one in found
        ]
        assert [{name: text.removeprefix("'") for name, text in row.items()} for row in rows] == [
            *plain
        ]
    assert "'=c" in flask("report", "agents", *APRIL, "--csv").stdout


@pytest.mark.usefixtures("three")
def test_tokens_are_of_all_organizations_or_of_one(flask):
    every = lines(flask("report", "tokens", *APRIL, "--json"))
    assert (len(every), every[0], every[1]["count"]) == (14, {"date": "2026-04-01", "count": 3}, 0)
    assert every[-1] == {"date": "2026-04-14", "count": 13}
    one = lines(flask("report", "tokens", *APRIL, "--organization", "b", "--json"))
    assert [day["count"] for day in one] == [3, *[0] * 12, 1]
    assert flask("report", "tokens", *APRIL).stdout.splitlines()[-1].split() == ["total", "16"]


@pytest.mark.usefixtures("three")
def test_agents_are_of_all_organizations_or_of_one(flask):
    """An agent's id may be in several organizations; names are theirs alone."""
    every = lines(flask("report", "agents", *APRIL, "--json"))
    shown = [
        (one["organizationId"], one["agentId"], one["name"], one["tokenCount"]) for one in every
    ]
    assert shown == [("=c", "x", None, 12), ("b", "x", "billing", 3), ("b", "y", None, 1)]
    one = lines(flask("report", "agents", *APRIL, "--organization", "b", "--json"))
    assert [agent["share"] for agent in one] == [0.75, 0.25]
    assert len(lines(flask("report", "agents", *APRIL, "--limit", "2", "--json"))) == 2


@pytest.mark.usefixtures("three")
def test_agents_of_days_that_are_not_kept_are_refused(flask, database):
    """The number of agents is then empty in the list of organizations."""
    late = sa.update(rollup_state).values(agents_from=date(2026, 4, 2))
    database.write(lambda connection: connection.execute(late))
    assert "2026-04-02" in assert_one_clear_error(flask("report", "agents", *APRIL))
    found = lines(flask("report", "organizations", *APRIL, "--json"))
    assert {one["activeAgents"] for one in found} == {None}
    filling = sa.update(rollup_state).values(backfill_end=10**6)
    database.write(lambda connection: connection.execute(filling))
    assert "flask rollup backfill" in assert_one_clear_error(flask("report", "agents", *APRIL))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--json", "--csv"],
        ["--from", "2026-04-02", "--to", "2026-04-01"],
        ["--from", "2025-01-01", "--to", "2026-04-01"],
        ["--from", "today"],
        ["--organization", ""],
        ["--from", "9999-12-31"],
    ],
)
def test_wrong_usage_is_refused(flask, arguments):
    for report in ("organizations", "tokens", "agents"):
        assert flask("report", report, *arguments).returncode == 2


def test_an_empty_database_has_empty_reports(flask):
    """Without options the days are the last 28 that are over."""
    assert flask("report", "organizations", "--json").stdout == ""
    assert flask("report", "agents", "--csv").stdout.count("\n") == 1
    assert len(lines(flask("report", "tokens", "--json"))) == 28


@pytest.mark.usefixtures("three")
def test_a_digest_has_four_forms(flask):
    """Text by default, Markdown, HTML and JSON; an unknown organization has zeros."""
    week = ("report", "digest", "--organization", "b", "--week", "2026-W15")
    text = flask(*week)
    assert (text.returncode, text.stdout.splitlines()[0]) == (
        0,
        "b: week 15 of 2026, 6 Apr to 12 Apr 2026 (UTC)",
    )
    assert flask(*week, "--markdown").stdout.startswith("# b: week 15 of 2026")
    assert flask(*week, "--html").stdout.startswith("<!doctype html>")
    (found,) = lines(flask(*week, "--json"))
    assert (found["tenantId"], found["period"]["name"], found["counted"]) == ("b", "2026-W15", 7)
    (month,) = lines(
        flask("report", "digest", "--organization", "x", "--month", "2026-03", "--json")
    )
    assert month["tokenCount"] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--organization", ""],
        ["--organization", "b", "--week", "2026-14"],
        ["--organization", "b", "--week", "2025-W53"],
        ["--organization", "b", "--month", "2026-W14"],
        ["--organization", "b", "--week", "9000-W01"],
        ["--organization", "b", "--month", "9000-01"],
        ["--organization", "b", "--week", "2026-W14", "--month", "2026-03"],
        ["--organization", "b", "--html", "--json"],
    ],
)
def test_a_wrong_digest_is_refused(flask, arguments):
    assert flask("report", "digest", *arguments).returncode == 2
