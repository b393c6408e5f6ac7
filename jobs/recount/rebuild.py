"""Rebuild: repair the summary tables of some months from the raw events.

The differences are computed first, while ingest and runs continue. They are then *added* in one
short transaction that locks the state row. Adding is right even if a run has counted in between,
because runs only add as well. A mask of hours is replaced by the recounted one, together with the
hours of the events that were counted in between. A rebuild starts again if another rebuild has
changed numbers since the differences were computed. A table with a source is compared with that
source in the short transaction, after the source is repaired.

A recount is right only if the raw events are all there: see ``jobs.recount.lost``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection, Row, Table
from sqlalchemy.dialects import postgresql, sqlite

from app.errors import RefusedError
from app.storage.audit import record_change, shell_user, system_user
from app.storage.citus import is_citus
from app.storage.database import Database
from app.storage.tables import issuance_events, rollup_corrections, rollup_state
from app.storage.types import database_now
from jobs.counting.state import read_state
from jobs.counting.tables import FOR_GOOD, SUMMARY_TABLES, Retention, SummaryTable
from jobs.recount.difference import Scope, deltas_of, difference
from jobs.recount.difference import scope as months_of
from jobs.recount.lost import Lost, keep_numbers, refuse_lost_events

ATTEMPTS = 5
# Each table's difference, then the transaction that adds them all.
STEPS = len(SUMMARY_TABLES) + 1

OnStep = Callable[[int, int], None]
Months = Callable[[Connection], Scope]
# Called before the differences are added: refuses lost events, or takes them out.
Heed = Callable[[Connection], Lost | None]


@dataclass(frozen=True)
class Rebuilt:
    """The number of corrected buckets, and the correction's number in the journal if it has one."""

    buckets: int
    correction: int | None


def rebuild(  # noqa: PLR0913 - the options of the command
    database: Database,
    first: date,
    last: date,
    *,
    force: bool = False,
    retention: Retention = FOR_GOOD,
    on_step: OnStep = lambda _done, _all: None,
) -> Rebuilt:
    """Make the months from ``first`` to ``last`` equal to a recount.

    Args:
        force: make them equal to the raw events that are left, even if some are lost.
        retention: for how many days summary tables keep their rows; older months are left alone.
        on_step: called with the steps done and their number, never while the state lock is held.

    Raises:
        RefusedError: raw events of a month were purged, so that month cannot be recounted.
        LostEventsError: raw events of a month are lost.
    """
    months = partial(_rebuildable, first=first, last=last, retention=retention)
    return _rebuild(database, months, _follow if force else refuse_lost_events, on_step)[0]


def rebuild_kept_months(
    database: Database,
    *,
    accept_loss: bool = False,
    retention: Retention = FOR_GOOD,
    on_step: OnStep = lambda _done, _all: None,
) -> tuple[Rebuilt, Lost | None]:
    """Make every month equal to a recount, except months whose raw events were purged.

    Args:
        accept_loss: where raw events of a tenant's month are lost, keep its numbers, and treat the
            month as purged.
        retention: as for ``rebuild``.

    Raises:
        LostEventsError: raw events of a month are lost.
    """
    months = partial(months_of, first=None, last=None, retention=retention)
    heed = keep_numbers if accept_loss else partial(refuse_lost_events, strict=True)
    return _rebuild(database, months, heed, on_step)


def _rebuild(
    database: Database, months: Months, heed: Heed, on_step: OnStep
) -> tuple[Rebuilt, Lost | None]:
    compute = partial(_compute, months=months, on_step=on_step)
    apply = partial(_apply, months=months, heed=heed)
    for _ in range(ATTEMPTS):
        done = database.read_then_write(compute, apply)
        if done is not None:
            on_step(STEPS, STEPS)
            return done
    raise RefusedError("other rebuilds keep changing numbers; run this again when they have ended")


class _Computed(NamedTuple):
    """The state row before the differences were computed, and the months that were compared."""

    state: Row[Any]
    months: Scope


def _compute(connection: Connection, *, months: Months, on_step: OnStep) -> _Computed:
    """Store each table's difference in a temporary table."""
    # The nodes of a cluster share no snapshot, so on a cluster the lock makes runs wait.
    state = read_state(connection, lock=is_citus(connection))
    scope = months(connection)
    for done, summary in enumerate(SUMMARY_TABLES):
        on_step(done, STEPS)
        deltas_of(summary).create(connection, checkfirst=False)
        if summary.source is None:
            _store_deltas(connection, summary, scope)
    on_step(len(SUMMARY_TABLES), STEPS)
    return _Computed(state, scope)


def _store_deltas(connection: Connection, summary: SummaryTable, months: Scope) -> None:
    found = difference(summary, months).subquery()
    keys = [found.c[name] for name in summary.keys]
    masks = [found.c[f"recounted_{name}"] for name in summary.masks]
    rows = sa.select(*keys, found.c.recounted_issued - found.c.stored_issued, *masks)
    columns = [*summary.keys, "delta", *summary.masks]
    connection.execute(sa.insert(deltas_of(summary)).from_select(columns, rows))


def _apply(
    connection: Connection, computed: _Computed, *, months: Months, heed: Heed
) -> tuple[Rebuilt, Lost | None] | None:
    """Add the differences; returns ``None`` if they are out of date, so that none may be added.

    Another rebuild may have changed numbers meanwhile. Or a purge has begun with a month: the
    differences may have been computed partly before and partly after it.
    """
    before, scope = computed.state.corrections, computed.months
    state = read_state(connection, lock=True)
    if state.corrections != before or months(connection) != scope:
        return None
    lost = heed(connection)
    buckets = 0
    for summary in SUMMARY_TABLES:
        deltas = deltas_of(summary)
        if summary.source is not None:
            _store_deltas(connection, summary, scope)
        if summary.masks:
            _add_hours_since(connection, summary, deltas, computed, state)
        buckets += connection.execute(sa.select(sa.func.count()).select_from(deltas)).scalar_one()
        _add_empty(connection, summary, deltas)
        _write_journal(connection, summary, deltas, before + 1)
        _add_deltas(connection, summary, deltas)
    if not buckets:
        return Rebuilt(0, None), lost
    connection.execute(sa.update(rollup_state).values(corrections=before + 1))
    record_change(
        connection,
        tenant_id=None,
        actor=shell_user(),
        action="rollup.rebuilt",
        subject=f"correction {before + 1}",
        details={"buckets": buckets},
        at=connection.execute(sa.select(database_now())).scalar_one(),
    )
    return Rebuilt(buckets, before + 1), lost


def _follow(_connection: Connection) -> None:
    """Heed no lost events: the raw events that are left decide."""


def _rebuildable(connection: Connection, *, first: date, last: date, retention: Retention) -> Scope:
    months = months_of(connection, first, last, retention)
    if months.purged:
        names = ", ".join(f"{month:%Y-%m}" for month in months.purged)
        raise RefusedError(
            f"these months cannot be rebuilt, because raw events were purged: {names}"
        )
    return months


def _add_hours_since(
    connection: Connection,
    summary: SummaryTable,
    deltas: Table,
    computed: _Computed,
    state: Row[Any],
) -> None:
    """Add the hours of the events that a run or a backfill has counted since the comparison.

    The comparison may have seen some of them already, which changes no mask.
    """
    event, before = issuance_events.c, computed.state
    moved = (
        (before.counted_upto, state.counted_upto),
        (before.backfilled, state.backfilled),
    )
    counted = [sa.and_(event.id > after, event.id <= upto) for after, upto in moved]
    since = summary.count(sa.or_(*counted), kept=computed.months.kept).subquery("since")
    same = (deltas.c[name] == since.c[name] for name in summary.keys)
    masks = {name: deltas.c[name].bitwise_or(since.c[name]) for name in summary.masks}
    connection.execute(sa.update(deltas).values(masks).where(*same))


def _add_empty(connection: Connection, summary: SummaryTable, deltas: Table) -> None:
    """Insert the missing buckets with zero events."""
    upsert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert
    # Without a WHERE, SQLite would read the ON of ON CONFLICT as the condition of a join.
    zeros = [sa.literal(0) for _ in ("issued", *summary.masks)]
    empty = sa.select(*(deltas.c[name] for name in summary.keys), *zeros).where(sa.true())
    missing = upsert(summary.table).from_select(summary.columns, empty)
    connection.execute(missing.on_conflict_do_nothing())


def _write_journal(
    connection: Connection, summary: SummaryTable, deltas: Table, number: int
) -> None:
    """Write a row for each tenant and month whose total is about to change.

    By now every such month has a bucket, which may be empty. In a table without a period the month
    is null, and the total is of all months.
    """
    table, month, changing = summary.table, summary.month(summary.table), summary.month(deltas)
    by = [deltas.c.tenant_id, *([] if changing is None else [changing.label("month")])]
    changed = (
        sa.select(*by, sa.func.sum(deltas.c.delta).label("delta")).group_by(*by).subquery("changed")
    )
    same = [table.c.tenant_id == changed.c.tenant_id]
    no_month: sa.ColumnElement[Any] = sa.cast(sa.null(), sa.Date)
    if month is not None:
        same.append(month == changed.c.month)
    old = sa.func.sum(table.c.issued)
    values = {
        "tenant_id": table.c.tenant_id,
        "correction": sa.literal(number),
        "table_name": sa.literal(table.name),
        "month": no_month if month is None else changed.c.month,
        "old_total": old,
        "new_total": old + changed.c.delta,
        "corrected_at": database_now(),
        "corrected_by": sa.literal(system_user()),
    }
    rows = (
        sa.select(*(value.label(name) for name, value in values.items()))
        .select_from(table.join(changed, sa.and_(*same)))
        .group_by(table.c.tenant_id, *changed.c)
    )
    connection.execute(sa.insert(rollup_corrections).from_select(list(values), rows))


def _add_deltas(connection: Connection, summary: SummaryTable, deltas: Table) -> None:
    """Add each difference to its bucket, and delete the touched buckets that are then zero."""
    table, names = summary.table, summary.keys
    same = sa.and_(*(table.c[name] == deltas.c[name] for name in names))
    values = {"issued": table.c.issued + deltas.c.delta}
    masks = {name: deltas.c[name] for name in summary.masks}
    connection.execute(sa.update(table).values(values | masks).where(same))
    touched = sa.tuple_(*(table.c[name] for name in names)).in_(
        sa.select(*(deltas.c[name] for name in names))
    )
    connection.execute(sa.delete(table).where(table.c.issued == 0, touched))
