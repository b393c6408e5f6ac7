"""The summary tables, described, and the one statement that adds events to any of them.

To add a table: its columns in ``app.models``, a migration, and a line in ``ROLLUPS``.
"""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, FromClause, Select, Table
from sqlalchemy.dialects.postgresql import Insert as PostgreSQLInsert
from sqlalchemy.dialects.sqlite import Insert as SQLiteInsert

from app.models import (
    daily_issuance,
    dow_hour_activity,
    issuance_events,
    monthly_agent_issuance,
)
from jobs.buckets import (
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
        self._within = within
        self._parts = parts

    def key(self, events: FromClause) -> list[ColumnElement[Any]]:
        """The key columns over ``events``, or over anything with the columns of events."""
        return [
            (self._parts[name](events.c.issued_at) if name in self._parts else events.c[name])
            for name in self.keys
        ]

    def count(self, window: Window) -> Select[Any]:
        """Count the window's events per bucket: the key columns, then ``issued``."""
        period = self._within(issuance_events.c.issued_at)
        others = [issuance_events.c[name] for name in self.keys if name not in self._parts]
        counted = (
            sa.select(*others, period.label("issued_at"), sa.func.count().label("issued"))
            .where(in_window(window))
            .group_by(*others, period)
            .subquery("counted")
        )
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
    statement = upsert(rollup.table).from_select([*rollup.keys, "issued"], rollup.count(window))
    return statement.on_conflict_do_update(
        index_elements=list(rollup.keys),
        set_={"issued": rollup.table.c.issued + statement.excluded.issued},
    )
