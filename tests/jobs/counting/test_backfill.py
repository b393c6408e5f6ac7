"""Backfill counts older events into the tables of an upgrade: once, beside runs, after any kill."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy import event as hooks

from app.errors import RefusedError
from app.storage.complete_days import incomplete_days
from app.storage.tables import (
    daily_agent_issuance,
    daily_issuance,
    hourly_issuance,
    issuance_events,
    rollup_state,
)
from jobs.counting import backfill as backfilling
from jobs.counting.backfill import Backfilled, backfill
from jobs.counting.tables import FINER_TABLES
from jobs.recount.difference import FIRST_MONTH, LAST_MONTH
from jobs.recount.rebuild import rebuild
from jobs.recount.resume import resume
from jobs.recount.verify import verification
from jobs.retention import purge_events
from tests.support.recount import assert_exact, stored
from tests.support.upgraded import forget_finer_tables


@pytest.fixture
def upgraded(issue, roll_up, database, monkeypatch):
    """Twelve events counted before the upgrade, and small windows."""
    monkeypatch.setattr(backfilling, "WINDOW_IDS", 5)
    monkeypatch.setattr(backfilling, "PAUSE_SECONDS", 0)
    for day in (1, 2, 3):
        issue(f"2026-04-0{day}T09:00:00Z", times=2)
        issue(f"2026-04-0{day}T10:00:00Z")
        issue(f"2026-04-0{day}T09:00:00Z", tenant="org-b", agent="other")
    roll_up()
    forget_finer_tables(database)
    return database


def drift(database):
    with verification(database) as found:
        return list(found.drift)


@pytest.mark.quick
def test_a_backfill_counts_what_runs_counted_before(upgraded, issue, roll_up):
    """Runs count new events, and a backfill the older ones; a second backfill has nothing to do."""
    issue("2026-04-01T09:00:00Z", times=3)
    roll_up()
    assert drift(upgraded) == []
    assert sum(stored(upgraded, hourly_issuance).values()) == 3
    done = backfill(upgraded)
    assert (done.events, done.finished) == (12, True)
    assert drift(upgraded) == []
    assert assert_exact(upgraded) == 15
    assert backfill(upgraded) == Backfilled(0, 0, True)


def test_days_are_complete_once_their_events_are_counted(upgraded):
    """The days that a backfill has not reached are named as incomplete."""
    first, last = FIRST_MONTH, LAST_MONTH
    stop, windows = threading.Event(), []

    def after_one_window(counted, _all):
        windows.append(counted)
        if counted:
            stop.set()

    assert not backfill(upgraded, stop=stop, on_ids=after_one_window).finished
    assert windows == [0, 5]
    for table in (hourly_issuance, daily_agent_issuance):
        with upgraded.reading() as connection:
            found = connection.execute(incomplete_days(table, first, last)).all()
        assert {day.day for _, day in found} == {2, 3}
    backfill(upgraded)
    with upgraded.reading() as connection:
        assert connection.execute(incomplete_days(hourly_issuance, first, last)).all() == []


def test_a_backfill_that_dies_at_any_statement_is_exact(upgraded, roll_up):
    """After any death a second backfill counts the rest, and no event twice."""
    fatal = seen = 0

    def die(*_):
        nonlocal seen
        seen += 1
        if seen == fatal:
            raise ConnectionError("the process died")

    hooks.listen(upgraded.engine, "after_cursor_execute", die)
    while True:
        forget_finer_tables(upgraded)
        fatal, seen = fatal + 1, 0
        try:
            backfill(upgraded)
            break
        except ConnectionError:
            seen = fatal
            assert drift(upgraded) == []
            backfill(upgraded)
            assert_exact(upgraded)
    assert fatal > 9
    fatal = 0
    assert_exact(upgraded)


def test_backfills_runs_and_rebuilds_at_once_are_exact(upgraded, issue, roll_up):
    """Two backfills, runs, rebuilds and writers at the same time count each event once."""

    def write():
        for number in range(10):
            issue(f"2026-04-0{number % 3 + 1}T{number:02}:30:00Z", times=3)

    def repair():
        for _ in range(5):
            rebuild(upgraded, FIRST_MONTH, LAST_MONTH)

    spoil = sa.update(daily_agent_issuance).values(hours=1)
    upgraded.write(lambda connection: connection.execute(spoil))
    jobs = (write, lambda: backfill(upgraded), lambda: backfill(upgraded), repair)
    with ThreadPoolExecutor(len(jobs) + 1) as pool:
        started = [pool.submit(job) for job in jobs]
        while not all(job.done() for job in started):
            roll_up(window_ids=4)
        for job in started:
            job.result()
    roll_up()
    assert drift(upgraded) == []
    assert assert_exact(upgraded) == 42


@pytest.mark.quick
def test_a_rebuild_leaves_the_rest_to_the_backfill(upgraded):
    """A rebuild repairs wrong numbers, and does not count what a backfill will add."""
    spoil = sa.update(daily_issuance).values(issued=9)
    upgraded.write(lambda connection: connection.execute(spoil))
    assert {one.table for one in drift(upgraded)} == {"daily_issuance"}
    rebuild(upgraded, FIRST_MONTH, LAST_MONTH)
    assert stored(upgraded, hourly_issuance) == {}
    backfill(upgraded)
    assert_exact(upgraded)


def test_a_purge_waits_for_the_backfill(upgraded):
    """No raw event is deleted before the tables of the upgrade have counted it."""
    long_ago = datetime.now(UTC) - timedelta(days=300)
    received = sa.update(issuance_events).values(received_at=long_ago)
    upgraded.write(lambda connection: connection.execute(received))
    with pytest.raises(RefusedError, match="flask rollup backfill"):
        purge_events(upgraded, retention_days=90)
    backfill(upgraded)
    assert purge_events(upgraded, retention_days=90).events == 12
    assert sum(stored(upgraded, hourly_issuance).values()) == 12


_COMPLETE_FROM = sa.select(rollup_state.c.hours_from, rollup_state.c.agents_from)


def test_lost_events_make_their_days_incomplete(upgraded, issue, roll_up):
    """A loss that is accepted before the backfill has counted it is noted for reads."""
    lost = sa.delete(issuance_events).where(issuance_events.c.id > 8)
    upgraded.write(lambda connection: connection.execute(lost))
    with pytest.raises(RefusedError):
        roll_up()
    resume(upgraded, accept_loss=True)
    backfill(upgraded)
    with upgraded.reading() as connection:
        assert set(connection.execute(_COMPLETE_FROM).one()) == {date(2026, 5, 1)}
        for table in (hourly_issuance, daily_agent_issuance):
            found = connection.execute(incomplete_days(table, FIRST_MONTH, LAST_MONTH)).all()
            assert {day.day for _, day in found} == {3}


def test_a_refusal_to_count_refuses_a_backfill(upgraded):
    """Numbers that cannot be proven are not added to."""
    refusal = sa.update(rollup_state).values(refusal="because")
    upgraded.write(lambda connection: connection.execute(refusal))
    with pytest.raises(RefusedError, match="because"):
        backfill(upgraded)
    assert all(stored(upgraded, summary.table) == {} for summary in FINER_TABLES)


def test_the_command_shows_what_is_left_and_counts_it(upgraded, flask):
    """Status names the command; its JSON has the numbers; afterwards nothing is left."""
    assert json.loads(flask("rollup", "status", "--json").stdout)["backfill_ids"] == 12
    assert "12 event ids to count; see `flask rollup backfill`" in flask("rollup", "status").stdout
    done = json.loads(flask("rollup", "backfill", "--json").stdout)
    assert (done["events"], done["finished"]) == (12, True)
    assert json.loads(flask("rollup", "status", "--json").stdout)["backfill_ids"] == 0
    assert "backfill" not in flask("rollup", "status").stdout
