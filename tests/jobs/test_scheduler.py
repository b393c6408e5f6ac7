"""One run per tick, even with several schedulers."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, text, update

from app.storage.database import Database
from app.storage.tables import issuance_events, rollup_state
from jobs.scheduler import claim_tick, purge_tick, tick
from tests.support.recount import assert_exact
from tests.support.settings import make_settings


def claim(database, interval=3600):
    return database.write(lambda connection: claim_tick(connection, interval))


def started(database, when):
    statement = update(rollup_state).values(last_started=when)
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
