"""Exit codes as docs/commands.md lists them; 130 is in ``test_interruptions``."""

import json
import os
import subprocess
import sys
from typing import IO

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from app import __version__
from app.config.settings import ROOT
from app.storage.database import Database
from app.storage.tables import daily_issuance
from tests.support.command_line import Runner, assert_one_clear_error, line, result
from tests.support.databases import conninfo
from tests.support.settings import child_environ


@pytest.fixture
def sqlite_flask(sqlite_url: str) -> Runner:
    return Runner(child_environ(sqlite_url))


def test_0_is_done(sqlite_flask: Runner) -> None:
    done = sqlite_flask("version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{__version__}\n", "")
    assert result(sqlite_flask("version", "--json")) == {"version": __version__}


def test_1_is_an_error(sqlite_flask: Runner) -> None:
    done = sqlite_flask("db", "upgrade", "no-such")
    assert done.returncode == 1
    assert_one_clear_error(done)


def test_1_is_what_a_command_looks_for(sqlite_flask: Runner, sqlite_url: str) -> None:
    refused = sqlite_flask("events", "import", "-", stdin=line() + b"nonsense\n")
    assert (refused.returncode, refused.stdout[:18]) == (1, "2 events: 1 stored")
    assert sqlite_flask("rollup", "run").returncode == 0
    assert sqlite_flask("rollup", "verify").returncode == 0
    assert sqlite_flask("db", "check").returncode == 0
    database = Database(make_url(sqlite_url))
    spoil = (
        sa.update(daily_issuance).values(issued=7),
        sa.text("ALTER TABLE rollup_runs DROP COLUMN error"),
    )
    for statement in spoil:
        database.write(lambda connection, one=statement: connection.execute(one))
    database.dispose()
    drift = sqlite_flask("rollup", "verify", "--json")
    assert (drift.returncode, len(json.loads(drift.stdout)["drift"])) == (1, 1)
    schema = sqlite_flask("db", "check", "--json")
    assert (schema.returncode, json.loads(schema.stdout)["differs"]) == (1, True)
    assert "rollup_runs" in sqlite_flask("db", "check").stdout


def status_into(stdout: IO[bytes], url: str) -> tuple[int, bytes]:
    """The exit code and stderr of a command that has something to print."""
    done = subprocess.run(
        [sys.executable, "-m", "flask", "rollup", "status"],
        cwd=ROOT,
        env=child_environ(url),
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.slow
def test_1_is_a_result_that_finds_no_room(sqlite_url: str) -> None:
    with open("/dev/full", "wb") as full:
        ended = status_into(full, sqlite_url)
    assert ended == (1, b"Error: [Errno 28] No space left on device\n")


def test_a_reader_that_has_seen_enough_is_told_nothing(sqlite_url: str) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    with open(theirs, "wb") as nobody:
        assert status_into(nobody, sqlite_url) == (1, b"")


WRONG = {
    "unknown command": "rollup stop",
    "unknown option": "rollup run --fast",
    "nothing to import": "events import",
    "no such file": "events import no-such-file.ndjson",
    "unknown format": "events import --format xml -",
    "bad organization": "events import --organization= -",
    "bad month": "rollup verify --from 2026-13",
    "months in disorder": "rollup rebuild --from 2026-05 --to 2026-04",
    "one month missing": "rollup rebuild --from 2026-05",
    "no organization": "tokens mint",
    "empty organization": "tokens mint --organization=",
    "no time at all": "tokens mint --organization o --expires 0",
    "bad URL": "db copy --to mysql://h/d",
    "one argument more": "demo load 5",
    "argument of version": "version now",
}


@pytest.mark.parametrize("arguments", WRONG.values(), ids=WRONG)
def test_2_is_wrong_usage(sqlite_flask: Runner, arguments: str) -> None:
    done = sqlite_flask(*arguments.split())
    assert done.returncode == 2
    assert_one_clear_error(done)


@pytest.mark.parametrize("argument", ["--nonsense", pytest.param("now", marks=pytest.mark.slow)])
def test_2_is_an_unknown_argument_of_the_scheduler(sqlite_url: str, argument: str) -> None:
    """The scheduler exits with 2 for an unknown argument."""
    done = scheduler(sqlite_url, argument)
    assert done.returncode == 2
    assert_one_clear_error(done)


def test_the_scheduler_has_help(sqlite_url: str) -> None:
    done = scheduler(sqlite_url, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: python -m jobs [OPTIONS]\n")


def scheduler(url: str, argument: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "jobs", argument]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=child_environ(url),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_73_is_other_data_where_a_demonstration_should_be(sqlite_flask: Runner) -> None:
    assert sqlite_flask("events", "import", "-", stdin=line()).returncode == 0
    done = sqlite_flask("demo", "load")
    assert done.returncode == 73
    assert_one_clear_error(done)


def test_75_is_held_up(postgresql_url: str) -> None:
    flask = Runner(child_environ(postgresql_url, ROLLUP_WAIT_SECONDS="0"))
    with psycopg.connect(conninfo(postgresql_url)) as writer:
        writer.execute(
            "INSERT INTO issuance_events (tenant_id, event_id, agent_id, issued_at)"
            " VALUES ('t', 'e', 'a', now())"
        )
        assert flask("rollup", "run").returncode == 75
    assert flask("rollup", "run").returncode == 0
