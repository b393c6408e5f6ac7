"""Positions: how far a source is read. A position commits in one transaction with its events.

So a process that dies loses no record and stores none twice. Two processes may read one source:
each commit compares the version of the row, and the second one at a position is refused.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite

from app.intake.events import Event
from app.intake.store import Stored, prepare_insert
from app.storage.database import Database
from app.storage.tables import source_positions
from app.storage.types import database_now

_T = source_positions.c


class MovedError(Exception):
    """Another process has moved the position, so this batch was not stored. Read it again."""


@dataclass(frozen=True)
class Spot:
    """The position of a source at a place, as this process has last seen it.

    Attributes:
        source: the source's name.
        place: the host whose files these are; empty for a pulled log.
        kind: ``follow``, or the provider of a pulled log.
        position: the position itself, as text; each kind has its own.
        version: the number of changes.
    """

    source: str
    place: str
    kind: str
    position: str
    version: int = 0


def spots(database: Database, source: str) -> list[Spot]:
    """The stored positions of a source, in the order of their places."""
    here = sa.select(_T.source, _T.place, _T.kind, _T.position, _T.version)
    with database.reading() as connection:
        rows = connection.execute(here.where(_T.source == source).order_by(_T.place)).all()
    return [Spot(*row) for row in rows]


def create(database: Database, spot: Spot) -> Spot:
    """Store a first position, unless there is one; return the one that is stored."""

    def stored() -> Spot | None:
        return next((one for one in spots(database, spot.source) if one.place == spot.place), None)

    if (found := stored()) is not None:
        return found
    insert = postgresql.insert if database.is_postgresql else sqlite.insert
    values = {name: getattr(spot, name) for name in ("source", "place", "kind", "position")}
    statement = insert(source_positions).values(values).on_conflict_do_nothing()
    database.write(lambda connection: connection.execute(statement))
    return stored() or spot


def advance(  # noqa: PLR0913 - the parts of one commit
    database: Database,
    spot: Spot,
    position: str,
    events: Sequence[Event] = (),
    *,
    skipped: int = 0,
    refused: int = 0,
    before_commit: Callable[[], None] = lambda: None,
) -> tuple[Spot, Stored]:
    """Store events and the position behind them, both or neither.

    Args:
        before_commit: called when everything is stored and only the commit is left.

    Raises:
        MovedError: the position is no longer the one of ``spot``; nothing is stored.
    """
    insert = prepare_insert(database, events)
    newest = max((event.issued_at for event in events), default=None)

    def work(connection: Connection) -> Stored:
        before = _lock(connection, spot)
        stored = insert(connection)
        values = {
            "position": position,
            "version": _T.version + 1,
            "read_at": database_now(),
            "claimed_at": database_now(),
            "newest_at": _later(before, newest),
            "accepted": _T.accepted + stored.accepted,
            "duplicates": _T.duplicates + stored.duplicates,
            "skipped": _T.skipped + skipped,
            "refused": _T.refused + refused,
            "error": None,
            "failed_at": None,
        }
        connection.execute(sa.update(source_positions).where(_is(spot)).values(values))
        before_commit()
        return stored

    stored = database.write(work)
    return replace(spot, position=position, version=spot.version + 1), stored


def note_read(database: Database, spot: Spot) -> None:
    """Note that the source was read to its end, with nothing new."""
    _note(database, spot, {"read_at": database_now(), "error": None, "failed_at": None})


def note_failure(database: Database, spot: Spot, error: str) -> None:
    """Note why a turn failed. The position stays."""
    _note(database, spot, {"error": error, "failed_at": database_now()})


def claim(database: Database, spot: Spot, seconds: float) -> bool:
    """Whether a turn of the source is due: none has begun or stored anything for ``seconds``.

    If so, the caller has to do it. Of several schedulers one gets the turn.
    """

    def work(connection: Connection) -> bool:
        now = database_now().label("now")
        # The lock of the row is held for one batch at most.
        row = connection.execute(
            sa.select(_T.claimed_at, now).where(_is(spot)).with_for_update(skip_locked=True)
        ).one_or_none()
        if row is None:
            return False
        # A claim in the future means that the clock was set back: a turn is due.
        if row.claimed_at is not None and (
            timedelta(0) <= row.now - row.claimed_at < timedelta(seconds=seconds)
        ):
            return False
        connection.execute(sa.update(source_positions).where(_is(spot)).values(claimed_at=row.now))
        return True

    return database.write(work)


def _is(spot: Spot) -> sa.ColumnElement[bool]:
    return sa.and_(_T.source == spot.source, _T.place == spot.place)


def _note(database: Database, spot: Spot, values: dict[str, object]) -> None:
    statement = sa.update(source_positions).where(_is(spot)).values(values)
    database.write(lambda connection: connection.execute(statement))


def _lock(connection: Connection, spot: Spot) -> datetime | None:
    """Lock the position until the commit; return the instant of the newest event."""
    row = connection.execute(
        sa.select(_T.version, _T.newest_at).where(_is(spot)).with_for_update()
    ).one_or_none()
    if row is None or row.version != spot.version:
        raise MovedError
    newest: datetime | None = row.newest_at
    return newest


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    return max(filter(None, (one, other)), default=None)
