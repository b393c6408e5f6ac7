"""What the summary tables say against a recount of the raw events: verify's and rebuild's one
statement."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Select

from app.dates import last_day, months_without
from app.storage.tables import issuance_events, purged_months, rollup_state
from jobs.counting.buckets import issued_month
from jobs.counting.tables import Rollup

FIRST_MONTH, LAST_MONTH = date(1970, 1, 1), date(9999, 12, 1)

MonthRange = tuple[date, date]


@dataclass(frozen=True)
class Scope:
    """Months that were asked for: those that can be recounted, in ranges, and the others."""

    ranges: list[MonthRange]
    purged: list[date]


def scope(connection: Connection, first: date | None, last: date | None) -> Scope:
    """Leave out the months whose raw events were purged, wholly or partly."""
    first, last = first or FIRST_MONTH, last or LAST_MONTH
    months = sa.select(purged_months.c.month).where(purged_months.c.month.between(first, last))
    purged = set(connection.scalars(months))
    return Scope(months_without(first, last, purged), sorted(purged))


def difference(rollup: Rollup, ranges: Sequence[MonthRange]) -> Select[Any]:
    """The buckets of some months that differ: key columns, ``stored``, ``recounted``.

    One statement, so that watermark, raw events and summary come from one snapshot. A
    summary table holds exactly the events up to the watermark that it is committed with.
    """
    names = rollup.keys
    zero = sa.literal_column("0", sa.Integer)
    keys = [rollup.table.c[name] for name in names]
    stored = sa.select(*keys, rollup.table.c.issued.label("stored"), zero.label("recounted"))
    recount = rollup.key(issuance_events)
    expressions = [part.label(name) for name, part in zip(names, recount, strict=True)]
    watermark = sa.select(rollup_state.c.watermark).scalar_subquery()
    recounted = (
        sa.select(*expressions, zero.label("stored"), sa.func.count().label("recounted"))
        .where(issuance_events.c.id <= watermark, _within(issued_month, ranges))
        .group_by(*recount)
    )
    both = sa.union_all(stored.where(_stored_within(rollup, ranges)), recounted).subquery("both")
    # The sum of big integers is a decimal on PostgreSQL; a count stays an integer.
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


def _stored_within(rollup: Rollup, ranges: Sequence[MonthRange]) -> ColumnElement[bool]:
    if "month" in rollup.keys:
        return _within(rollup.table.c.month, ranges)
    return _within(rollup.table.c.date, [(first, last_day(last)) for first, last in ranges])


def _within(period: ColumnElement[date], ranges: Sequence[MonthRange]) -> ColumnElement[bool]:
    return sa.or_(sa.false(), *(period.between(first, last) for first, last in ranges))
