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
from sqlalchemy import Connection, Select

from app.db import as_utc
from app.errors import UnavailableError
from app.events import Id
from app.fetching import Reading, fetch
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


def token_trend(
    connection: Connection, tenant_id: str, *, last: date, days: int
) -> Report[DayCount]:
    """Tokens per UTC day for the ``days`` days up to ``last``, oldest first, silent days as 0."""
    wanted = days_until(last, days)
    found = read_report(connection, _TREND, tenant_id=tenant_id, first=wanted[0], last=last)
    issued = {day: count for _, day, count in found.points}
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
    points = [HourCount(dow, hour, count) for _, dow, hour, count in found.points]
    return Report(points, found.counted_at)


def agent_usage(
    connection: Connection, tenant_id: str, *, month: date, limit: int | None
) -> Report[AgentCount]:
    """Tokens per agent in a month, most first, then by id; at most ``limit`` agents."""
    if limit is None:
        found = read_report(connection, _USAGE, tenant_id=tenant_id, month=month)
    else:
        found = read_report(connection, _TOP_USAGE, tenant_id=tenant_id, month=month, limit=limit)
    points = [AgentCount(agent_id, count) for _, agent_id, count in found.points]
    return Report(points, found.counted_at)


def named_usage(connection: Connection, tenant_id: str, *, month: date) -> Report[NamedUsage]:
    """As :func:`agent_usage` for all agents, with their names."""
    found = read_report(connection, _NAMED_USAGE, tenant_id=tenant_id, month=month)
    points = [NamedUsage(agent_id, name, count) for _, agent_id, count, name in found.points]
    return Report(points, found.counted_at)


def read_report(connection: Connection, statement: Reading, **parameters: Any) -> Report[Any]:
    """The rows of a statement that :func:`with_state` made, each with an empty column first.

    Raises:
        UnavailableError: the job's row of state is missing, so nothing is known as counted.
    """
    found = fetch(connection, statement, parameters)
    if not found or found[0][1] is not None:
        raise UnavailableError(
            "reports are unavailable: rollup_state has no row; restore the database from a backup"
        )
    return Report(list(found[1:]), as_utc(found[0][0]))


def with_state(rows: Select[*tuple[Any, ...]], *order: str) -> Reading:
    """A row with the job's state and nothing else, then ``rows`` with an empty column in front.

    With the state in each row it would be sent, and read, as often as there are rows.

    Args:
        rows: their first column is never empty.
        order: names of columns, with ``-`` in front for descending; the first one puts the
            state's row before the others.
    """
    found = rows.subquery("found")
    finished = rollup_state.c.last_finished
    state = sa.select(finished, *(_nothing(column).label(column.name) for column in found.c))
    both = sa.union_all(state, sa.select(_nothing(finished), *found.c))
    return both.order_by(*_ordering(both.selected_columns, order))


def _nothing(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return sa.type_coerce(sa.null(), column.type)


def _ordering(
    columns: sa.ColumnCollection[str, sa.ColumnElement[Any]], names: tuple[str, ...]
) -> Iterator[sa.ColumnElement[Any]]:
    for name in names:
        column = columns[name.removeprefix("-")]
        ordered = column.desc() if name.startswith("-") else column.asc()
        yield ordered.nulls_first()  # the state's row


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


_TREND = with_state(_days(), "date")
_ACTIVITY = with_state(_cells(), "dow", "hour")
_RECENT_ACTIVITY = with_state(_recent_cells(), "dow", "hour")
_USAGE = with_state(_agents(), "-issued", "agent_id")
_TOP_USAGE = with_state(_top_agents(), "-issued", "agent_id")
_NAMED_USAGE = with_state(_named_agents(), "-issued", "agent_id")
