"""The reads: each one indexed statement on one summary table, for one tenant.

Every statement also fetches when the last rollup run finished, so that numbers and
their age come from one snapshot. Statements are built once; points carry the names that
they have in the API.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Any, Generic, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection, Row, Select

from app.db import as_utc
from app.errors import UnavailableError
from app.events import Id
from app.models import (
    agents,
    daily_issuance,
    dow_hour_activity,
    monthly_agent_issuance,
    rollup_state,
)
from app.periods import days_until

P = TypeVar("P")

Count = Annotated[int, msgspec.Meta(ge=0)]
Month = Annotated[str, msgspec.Meta(pattern="^[0-9]{4}-(0[1-9]|1[0-2])$")]

TENANT = sa.bindparam("tenant_id", type_=sa.Text)


@dataclass(frozen=True)
class Report(Generic[P]):
    """Points, and when the run that they come from finished (``None``: there was none)."""

    points: list[P]
    counted_at: datetime | None


class Point(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """One number of a report."""


class DayCount(Point, frozen=True):
    """Tokens issued on one UTC day."""

    date: date
    count: Count


class HourCount(Point, frozen=True):
    """Tokens issued in one cell of the week; ``dow`` 0 is Sunday, ``hour`` is UTC."""

    dow: Annotated[int, msgspec.Meta(ge=0, le=6)]
    hour: Annotated[int, msgspec.Meta(ge=0, le=23)]
    count: Count


class AgentCount(Point, frozen=True):
    """Tokens issued to one agent in a month."""

    agent_id: Id
    token_count: Count


class NamedUsage(Point, frozen=True):
    """Tokens issued to one agent in a month, and what it is called, for pages."""

    agent_id: Id
    name: Id | None
    token_count: Count


def has_numbers(connection: Connection) -> bool:
    """Whether there are numbers to read; not so while a copy into the database is unfinished."""
    return connection.scalar(sa.select(rollup_state.c.id)) is not None


def token_trend(
    connection: Connection, tenant_id: str, *, last: date, days: int
) -> Report[DayCount]:
    """Tokens per UTC day for the ``days`` days up to ``last``, oldest first, silent days as 0."""
    wanted = days_until(last, days)
    found = read_report(connection, _TREND, tenant_id=tenant_id, first=wanted[0], last=last)
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
    if since is None:
        found = read_report(connection, _ACTIVITY, tenant_id=tenant_id)
    else:
        found = read_report(
            connection, _RECENT_ACTIVITY, tenant_id=tenant_id, since=since, until=until
        )
    points = [HourCount(row.dow, row.hour, row.issued) for row in found.points]
    return Report(points, found.counted_at)


def agent_usage(
    connection: Connection, tenant_id: str, *, month: date, limit: int | None
) -> Report[AgentCount]:
    """Tokens per agent in a month, most first, then by id; at most ``limit`` agents."""
    if limit is None:
        found = read_report(connection, _USAGE, tenant_id=tenant_id, month=month)
    else:
        found = read_report(connection, _TOP_USAGE, tenant_id=tenant_id, month=month, limit=limit)
    points = [AgentCount(row.agent_id, row.issued) for row in found.points]
    return Report(points, found.counted_at)


def named_usage(connection: Connection, tenant_id: str, *, month: date) -> Report[NamedUsage]:
    """As :func:`agent_usage` for all agents, with their names."""
    found = read_report(connection, _NAMED_USAGE, tenant_id=tenant_id, month=month)
    points = [NamedUsage(row.agent_id, row.name, row.issued) for row in found.points]
    return Report(points, found.counted_at)


def read_report(
    connection: Connection, statement: Select[*tuple[Any, ...]], **parameters: Any
) -> Report[Row[Any]]:
    """The rows of a statement that :func:`with_state` made, none of which lacks ``issued``.

    Raises:
        UnavailableError: there is no state, hence nothing to read yet.
    """
    result = connection.execute(statement, parameters).all()
    if not result:
        raise UnavailableError("the numbers are not here: a copy into the database is unfinished")
    # Without a match the outer join leaves one row, with nothing in it but the state.
    counted = list(result) if result[0].issued is not None else []
    return Report(counted, as_utc(result[0].last_finished))


def with_state(rows: Select[*tuple[Any, ...]], *order: str) -> Select[*tuple[Any, ...]]:
    """``rows``, and the job's state along with each.

    ``order`` names columns, with ``-`` in front for descending.
    """
    found = rows.subquery("found")
    # As the driver reads it: it comes with every row, and is looked at once.
    finished = sa.type_coerce(rollup_state.c.last_finished, sa.types.NullType())
    return (
        sa.select(finished.label("last_finished"), *found.c)
        .select_from(rollup_state.outerjoin(found, sa.true()))
        .order_by(*_ordering(found, order))
    )


def _ordering(found: sa.Subquery, names: tuple[str, ...]) -> Iterator[sa.ColumnElement[Any]]:
    for name in names:
        column = found.c[name.removeprefix("-")]
        yield column.desc() if name.startswith("-") else column.asc()


def _days() -> Select[*tuple[Any, ...]]:
    day = daily_issuance.c
    first, last = sa.bindparam("first", type_=sa.Date), sa.bindparam("last", type_=sa.Date)
    return sa.select(day.date, day.issued).where(
        day.tenant_id == TENANT, day.date.between(first, last)
    )


def _cells() -> Select[*tuple[Any, ...]]:
    cell = dow_hour_activity.c
    # The sum of big integers is a decimal on PostgreSQL; a count stays an integer.
    total = sa.cast(sa.func.sum(cell.issued), sa.BigInteger).label("issued")
    return (
        sa.select(cell.dow, cell.hour, total)
        .where(cell.tenant_id == TENANT)
        .group_by(cell.dow, cell.hour)
        .having(sa.func.sum(cell.issued) > 0)
    )


def _recent_cells() -> Select[*tuple[Any, ...]]:
    since, until = sa.bindparam("since", type_=sa.Date), sa.bindparam("until", type_=sa.Date)
    return _cells().where(dow_hour_activity.c.month.between(since, until))


def _agents() -> Select[*tuple[Any, ...]]:
    usage = monthly_agent_issuance.c
    month = sa.bindparam("month", type_=sa.Date)
    return sa.select(usage.agent_id, usage.issued).where(
        usage.tenant_id == TENANT, usage.month == month, usage.issued > 0
    )


def _top_agents() -> Select[*tuple[Any, ...]]:
    usage, limit = monthly_agent_issuance.c, sa.bindparam("limit", type_=sa.Integer)
    return _agents().order_by(usage.issued.desc(), usage.agent_id).limit(limit)


def _named_agents() -> Select[*tuple[Any, ...]]:
    usage, agent = monthly_agent_issuance, agents.c
    names = sa.select(agent.agent_id, agent.name).where(agent.tenant_id == TENANT).subquery("names")
    joined = usage.outerjoin(names, names.c.agent_id == usage.c.agent_id)
    return _agents().add_columns(names.c.name).select_from(joined)


_TREND = with_state(_days())
_ACTIVITY = with_state(_cells(), "dow", "hour")
_RECENT_ACTIVITY = with_state(_recent_cells(), "dow", "hour")
_USAGE = with_state(_agents(), "-issued", "agent_id")
_TOP_USAGE = with_state(_top_agents(), "-issued", "agent_id")
_NAMED_USAGE = with_state(_named_agents(), "-issued", "agent_id")
