"""The reads: each one indexed statement on one summary table, for one tenant.

Every statement also fetches when the last rollup run finished, so that numbers and
their age come from one snapshot.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection, Row, Select

from app.models import (
    daily_issuance,
    dow_hour_activity,
    monthly_agent_issuance,
    rollup_state,
)
from app.periods import days_until

P = TypeVar("P")


@dataclass(frozen=True)
class Report(Generic[P]):
    """Points, and when the run that they come from finished (``None``: there was none)."""

    points: list[P]
    counted_at: datetime | None


@dataclass(frozen=True)
class DayCount:
    """Tokens issued on one UTC day."""

    date: date
    count: int


@dataclass(frozen=True)
class HourCount:
    """Tokens issued in one cell of the week; ``dow`` 0 is Sunday, ``hour`` is UTC."""

    dow: int
    hour: int
    count: int


@dataclass(frozen=True)
class AgentCount:
    """Tokens issued to one agent in a month."""

    agent_id: str
    count: int


def token_trend(
    connection: Connection, tenant_id: str, *, last: date, days: int
) -> Report[DayCount]:
    """Tokens per UTC day for the ``days`` days up to ``last``, oldest first, silent days as 0."""
    wanted = days_until(last, days)
    table = daily_issuance.c
    rows = sa.select(table.date, table.issued).where(
        table.tenant_id == tenant_id, table.date.between(wanted[0], last)
    )
    found = _read(connection, rows)
    issued = {row.date: row.issued for row in found.points}
    return Report([DayCount(day, issued.get(day, 0)) for day in wanted], found.counted_at)


def agent_activity(
    connection: Connection, tenant_id: str, *, since: date | None, until: date
) -> Report[HourCount]:
    """Tokens per day of week and hour, ordered so, without empty cells.

    Args:
        since: the first month, by its first day; ``None`` for all recorded activity.
        until: the last month; not looked at when ``since`` is ``None``.
    """
    table = dow_hour_activity.c
    # The sum of big integers is a decimal on PostgreSQL; a count stays an integer.
    total = sa.cast(sa.func.sum(table.issued), sa.BigInteger).label("issued")
    rows = (
        sa.select(table.dow, table.hour, total)
        .where(table.tenant_id == tenant_id)
        .group_by(table.dow, table.hour)
        .having(sa.func.sum(table.issued) > 0)
    )
    if since is not None:
        rows = rows.where(table.month.between(since, until))
    found = _read(connection, rows, "dow", "hour")
    points = [HourCount(row.dow, row.hour, row.issued) for row in found.points]
    return Report(points, found.counted_at)


def agent_usage(
    connection: Connection, tenant_id: str, *, month: date, limit: int | None
) -> Report[AgentCount]:
    """Tokens per agent in a month, most first, then by id; at most ``limit`` agents."""
    table = monthly_agent_issuance.c
    rows = (
        sa.select(table.agent_id, table.issued)
        .where(table.tenant_id == tenant_id, table.month == month, table.issued > 0)
        .order_by(table.issued.desc(), table.agent_id)
        .limit(limit)
    )
    found = _read(connection, rows, "-issued", "agent_id")
    points = [AgentCount(row.agent_id, row.issued) for row in found.points]
    return Report(points, found.counted_at)


def _read(connection: Connection, rows: Select[*tuple[Any, ...]], *order: str) -> Report[Row[Any]]:
    """Run ``rows`` and read the job's state along with it, in one statement.

    ``order`` names columns, with ``-`` in front for descending.
    """
    found = rows.subquery("found")
    statement = (
        sa.select(rollup_state.c.last_finished, *found.c)
        .select_from(rollup_state.outerjoin(found, sa.true()))
        .order_by(*_ordering(found, order))
    )
    result = connection.execute(statement).all()
    counted_at = result[0].last_finished if result else None
    # Without a match the outer join leaves one row, with nothing in it but the state.
    return Report([row for row in result if row.issued is not None], counted_at)


def _ordering(found: sa.Subquery, names: tuple[str, ...]) -> Iterator[sa.ColumnElement[Any]]:
    for name in names:
        column = found.c[name.removeprefix("-")]
        yield column.desc() if name.startswith("-") else column.asc()
