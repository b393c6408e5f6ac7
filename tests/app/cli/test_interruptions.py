"""Ctrl-C: one line that is true, exit code 130, and numbers that are exact."""

import fcntl
import os
import signal
import socket
import subprocess
import termios
import time
from array import array
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from flask import Flask

from app.cli import events
from app.dates import utc_now
from app.intake.importer import CHUNK_EVENTS, SQLITE_CHUNK_EVENTS
from app.storage.database import Database
from app.storage.tables import issuance_events, purged_months, rollup_state
from jobs.counting.tables import SUMMARY_TABLES
from jobs.retention import BATCH_EVENTS
from tests.support.command_line import Runner, commands, interrupt, line, started, wait_until
from tests.support.databases import conninfo
from tests.support.recount import assert_exact, stored
from tests.support.settings import child_environ

pytestmark = pytest.mark.slow

# Every command that works on a database, and what it has to be told.
ARGUMENTS = {
    "flask db upgrade": "",
    "flask db downgrade": "",
    "flask db current": "",
    "flask db check": "",
    "flask db backup": "FILE",
    "flask db copy": "--to URL",
    "flask events import": "-",
    "flask events purge": "",
    "flask events pull": "keycloak --url http://127.0.0.1:9/realms/r --secret-file SECRET",
    "flask sources status": "",
    "flask keys create": "--organization o --scope events:write",
    "flask keys list": "",
    "flask keys revoke": "AAAAAAAAAAAA",
    "flask budgets list": "--organization o",
    "flask budgets set": "--organization o --period day --tokens 1",
    "flask budgets delete": "--organization o --period day",
    "flask clients set": "c --organization o",
    "flask clients list": "",
    "flask clients remove": "c",
    "flask rollup run": "",
    "flask rollup status": "",
    "flask rollup verify": "",
    "flask rollup rebuild": "--from 2026-01 --to 2026-01",
    "flask rollup resume": "",
    "flask rollup backfill": "",
    "flask audit": "",
    "flask webhooks list": "--organization o",
    "flask webhooks add": "--organization o https://example.com/",
    "flask webhooks rotate": "--organization o AAAAAAAAAAAA",
    "flask webhooks delete": "--organization o AAAAAAAAAAAA",
    "flask webhooks test": "--organization o AAAAAAAAAAAA",
    "flask webhooks deliveries": "--organization o AAAAAAAAAAAA",
    "flask webhooks deliver": "",
    "flask agents erase": "--organization o --agent a",
    "flask organizations export": "o",
    "flask organizations delete": "o --yes",
    "flask findings list": "",
    "flask findings recompute": "--from 2026-01-01 --to 2026-01-02",
    "flask report organizations": "",
    "flask report tokens": "",
    "flask report agents": "",
    "flask report digest": "--organization o",
    "flask demo load": "",
    "flask demo prepare": "",
    "python -m jobs": "",
}
# They are over before anybody could interrupt them.
SHORT = {"flask tokens mint", "flask demo calls", "flask version"}
# It runs until it is stopped; tests/app/cli/test_sources.py does so.
ENDLESS = {"flask events follow"}


@pytest.fixture
def silent_server() -> Iterator[socket.socket]:
    """A server that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(60)
        yield listener


@pytest.mark.parametrize("name", ARGUMENTS)
def test_every_command_ends_with_a_line_on_the_state(
    service: Flask, silent_server: socket.socket, tmp_path: Path, name: str
) -> None:
    url = f"postgresql://127.0.0.1:{silent_server.getsockname()[1]}/a"
    # In production the scheduler, too, looks at the database before it starts.
    environ = child_environ(url, APP_ENV="production", JWT_ISSUER="i", JWT_AUDIENCE="a")
    words = name.removeprefix("python -m ").split() + ARGUMENTS[name].split()
    (secret := tmp_path / "secret.toml").write_text('token = "t"')
    given = {"URL": url, "FILE": str(tmp_path / "backup"), "SECRET": str(secret)}
    arguments = (given.get(word, word) for word in words)
    with started(environ, *arguments) as child, silent_server.accept()[0]:
        ended = interrupt(child)
    state = commands(service)[name].interrupted
    assert ended == (130, "", f"Interrupted: {state}\n")


@pytest.mark.quick
def test_no_command_is_left_out(service: Flask) -> None:
    assert commands(service).keys() == ARGUMENTS.keys() | SHORT | ENDLESS


def scalar(database: Database, query: "sa.Select[tuple[int]]") -> int:
    with database.reading() as connection:
        return connection.execute(query).scalar_one()


def events_in(database: Database) -> int:
    return scalar(database, sa.select(sa.func.count()).select_from(issuance_events))


IMPORT = ("flask", "events", "import", "-")


def test_an_interrupted_import_keeps_its_events(
    database: Database, database_url: str, tmp_path: Path, flask: Runner
) -> None:
    """Two chunks were committed; of the third the import has read a part from its pipe."""
    chunk = CHUNK_EVENTS if database.is_postgresql else SQLITE_CHUNK_EVENTS
    whole = tmp_path / "whole.ndjson"
    whole.write_bytes(b"".join(line(f"e{number:05}") for number in range(3 * chunk)))
    with whole.open("rb") as file, started(child_environ(database_url), *IMPORT) as child:
        child.stdin.write(b"".join(file.readline() for _ in range(2 * chunk + 1_000)))
        child.stdin.flush()
        wait_until(lambda: events_in(database) >= 2 * chunk)
        ended = interrupt(child)
    state = "the events stored so far are kept; run it again, no event is counted twice"
    assert ended == (130, "", f"Interrupted: {state}\n")
    assert 2 * chunk <= events_in(database) <= 2 * chunk + 1_000
    assert flask("rollup", "run").returncode == 0
    again = flask("events", "import", str(whole))
    assert again.returncode == 0
    assert flask("rollup", "run").returncode == 0
    assert assert_exact(database) == 3 * chunk


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_events_of_a_followed_log_are_stored_soon(sqlite_url: str, number: signal.Signals) -> None:
    """A pipe's events are stored after a second of silence, and those read before a signal too."""
    database = Database(sa.make_url(sqlite_url))
    with started(child_environ(sqlite_url), *IMPORT) as child:
        child.stdin.write(line("e1") + line("e2"))
        child.stdin.flush()
        wait_until(lambda: events_in(database) == 2)
        child.stdin.write(line("e3") + line("e4")[:20])
        child.stdin.flush()
        wait_until(lambda: pipe_is_empty(child))
        ended = interrupt(child, number)
    state = "the events stored so far are kept; run it again, no event is counted twice"
    assert ended == (130, "", f"Interrupted: {state}\n")
    assert events_in(database) == 3
    database.dispose()


@pytest.mark.quick
@pytest.mark.parametrize("presses", [1, 2], ids=["once", "again"])
def test_an_interruption_waits_for_what_was_read_from_a_pipe(
    database: Database,
    tmp_path: Path,
    flask: Runner,
    monkeypatch: pytest.MonkeyPatch,
    presses: int,
) -> None:
    """What was read is nowhere else. Who presses again after a while does not want to wait."""

    stored = 3 if presses == 1 else 0

    def press() -> datetime:
        """Press at the first event, when all three were read."""
        nonlocal presses
        for _ in range(presses):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.6)
        presses = 0
        return utc_now()

    monkeypatch.setattr(events, "utc_now", press)
    os.mkfifo(pipe := tmp_path / "pipe")
    end = os.open(pipe, os.O_RDWR)  # so that nobody waits for the other end, which never ends
    os.write(end, line("e1") + line("e2") + line("e3") + line("e4")[:20])
    done = flask("events", "import", "--format", "ndjson", str(pipe))
    os.close(end)
    state = "the events stored so far are kept; run it again, no event is counted twice"
    assert (done.returncode, done.stderr) == (130, f"Interrupted: {state}\n")
    assert events_in(database) == stored


def pipe_is_empty(child: "subprocess.Popen[bytes]") -> bool:
    """Whether the child has read everything that was written to it."""
    unread = array("i", [0])
    fcntl.ioctl(child.stdin, termios.FIONREAD, unread)
    return unread[0] == 0


def test_a_parent_may_have_a_signal_ignored(sqlite_url: str) -> None:
    """`nohup flask …` goes on after SIGHUP."""
    database = Database(sa.make_url(sqlite_url))
    usual = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with started(child_environ(sqlite_url), *IMPORT) as child:
            signal.signal(signal.SIGHUP, usual)
            child.stdin.write(line("e1"))
            child.stdin.flush()
            wait_until(lambda: events_in(database) == 1)
            child.send_signal(signal.SIGHUP)
            child.stdin.write(line("e2"))
            child.stdin.close()
            assert child.wait(timeout=60) == 0
            child.stdin = None
    finally:
        signal.signal(signal.SIGHUP, usual)
    assert events_in(database) == 2
    database.dispose()


def test_a_run_of_many_windows_keeps_those_that_it_has_counted(
    issue: Callable[..., object], database: Database, database_url: str, flask: Runner
) -> None:
    issue("2026-04-01T00:00:00Z", times=500)
    for statement in SLOW_WINDOW[database.engine.dialect.name]:
        database.write(lambda c, one=statement: c.execute(sa.text(one)))
    watermark = sa.select(rollup_state.c.counted_upto)
    environ = child_environ(database_url, ROLLUP_WINDOW_IDS="1")
    with started(environ, "flask", "rollup", "run") as child:
        wait_until(lambda: scalar(database, watermark) >= 10)
        ended = interrupt(child)
    assert ended == (130, "", f"Interrupted: {COUNTED}\n")
    assert scalar(database, watermark) < 500
    assert_exact(database, counted_only=True)
    assert flask("rollup", "run").returncode == 0
    assert assert_exact(database) == 500


# Nearly all the time of a run is then spent in the database, and almost none in destructors, where
# Python loses a Ctrl-C.
SLOW_WINDOW = {
    "postgresql": [
        "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql"
        " AS 'BEGIN PERFORM pg_sleep(0.05); RETURN NULL; END'",
        "CREATE TRIGGER slow AFTER UPDATE ON rollup_state"
        " FOR EACH STATEMENT EXECUTE FUNCTION dawdle()",
    ],
    "sqlite": [
        "CREATE TRIGGER slow AFTER UPDATE ON rollup_state BEGIN SELECT (WITH RECURSIVE n(i) AS"
        " (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000) SELECT count(*) FROM n); END"
    ],
}
COUNTED = "the events counted so far stay counted; run it again for the rest"


def test_a_run_that_is_held_up_need_not_be_waited_for(postgresql_url: str) -> None:
    flask = Runner(child_environ(postgresql_url, ROLLUP_WAIT_SECONDS="600"))
    assert flask("events", "import", "-", stdin=line()).returncode == 0
    with psycopg.connect(conninfo(postgresql_url)) as writer:
        writer.execute(
            "INSERT INTO issuance_events (tenant_id, event_id, agent_id, issued_at)"
            " VALUES ('t', 'e', 'a', now())"
        )
        with started(flask.environ, "flask", "rollup", "run") as child:
            with psycopg.connect(conninfo(postgresql_url), autocommit=True) as admin:
                wait_until(lambda: admin.execute(ASKS_FOR_WRITERS).fetchone() is not None)
            ended = interrupt(child)
        assert ended == (130, "", f"Interrupted: {COUNTED}\n")
    assert flask("rollup", "run").returncode == 0
    database = Database(sa.make_url(postgresql_url))
    assert assert_exact(database) == 2
    database.dispose()


ASKS_FOR_WRITERS = """
    SELECT 1 FROM pg_stat_activity
    WHERE application_name = 'agentidp-analytics' AND query LIKE 'SELECT DISTINCT virtual%'
"""

# A batch takes a while, so that there is a middle of it, and of the purge.
SLOW = {
    "postgresql": [
        "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql"
        " AS 'BEGIN PERFORM pg_sleep(0.5); RETURN NULL; END'",
        "CREATE TRIGGER slow BEFORE DELETE ON issuance_events"
        " FOR EACH STATEMENT EXECUTE FUNCTION dawdle()",
    ],
    "sqlite": [
        "CREATE TRIGGER slow BEFORE DELETE ON issuance_events WHEN OLD.id % 100 = 0 BEGIN"
        " UPDATE rollup_state SET id = id WHERE (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL"
        " SELECT i + 1 FROM n WHERE i < 20000) SELECT count(*) FROM n) < 0; END"
    ],
}


def test_a_purge_records_exactly_what_it_has_deleted(
    issue: Callable[..., object],
    roll_up: Callable[..., object],
    database: Database,
    database_url: str,
    flask: Runner,
) -> None:
    issue("2026-04-01T00:00:00Z", times=4 * BATCH_EVENTS)
    roll_up()
    database.write(lambda c: c.execute(sa.update(issuance_events).values(received_at=LONG_AGO)))
    for statement in SLOW[database.engine.dialect.name]:
        database.write(lambda c, one=statement: c.execute(sa.text(one)))
    counted = {summary.table: stored(database, summary.table) for summary in SUMMARY_TABLES}
    with started(child_environ(database_url), "flask", "events", "purge") as child:
        wait_until(lambda: events_in(database) < 4 * BATCH_EVENTS)
        ended = interrupt(child)
    assert ended == (
        130,
        "",
        "Interrupted: the events deleted so far stay deleted; run it again for the rest\n",
    )
    left = events_in(database)
    assert left > 0
    assert scalar(database, sa.select(purged_months.c.events)) == 4 * BATCH_EVENTS - left
    assert flask("events", "purge").returncode == 0
    assert events_in(database) == 0
    assert scalar(database, sa.select(purged_months.c.events)) == 4 * BATCH_EVENTS
    assert {summary.table: stored(database, summary.table) for summary in SUMMARY_TABLES} == counted
    assert flask("rollup", "verify").returncode == 0


LONG_AGO = sa.literal_column("'2020-01-01 00:00:00.000000'")


def test_the_scheduler_stops_as_it_is_asked_to(sqlite_url: str) -> None:
    with started(child_environ(sqlite_url), "jobs") as child:
        assert b"scheduler started" in child.stdout.readline()
        code, stdout, stderr = interrupt(child)
    assert (code, stderr) == (0, "")
    assert "scheduler stopped" in stdout
