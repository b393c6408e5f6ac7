"""The summary tables, described.

Counting, verify, rebuild, backfill, retention and the documentation follow from these descriptions.
To add a table: declare its columns in ``app.storage.tables``, write a migration, and add a line to
``SUMMARY_TABLES``.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Union

import sqlalchemy as sa
from sqlalchemy import ColumnElement, FromClause, Select, Table

from app.dates import MonthRange, kept_from, last_day, months_from
from app.storage.tables import (
    daily_agent_issuance,
    daily_issuance,
    dow_hour_activity,
    dow_hour_total,
    hourly_issuance,
    issuance_events,
    monthly_agent_issuance,
)
from jobs.counting.buckets import (
    Beginning,
    Bucket,
    DayBeginning,
    HourBeginning,
    IssuedDow,
    IssuedHour,
    IssuedMonth,
    IssuedOn,
    MonthBeginning,
    MonthOf,
)

# For how many days each table keeps its rows, by its name; 0 or no entry: for good.
Retention = Mapping[str, int]
# The first day that each table keeps, by its name; no entry: every day.
Kept = Mapping[str, date]
FOR_GOOD: Retention = {}

# The parts that together identify a beginning.
_IDENTIFYING: dict[type[Beginning], set[type[Bucket[Any]]]] = {
    HourBeginning: {IssuedOn, IssuedHour},
    DayBeginning: {IssuedOn},
    MonthBeginning: {IssuedMonth},
}


@dataclass(frozen=True)
class Period:
    """The key column that places a bucket in a month.

    Args:
        month: the month of a value of the column, as SQL.
        end: the column's last value within a month, which is given as its first day.
    """

    column: str
    month: Callable[[ColumnElement[Any]], ColumnElement[date]]
    end: Callable[[date], date]


MONTH = Period("month", lambda first_day: first_day, lambda month: month)
DATE = Period("date", MonthOf, last_day)


class SummaryTable:
    """A summary table: its key, its period, and what it is recounted from.

    A key column is a part of ``issued_at``, or else the event's column of the same name.

    Args:
        table: its primary key starts with ``tenant_id``; ``issued`` is the number of events.
        grain: the beginning (of the hour, day or month) by which events are counted first. All
            events with one beginning must belong to one bucket. The parts are then computed for
            each beginning, not for each event.
        period: places a bucket in a month. ``None``: a bucket spans all months.
        source: the table it is recounted from, by sums over fewer key columns. ``None``: the raw
            events. A table without a period needs a source: raw events of old months are purged.
        mask: a column whose bit h is set if the bucket has an event of the UTC hour h. A run merges
            it by OR.
        finer: retention may delete its old months, and an upgrade that adds it leaves its days to
            ``flask rollup backfill``. So it may count fewer events than the others.
        parts: the part, for each key column that is a part of ``issued_at``.
    """

    def __init__(  # noqa: PLR0913 - the parts of one description
        self,
        table: Table[Any],
        grain: type[Beginning],
        *,
        period: Period | None,
        source: Union["SummaryTable", None] = None,
        mask: str | None = None,
        finer: bool = False,
        **parts: type[Bucket[Any]],
    ) -> None:
        if period is None and source is None:
            raise ValueError(f"{table.name} has neither a period nor a source")
        self.table = table
        self.name = str(table.name)
        self.keys = [column.name for column in table.primary_key]
        self.masks = [] if mask is None else [mask]
        self.grain = grain
        self.period = period
        self.source = source
        self.finer = finer
        self._parts = parts
        self.event_keys = [name for name in self.keys if name not in parts]

    @property
    def columns(self) -> list[str]:
        """The columns of the statements that follow: key, ``issued`` and mask."""
        return [*self.keys, "issued", *self.masks]

    def key(self, events: FromClause) -> list[ColumnElement[Any]]:
        """The key columns over ``events``, or over anything with the columns of events."""
        return [
            (self._parts[name](events.c.issued_at) if name in self._parts else events.c[name])
            for name in self.keys
        ]

    def month(self, rows: FromClause) -> ColumnElement[date] | None:
        """The first day of the month of each of ``rows``; ``None`` without a period."""
        return None if self.period is None else self.period.month(rows.c[self.period.column])

    def within(self, ranges: Sequence[MonthRange]) -> ColumnElement[bool]:
        """The condition that a bucket lies in some months; true for all without a period."""
        if self.period is None:
            return sa.true()
        column, end = self.table.c[self.period.column], self.period.end
        return sa.or_(sa.false(), *(column.between(first, end(last)) for first, last in ranges))

    def kept_ranges(self, ranges: Sequence[MonthRange], kept: Kept) -> list[MonthRange]:
        """The part of some months that the table keeps."""
        return months_from(kept.get(self.name), ranges)

    def count(self, *conditions: ColumnElement[bool], kept: Kept) -> Select[Any]:
        """The events that meet the conditions, by bucket, as ``columns``."""
        counted = count_events(self.event_keys, self.grain, self.masks, *conditions)
        return self.sum(counted.subquery("counted"), self.grain, kept=kept)

    def sum(self, counted: FromClause, by: type[Beginning], *, kept: Kept) -> Select[Any]:
        """Events that are already counted by a beginning, by bucket, as ``columns``.

        Args:
            counted: the result of :func:`count_events`.
            by: its kind of beginning: the grain, or a finer one.
        """
        key = self.key(counted)
        named = [part.label(name) for name, part in zip(self.keys, key, strict=True)]
        if set(self._parts.values()) == _IDENTIFYING.get(by):
            # Each row is a bucket already. Grouping all of them again would take long.
            summed = sa.select(*named, *(counted.c[name] for name in ("issued", *self.masks)))
        else:
            # On PostgreSQL the sum of big integers is a decimal; the cast keeps it an integer.
            issued = sa.cast(sa.func.sum(counted.c.issued), sa.BigInteger)
            masks = [sa.func.bit_or(counted.c[name]).label(name) for name in self.masks]
            summed = sa.select(*named, issued.label("issued"), *masks).group_by(*key)
        first = kept.get(self.name)
        if first is None or self.period is None:
            return summed
        return summed.where(self._parts[self.period.column](counted.c.issued_at) >= first)


_ACTIVITY = SummaryTable(
    dow_hour_activity,
    HourBeginning,
    period=MONTH,
    month=IssuedMonth,
    dow=IssuedDow,
    hour=IssuedHour,
)
# A table comes after its source, because a rebuild repairs the tables in this order.
SUMMARY_TABLES = (
    SummaryTable(daily_issuance, DayBeginning, period=DATE, date=IssuedOn),
    _ACTIVITY,
    SummaryTable(monthly_agent_issuance, MonthBeginning, period=MONTH, month=IssuedMonth),
    SummaryTable(
        hourly_issuance, HourBeginning, period=DATE, finer=True, date=IssuedOn, hour=IssuedHour
    ),
    SummaryTable(
        daily_agent_issuance, DayBeginning, period=DATE, mask="hours", finer=True, date=IssuedOn
    ),
    SummaryTable(
        dow_hour_total,
        HourBeginning,
        period=None,
        source=_ACTIVITY,
        dow=IssuedDow,
        hour=IssuedHour,
    ),
)
FINER_TABLES = tuple(summary for summary in SUMMARY_TABLES if summary.finer)


def count_events(
    keys: Sequence[str],
    by: type[Beginning],
    masks: Iterable[str],
    *conditions: ColumnElement[bool],
) -> Select[Any]:
    """The events that meet the conditions, counted by some of their columns and a beginning.

    The columns are the keys, the beginning as ``issued_at``, the number of events as ``issued``,
    and the masks.
    """
    event = issuance_events.c
    others, beginning = [event[name] for name in keys], by(event.issued_at)
    one = sa.literal_column("1", sa.Integer)
    mask = sa.func.bit_or(one.bitwise_lshift(IssuedHour(event.issued_at)))
    values = (sa.func.count().label("issued"), *(mask.label(name) for name in masks))
    counted = sa.select(*others, beginning.label("issued_at"), *values)
    return counted.where(*conditions).group_by(*others, beginning)


def kept_days(retention: Retention, now: datetime) -> Kept:
    """The first day that each table keeps at ``now``."""
    first_days = {name: kept_from(now.date(), days) for name, days in retention.items()}
    return {name: first for name, first in first_days.items() if first is not None}
