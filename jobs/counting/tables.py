"""The summary tables, described, and the statements that add events to them.

Counting, verify, rebuild and the documentation follow from these descriptions. To add a table:
declare its columns in ``app.storage.tables``, write a migration, and add a line to
``SUMMARY_TABLES``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Union

import sqlalchemy as sa
from sqlalchemy import CTE, ColumnElement, Connection, FromClause, Select, Table
from sqlalchemy.dialects.postgresql import Insert as PostgreSQLInsert
from sqlalchemy.dialects.sqlite import Insert as SQLiteInsert

from app.dates import MonthRange, last_day
from app.storage.tables import (
    daily_issuance,
    dow_hour_activity,
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

_HASHING = sa.select(
    *(
        sa.func.set_config(name, value, True)
        for name, value in (("enable_sort", "off"), ("hash_mem_multiplier", "8"), ("jit", "off"))
    )
)

Upsert = type[PostgreSQLInsert] | type[SQLiteInsert]


@dataclass(frozen=True)
class Window:
    """The events with ``after < id <= upto``."""

    after: int
    upto: int


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
        parts: the part, for each key column that is a part of ``issued_at``.
    """

    def __init__(
        self,
        table: Table[Any],
        grain: type[Beginning],
        *,
        period: Period | None,
        source: Union["SummaryTable", None] = None,
        **parts: type[Bucket[Any]],
    ) -> None:
        if period is None and source is None:
            raise ValueError(f"{table.name} has neither a period nor a source")
        self.table = table
        self.name = str(table.name)
        self.keys = [column.name for column in table.primary_key]
        self.grain = grain
        self.period = period
        self.source = source
        self._parts = parts
        self.event_keys = [name for name in self.keys if name not in parts]

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

    def count(self, window: Window) -> Select[Any]:
        """The window's events by bucket: the key columns and ``issued``."""
        event = issuance_events.c
        others = [event[name] for name in self.event_keys]
        beginning = self.grain(event.issued_at)
        counted = (
            sa.select(*others, beginning.label("issued_at"), sa.func.count().label("issued"))
            .where(in_window(window))
            .group_by(*others, beginning)
        )
        return self.sum(counted.subquery("counted"))

    def sum(self, counted: FromClause) -> Select[Any]:
        """Events that are already counted by a beginning, by bucket.

        Args:
            counted: the beginning as ``issued_at``, the number of events as ``issued``.
        """
        key = self.key(counted)
        # On PostgreSQL the sum of big integers is a decimal; the cast keeps it an integer.
        issued = sa.cast(sa.func.sum(counted.c.issued), sa.BigInteger)
        return sa.select(*key, issued.label("issued")).group_by(*key)


# A table comes after its source, because a rebuild repairs the tables in this order.
SUMMARY_TABLES = (
    SummaryTable(daily_issuance, DayBeginning, period=DATE, date=IssuedOn),
    SummaryTable(
        dow_hour_activity,
        HourBeginning,
        period=MONTH,
        month=IssuedMonth,
        dow=IssuedDow,
        hour=IssuedHour,
    ),
    SummaryTable(monthly_agent_issuance, MonthBeginning, period=MONTH, month=IssuedMonth),
)


def in_window(window: Window) -> ColumnElement[bool]:
    """The condition that an event lies in ``window``."""
    return sa.and_(
        issuance_events.c.id > sa.bindparam("after", window.after),
        issuance_events.c.id <= sa.bindparam("upto", window.upto),
    )


def prepare_adding(connection: Connection) -> None:
    """Make PostgreSQL group by hashing until the transaction ends.

    Its statistics describe columns, not expressions over them. So by default it expects nearly as
    many buckets as events, sorts a million events, and takes twice as long. One grouping may use
    32 MB at the default ``work_mem``; the rest goes to disk.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(_HASHING)


def add_window(
    summary: SummaryTable, upsert: Upsert, window: Window
) -> PostgreSQLInsert | SQLiteInsert:
    """Add the window's events to one summary table.

    One statement, grouped in the database. It works on SQLite, PostgreSQL and a sharded
    PostgreSQL, because every key starts with ``tenant_id``. Its row count is the number of
    buckets touched.
    """
    return _add(summary, upsert, summary.count(window))


def add_window_to_all(window: Window) -> Select[int, int]:
    """Add the window's events to every summary table, in one statement.

    It selects the number of events and the number of buckets touched. It reads the events once,
    whereas :func:`add_window` reads them for each table. SQLite has no grouping sets, and Citus
    cannot distribute a statement that writes several tables.
    """
    counted = _count_for_all(window)
    added = [
        _add(summary, PostgreSQLInsert, summary.sum(_counted_for(summary, counted)))
        .returning(sa.literal_column("1", sa.Integer))
        .cte(f"added_to_{summary.name}")
        for summary in SUMMARY_TABLES
    ]
    buckets = [sa.select(sa.func.count()).select_from(one).scalar_subquery() for one in added]
    events = sa.select(
        sa.func.coalesce(sa.cast(sa.func.sum(counted.c.issued), sa.BigInteger), 0)
    ).where(counted.c.missing == _missing(SUMMARY_TABLES[0]))
    return sa.select(events.scalar_subquery(), sum(buckets[1:], buckets[0]))


def _add(
    summary: SummaryTable, upsert: Upsert, counts: Select[Any]
) -> PostgreSQLInsert | SQLiteInsert:
    statement = upsert(summary.table).from_select([*summary.keys, "issued"], counts)
    return statement.on_conflict_do_update(
        index_elements=list(summary.keys),
        set_={"issued": summary.table.c.issued + statement.excluded.issued},
    )


# The beginnings by which events are counted for all tables at once. Daily numbers are summed from
# hours: the cells of the week need the hours anyway, so one grouping serves both tables.
_BEGINNINGS: dict[str, type[Beginning]] = {"hour": HourBeginning, "month": MonthBeginning}
_COUNTED_BY = {DayBeginning: "hour", HourBeginning: "hour", MonthBeginning: "month"}
_COLUMNS = [
    *dict.fromkeys(name for summary in SUMMARY_TABLES for name in summary.event_keys),
    *_BEGINNINGS,
]


def _count_for_all(window: Window) -> CTE:
    """The window's events, counted by each grouping set that a table needs."""
    found = issuance_events.c
    beginnings = (begin(found.issued_at).label(name) for name, begin in _BEGINNINGS.items())
    others = (found[name] for name in _COLUMNS if name not in _BEGINNINGS)
    chosen = sa.select(*others, *beginnings).where(in_window(window))
    # OFFSET 0 hides the subquery from the planner. Otherwise the planner would expect as many hours
    # as instants, and would sort, because so many groups would not fit in memory.
    events = chosen.offset(sa.literal_column("0")).subquery("events")
    columns = [events.c[name] for name in _COLUMNS]
    sets = dict.fromkeys(_grouping_set(summary) for summary in SUMMARY_TABLES)
    groups = (sa.tuple_(*(events.c[name] for name in names)) for names in sets)
    missing, issued = sa.func.grouping(*columns).label("missing"), sa.func.count().label("issued")
    return (
        sa.select(*columns, missing, issued).group_by(sa.func.grouping_sets(*groups)).cte("counted")
    )


def _counted_for(summary: SummaryTable, counted: CTE) -> FromClause:
    """The rows that were counted by the table's own grouping set."""
    *others, beginning = (counted.c[name] for name in _grouping_set(summary))
    selected = sa.select(*others, beginning.label("issued_at"), counted.c.issued)
    return selected.where(counted.c.missing == _missing(summary)).subquery("own")


def _grouping_set(summary: SummaryTable) -> tuple[str, ...]:
    """The columns by which events are counted for a table."""
    return (*summary.event_keys, _COUNTED_BY[summary.grain])


def _missing(summary: SummaryTable) -> int:
    """The result of GROUPING() for a table's rows: one bit for each column not grouped by.

    The last column has the bit of value 1.
    """
    names = _grouping_set(summary)
    return sum(1 << place for place, name in enumerate(reversed(_COLUMNS)) if name not in names)
