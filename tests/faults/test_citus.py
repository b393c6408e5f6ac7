"""Exactly once across nodes: a cluster whose nodes are killed and recover."""

import random
import threading
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import psycopg
import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from app.errors import UnavailableError
from app.storage.database import Database
from jobs.counting import state
from jobs.counting.run import run_rollup
from jobs.recount.rebuild import rebuild
from jobs.recount.verify import verification
from tests.faults.harness import Harness, Plan
from tests.faults.inserts import INSERT
from tests.faults.service import eventually
from tests.support.citus import Cluster, citus_database, recover, required_url, spread
from tests.support.databases import conninfo
from tests.support.postgresql import Server
from tests.support.recount import assert_exact

NOW = datetime(2026, 4, 1, tzinfo=UTC)
TENANTS = [f"org-{number}" for number in range(8)]


@pytest.fixture(scope="module")
def cluster():
    required_url()  # says that there is Citus here
    cluster = Cluster().found()
    yield cluster
    cluster.remove()


@pytest.fixture
def url(cluster):
    with citus_database(cluster.url) as url:
        spread(url)
        yield url


@pytest.fixture
def database(url):
    database = Database(make_url(url))
    yield database
    database.dispose()


@pytest.fixture
def admin(url):
    with psycopg.connect(conninfo(url), autocommit=True) as admin:
        admin.execute("SET synchronous_commit = local")
        yield admin


def roll_up(database):
    return run_rollup(database, window_ids=1_000, wait_seconds=0.5)


@contextmanager
def dying_before_the_second_phase(worker, admin, work):
    """Commit ``work``, but kill a worker when its part is prepared and the commit under way.

    What makes it wait in between is a standby of the coordinator that does not exist.
    """

    def standby(name):
        admin.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
        admin.execute("SELECT pg_reload_conf()")

    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    standby("nobody")
    thread = threading.Thread(target=work)
    try:
        thread.start()
        eventually(lambda: admin.execute(waiting).fetchone())
        worker.stop(Server.IMMEDIATE)
    finally:
        standby("")
    thread.join()
    worker.start()
    yield


def insert(url, name):
    def commit():
        with psycopg.connect(conninfo(url)) as writer:
            writer.cursor().executemany(INSERT, [(tenant, name, "a", NOW) for tenant in TENANTS])

    return commit


def visible(admin):
    return admin.execute("SELECT count(*) FROM issuance_events").fetchone()[0]


def test_an_event_not_yet_committed_at_its_node_is_awaited(cluster, url, database, admin):
    """A run waits for an event whose transaction is committed but not yet at its node."""
    with dying_before_the_second_phase(cluster.workers[0], admin, insert(url, "early")):
        insert(url, "late")()
        assert visible(admin) < 2 * len(TENANTS)
        held_up = roll_up(database)
        assert (held_up.outcome, held_up.events) == ("held_up", 0)
        assert "a part of a transaction at the cluster's node" in str(held_up.writers[0])
        assert recover(url) == 1
    assert roll_up(database).outcome == "done"
    assert assert_exact(database) == 2 * len(TENANTS)


def test_a_run_not_yet_committed_at_every_node_is_no_drift(
    cluster, url, database, admin, monkeypatch
):
    """Verify and rebuild refuse while a run is prepared at a node, and find no drift later."""
    monkeypatch.setattr(state, "PATIENCE_SECONDS", 0.5)
    insert(url, "e")()

    with dying_before_the_second_phase(cluster.workers[-1], admin, counting(database)):
        for attempt in (drifts, lambda database: rebuild(database, NOW.date(), NOW.date())):
            with pytest.raises(UnavailableError, match="still prepared"):
                attempt(database)
        recover(url)
    assert drifts(database) == []
    assert rebuild(database, NOW.date(), NOW.date()).buckets == 0
    roll_up(database)
    assert_exact(database)


def test_where_locks_are_kept_such_a_run_is_waited_for(cluster, url, database, admin):
    insert(url, "e")()
    with dying_before_the_second_phase(cluster.workers[0], admin, counting(database)):
        later = threading.Timer(2, recover, [url])
        later.start()
        assert drifts(database) == []
        later.join()
    assert rebuild(database, NOW.date(), NOW.date()).buckets == 0
    roll_up(database)
    assert_exact(database)


def counting(database):
    """A run, of one window."""

    def count():
        with suppress(SQLAlchemyError, UnavailableError):  # after the window, at its next step
            run_rollup(database, window_ids=1_000, wait_seconds=0)

    return count


def drifts(database):
    with verification(database) as found:
        return list(found.drift)


def test_a_run_fails_without_a_node_and_the_next_is_exact(cluster, url, database):
    insert(url, "e")()
    cluster.workers[0].stop(Server.IMMEDIATE)
    try:
        with pytest.raises(UnavailableError, match="does not answer"):
            roll_up(database)
    finally:
        cluster.workers[0].start()
    eventually(lambda: roll_up(database).outcome == "done")
    assert assert_exact(database) == len(TENANTS)


def test_counts_stay_exact_while_jobs_and_nodes_are_killed(cluster, url, seed, tmp_path):
    """Every event is counted exactly once while jobs and nodes are killed."""
    stopped, dice = threading.Event(), random.Random(seed)

    def keep_recovering():
        """In place of Citus' own process, more often."""
        while not stopped.wait(dice.uniform(0.5, 3)):
            try:
                recover(url)
            except psycopg.Error:
                time.sleep(0.1)

    thread = threading.Thread(target=keep_recovering)
    thread.start()
    plan = Plan(events=4_000, kills=15, restarts=3, batch=120, seed=seed, prepared=False)
    try:
        report = Harness(plan, cluster, url, tmp_path).run()
    finally:
        stopped.set()
        thread.join()
    assert report.exact, report.explain()
    assert report.restarts == 3
    print(report.explain())


def test_writers_that_never_pause_keep_no_run_from_counting(url, database):
    stopped = threading.Event()

    def write(number):
        with psycopg.connect(conninfo(url)) as writer:
            while not stopped.is_set():
                row = (TENANTS[number], f"e{number}-{time.monotonic_ns()}", "a", NOW)
                writer.execute(INSERT, row)
                stopped.wait(0.4)
                writer.commit()

    threads = [threading.Thread(target=write, args=[number]) for number in range(3)]
    for thread in threads:
        thread.start()
        time.sleep(0.13)  # one of them is in a transaction at every moment
    try:
        watermarks = set()
        eventually(lambda: watermarks.add(roll_up(database).watermark) or len(watermarks) > 4)
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
    eventually(lambda: roll_up(database).outcome == "done")
    assert_exact(database)
