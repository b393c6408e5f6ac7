"""The difference between a summary table and a recount: one statement, for verify and rebuild."""

from dataclasses import dataclass
from datetime import date
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Column, ColumnElement, Connection, Select, Table

from app.dates import MonthRange, months_without
from app.storage.tables import issuance_events, purged_months, rollup_state
from app.storage.types import database_now
from jobs.counting.buckets import issued_month
from jobs.counting.state import being_deleted
from jobs.counting.tables import Kept, Retention, SummaryTable, kept_days

FIRST_MONTH, LAST_MONTH = date(1970, 1, 1), date(9999, 12, 1)


@dataclass(frozen=True)
class Scope:
    """The requested months: ``ranges`` can be recounted, ``purged`` cannot.

    ``kept``: the first day that each table keeps; its months before are not compared.
    ``deleting``: organizations that are being deleted; they are not compared.
    """

    ranges: list[MonthRange]
    purged: list[date]
    kept: Kept
    deleting: tuple[str, ...] = ()


def scope(
    connection: Connection, first: date | None, last: date | None, retention: Retention
) -> Scope:
    """The months from ``first`` to ``last``, without those that lost raw events to a purge."""
    first, last = first or FIRST_MONTH, last or LAST_MONTH
    months = sa.select(purged_months.c.month).where(purged_months.c.month.between(first, last))
    purged = set(connection.scalars(months))
    now = connection.execute(sa.select(database_now())).scalar_one()
    kept = kept_days(retention, now)
    deleting = being_deleted(connection)
    return Scope(months_without(first, last, purged), sorted(purged), kept, deleting)


def difference(summary: SummaryTable, months: Scope) -> Select[Any]:
    """The buckets that differ: the key, then each value as ``stored_…`` and ``recounted_…``.

    The rows are in the order of the key. It is one statement, so that watermark, raw events and
    summary come from one snapshot. In one snapshot, a summary table holds exactly the events up to
    the watermark, less those that a backfill has yet to add.

    Args:
        months: the months to compare. A table without a period is compared as a whole.
    """
    values = ["issued", *summary.masks]
    ranges = summary.kept_ranges(months.ranges, months.kept)
    stored = sa.select(*(summary.table.c[name] for name in summary.columns))
    sides = {
        "stored": stored.where(
            summary.within(ranges), *without(summary.table, months.deleting)
        ).subquery("stored"),
        "recounted": _recount(summary, ranges, months).subquery("recounted"),
    }
    zero = sa.literal_column("0", sa.Integer)
    rows = [
        sa.select(
            *(rows.c[name] for name in summary.keys),
            *(
                (rows.c[name] if side == this else zero).label(f"{side}_{name}")
                for side in sides
                for name in values
            ),
        )
        for this, rows in sides.items()
    ]
    both = sa.union_all(*rows).subquery("both")
    keys = [both.c[name] for name in summary.keys]
    # Each side has one row for a key. On PostgreSQL the sum of big integers is a decimal; the cast
    # keeps it an integer.
    sums = {
        f"{side}_{name}": sa.cast(sa.func.sum(both.c[f"{side}_{name}"]), sa.BigInteger)
        for side in sides
        for name in values
    }
    differs = (sums[f"stored_{name}"] != sums[f"recounted_{name}"] for name in values)
    return (
        sa.select(*keys, *(total.label(name) for name, total in sums.items()))
        .group_by(*keys)
        .having(sa.or_(*differs))
        .order_by(*keys)
    )


def without(table: Table, tenants: tuple[str, ...]) -> list[ColumnElement[bool]]:
    """The condition that a row belongs to none of these organizations; none if there are none."""
    return [table.c.tenant_id.not_in(tenants)] if tenants else []


def _recount(summary: SummaryTable, ranges: list[MonthRange], months: Scope) -> Select[Any]:
    """The table's buckets, counted from the raw events or summed from its source."""
    if summary.source is None:
        within = (issued_month.between(first, last) for first, last in ranges)
        others = without(issuance_events, months.deleting)
        counted = sa.and_(counted_by(summary), *others)
        return summary.count(counted, sa.or_(sa.false(), *within), kept=months.kept)
    rows = summary.source.table
    key = [rows.c[name] for name in summary.keys]
    issued = sa.cast(sa.func.sum(rows.c.issued), sa.BigInteger).label("issued")
    conditions = without(rows, months.deleting)
    if summary.period is not None:
        conditions.append(summary.source.within(ranges))
    return sa.select(*key, issued).where(*conditions).group_by(*key)


def counted_by(summary: SummaryTable) -> ColumnElement[bool]:
    """The condition that the table counts an event, as the state row says."""
    event = issuance_events.c
    counted, backfilled, end = (
        sa.select(rollup_state.c[name]).scalar_subquery()
        for name in ("counted_upto", "backfilled", "backfill_end")
    )
    if not summary.finer:
        return event.id <= counted
    return sa.and_(event.id <= counted, sa.or_(event.id <= backfilled, event.id > end))


def deltas_of(summary: SummaryTable) -> Table:
    """The temporary table in which a rebuild keeps one summary table's differences.

    ``delta`` is what to add to ``issued``. A mask is the recounted one.
    """
    table = summary.table
    keys = [Column(name, table.c[name].type, nullable=False) for name in summary.keys]
    masks = [Column(name, table.c[name].type, nullable=False) for name in summary.masks]
    delta = Column("delta", sa.BigInteger, nullable=False)
    name = f"difference_{summary.name}"
    return Table(name, sa.MetaData(), *keys, delta, *masks, prefixes=["TEMPORARY"])
