"""The summary tables, described, and the statements that add events to them.

To add a table: its columns in ``app.storage.tables``, a migration, and a line in ``ROLLUPS``.
"""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import CTE, ColumnElement, Connection, FromClause, Select, Table
from sqlalchemy.dialects.postgresql import Insert as PostgreSQLInsert
from sqlalchemy.dialects.sqlite import Insert as SQLiteInsert

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


class Rollup:
    """A summary table and how an event finds its bucket in it.

    Its key columns are parts of ``issued_at``, or else columns of the event by that name.

    Args:
        table: its primary key starts with ``tenant_id``; ``issued`` is the number of events.
        within: the beginning of a period that no bucket's border divides. Events are counted
            by it first, so that parts are worked out for each period and not for each event.
        parts: for each key column that is a part of ``issued_at``, which.
    """

    def __init__(
        self, table: Table[Any], within: type[Beginning], **parts: type[Bucket[Any]]
    ) -> None:
        self.table = table
        self.keys = [column.name for column in table.primary_key]
        self.within = within
        self._parts = parts
        self.others = [name for name in self.keys if name not in parts]

    def key(self, events: FromClause) -> list[ColumnElement[Any]]:
        """The key columns over ``events``, or over anything with the columns of events."""
        return [
            (self._parts[name](events.c.issued_at) if name in self._parts else events.c[name])
            for name in self.keys
        ]

    def count(self, window: Window) -> Select[Any]:
        """Count the window's events per bucket: the key columns, then ``issued``."""
        period = self.within(issuance_events.c.issued_at)
        others = [issuance_events.c[name] for name in self.others]
        counted = (
            sa.select(*others, period.label("issued_at"), sa.func.count().label("issued"))
            .where(in_window(window))
            .group_by(*others, period)
        )
        return self.sum(counted.subquery("counted"))

    def sum(self, counted: FromClause) -> Select[Any]:
        """The same of events that are counted by period: each with the period's beginning as
        ``issued_at``, and how many they are as ``issued``."""
        key = self.key(counted)
        # The sum of big integers is a decimal on PostgreSQL; a count stays an integer.
        issued = sa.cast(sa.func.sum(counted.c.issued), sa.BigInteger)
        return sa.select(*key, issued.label("issued")).group_by(*key)


ROLLUPS = (
    Rollup(daily_issuance, DayBeginning, date=IssuedOn),
    Rollup(dow_hour_activity, HourBeginning, month=IssuedMonth, dow=IssuedDow, hour=IssuedHour),
    Rollup(monthly_agent_issuance, MonthBeginning, month=IssuedMonth),
)


def in_window(window: Window) -> ColumnElement[bool]:
    """The condition that an event lies in ``window``."""
    return sa.and_(
        issuance_events.c.id > sa.bindparam("after", window.after),
        issuance_events.c.id <= sa.bindparam("upto", window.upto),
    )


def prepare_adding(connection: Connection) -> None:
    """See to it that PostgreSQL groups by hashing, until the transaction ends.

    Its statistics are of columns, not of what becomes of them: it takes nearly every event for
    a bucket of its own, sorts a million of them, and is half as fast. One grouping may take
    32 MB at the default ``work_mem``; what is more goes to disk.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(_HASHING)


def add_window(rollup: Rollup, upsert: Upsert, window: Window) -> PostgreSQLInsert | SQLiteInsert:
    """Add the window's events to one summary table.

    One statement, grouped in the database, safe on SQLite, PostgreSQL and a sharded
    PostgreSQL alike because every key starts with ``tenant_id``. Its row count is the
    number of buckets touched.
    """
    return _add(rollup, upsert, rollup.count(window))


def add_window_to_all(window: Window) -> Select[int, int]:
    """Add the window's events to every summary table; selects their number, and that of the
    buckets touched.

    It goes through the events once, where :func:`add_window` does so for each table. SQLite has
    no grouping like that, and Citus cannot spread a statement that writes several tables.
    """
    counted = _count_for_all(window)
    added = [
        _add(rollup, PostgreSQLInsert, rollup.sum(_counted_for(rollup, counted)))
        .returning(sa.literal_column("1", sa.Integer))
        .cte(f"added_to_{rollup.table.name}")
        for rollup in ROLLUPS
    ]
    buckets = [sa.select(sa.func.count()).select_from(one).scalar_subquery() for one in added]
    events = sa.select(
        sa.func.coalesce(sa.cast(sa.func.sum(counted.c.issued), sa.BigInteger), 0)
    ).where(counted.c.lacks == _lacks(ROLLUPS[0]))
    return sa.select(events.scalar_subquery(), sum(buckets[1:], buckets[0]))


def _add(rollup: Rollup, upsert: Upsert, counts: Select[Any]) -> PostgreSQLInsert | SQLiteInsert:
    statement = upsert(rollup.table).from_select([*rollup.keys, "issued"], counts)
    return statement.on_conflict_do_update(
        index_elements=list(rollup.keys),
        set_={"issued": rollup.table.c.issued + statement.excluded.issued},
    )


# By what beginnings events are counted for all tables at once. A day's events are counted by the
# hour, too: as those of the week's cells have to be, and so only once.
_BEGINNINGS: dict[str, type[Beginning]] = {"hour": HourBeginning, "month": MonthBeginning}
_COUNTED_BY = {DayBeginning: "hour", HourBeginning: "hour", MonthBeginning: "month"}
_COLUMNS = [*dict.fromkeys(name for rollup in ROLLUPS for name in rollup.others), *_BEGINNINGS]


def _count_for_all(window: Window) -> CTE:
    """The window's events, counted in each way that a table needs, one below the other."""
    found = issuance_events.c
    beginnings = (begin(found.issued_at).label(name) for name, begin in _BEGINNINGS.items())
    others = (found[name] for name in _COLUMNS if name not in _BEGINNINGS)
    chosen = sa.select(*others, *beginnings).where(in_window(window))
    # So the planner does not look inside. It would take each hour for as rare as the instants in
    # it, and sort for want of memory for so many groups.
    events = chosen.offset(sa.literal_column("0")).subquery("events")
    columns = [events.c[name] for name in _COLUMNS]
    ways = dict.fromkeys(_way(rollup) for rollup in ROLLUPS)
    sets = (sa.tuple_(*(events.c[name] for name in way)) for way in ways)
    lacks, issued = sa.func.grouping(*columns).label("lacks"), sa.func.count().label("issued")
    return sa.select(*columns, lacks, issued).group_by(sa.func.grouping_sets(*sets)).cte("counted")


def _counted_for(rollup: Rollup, counted: CTE) -> FromClause:
    """Those that are counted in a table's way."""
    *others, beginning = (counted.c[name] for name in _way(rollup))
    selected = sa.select(*others, beginning.label("issued_at"), counted.c.issued)
    return selected.where(counted.c.lacks == _lacks(rollup)).subquery("own")


def _way(rollup: Rollup) -> tuple[str, ...]:
    """The columns that events are counted by for a table."""
    return (*rollup.others, _COUNTED_BY[rollup.within])


def _lacks(rollup: Rollup) -> int:
    """What GROUPING() says of them: a bit for each other column, the last one's is 1."""
    way = _way(rollup)
    return sum(1 << place for place, name in enumerate(reversed(_COLUMNS)) if name not in way)
