"""Purge deletes expired events and keeps the counts correct."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import event as hooks
from sqlalchemy import func, select, update

from app.errors import RefusedError
from app.storage.tables import (
    daily_issuance,
    issuance_events,
    purged_months,
    rollup_runs,
    rollup_state,
)
from jobs.counting.status import rollup_status
from jobs.recount.rebuild import rebuild
from jobs.recount.verify import verification
from jobs.retention import purge_events
from tests.support.recount import stored

APRIL = date(2026, 4, 1)


@pytest.fixture
def receive(database, issue):
    """Store events as if they had been received some days ago."""

    def receive(instant, times=1, *, days_ago=0, **options):
        ids = [event.event_id for event in issue(instant, times, **options)]
        when = datetime.now(UTC) - timedelta(days=days_ago)
        aged = update(issuance_events).where(issuance_events.c.event_id.in_(ids))
        database.write(lambda c: c.execute(aged.values(received_at=when)))

    return receive


@pytest.fixture
def purge(database):
    def purge(retention_days=90, **options):
        return purge_events(database, retention_days=retention_days, **options)

    return purge


def left(database):
    with database.reading() as connection:
        return connection.scalar(select(func.count()).select_from(issuance_events))


def test_events_past_their_retention_are_deleted(receive, roll_up, purge, database):
    """Events received before the retention period are deleted, and summary tables stay."""
    receive("2026-04-01T00:00:00Z", 3, days_ago=91)
    receive("2026-04-01T00:00:00Z", 2, days_ago=89)
    roll_up()
    assert purge().events == 3
    assert left(database) == 2
    assert stored(database, daily_issuance) == {("org-a", APRIL): 5}


def test_it_is_the_receipt_that_ages_not_the_issuance(receive, roll_up, purge, database):
    receive("1999-01-01T00:00:00Z")
    roll_up()
    assert purge().events == 0


def test_an_event_that_is_not_counted_is_never_deleted(receive, roll_up, purge, database):
    receive("2026-04-01T00:00:00Z", 3, days_ago=400)
    assert purge().events == 0
    roll_up()
    assert purge().events == 3


def test_an_old_event_beyond_the_watermark_is_kept(receive, roll_up, purge, database):
    """Once some events are counted, the purge still keeps old events that are not counted."""
    receive("2026-04-01T00:00:00Z", 2, days_ago=100)
    roll_up()
    receive("2026-04-01T00:00:00Z", 3, days_ago=100)
    assert purge().events == 2
    assert left(database) == roll_up().events == 3


def test_each_months_loss_is_recorded_across_batches(receive, roll_up, purge, database):
    receive("2026-04-01T00:00:00Z", 7, days_ago=100)
    receive("2026-03-31T23:59:59.999999Z", 5, days_ago=100)
    roll_up()
    assert purge(batch_events=2).events == 12
    with database.reading() as connection:
        months = {row.month: row.events for row in connection.execute(select(purged_months))}
    assert months == {APRIL: 7, date(2026, 3, 1): 5}


def test_purged_months_are_not_verifiable_and_not_rebuilt(receive, roll_up, purge, database):
    receive("2026-04-01T00:00:00Z", 3, days_ago=100)
    receive("2026-04-02T00:00:00Z")
    receive("2026-05-01T00:00:00Z")
    roll_up()
    purge()
    with verification(database) as found:
        assert (list(found.drift), found.scope.purged) == ([], [APRIL])
    with pytest.raises(RefusedError, match="2026-04"):
        rebuild(database, APRIL, date(2026, 5, 1))
    assert rebuild(database, date(2026, 5, 1), date(2026, 5, 1)).buckets == 0


def test_purges_at_once_record_each_event_once(receive, roll_up, purge, database):
    receive("2026-04-01T00:00:00Z", 60, days_ago=100)
    roll_up()
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: purge(batch_events=7).events, range(4)))
    assert sum(done) == 60
    with database.reading() as connection:
        assert connection.scalar(select(purged_months.c.events)) == 60


def test_a_purge_that_dies_has_recorded_its_deletions(receive, roll_up, purge, database):
    """A purge that dies midway has recorded the events it deleted."""
    receive("2026-04-01T00:00:00Z", 10, days_ago=100)
    roll_up()
    deletes = 0

    def die(_connection, _cursor, text, *_):
        nonlocal deletes
        deletes += text.startswith("DELETE FROM issuance_events")
        if deletes == 3:
            raise ConnectionError("the process died")

    hooks.listen(database.engine, "after_cursor_execute", die)
    with pytest.raises(ConnectionError):
        purge(batch_events=2)
    hooks.remove(database.engine, "after_cursor_execute", die)
    with database.reading() as connection:
        assert connection.scalar(select(purged_months.c.events)) == 10 - left(database) == 4
    assert purge(batch_events=2).events == 6


def test_a_stop_ends_between_two_batches(receive, roll_up, purge, database):
    receive("2026-04-01T00:00:00Z", 10, days_ago=100)
    roll_up()
    stop = threading.Event()
    stop.set()
    assert not purge(stop=stop).finished
    assert left(database) == 10


def test_a_purge_does_not_walk_through_everything_that_is_kept(receive, roll_up, purge, database):
    receive("2026-04-01T00:00:00Z", 4, days_ago=100)
    receive("2026-04-01T00:00:00Z", 100)
    roll_up()
    statements = []
    hooks.listen(database.engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
    purge(batch_events=2)
    assert sum(text.startswith("DELETE FROM issuance_events") for text in statements) == 2 + 10


def test_runs_are_kept_in_the_history_for_30_days(issue, roll_up, purge, database):
    for age in (29, 31):
        issue("2026-04-01T00:00:00Z")
        run = roll_up()
        old = datetime.now(UTC) - timedelta(days=age)
        mine = update(rollup_runs).where(rollup_runs.c.id == run.id).values(started_at=old)
        database.write(lambda c, mine=mine: c.execute(mine))
    purge()
    with database.reading() as connection:
        assert connection.scalar(select(func.count()).select_from(rollup_runs)) == 1


def claim_receipt(database, instant, **where):
    """Set the receipt as a plain INSERT may set it."""
    event = issuance_events.c
    mine = [event[name] == value for name, value in where.items()]
    claimed = update(issuance_events).where(*mine).values(received_at=instant)
    database.write(lambda connection: connection.execute(claimed))


FAR_AHEAD = datetime(9998, 1, 1, tzinfo=UTC)
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


def test_a_receipt_in_1970_spoils_no_recent_month(issue, roll_up, purge, database):
    """A receipt long before the retention period is not believed; the issuance decides."""
    recent = datetime.now(UTC) - timedelta(days=10)
    issue(recent, 2)
    issue(recent, event_id="claimed")
    claim_receipt(database, LONG_AGO, event_id="claimed")
    roll_up()
    assert purge().events == 0
    with verification(database) as found:
        assert (list(found.drift), found.scope.purged) == ([], [])
    assert purge(retention_days=9).events == 1


def test_a_receipt_far_ahead_does_not_stop_the_purge(receive, roll_up, purge, database):
    """Events with a receipt in the future are due by their issuance, and hide no later events."""
    receive("2026-04-01T00:00:00Z", 50, agent="ahead")
    receive("2026-04-01T00:00:00Z", 3, days_ago=100)
    claim_receipt(database, FAR_AHEAD, agent_id="ahead")
    roll_up()
    assert purge(batch_events=2).events == 53


def test_events_that_are_never_due_do_not_stop_the_purge(receive, roll_up, purge, database):
    """Batches of events with an issuance far ahead do not end a purge early."""
    receive("9998-04-01T00:00:00Z", 50)
    claim_receipt(database, LONG_AGO)
    receive("2026-04-01T00:00:00Z", 3, days_ago=100)
    roll_up()
    assert purge(batch_events=2).events == 3


@pytest.mark.parametrize("receipt", [LONG_AGO, FAR_AHEAD])
def test_the_lag_believes_no_absurd_receipt(issue, roll_up, database, receipt):
    """The lag of a pending event is at most the time since the last complete run."""
    roll_up()
    ago = datetime.now(UTC) - timedelta(seconds=300)
    finished = update(rollup_state).values(last_finished=ago)
    database.write(lambda connection: connection.execute(finished))
    issue("2026-04-01T00:00:00Z")
    claim_receipt(database, receipt)
    with database.reading() as connection:
        assert 300 <= rollup_status(connection).lag_seconds < 360
