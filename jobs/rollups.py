"""The summary tables, described, and the one statement that adds events to any of them.

To add a table: its columns in ``app.models``, a migration, and a line in ``ROLLUPS``.
"""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Select, Table
from sqlalchemy.dialects.postgresql import Insert as PostgreSQLInsert
from sqlalchemy.dialects.sqlite import Insert as SQLiteInsert

from app.models import (
    daily_issuance,
    dow_hour_activity,
    issuance_events,
    monthly_agent_issuance,
)
from jobs.buckets import issued_dow, issued_hour, issued_month, issued_on

Upsert = type[PostgreSQLInsert] | type[SQLiteInsert]


@dataclass(frozen=True)
class Window:
    """The events with ``after < id <= upto``."""

    after: int
    upto: int


class Rollup:
    """A summary table and how an event finds its bucket in it.

    Args:
        table: has ``tenant_id``, the key columns and ``issued``, the number of events.
        keys: for each key column besides ``tenant_id``, its expression over an event.
    """

    def __init__(self, table: Table[Any], **keys: ColumnElement[Any]) -> None:
        self.table = table
        self.keys: dict[str, ColumnElement[Any]] = {
            "tenant_id": issuance_events.c.tenant_id,
            **keys,
        }

    def count(self, window: Window) -> Select[Any]:
        """Count the window's events per bucket: the key columns, then ``issued``."""
        keys = [expression.label(name) for name, expression in self.keys.items()]
        return (
            sa.select(*keys, sa.func.count().label("issued"))
            .where(in_window(window))
            .group_by(*self.keys.values())
        )


ROLLUPS = (
    Rollup(daily_issuance, date=issued_on),
    Rollup(dow_hour_activity, month=issued_month, dow=issued_dow, hour=issued_hour),
    Rollup(monthly_agent_issuance, month=issued_month, agent_id=issuance_events.c.agent_id),
)


def in_window(window: Window) -> ColumnElement[bool]:
    """The condition that an event lies in ``window``."""
    return sa.and_(
        issuance_events.c.id > sa.bindparam("after", window.after),
        issuance_events.c.id <= sa.bindparam("upto", window.upto),
    )


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
