"""Ctrl-C in the middle of work that is one transaction."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest
import sqlalchemy as sa

from app.storage.database import Database
from jobs.counting.tables import SUMMARY_TABLES
from tests.support.command_line import Runner, interrupt, started, wait_until
from tests.support.databases import conninfo
from tests.support.recount import assert_exact, stored
from tests.support.settings import child_environ

pytestmark = pytest.mark.slow

WAITS = """
    SELECT 1 FROM pg_stat_activity WHERE datname = current_database()
    AND application_name = 'agentidp-analytics' AND wait_event_type = 'Lock'
"""


@pytest.fixture
def database_url(postgresql_url: str) -> str:
    """One whose tables can be locked for a while."""
    return postgresql_url


@contextmanager
def locked(url: str, table: str, mode: str) -> Iterator[Callable[[], bool]]:
    """A table that nobody gets at; tells whether somebody waits for it."""
    with (
        psycopg.connect(conninfo(url)) as holder,
        psycopg.connect(conninfo(url), autocommit=True) as admin,
    ):
        holder.execute(f"LOCK TABLE {table} IN {mode} MODE")
        yield lambda: admin.execute(WAITS).fetchone() is not None
        holder.rollback()


def test_a_rebuild_corrects_all_tables_or_none(
    issue: Callable[..., object],
    roll_up: Callable[..., object],
    database: Database,
    database_url: str,
    flask: Runner,
) -> None:
    issue("2026-04-01T00:00:00Z", times=3)
    roll_up()
    for summary in SUMMARY_TABLES:
        wrong = sa.update(summary.table).values(issued=1)
        database.write(lambda connection, one=wrong: connection.execute(one))
    spoilt = {summary.table: stored(database, summary.table) for summary in SUMMARY_TABLES}
    months = ("--from", "2026-04", "--to", "2026-04")
    last = SUMMARY_TABLES[-1].table.name
    with (
        locked(database_url, last, "SHARE") as waited_for,
        started(child_environ(database_url), "flask", "rollup", "rebuild", *months) as child,
    ):
        wait_until(waited_for)  # the other tables are written by now
        ended = interrupt(child)
    state = "the months were corrected completely or not at all; run it again"
    assert ended == (130, "", f"Interrupted: {state}\n")
    assert {summary.table: stored(database, summary.table) for summary in SUMMARY_TABLES} == spoilt
    assert flask("rollup", "rebuild", *months).returncode == 0
    assert assert_exact(database) == 3


@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["text", "json"])
def test_a_verification_says_nothing_of_what_it_has_not_seen(
    issue: Callable[..., object],
    roll_up: Callable[..., object],
    database_url: str,
    as_json: list[str],
) -> None:
    issue("2026-04-01T00:00:00Z")
    roll_up()
    # The driver's cursor, torn out of its work, warns that nobody closes it; users see no such.
    environ = child_environ(database_url) | {"PYTHONWARNINGS": "error,ignore::ResourceWarning"}
    with (
        locked(database_url, SUMMARY_TABLES[-1].table.name, "ACCESS EXCLUSIVE") as waited_for,
        started(environ, "flask", "rollup", "verify", *as_json) as child,
    ):
        wait_until(waited_for)
        ended = interrupt(child)
    assert ended == (130, "", "Interrupted: nothing was changed\n")
