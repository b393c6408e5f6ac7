"""Positions: they commit with their events, and two readers store nothing twice."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from app.intake.events import Event
from app.intake.sources.positions import (
    MovedError,
    Spot,
    advance,
    claim,
    create,
    note_failure,
    note_read,
    spots,
)
from app.storage.tables import issuance_events, source_positions

AT = datetime(2026, 4, 1, tzinfo=UTC)
SPOT = Spot("audit", "host-1", "follow", "0")


def event(number, at=AT, agent="agent-1"):
    return Event("org-a", f"event-{number}", agent, at)


def stored_ids(database):
    with database.reading() as connection:
        return sorted(connection.scalars(sa.select(issuance_events.c.event_id)))


def row(database):
    with database.reading() as connection:
        return connection.execute(sa.select(source_positions)).one()


def test_a_position_commits_with_its_events(database):
    """The counts, the newest instant and the position change together with the events."""
    spot = create(database, SPOT)
    spot, stored = advance(database, spot, "10", [event(1), event(2)], skipped=3, refused=1)
    assert stored.accepted == 2
    spot, stored = advance(database, spot, "20", [event(2, AT - timedelta(days=1)), event(3)])
    assert (stored.accepted, stored.duplicates) == (1, 1)
    found = row(database)
    assert (found.position, found.version) == ("20", 2)
    assert (found.accepted, found.duplicates, found.skipped, found.refused) == (3, 1, 3, 1)
    assert found.newest_at == AT
    assert spots(database, "audit") == [spot]
    assert stored_ids(database) == ["event-1", "event-2", "event-3"]


def test_events_that_fail_leave_the_position(database):
    """A batch that the database refuses moves nothing."""
    spot = create(database, SPOT)
    with pytest.raises(sa.exc.IntegrityError):
        advance(database, spot, "10", [event(1), event(2, agent="a\x01")])
    assert spots(database, "audit") == [spot]
    assert stored_ids(database) == []


def test_the_second_reader_at_a_position_is_refused(database):
    """A reader that another one has overtaken stores nothing, and reads the position again."""
    spot = create(database, SPOT)
    advance(database, spot, "10", [event(1)])
    with pytest.raises(MovedError):
        advance(database, spot, "5", [event(2)])
    assert stored_ids(database) == ["event-1"]
    assert spots(database, "audit")[0].position == "10"


def test_of_readers_that_meet_one_wins_each_position(database):
    """Eight readers move one position, and each step is stored by one of them."""
    create(database, SPOT)

    def read(_reader):
        won = 0
        while True:
            (spot,) = spots(database, "audit")
            number = int(spot.position)
            if number == 20:
                return won
            try:
                advance(database, spot, str(number + 1), [event(number)])
            except MovedError:
                continue
            won += 1

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(read, range(8))) == 20
    found = row(database)
    assert (found.accepted, found.duplicates, found.version) == (20, 0, 20)


def test_a_first_position_is_created_once(database):
    """Two processes that begin at once have one position; another host has its own."""
    with ThreadPoolExecutor(8) as pool:
        created = set(pool.map(lambda _: create(database, SPOT), range(8)))
    assert created == {SPOT}
    other = create(database, Spot("audit", "host-2", "follow", "7"))
    assert spots(database, "audit") == [SPOT, other]


def test_a_turn_is_claimed_by_one(database):
    """Of several schedulers one gets the turn, and the next one after the interval."""
    spot = create(database, SPOT)
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda _: claim(database, spot, 60), range(8))) == 1
    assert not claim(database, spot, 60)
    assert claim(database, spot, 0)


def test_a_claim_in_the_future_is_due(database):
    """After the database's clock was set back, a turn does not wait for the old time."""
    spot = create(database, SPOT)
    ahead = datetime.now(UTC) + timedelta(hours=1)
    late = sa.update(source_positions).values(claimed_at=ahead)
    database.write(lambda connection: connection.execute(late))
    assert claim(database, spot, 60)


def test_a_failure_is_noted_until_a_turn_succeeds(database):
    spot = create(database, SPOT)
    note_failure(database, spot, "timeout")
    assert (row(database).error, row(database).position) == ("timeout", "0")
    note_read(database, spot)
    assert row(database).error is None
    note_failure(database, spot, "timeout")
    advance(database, spot, "1")
    assert (row(database).error, row(database).failed_at) == (None, None)
