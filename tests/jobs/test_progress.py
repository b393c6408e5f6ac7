"""Progress reports of long work."""

from datetime import UTC, date, datetime

import pytest
from sqlalchemy import update

from app.storage.tables import daily_issuance, issuance_events
from jobs.counting.run import run_rollup
from jobs.recount import rebuild as rebuilding
from jobs.recount.rebuild import rebuild
from jobs.recount.verify import verification
from jobs.retention import purge_events

APRIL = date(2026, 4, 1)


@pytest.fixture
def told():
    return []


@pytest.fixture
def tell(told):
    return lambda *numbers: told.append(numbers)


def test_a_run_tells_the_ids_that_are_counted(issue, roll_up, database, told, tell):
    issue("2026-04-01T00:00:00Z", times=3)
    roll_up()
    issue("2026-04-01T00:00:00Z", times=5)
    roll_up(window_ids=2, on_ids=tell)
    assert told == [(0, 5), (2, 5), (4, 5), (5, 5)]


def test_a_run_without_anything_to_count_tells_nothing(issue, roll_up, told, tell):
    roll_up(on_ids=tell)
    issue("2026-04-01T00:00:00Z")
    roll_up()
    roll_up(on_ids=tell)
    assert told == []


def test_a_run_never_tells_of_more_than_there_is_to_count(issue, roll_up, database, told):
    """Another run counts everything, and what came later, between two windows."""
    issue("2026-04-01T00:00:00Z", times=4)

    def tell(*numbers):
        told.append(numbers)
        if len(told) == 2:
            issue("2026-04-01T00:00:00Z", times=4)
            run_rollup(database, window_ids=100, wait_seconds=5)

    roll_up(window_ids=1, on_ids=tell)
    assert told == [(0, 4), (1, 4), (4, 4)]


def test_verify_tells_each_table(issue, roll_up, database, told, tell):
    issue("2026-04-01T00:00:00Z")
    roll_up()
    with verification(database, on_table=tell) as found:
        assert list(found.drift) == []
    assert told == [(done, 6) for done in range(7)]


def test_rebuild_tells_its_steps_and_never_under_the_lock(
    issue, roll_up, database, told, monkeypatch
):
    issue("2026-04-01T00:00:00Z")
    roll_up()
    database.write(lambda c: c.execute(update(daily_issuance).values(issued=7)))
    locked = []
    apply = rebuilding._apply

    def note(*arguments, **options):
        locked.append(True)
        done = apply(*arguments, **options)
        locked.pop()
        return done

    monkeypatch.setattr(rebuilding, "_apply", note)

    def tell(*numbers):
        assert not locked
        told.append(numbers)

    assert rebuild(database, APRIL, APRIL, on_step=tell).buckets == 1
    assert told == [(done, 7) for done in range(8)]


def test_purge_tells_the_events_that_are_deleted(issue, roll_up, database, told, tell):
    issue("2026-04-01T00:00:00Z", times=5)
    roll_up()
    aged = update(issuance_events).values(received_at=datetime(2020, 1, 1, tzinfo=UTC))
    database.write(lambda connection: connection.execute(aged))
    assert purge_events(database, retention_days=90, batch_events=2, on_events=tell).events == 5
    assert told == [(2,), (4,), (5,)]
