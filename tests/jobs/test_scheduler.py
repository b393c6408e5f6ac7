"""One run per tick, even with several schedulers."""

import logging
import queue
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from prometheus_client import REGISTRY
from sqlalchemy import select, text, update

from app.storage.database import Database
from app.storage.tables import issuance_events, rollup_state
from jobs.scheduler import await_signal, claim_tick, follow_clock, purge_tick, tick
from tests.support.databases import conninfo
from tests.support.recount import assert_exact
from tests.support.settings import make_settings


def claim(database, interval=3600):
    return database.write(lambda connection: claim_tick(connection, interval))


def started(database, when):
    statement = update(rollup_state).values(last_tick=when)
    database.write(lambda connection: connection.execute(statement))


def lines(caplog):
    return [(record.message, record.fields["outcome"]) for record in caplog.records]


def test_the_first_tick_ever_is_due(database):
    assert claim(database)


def test_of_many_processes_one_has_the_tick(database):
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda _: claim(database), range(8)))
    assert claims.count(True) == 1


@pytest.mark.parametrize(
    ("ago", "due"),
    [
        pytest.param(timedelta(0), False, id="just now"),
        pytest.param(timedelta(minutes=50), False, id="within the interval"),
        pytest.param(timedelta(minutes=59), True, id="a tick that comes a little early"),
        pytest.param(timedelta(hours=5), True, id="long ago"),
        pytest.param(timedelta(days=-1), True, id="in the future, since the clock was set back"),
    ],
)
def test_a_run_is_due_an_interval_after_the_last_start(database, ago, due):
    started(database, datetime.now(UTC) - ago)
    assert claim(database) is due


def test_a_tick_is_not_due_while_a_run_holds_the_state_row(postgresql_url):
    database = Database(make_settings(postgresql_url).database_url)
    with database.engine.begin() as running:
        running.execute(select(rollup_state).with_for_update())
        assert not claim(database)
    assert claim(database)
    database.dispose()


def test_a_tick_counts_what_is_there(issue, database, settings):
    issue("2026-04-01T00:00:00Z", times=3)
    run = tick(database, settings, threading.Event())
    assert (run.outcome, run.events) == ("done", 3)
    assert tick(database, settings, threading.Event()) is None
    assert_exact(database)


def test_a_failing_tick_is_logged_and_the_next_one_counts(issue, database, settings, caplog):
    issue("2026-04-01T00:00:00Z")
    rename = "ALTER TABLE daily_issuance RENAME TO {}"
    database.write(lambda c: c.execute(text(rename.format("gone"))))
    assert tick(database, settings, threading.Event()) is None
    assert lines(caplog) == [("rollup", "failed")]
    back = "ALTER TABLE gone RENAME TO daily_issuance"
    database.write(lambda c: c.execute(text(back)))
    started(database, None)
    assert tick(database, settings, threading.Event()).events == 1
    assert_exact(database)


def test_a_stopped_run_is_continued_by_the_next(issue, roll_up, database):
    """A stopped run ends between two windows, and the next run continues."""
    issue("2026-04-01T00:00:00Z", times=5)
    stop = threading.Event()
    stop.set()
    assert roll_up(stop=stop).outcome == "held_up"
    assert roll_up().events == 5
    assert_exact(database)


def test_the_scheduled_purge_deletes_what_is_past_retention(issue, roll_up, database, database_url):
    issue("2026-04-01T00:00:00Z", times=3)
    roll_up()
    old = update(issuance_events).values(received_at=datetime.now(UTC) - timedelta(days=2))
    database.write(lambda connection: connection.execute(old))
    settings = make_settings(database_url, EVENT_RETENTION_DAYS="1")
    purge_tick(database, settings, threading.Event())
    with database.reading() as connection:
        assert connection.execute(select(issuance_events)).all() == []


def test_a_failing_purge_is_logged_and_ends_nothing(database, settings, caplog):
    rename = text("ALTER TABLE rollup_runs RENAME TO gone")
    database.write(lambda connection: connection.execute(rename))
    purge_tick(database, settings, threading.Event())
    assert lines(caplog) == [("purge", "failed")]


def test_a_forgotten_lock_is_held_up_and_counted(postgresql_url, caplog, monkeypatch):
    """A session that forgets the lock of the state row makes an overdue run held up, by name."""
    monkeypatch.setattr("jobs.counting.run.MIN_LOCK_SECONDS", 0.2)
    settings = make_settings(postgresql_url, ROLLUP_WAIT_SECONDS="0", ROLLUP_INTERVAL_SECONDS="60")
    database = Database(settings.database_url)
    before = REGISTRY.get_sample_value("analytics_rollup_runs_total", {"outcome": "held_up"})
    with psycopg.connect(conninfo(postgresql_url), application_name="forgotten-shell") as other:
        started(database, datetime.now(UTC) - timedelta(seconds=60))
        other.execute("SELECT 1 FROM rollup_state FOR UPDATE")
        assert tick(database, settings, threading.Event()) is None  # a run may be under way
        other.rollback()
        started(database, datetime.now(UTC) - timedelta(seconds=200))
        other.execute("SELECT 1 FROM rollup_state FOR UPDATE")
        run = tick(database, settings, threading.Event())
        assert (run.outcome, run.writers[0].pid) == ("held_up", other.info.backend_pid)
        assert "forgotten-shell" in caplog.records[-1].fields["held_up_by"]
    after = REGISTRY.get_sample_value("analytics_rollup_runs_total", {"outcome": "held_up"})
    assert after == before + 1
    assert tick(database, settings, threading.Event()).outcome == "done"
    database.dispose()


def test_a_run_without_events_is_logged_at_debug(issue, database, settings, caplog):
    """A run that counts nothing is no line of the log at INFO."""
    caplog.set_level(logging.DEBUG, "jobs")
    issue("2026-04-01T00:00:00Z")
    for level in (logging.INFO, logging.DEBUG):
        started(database, None)
        tick(database, settings, threading.Event())
        assert [record.levelno for record in caplog.records] == [level]
        caplog.clear()


def test_a_missing_schema_is_named_in_the_log(database, settings, caplog):
    """A tick on a database without a schema says how to make one."""
    database.write(lambda c: c.execute(text("ALTER TABLE rollup_state RENAME TO gone")))
    assert tick(database, settings, threading.Event()) is None
    assert "run `flask db upgrade`" in caplog.records[-1].fields["cause"]


class SetClock(datetime):
    """A host's clock that can be set."""

    change = timedelta(0)

    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz) + cls.change


def test_a_clock_set_back_stops_no_task(monkeypatch):
    """After the host's clock is set back or forward, tasks run at their interval as before."""
    monkeypatch.setattr("apscheduler.schedulers.base.datetime", SetClock)
    ticks = queue.SimpleQueue()
    scheduler = BackgroundScheduler(timezone="UTC", job_defaults={"misfire_grace_time": None})
    scheduler.add_job(ticks.put, "interval", (1,), seconds=0.2, next_run_time=SetClock.now(UTC))
    scheduler.start()
    try:
        for hours in (-3, 1):
            ticks.get(timeout=30)
            monkeypatch.setattr(SetClock, "change", timedelta(hours=hours))
            follow_clock(scheduler, hours * 3600)
            while not ticks.empty():
                ticks.get()
            ticks.get(timeout=30)
            ticks.get(timeout=30)
            monkeypatch.setattr(SetClock, "change", timedelta(0))
            follow_clock(scheduler, -hours * 3600)
    finally:
        scheduler.shutdown()


def test_a_task_that_ran_meanwhile_is_not_moved_again():
    """A task has its next time by the new clock, if it ran before the change was noticed."""
    scheduler = BackgroundScheduler(timezone="UTC")
    scheduler.start(paused=True)
    try:
        job = scheduler.add_job(print, "interval", seconds=15)
        follow_clock(scheduler, 3600)
        assert job.next_run_time <= datetime.now(UTC) + timedelta(seconds=15)
    finally:
        scheduler.shutdown()


def test_a_set_clock_is_noticed(monkeypatch):
    """The monotonic clock shows that the host's clock was set, and by how much."""
    changes, offsets = [], iter([0, 0, 0.4, -3600, -3600, 7200])
    monkeypatch.setattr("jobs.scheduler.follow_clock", lambda _, change: changes.append(change))
    monkeypatch.setattr("time.time", lambda: 1_000_000 + next(offsets))
    monkeypatch.setattr("time.monotonic", lambda: 1_000)
    waits = iter([None] * 5 + [signal.SIGTERM])
    monkeypatch.setattr("signal.sigtimedwait", lambda *_: next(waits))
    await_signal(None)
    assert changes == [-3600, 10_800]
