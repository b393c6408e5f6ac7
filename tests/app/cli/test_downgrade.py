"""`flask db downgrade` names what it would delete, and asks first."""

import os
import pty
import subprocess
import sys

import pytest

from app.config.settings import ROOT
from app.storage.database import Database
from app.storage.schema import expected_revision
from tests.support.command_line import ProcessRunner
from tests.support.settings import child_environ, make_settings
from tests.test_migrations import fill, rows

HEAD = expected_revision()


@pytest.fixture
def filled(database_url):
    database = Database(make_settings(database_url).database_url)
    fill(database)
    yield database
    database.dispose()


def test_a_downgrade_that_deletes_rows_needs_yes(filled, flask):
    """Without a terminal it refuses, names the rows, and changes nothing."""
    refused = flask("db", "downgrade", "0001")
    assert (refused.returncode, refused.stdout) == (1, "")
    for line in (
        "this deletes agents: 1 rows",
        "this deletes rollup_runs: 1 rows",
        "this deletes rollup_corrections: 1 rows",
        "this deletes rollup_state.refusal: 1 rows",
        "--yes",
    ):
        assert line in refused.stderr
    assert "issuance_events" not in refused.stderr
    assert flask("db", "current").stdout.startswith(str(HEAD))
    done = flask("db", "downgrade", "0001", "--yes")
    assert (done.returncode, done.stdout) == (0, "0001\n")
    assert rows(filled) == 1


def test_a_downgrade_of_everything_names_the_events(filled, flask):
    """`base` deletes events and numbers, so it needs --yes as well."""
    refused = flask("db", "downgrade", "base")
    assert refused.returncode == 1
    assert "this deletes issuance_events: 1 rows" in refused.stderr
    assert rows(filled) == 1
    assert flask("db", "downgrade", "base", "--yes").returncode == 0


def test_a_downgrade_that_deletes_nothing_asks_nothing(database_url, flask):
    """An empty database is downgraded at once, and so is one without a schema."""
    done = flask("db", "downgrade", "base", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert flask("db", "downgrade", "base").returncode == 0


def test_an_unknown_revision_is_refused(filled, flask):
    """A typing error is one line."""
    for revision in ("zz", "-99", "000"):
        refused = flask("db", "downgrade", "--yes", "--", revision)
        assert refused.returncode == 1
        assert "Traceback" not in refused.stderr
    assert flask("db", "current").stdout.startswith(str(HEAD))
    assert rows(filled) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "code", "left"), [(b"n\n", 1, HEAD), (b"y\n", 0, "0002")])
def test_a_terminal_is_asked(sqlite_url, answer, code, left):
    """On a terminal the command asks, and no is the default."""
    database = Database(make_settings(sqlite_url).database_url)
    fill(database)
    database.dispose()
    environ = child_environ(sqlite_url)
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "flask", "db", "downgrade", "0002"],
        cwd=ROOT,
        env=environ,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    os.write(ours, answer)
    _, errors = child.communicate(timeout=60)
    os.close(theirs)
    os.close(ours)
    assert (child.returncode, b"Delete these rows? [y/N]" in errors) == (code, True)
    assert ProcessRunner(environ)("db", "current").stdout.startswith(left)
