"""``flask audit``: who changed what, and when."""

import getpass
import json

import pytest

from app.storage.audit import record_change
from tests.support.settings import NOW


def lines(done):
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_commands_record_the_user_of_the_system(flask):
    """With --json a change is a line, and has the organization or null."""
    made = flask("keys", "create", "--any", "--scope", "events:write:any").stdout.strip()
    flask("keys", "create", "--organization", "org-a", "--scope", "analytics:read")
    flask("keys", "revoke", made)
    found = lines(flask("audit", "--json"))
    assert [(one["action"], one["organizationId"]) for one in found] == [
        ("key.revoked", None),
        ("key.created", "org-a"),
        ("key.created", None),
    ]
    assert {one["subject"] for one in found[::2]} == {made[4:16]}
    assert all(one["actor"].startswith(f"shell:{getpass.getuser()}@") for one in found)
    assert len(lines(flask("audit", "--organization", "org-a", "--json"))) == 1
    assert made not in flask("audit").stdout


def test_days_are_whole_and_utc(flask, database):
    """No day is too early or too late to be asked for."""
    change = {"tenant_id": "org-a", "actor": "u", "action": "a", "subject": "s", "at": NOW}
    database.write(lambda connection: record_change(connection, **change))
    for options, number in (
        (["--from", "2026-04-15", "--to", "2026-04-15"], 1),
        (["--from", "2026-04-16", "--to", "9999-12-31"], 0),
        (["--from", "1970-01-01", "--to", "2026-04-14"], 0),
    ):
        assert len(lines(flask("audit", "--json", *options))) == number
    assert flask("audit", "--organization", "org-b").stdout == "no changes\n"


@pytest.mark.parametrize(
    "options",
    [["--from", "2026-04-02", "--to", "2026-04-01"], ["--from", "1 April"], ["--organization", ""]],
)
def test_wrong_usage_is_refused(flask, options):
    assert flask("audit", *options).returncode == 2


def test_a_terminal_obeys_nothing_of_the_log(flask, database):
    """Control characters, line breaks and marks of direction are shown as escapes."""
    hostile = "\x1b[2J\r\n\u202e\u200b"
    change = {"tenant_id": "org-\N{LATIN SMALL LETTER E WITH ACUTE}", "action": "a", "at": NOW}
    change |= {"actor": hostile, "subject": hostile, "details": {"name": hostile}}
    database.write(lambda connection: record_change(connection, **change))
    (line,) = flask("audit").stdout.splitlines()
    assert line.startswith(r"2026-04-15 12:30:00  \x1b[2J\r\n\u202e\u200b  a  org-é  \x1b[2J")
    assert line.isprintable()
    (found,) = lines(flask("audit", "--json"))
    assert (found["subject"], found["details"]) == (hostile, {"name": hostile})
