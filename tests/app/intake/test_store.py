"""Batches that meet: all of one or nothing, and no deadlock reaches a caller."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import pytest
import sqlalchemy as sa
from sqlalchemy import event as hooks
from sqlalchemy.exc import OperationalError

from app.intake.events import Event
from app.intake.store import Stored, prepare_storing, store_events
from app.storage.tables import issuance_events

AT = datetime(2026, 4, 1, tzinfo=UTC)
BATCH = [Event("org-a", f"event-{n:05}", "agent-1", AT) for n in range(2_000)]


def count(database):
    with database.reading() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(issuance_events))


def test_concurrent_copies_of_a_batch_are_stored_once(database):
    """Concurrent copies of a batch, each in another order, are stored once."""
    orders = [BATCH, BATCH[::-1], BATCH[1000:] + BATCH[:1000], BATCH[::-1]] * 3
    with ThreadPoolExecutor(len(orders)) as pool:
        recorded = list(pool.map(lambda order: store_events(database, order), orders))
    assert sum(result.accepted for result in recorded) == len(BATCH)
    assert sum(result.duplicates for result in recorded) == 11 * len(BATCH)
    assert count(database) == len(BATCH)


@pytest.mark.parametrize("expected_new", [False, True])
def test_a_batch_that_fails_half_way_leaves_nothing(database, expected_new):
    poison = Event("org-a", "zzz", "agent\x01", AT)  # refused by the database's own check
    with pytest.raises(sa.exc.IntegrityError):
        prepare_storing(database, [*BATCH, poison], expected_new=expected_new)()
    assert count(database) == 0


def test_no_events_are_no_transaction(database):
    assert store_events(database, []) == Stored(0, 0, 0)


def test_events_that_were_expected_to_be_new_are_stored_once_all_the_same(database):
    store_events(database, BATCH[500:600])
    assert prepare_storing(database, BATCH, expected_new=True)() == Stored(2_000, 1_900, 100)
    assert count(database) == len(BATCH)


def test_concurrent_copies_that_are_each_expected_to_be_new_are_stored_once(database):
    orders = [BATCH, BATCH[::-1], BATCH[1000:] + BATCH[:1000], BATCH[::-1]]
    prepared = [prepare_storing(database, order, expected_new=True) for order in orders]
    with ThreadPoolExecutor(len(orders)) as pool:
        recorded = list(pool.map(lambda store: store(), prepared))
    assert sum(result.accepted for result in recorded) == len(BATCH)
    assert sum(result.duplicates for result in recorded) == 3 * len(BATCH)
    assert count(database) == len(BATCH)


def test_within_a_batch_the_first_of_an_id_wins(database):
    events = [Event("org-a", "one", agent, AT) for agent in ("z", "a", "m")]
    assert store_events(database, events) == Stored(3, 1, 2)
    with database.reading() as connection:
        assert connection.scalars(sa.select(issuance_events.c.agent_id)).all() == ["z"]


PLAIN = ["NULL", "null", "{}", "a,b", " a ", "%(x)s", ":x", "é", "日本", "\U0001f511"]
IDS = [*PLAIN, '"', '","', "\\", "\\\\", "\\u001f"]
INSTANTS = [
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(1999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(2026, 3, 29, 2, 30, 0, 1, tzinfo=timezone(timedelta(hours=-9, minutes=-30))),
    datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
]


def test_any_id_and_any_instant_are_read_back_as_they_were(database):
    events = [
        Event(tenant, f"{agent} {number}", agent, instant)
        for tenant in IDS
        for agent in IDS
        for number, instant in enumerate(INSTANTS)
    ]
    assert store_events(database, events).accepted == len(events)
    columns = (issuance_events.c[name] for name in Event._fields[:4])
    with database.reading() as connection:
        found = {tuple(row) for row in connection.execute(sa.select(*columns))}
    assert found == {event[:4] for event in events}


class ConflictError(Exception):
    sqlstate = "40P01"


@pytest.mark.parametrize(("conflicts", "stored"), [(3, True), (100, False)])
def test_a_deadlocks_victim_is_run_again_but_not_for_ever(database, conflicts, stored):
    left = conflicts

    def conflict(_connection, _cursor, statement, *_):
        nonlocal left
        if "issuance_events" in statement and left:
            left -= 1
            raise OperationalError(statement, None, ConflictError())

    hooks.listen(database.engine, "after_cursor_execute", conflict)
    try:
        if stored:
            assert store_events(database, BATCH).accepted == len(BATCH)
        else:
            with pytest.raises(OperationalError):
                store_events(database, BATCH)
    finally:
        hooks.remove(database.engine, "after_cursor_execute", conflict)
    assert count(database) == (len(BATCH) if stored else 0)
