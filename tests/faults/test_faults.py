"""Every event is counted exactly once, even if processes or PostgreSQL die at any moment.

SQLite is not tested: its writers wait for their turn, and it has no server that could die.
"""

import random

import psycopg
import pytest
from sqlalchemy import event as hooks
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from app.storage.database import Database
from jobs.counting.run import run_rollup
from tests.faults.inserts import INSERT, columns
from tests.faults.ledger import Drift, Ledger, drift, make_events
from tests.support.databases import conninfo
from tests.support.recount import assert_exact


@pytest.mark.quick
def test_nothing_is_lost_or_doubled_in_a_few_seconds_of_kills(rage):
    """The test below in small."""
    report = rage(events=600, batch=60, kills=5, restarts=1)
    assert report.exact, report.explain()
    assert report.kills >= 3


def test_counts_stay_exact_under_kills_and_restarts(rage):
    """Every event is counted exactly once while jobs are killed and PostgreSQL restarts."""
    report = rage(events=5_000, batch=120, kills=21, restarts=2)
    assert report.exact, report.explain()
    assert report.kills >= 20
    assert report.restarts >= 1
    happened = {"http", "direct", "import", "redelivered", "rollback", "prepared"}
    assert happened <= set(report.done), report.explain()


def test_the_naive_watermark_loses_events_under_the_same_faults(rage):
    """So the test above is known to bite."""
    report = rage(events=3_000, batch=150, kills=5, restarts=0, naive=True)
    assert report.drift.lost > 0
    assert report.drift.doubled == 0
    assert report.verified == 1


class Executioner:
    """Terminates a database's own backend right after its ``fatal``-th statement."""

    def __init__(self, database, admin):
        self.fatal = self.seen = 0
        self._admin = admin
        hooks.listen(database.engine, "after_cursor_execute", self._after)

    def arm(self, fatal):
        self.fatal, self.seen = fatal, 0

    def _after(self, connection, *_):
        self.seen += 1
        if self.seen == self.fatal:
            pid = connection.connection.driver_connection.info.backend_pid
            # The milliseconds to wait until it is gone.
            gone = self._admin.execute("SELECT pg_terminate_backend(%s, 60000)", [pid])
            assert gone.fetchone() == (True,)


@pytest.fixture
def idp(cluster_url):
    """Connections of an identity provider that inserts by itself."""
    with (
        psycopg.connect(conninfo(cluster_url), autocommit=True) as quick,
        psycopg.connect(conninfo(cluster_url), autocommit=True) as slow,
    ):
        yield quick, slow


def survive(database, executioner, insert, wait_seconds):
    """Runs that lose their connection after each statement in turn, until one stays whole."""
    fatal, whole = 0, False
    while not whole:
        fatal += 1
        finish = insert(fatal)
        executioner.arm(fatal)
        try:
            run_rollup(database, window_ids=3, wait_seconds=wait_seconds)
        except OperationalError:
            assert executioner.seen >= fatal
        whole = executioner.seen < fatal
        executioner.arm(0)
        finish()
        assert run_rollup(database, window_ids=1_000, wait_seconds=60).outcome == "done"
        assert_exact(database)
    return fatal


@pytest.mark.parametrize("held_up", [False, True], ids=["nobody-open", "an-open-writer"])
def test_a_connection_lost_after_any_statement_costs_nothing(cluster_url, idp, held_up):
    database, dice = Database(make_url(cluster_url)), random.Random(1)
    quick, slow = idp
    sent = Ledger()

    def insert(number):
        events = make_events(dice, str(number), 9)
        sent.acknowledge(events)
        slow.execute("BEGIN")
        slow.execute(INSERT, *columns(events[:1]))
        quick.cursor().executemany(INSERT, columns(events[1:]))
        if held_up:
            return lambda: slow.execute("COMMIT")
        slow.execute("COMMIT")
        return lambda: None

    statements = survive(database, Executioner(database, quick), insert, wait_seconds=0)
    assert statements > (5 if held_up else 20)
    assert drift(database, sent) == Drift()
    database.dispose()


@pytest.mark.quick
def test_the_ledger_sees_lost_and_doubled_events(cluster_url, idp):
    """The recount of a ledger finds lost and doubled events."""
    database, sent = Database(make_url(cluster_url)), Ledger()
    events = make_events(random.Random(2), "e", 10)
    sent.acknowledge(events)
    quick, _ = idp
    quick.cursor().executemany(INSERT, columns(events[1:]))
    run_rollup(database, window_ids=100, wait_seconds=0)
    assert (drift(database, sent).lost, drift(database, sent).doubled) == (1, 0)
    quick.cursor().executemany(
        INSERT, columns([events[0], events[0]._replace(event_id="unpromised")])
    )
    run_rollup(database, window_ids=100, wait_seconds=0)
    assert (drift(database, sent).lost, drift(database, sent).doubled) == (0, 1)
    quick.execute("UPDATE monthly_agent_issuance SET issued = issued + 2")
    assert drift(database, sent).doubled > 1
    database.dispose()
