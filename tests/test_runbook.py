"""The commands in the runbook and its neighbours work as they stand there."""

import re
import shlex
import uuid

import psycopg
import pytest

from app.config.settings import ROOT
from tests.support.command_line import Runner, commands
from tests.support.databases import conninfo
from tests.support.settings import child_environ

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
INSERT = (
    "INSERT INTO issuance_events (tenant_id, event_id, agent_id, issued_at)"
    " VALUES ('t', gen_random_uuid()::text, 'a', now())"
)


def blocks(text, language):
    """What is to be pasted, with lines that go on made one."""
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [block.replace("\\\n", " ") for block in found]


def test_every_flask_line_of_the_pages_is_understood(service):
    known, seen = commands(service), 0
    for line in (
        line
        for page in PAGES
        for block in blocks(page.read_text(), "sh")
        for line in block.splitlines()
    ):
        typed = re.search(r"(?:^|[ /])(?:flask|bin/agentidp-analytics) ([^#]*)", line)
        if typed is None:
            continue
        words = shlex.split(typed[1])
        name = f"flask {' '.join(words[:2])}"
        with known[name].make_context(name, words[2:]):
            seen += 1
    assert seen >= 11


@pytest.fixture
def section():
    """The SQL against a stuck writer: who it is, its end, a prepared one's, and from now on."""
    page = (ROOT / "docs" / "operate" / "runbook.md").read_text()
    part = re.search(r"^### AnalyticsStuckWriter\n(.*?)^### ", page, re.MULTILINE | re.DOTALL)
    text = re.sub(r"--.*", "", "\n".join(blocks(part[1], "sql")))
    who, end, end_prepared, from_now_on = (s.strip() for s in text.split(";") if s.strip())
    return who, end, end_prepared, from_now_on


@pytest.fixture
def admin(postgresql_url):
    with psycopg.connect(conninfo(postgresql_url), autocommit=True) as admin:
        yield admin


def test_a_stuck_writer_is_found_and_ended(postgresql_url, admin, section):
    flask = Runner(child_environ(postgresql_url, ROLLUP_WAIT_SECONDS="0"))
    who, end, *_ = section
    writer = psycopg.connect(conninfo(postgresql_url), application_name="stuck")
    writer.execute(INSERT)
    assert flask("rollup", "run").returncode == 75
    assert admin.execute(who).fetchall() == []  # five minutes have not passed
    (found,) = (
        row
        for row in admin.execute(who.replace("5 minutes", "0 seconds"))
        if row[:4] == (writer.info.backend_pid, writer.info.user, "stuck", "idle in transaction")
    )
    assert admin.execute(end.replace("12345", str(found[0]))).fetchone() == (True,)
    with pytest.raises(psycopg.OperationalError):
        writer.execute("SELECT 1")
    writer.close()
    assert flask("rollup", "run").returncode == 0


def test_a_prepared_writer_is_named_and_ended(postgresql_url, admin, section):
    flask = Runner(child_environ(postgresql_url, ROLLUP_WAIT_SECONDS="0"))
    gid = uuid.uuid4().hex
    with psycopg.connect(conninfo(postgresql_url)) as writer:
        writer.execute(INSERT)
        writer.execute(f"PREPARE TRANSACTION '{gid}'")
    assert flask("rollup", "run").returncode == 75
    assert f"prepared transaction {gid!r}" in flask("rollup", "status").stdout
    admin.execute(section[2].replace("its gid", gid))
    assert flask("rollup", "run").returncode == 0


def test_a_writer_of_that_role_ends_by_itself_next_time(postgresql_url, admin, section):
    role = f"idp_{uuid.uuid4().hex[:12]}"
    admin.execute(f"CREATE ROLE {role} LOGIN")
    try:
        admin.execute(section[3].replace("analytics_idp", role))
        with psycopg.connect(conninfo(postgresql_url), user=role) as writer:
            shown = writer.execute("SHOW idle_in_transaction_session_timeout").fetchone()
        assert shown == ("1min",)
    finally:
        admin.execute(f"DROP ROLE {role}")
