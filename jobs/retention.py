"""Retention: delete counted raw events, and old months of the finer summary tables.

Events that were received before the retention period are deleted in short batches, because a DELETE
takes the same lock as a writer, and a run waits for that lock. The transaction of each batch also
records how many events of each month it deletes, so that verify and rebuild leave these months out.

A plain INSERT may set ``received_at`` to any time. A receipt in the future would never be due, and
one in 1970 would spoil a recent month for every tenant. So neither is believed. Then ``issued_at``
decides.

Months that a summary table no longer keeps are deleted as a whole, some organizations at a time.
Runs do not write them, and verify and rebuild leave them out. So runs go on meanwhile: the lock on
the state row is only held to note the first day that is kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from threading import Event as Signal
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection
from sqlalchemy.dialects import postgresql, sqlite

from app.storage.audit import forget_old_changes
from app.storage.database import Database
from app.storage.tables import (
    dow_hour_total,
    issuance_events,
    page_sessions,
    purged_months,
    rollup_state,
)
from app.storage.types import database_now
from jobs.counting.adding import Window, in_window
from jobs.counting.backfill import refuse_before_backfill
from jobs.counting.buckets import issued_month
from jobs.counting.history import forget_old_runs
from jobs.counting.refusals import note_newest, refuse_refused
from jobs.counting.state import being_deleted, note_first_kept, read_state
from jobs.counting.tables import FINER_TABLES, Kept, Retention, kept_days
from jobs.counting.watermark import candidate_or_refusal

BATCH_EVENTS = 10_000
BATCH_TENANTS = 50
# Ids ascend nearly in the order of receipt. So after this many batches in a row with recent events
# and nothing to delete, a purge ends. To find a few more, it would have to read all events that are
# kept.
IDLE_BATCHES = 10
# The clocks of writers may be this much ahead: the API takes such events.
AHEAD = timedelta(minutes=5)
# A receipt this long before the retention period is not believed. A purge runs every hour, so such
# an event would have been deleted long ago.
LONG_BEFORE = timedelta(days=366)


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
    """Delete the events that are due, oldest first, and old rows of the run history and audit log,
    and sessions that are over.

    An event that is not counted is never deleted. After an interruption, run the purge again.
    Several purges at the same time take turns.

    Args:
        on_events: called between two transactions with the number of deleted events.

    Raises:
        RefusedError: counting is refused, so events up to the watermark may be uncounted. Or a
            backfill has yet to count some events.
    """
    with database.reading() as connection:
        state = read_state(connection, rollup_state, database_now().label("now"))
    now = state.now
    database.write(partial(_forget_old_history, now=now))
    candidate_or_refusal(database, state)
    refuse_before_backfill(state)
    receipt = _Receipt(now, now - timedelta(days=retention_days))
    purged, idle, after = 0, 0, 0
    while idle < IDLE_BATCHES:
        if stop is not None and stop.is_set():
            return Purged(purged, finished=False)
        with database.reading() as connection:
            upto, recent = _next_batch(connection, after, batch_events, receipt)
        if upto is None:
            break
        deleted = database.write(
            partial(_purge_batch, window=Window(after, upto), due=receipt.due())
        )
        idle = 0 if deleted else idle + recent
        purged, after = purged + deleted, upto
        on_events(purged)
    return Purged(purged, finished=True)


def _forget_old_history(connection: Connection, *, now: datetime) -> None:
    forget_old_runs(connection, now)
    forget_old_changes(connection, now)
    connection.execute(sa.delete(page_sessions).where(page_sessions.c.expires_at <= now))


def delete_old_months(
    database: Database, *, retention: Retention, stop: Signal | None = None
) -> int:
    """Delete the months that summary tables do not keep; returns the number of buckets.

    Organizations are taken from a small table that has all of them, and some at a time. So each
    transaction is short, and finds its rows by the key.
    """
    with database.reading() as connection:
        kept = kept_days(retention, connection.execute(sa.select(database_now())).scalar_one())
    tenant, deleted, after = dow_hour_total.c.tenant_id, 0, ""
    while kept and not (stop is not None and stop.is_set()):
        batch = sa.select(tenant).distinct().where(tenant > after).order_by(tenant)
        with database.reading() as connection:
            tenants = connection.scalars(batch.limit(BATCH_TENANTS)).all()
        if not tenants:
            break
        if not after:
            database.write(partial(_note_kept, kept=kept))
        deleted += database.write(partial(_delete_months_of, tenants=tenants, kept=kept))
        after = tenants[-1]
    return deleted


def _note_kept(connection: Connection, *, kept: Kept) -> None:
    note_first_kept(connection, read_state(connection, lock=True), kept)


def _delete_months_of(connection: Connection, *, tenants: Sequence[str], kept: Kept) -> int:
    deleted = 0
    for table in (one.table for one in FINER_TABLES if one.name in kept):
        old = sa.and_(table.c.tenant_id.in_(tenants), table.c.date < kept[str(table.name)])
        deleted += connection.execute(sa.delete(table).where(old)).rowcount
    return deleted


class _Receipt(NamedTuple):
    """Conditions on the receipt of an event, at one time."""

    now: datetime
    cutoff: datetime

    def due(self) -> ColumnElement[bool]:
        """It was received before the retention period; without a believable receipt, issued."""
        event = issuance_events.c
        earliest, latest = self.cutoff - LONG_BEFORE, self.now + AHEAD
        received = sa.and_(event.received_at >= earliest, event.received_at < self.cutoff)
        absurd = sa.or_(event.received_at < earliest, event.received_at > latest)
        return sa.or_(received, sa.and_(absurd, event.issued_at < self.cutoff))

    def recent(self) -> ColumnElement[bool]:
        """It was received within the retention period, so events with later ids were as well."""
        return issuance_events.c.received_at.between(self.cutoff, self.now + AHEAD)


def _next_batch(
    connection: Connection, after: int, batch_events: int, receipt: _Receipt
) -> tuple[int | None, bool]:
    """The last id of the next batch of counted events, and whether an event there is recent.

    ``None`` if there are no more counted events.
    """
    event = issuance_events.c
    watermark = sa.select(rollup_state.c.counted_upto).scalar_subquery()
    recent = sa.case((receipt.recent(), 1), else_=0).label("recent")
    batch = (
        sa.select(event.id, recent)
        .where(event.id > after, event.id <= watermark)
        .order_by(event.id)
        .limit(batch_events)
        .subquery()
    )
    upto, found = connection.execute(
        sa.select(sa.func.max(batch.c.id), sa.func.max(batch.c.recent))
    ).one()
    return upto, bool(found)


def _purge_batch(connection: Connection, *, window: Window, due: ColumnElement[bool]) -> int:
    # The lock on the state row keeps two purges from recording the same events. It also keeps a
    # rebuild from computing without events whose purge it does not see yet.
    state = read_state(connection, lock=True)
    refuse_refused(state)
    refuse_before_backfill(state)
    # purged_months leaves out the events of organizations that are being deleted.
    deleting = being_deleted(connection)
    others = [issuance_events.c.tenant_id.not_in(deleting)] if deleting else []
    due = sa.and_(in_window(window), due, *others)
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
    deleted = connection.execute(sa.delete(issuance_events).where(due)).rowcount
    if deleted and window.after < (state.newest or 0) <= window.upto:
        note_newest(connection, state.newest_upto)
    return deleted
