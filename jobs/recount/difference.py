"""The difference between a summary table and a recount: one statement, for verify and rebuild."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Column, ColumnElement, Connection, Select, Table

from app.dates import MonthRange, months_without
from app.storage.tables import issuance_events, purged_months, rollup_state
from jobs.counting.buckets import issued_month
from jobs.counting.tables import SummaryTable

FIRST_MONTH, LAST_MONTH = date(1970, 1, 1), date(9999, 12, 1)


@dataclass(frozen=True)
class Scope:
    """The requested months: ``ranges`` can be recounted, ``purged`` cannot."""

    ranges: list[MonthRange]
    purged: list[date]


def scope(connection: Connection, first: date | None, last: date | None) -> Scope:
    """The months from ``first`` to ``last``, without those that lost raw events to a purge."""
    first, last = first or FIRST_MONTH, last or LAST_MONTH
    months = sa.select(purged_months.c.month).where(purged_months.c.month.between(first, last))
    purged = set(connection.scalars(months))
    return Scope(months_without(first, last, purged), sorted(purged))


def difference(summary: SummaryTable, ranges: Sequence[MonthRange]) -> Select[Any]:
    """The buckets that differ: key columns, ``stored``, ``recounted``, in the order of the key.

    It is one statement, so that watermark, raw events and summary come from one snapshot. In one
    snapshot, a summary table holds exactly the events up to the watermark.

    Args:
        ranges: the months to compare, by first and last month. A table without a period is
            compared as a whole.
    """
    names = summary.keys
    zero = sa.literal_column("0", sa.Integer)
    keys = [summary.table.c[name] for name in names]
    stored = sa.select(*keys, summary.table.c.issued.label("stored"), zero.label("recounted"))
    stored = stored.where(summary.within(ranges))
    both = sa.union_all(stored, _recount(summary, ranges)).subquery("both")
    # On PostgreSQL the sum of big integers is a decimal; the cast keeps it an integer.
    sums = {
        name: sa.cast(sa.func.sum(both.c[name]), sa.BigInteger) for name in ("stored", "recounted")
    }
    columns = [both.c[name] for name in names]
    return (
        sa.select(*columns, *(total.label(name) for name, total in sums.items()))
        .group_by(*columns)
        .having(sums["stored"] != sums["recounted"])
        .order_by(*columns)
    )


def _recount(summary: SummaryTable, ranges: Sequence[MonthRange]) -> Select[Any]:
    """The table's buckets, counted from the raw events or summed from its source."""
    zero = sa.literal_column("0", sa.Integer).label("stored")
    if summary.source is None:
        key = summary.key(issuance_events)
        counted: ColumnElement[int] = sa.func.count()
        watermark = sa.select(rollup_state.c.watermark).scalar_subquery()
        months = (issued_month.between(first, last) for first, last in ranges)
        conditions = [issuance_events.c.id <= watermark, sa.or_(sa.false(), *months)]
    else:
        rows = summary.source.table
        key = [rows.c[name] for name in summary.keys]
        counted = sa.cast(sa.func.sum(rows.c.issued), sa.BigInteger)
        conditions = [] if summary.period is None else [summary.source.within(ranges)]
    named = (part.label(name) for name, part in zip(summary.keys, key, strict=True))
    return sa.select(*named, zero, counted.label("recounted")).where(*conditions).group_by(*key)


def deltas_of(summary: SummaryTable) -> Table:
    """The temporary table in which a rebuild keeps one summary table's differences."""
    keys = [Column(name, summary.table.c[name].type, nullable=False) for name in summary.keys]
    name = f"difference_{summary.table.name}"
    delta = Column("delta", sa.BigInteger, nullable=False)
    return Table(name, sa.MetaData(), *keys, delta, prefixes=["TEMPORARY"])
