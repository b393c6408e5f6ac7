"""Retention: delete counted raw events that were received before the retention period.

It deletes in short batches, because a DELETE takes the same lock as a writer, and a run waits for
that lock. The transaction of each batch also records how many events of each month it deletes, so
that verify and rebuild leave these months out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from threading import Event as Signal

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite

from app.storage.database import Database
from app.storage.tables import issuance_events, purged_months, rollup_state
from app.storage.types import database_now
from jobs.counting.buckets import issued_month
from jobs.counting.history import forget_old_runs
from jobs.counting.state import read_state
from jobs.counting.tables import Window, in_window

BATCH_EVENTS = 10_000
# Ids ascend nearly in the order of receipt. So after this many batches in a row without an old
# event, a purge ends. To find a few more, it would have to read all events that are kept.
IDLE_BATCHES = 10


@dataclass(frozen=True)
class Purged:
    """The number of deleted events, and whether all events that were due are deleted."""

    events: int
    finished: bool


def purge_events(
    database: Database,
    *,
    retention_days: int,
    batch_events: int = BATCH_EVENTS,
    stop: Signal | None = None,
    on_events: Callable[[int], None] = lambda _deleted: None,
) -> Purged:
    """Delete the events that are due, oldest first, and old rows of the run history.

    An event that is not counted is never deleted. After an interruption, run the purge again.
    Several purges at the same time take turns.

    Args:
        on_events: called between two transactions with the number of deleted events.
    """
    with database.reading() as connection:
        now = connection.execute(sa.select(database_now())).scalar_one()
    cutoff = now - timedelta(days=retention_days)
    database.write(lambda connection: forget_old_runs(connection, now))
    purged, idle, after = 0, 0, 0
    while idle < IDLE_BATCHES:
        if stop is not None and stop.is_set():
            return Purged(purged, finished=False)
        with database.reading() as connection:
            upto = _batch_end(connection, after, batch_events)
        if upto is None:
            break
        due = sa.and_(in_window(Window(after, upto)), issuance_events.c.received_at < cutoff)
        deleted = database.write(partial(_purge_batch, due=due))
        purged, idle, after = purged + deleted, 0 if deleted else idle + 1, upto
        on_events(purged)
    return Purged(purged, finished=True)


def _batch_end(connection: Connection, after: int, batch_events: int) -> int | None:
    """The last id of the next batch of counted events; ``None`` if there are no more."""
    event = issuance_events.c
    watermark = sa.select(rollup_state.c.watermark).scalar_subquery()
    batch = (
        sa.select(event.id)
        .where(event.id > after, event.id <= watermark)
        .order_by(event.id)
        .limit(batch_events)
        .subquery()
    )
    upto: int | None = connection.scalar(sa.select(sa.func.max(batch.c.id)))
    return upto


def _purge_batch(connection: Connection, *, due: sa.ColumnElement[bool]) -> int:
    # The lock on the state row keeps two purges from recording the same events. It also keeps a
    # rebuild from computing without events whose purge it does not see yet.
    read_state(connection, lock=True)
    upsert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert
    lost = sa.func.count().label("events")
    months = sa.select(issued_month.label("month"), lost).where(due).group_by(issued_month)
    record = upsert(purged_months).from_select(["month", "events"], months)
    connection.execute(
        record.on_conflict_do_update(
            index_elements=["month"],
            set_={"events": purged_months.c.events + record.excluded.events},
        )
    )
    return connection.execute(sa.delete(issuance_events).where(due)).rowcount
