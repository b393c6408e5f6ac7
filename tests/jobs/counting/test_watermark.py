"""Writers whose transactions stay open while others commit: PostgreSQL only, since SQLite
has one writer at a time."""

import random
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime

import psycopg
import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.engine import make_url

from app.errors import RefusedError
from app.storage.database import Database
from app.storage.tables import daily_issuance, issuance_events, rollup_state
from jobs.counting import refusals, watermark
from jobs.counting import run as rollup
from jobs.counting.run import add_next_window, run_rollup
from jobs.counting.watermark import Writer
from tests.support.databases import conninfo, migrate
from tests.support.postgresql import Server
from tests.support.processes import PATIENCE_SECONDS
from tests.support.recount import assert_exact

INSERT = (
    "INSERT INTO issuance_events (tenant_id, event_id, agent_id, issued_at)"
    " VALUES ('org-a', %s, 'agent-1', '2026-04-01T00:00:00Z') ON CONFLICT DO NOTHING"
)


@pytest.fixture
def database_url(postgresql_url):
    return postgresql_url


@pytest.fixture
def writer(database_url):
    """Opens a connection of an identity provider that inserts by itself."""
    opened = []

    def open_writer(name="idp", url=None):
        connection = psycopg.connect(conninfo(url or database_url), application_name=name)
        opened.append(connection)
        return connection

    yield open_writer
    for connection in opened:
        connection.close()


@contextmanager
def in_background(work):
    """Run ``work`` beside the block; its result is ``box[0]`` after the block."""
    box = []
    thread = threading.Thread(target=lambda: box.append(work()))
    thread.start()
    yield box
    thread.join(60)
    assert box


def state(database):
    with database.reading() as connection:
        return connection.execute(select(rollup_state)).one()


def wait_for_waiting(seconds=0.3):
    time.sleep(seconds)  # long enough for a run to see the writer; no outcome depends on it


def test_a_writer_that_commits_after_a_later_one_is_waited_for(writer, issue, roll_up, database):
    slow = writer()
    slow.execute(INSERT, ["slow"])
    issue("2026-04-01T00:00:00Z")  # a higher id, committed first
    with in_background(lambda: roll_up(wait_seconds=60)) as run:
        wait_for_waiting()
        slow.commit()
    assert (run[0].outcome, run[0].events) == ("done", 2)
    assert_exact(database)


def test_newcomers_are_neither_waited_for_nor_blocked(writer, roll_up, database):
    early, late = writer(), writer()
    early.execute(INSERT, ["early"])
    with in_background(lambda: roll_up(wait_seconds=60)) as run:
        wait_for_waiting()
        late.execute(INSERT, ["late"])
        early.commit()
    assert run[0].outcome == "done"
    late.commit()
    assert roll_up().events == 1
    assert_exact(database)


def test_a_run_does_not_wait_for_a_rolled_back_writer(writer, issue, roll_up, database):
    """A run does not wait for the gap that a rolled back writer leaves."""
    failing = writer()
    failing.execute(INSERT, ["failing"])
    issue("2026-04-01T00:00:00Z")
    failing.rollback()
    assert roll_up().events == 1
    assert assert_exact(database) == 1


def test_an_id_drawn_in_a_released_savepoint_is_waited_for(writer, issue, roll_up, database):
    slow = writer()
    slow.execute("SAVEPOINT a")
    slow.execute(INSERT, ["slow"])
    slow.execute("RELEASE a")
    issue("2026-04-01T00:00:00Z")
    assert roll_up(wait_seconds=0).outcome == "held_up"
    slow.commit()
    assert roll_up().outcome == "done"
    assert_exact(database)


def test_an_open_writer_holds_the_run_up_and_is_named(writer, issue, roll_up, database):
    slow = writer("keycloak")
    slow.execute(INSERT, ["slow"])
    issue("2026-04-01T00:00:00Z")
    run = roll_up(wait_seconds=0.2)
    assert (run.outcome, run.events) == ("held_up", 0)
    assert [(w.pid, w.application) for w in run.writers] == [(slow.info.backend_pid, "keycloak")]
    assert state(database).candidate == 2
    assert len(state(database).writers.split()) == 1


def test_the_next_run_resumes_the_candidate(writer, issue, roll_up, database):
    """The next run resumes the candidate, even if new writers never pause."""
    first, second = writer(), writer()
    first.execute(INSERT, ["first"])
    issue("2026-04-01T00:00:00Z", times=3)
    assert roll_up(wait_seconds=0).outcome == "held_up"
    second.execute(INSERT, ["second"])
    first.commit()
    resumed = roll_up(wait_seconds=0)
    assert (resumed.outcome, resumed.events) == ("held_up", 4)
    second.commit()
    assert roll_up(wait_seconds=0).outcome == "done"
    assert state(database).candidate is None
    assert_exact(database)


def test_a_pooled_connections_next_transaction_is_new(writer, issue, roll_up):
    """A run does not mistake the next transaction of a pooled connection for the old one."""
    pooled = writer()
    pooled.execute(INSERT, ["one"])
    issue("2026-04-01T00:00:00Z")
    assert roll_up(wait_seconds=0).outcome == "held_up"
    pooled.commit()
    pooled.execute(INSERT, ["two"])  # the same pid, another transaction
    assert roll_up(wait_seconds=0).events == 2
    pooled.rollback()


def test_a_writer_that_opens_before_the_id_is_read_is_named(writer, database, monkeypatch):
    """Open writers are listed after the newest id is read, so a writer that drew it is named."""
    slow, newest_id = writer(), refusals.newest_id

    def insert_then_read(*arguments):
        slow.execute(INSERT, ["slow"])
        return newest_id(*arguments)

    monkeypatch.setattr(refusals, "newest_id", insert_then_read)
    with database.reading() as connection:
        candidate = watermark.newest_candidate(connection, state(database))
        writers = watermark.describe_writers(connection, candidate)
    assert (candidate.upto, [w.pid for w in writers]) == (1, [slow.info.backend_pid])


def test_an_idle_writer_without_new_ids_holds_nothing_up(writer, issue, roll_up):
    issue("2026-04-01T00:00:00Z")
    roll_up()
    idle = writer()
    idle.execute("LOCK TABLE issuance_events IN ROW EXCLUSIVE MODE")
    assert roll_up(wait_seconds=0).outcome == "done"


def test_a_prepared_transaction_is_waited_for_and_named(writer, issue, roll_up, database):
    slow = writer()
    slow.execute(INSERT, ["slow"])
    slow.execute("PREPARE TRANSACTION 'gid-1'")
    issue("2026-04-01T00:00:00Z")
    run = roll_up(wait_seconds=0)
    assert (run.outcome, [writer.gid for writer in run.writers]) == ("held_up", ["gid-1"])
    slow.commit()
    slow.autocommit = True
    slow.execute("COMMIT PREPARED 'gid-1'")
    assert roll_up(wait_seconds=0).events == 2
    assert_exact(database)


def test_a_writer_that_prepares_is_still_awaited(writer, issue, roll_up, database):
    """A run still waits for a writer that prepares its transaction meanwhile."""
    slow = writer()
    slow.execute(INSERT, ["slow"])
    issue("2026-04-01T00:00:00Z")
    assert roll_up(wait_seconds=0).outcome == "held_up"
    slow.execute("PREPARE TRANSACTION 'gid-2'")
    assert roll_up(wait_seconds=0).outcome == "held_up"
    slow.commit()
    slow.autocommit = True
    slow.execute("COMMIT PREPARED 'gid-2'")
    assert roll_up(wait_seconds=0).events == 2
    assert_exact(database)


def test_a_prepared_transaction_is_waited_for_across_a_crash(writer):
    """After a crash it comes back under another virtual transaction id."""
    server = Server().start()
    url = server.url("postgres")
    database = Database(make_url(url))
    try:
        migrate(url)
        slow = writer(url=url)
        slow.execute(INSERT, ["slow"])
        with psycopg.connect(conninfo(url)) as other:
            other.execute(INSERT, ["other"])
        assert run_now(database).outcome == "held_up"
        slow.execute("PREPARE TRANSACTION 'gid-3'")
        server.stop(server.IMMEDIATE)
        server.start()
        database.dispose()
        assert run_now(database).outcome == "held_up"
        with psycopg.connect(conninfo(url), autocommit=True) as operator:
            operator.execute("COMMIT PREPARED 'gid-3'")
        assert run_now(database).events == 2
        assert_exact(database)
    finally:
        database.dispose()
        server.remove()


def run_now(database):
    return run_rollup(database, window_ids=100, wait_seconds=0)


def leave(database, candidate, writers):
    left = update(rollup_state).values(candidate=candidate, writers=writers)
    database.write(lambda connection: connection.execute(left))


def test_a_candidate_from_before_a_restore_is_not_trusted(issue, roll_up, database):
    leave(database, 1000, "9/9999")
    issue("2026-04-01T00:00:00Z", times=5)
    assert roll_up().watermark == 5
    assert state(database).candidate is None  # or later ids would pass it
    issue("2026-04-01T00:00:00Z", times=5)
    assert roll_up().events == 5
    assert_exact(database)


def test_a_run_keeps_an_earlier_candidate(writer, issue, roll_up, database, monkeypatch):
    """A run keeps the earlier candidate that another run stored meanwhile."""
    first, second = writer(), writer()
    first.execute(INSERT, ["first"])
    second.execute(INSERT, ["second"])
    describe = rollup.describe_writers

    def meanwhile(connection, candidate):
        leave(database, 1, " ".join(w for w in candidate.writers if w != max(candidate.writers)))
        return describe(connection, candidate)

    monkeypatch.setattr(rollup, "describe_writers", meanwhile)
    assert roll_up(wait_seconds=0).outcome == "held_up"
    assert state(database).candidate == 1


def test_a_sequence_that_hands_out_blocks_is_refused(roll_up, database):
    cached = text("ALTER TABLE issuance_events ALTER COLUMN id SET CACHE 20")
    database.write(lambda connection: connection.execute(cached))
    with pytest.raises(RefusedError, match="CACHE 1"):
        roll_up()


def naive_run(database):
    """What everybody writes first: count all ids that are visible above the last one."""
    with database.reading() as connection:
        newest = connection.scalar(select(func.max(issuance_events.c.id))) or 0
    database.write(lambda connection: add_next_window(connection, newest, 1_000_000, {}))


def write_in_overlapping_transactions(database_url, stop):
    """Four writers, transactions of a few inserts, some rolled back, with pauses inside."""

    def work(number):
        dice = random.Random(number)
        with psycopg.connect(conninfo(database_url)) as connection:
            for turn in range(10_000):
                if stop.is_set():
                    break
                for step in range(3):
                    connection.execute(INSERT, [f"{number}-{turn}-{step}"])
                    time.sleep(dice.uniform(0, 0.01))
                connection.rollback() if dice.random() < 0.1 else connection.commit()

    threads = [threading.Thread(target=work, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    return threads


def run_beside_writers(database_url, run, is_enough):
    """Run until it is enough, however slow the machine is, then once more."""
    stop = threading.Event()
    threads = write_in_overlapping_transactions(database_url, stop)
    try:
        until = time.monotonic() + PATIENCE_SECONDS
        while not is_enough() and time.monotonic() < until:
            run()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    run()


def test_runs_beside_overlapping_writers_lose_nothing(database_url, roll_up, database):
    runs = []

    def run():
        runs.append(roll_up(wait_seconds=30))

    def is_enough():
        return len(runs) >= 30 and state(database).counted_upto >= 500

    run_beside_writers(database_url, run, is_enough)
    assert is_enough()
    assert assert_exact(database) > 100


def test_the_naive_watermark_loses_events(database_url, database):
    """So the test above is known to bite."""
    passed = issuance_events.c.id <= select(rollup_state.c.counted_upto).scalar_subquery()
    behind = select(func.count()).where(passed).scalar_subquery()
    counted = select(func.coalesce(func.sum(daily_issuance.c.issued), 0)).scalar_subquery()

    def has_lost_one():
        with database.reading() as connection:
            return connection.scalar(select(behind > counted))

    run_beside_writers(database_url, lambda: naive_run(database), has_lost_one)
    with pytest.raises(AssertionError, match="daily_issuance"):
        assert_exact(database)


def test_a_run_finishes_at_the_present_in_utc(roll_up, database):
    roll_up()
    finished = state(database).last_finished
    assert finished.tzinfo is UTC
    assert abs((datetime.now(UTC) - finished).total_seconds()) < 60


@pytest.mark.parametrize(
    ("writer", "words"),
    [
        (Writer(7, "idp", datetime(2026, 4, 1, tzinfo=UTC), None), ["pid 7", "idp", "2026-04-01"]),
        (Writer(7, None, None, None), ["pid 7", "pg_read_all_stats"]),
        (Writer(None, None, None, "gid-1"), ["prepared transaction 'gid-1'"]),
        (Writer(None, None, None, None), ["prepared transaction", "pg_prepared_xacts"]),
    ],
    ids=["seen whole", "hidden from this role", "prepared", "prepared, hidden"],
)
def test_a_writer_is_named_as_far_as_this_role_may_see_it(writer, words):
    assert all(word in str(writer) for word in words)
