"""Resume: end a refusal to count, after a recount of all events.

The order makes it exact:

1. Lock the events against writers for a moment. So every transaction that has drawn an id ends
   first. Then move the id sequence beyond the watermark and beyond every event. From now on, the
   events up to the watermark are all there, and no new one joins them. A switch-over leaves the
   sequences of the history and of the audit log behind as well, so they are moved, too.
2. Rebuild every month whose raw events are all kept. This adds the events that were never counted.
   It refuses if counted events are missing. With an accepted loss, the numbers of those tenants'
   months stay as they are, and all others are made equal to a recount.
3. Compare the totals of purged months: stored = kept + purged. They cannot be rebuilt.
4. Note the newest counted event, check ids and sequence once more, and end the refusal.
"""

from dataclasses import dataclass
from datetime import date
from functools import partial

import sqlalchemy as sa
from sqlalchemy import Column, Connection
from sqlalchemy.exc import DBAPIError

from app.errors import RefusedError
from app.storage.audit import record_change, shell_user
from app.storage.database import Database
from app.storage.tables import (
    audit_log,
    daily_issuance,
    issuance_events,
    purged_months,
    rollup_runs,
    rollup_state,
)
from app.storage.types import database_now
from jobs.counting.buckets import MonthOf, issued_month
from jobs.counting.refusals import checked_newest_id, note_newest
from jobs.counting.sequences import advance
from jobs.counting.state import await_parts, being_deleted, read_state
from jobs.counting.tables import FOR_GOOD, Retention
from jobs.recount.difference import without
from jobs.recount.lost import Lost, LostEventsError
from jobs.recount.rebuild import OnStep, Rebuilt, rebuild_kept_months

# How long to wait for open writers. Later writers wait as well.
WAIT_SECONDS = 10.0
_INSUFFICIENT_PRIVILEGE = "42501"


@dataclass(frozen=True)
class Resumed:
    """The refusal that ended, if there was one, and the corrections.

    ``lost``: the counted events that are missing; their tenants' months keep their numbers.
    ``uncounted``: events that are kept and stay uncounted, at least, because they are of such a
    month or of a purged one.
    """

    refusal: str | None
    buckets: int
    correction: int | None
    lost: str | None
    uncounted: int


def resume(
    database: Database,
    *,
    accept_loss: bool = False,
    retention: Retention = FOR_GOOD,
    on_step: OnStep = lambda _done, _all: None,
) -> Resumed:
    """End the refusal to count, if a recount can prove the numbers or make them right.

    Args:
        accept_loss: where counted events of a tenant's month are missing, keep its numbers, and
            treat the month as purged.
        retention, on_step: as for ``rebuild``.

    Raises:
        RefusedError: the numbers cannot be proven; the message says what to do.
        LockedError: a writer stays open; the message names it.
    """
    with database.reading() as connection:
        refusal = read_state(connection).refusal
    database.write(_settle_ids, lock_seconds=WAIT_SECONDS)
    rebuilt, lost = _rebuild(database, on_step, retention, accept_loss=accept_loss)
    uncounted = database.write(partial(_end, accept_loss=accept_loss))
    found = None
    if lost is not None:
        found, uncounted = lost.found, uncounted + lost.uncounted
    return Resumed(refusal, rebuilt.buckets, rebuilt.correction, found, uncounted)


def _settle_ids(connection: Connection) -> None:
    """Wait for all writers, then move each sequence beyond its rows and beyond the watermark."""
    if connection.dialect.name == "postgresql":
        lock = f"LOCK TABLE {issuance_events.name} IN SHARE ROW EXCLUSIVE MODE"
        connection.execute(sa.text(lock))
        # On a cluster, a writer that has ended here may have left prepared parts at the nodes.
        await_parts(connection, [issuance_events])
    watermark = read_state(connection).counted_upto
    newest = {issuance_events.c.id: watermark, rollup_runs.c.id: 0, audit_log.c.id: 0}
    try:
        for column, least in newest.items():
            advance(connection, column, max(least, _newest(connection, column)))
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _INSUFFICIENT_PRIVILEGE:
            raise
        raise RefusedError(
            "this role may not move the id sequences: run this as the owner of the tables"
        ) from error


def _newest(connection: Connection, column: Column[int]) -> int:
    return connection.scalar(sa.select(sa.func.max(column))) or 0


def _rebuild(
    database: Database, on_step: OnStep, retention: Retention, *, accept_loss: bool
) -> tuple[Rebuilt, Lost | None]:
    try:
        return rebuild_kept_months(
            database, accept_loss=accept_loss, retention=retention, on_step=on_step
        )
    except LostEventsError as error:
        raise LostEventsError(
            f"{error.lost.found}: restore events and tables from one backup. If the events are lost"
            " for good, `flask rollup resume --accept-loss` keeps these numbers, and treats their"
            " months as purged, or `flask rollup rebuild --force` makes the numbers equal to the"
            " events that are left",
            error.lost,
        ) from None


def _end(connection: Connection, *, accept_loss: bool) -> int:
    """End the refusal; returns the number of kept events that stay uncounted."""
    state = read_state(connection, lock=True)
    uncounted = 0
    for month, (stored, kept, purged) in _purged_totals(connection, state.counted_upto).items():
        if stored == kept + purged:
            continue
        if not accept_loss:
            raise RefusedError(
                f"{month:%Y-%m} cannot be recounted, because raw events were purged, and its"
                f" numbers do not add up: {stored} events are counted, {kept} are kept and {purged}"
                " were purged. `flask rollup resume --accept-loss` keeps the numbers as they are"
            )
        uncounted += max(kept + purged - stored, 0)
        here = purged_months.c.month == month
        connection.execute(sa.update(purged_months).where(here).values(events=stored - kept))
    note_newest(connection, state.counted_upto)
    # A candidate may be of another server, whose writers mean nothing here.
    connection.execute(sa.update(rollup_state).values(refusal=None, candidate=None, writers=None))
    checked_newest_id(connection, read_state(connection))
    if state.refusal is not None:
        record_change(
            connection,
            tenant_id=None,
            actor=shell_user(),
            action="rollup.resumed",
            subject="counting",
            details={"refusal": state.refusal, "acceptLoss": accept_loss},
            at=connection.execute(sa.select(database_now())).scalar_one(),
        )
    return uncounted


def _purged_totals(connection: Connection, watermark: int) -> dict[date, tuple[int, int, int]]:
    """The events of each purged month: those that are counted, kept and purged."""
    purged = {row.month: row.events for row in connection.execute(sa.select(purged_months))}
    if not purged:
        return {}
    day, event = daily_issuance.c, issuance_events.c
    month = MonthOf(day.date).label("month")
    total = sa.cast(sa.func.sum(day.issued), sa.BigInteger)
    deleting = being_deleted(connection)
    counted = sa.select(month, total).where(*without(daily_issuance, deleting)).group_by(month)
    kept_month = issued_month.label("month")
    ours = (event.id <= watermark, *without(issuance_events, deleting))
    kept = sa.select(kept_month, sa.func.count()).where(*ours).group_by(kept_month)
    stored = {row[0]: row[1] for row in connection.execute(counted)}
    left = {row[0]: row[1] for row in connection.execute(kept)}
    return {
        month: (stored.get(month, 0), left.get(month, 0), events)
        for month, events in sorted(purged.items())
    }
