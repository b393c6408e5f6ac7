"""Usage: tokens of a month or of some days by agent, and each agent's share.

Sums and limits are SQL on monthly_agent_issuance, and for days on daily_agent_issuance, because an
organization may have a million agents.
"""

from datetime import date
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Select, Subquery

from app.ids import Id
from app.reports.agent_days import DAY_HOURS, mask_before, parts
from app.reports.base import (
    TENANT,
    Batches,
    Count,
    Point,
    Report,
    read_report,
    total,
    with_state,
)
from app.reports.days import Days
from app.reports.finer import Span, read_finer, with_finer_state
from app.storage.driver import Reading
from app.storage.tables import (
    agents,
    daily_agent_issuance,
    monthly_agent_issuance,
)
from app.storage.types import as_utc

MOST = 10_000  # agents that are read at once


class AgentCount(Point, frozen=True):
    """Tokens issued to one agent in a month or on some days."""

    agent_id: Id
    token_count: Count


class NamedUsage(Point, frozen=True):
    """Tokens issued to one agent in a month or on some days, with the agent's name, for pages."""

    agent_id: Id
    name: Id | None
    token_count: Count


def agent_usage(
    connection: Connection, tenant_id: str, *, month: date, limit: int
) -> Report[AgentCount]:
    """Tokens of a month by agent, most first, then by id; at most ``limit`` agents."""
    found = read_report(connection, _TOP_USAGE, tenant_id=tenant_id, month=month, limit=limit)
    points = [AgentCount(agent_id, count) for _, agent_id, count in found.points]
    return Report(points, found.counted_at)


def whole_usage(connection: Connection, tenant_id: str, *, month: date) -> Batches:
    """The usage of all agents, in batches of rows of :class:`AgentCount`."""
    return Batches(connection, _USAGE, tenant_id=tenant_id, month=month)


def named_usage(connection: Connection, tenant_id: str, *, month: date) -> Batches:
    """The usage of all agents with their names, in batches of rows of :class:`NamedUsage`."""
    return Batches(connection, _NAMED_USAGE, tenant_id=tenant_id, month=month)


def top_named(
    connection: Connection, tenant_id: str, *, month: date, limit: int
) -> Report[NamedUsage]:
    """As :func:`agent_usage`, with names."""
    found = read_report(connection, _TOP_NAMED, tenant_id=tenant_id, month=month, limit=limit)
    return Report([NamedUsage(*row[1:]) for row in found.points], found.counted_at)


def usage_of_days(
    connection: Connection, tenant_id: str, span: Span, *, limit: int
) -> Report[AgentCount]:
    """As :func:`agent_usage`, for some days.

    Raises:
        ValidationError, UnavailableError: see :func:`~app.reports.finer.read_finer`.
    """
    state, rows = read_finer(
        connection,
        _TOP_OF_DAYS[span.days.are_utc],
        daily_agent_issuance,
        span,
        limit=limit,
        tenant_id=tenant_id,
        **edges(span.days),
    )
    points = [AgentCount(agent_id, count) for _, agent_id, count, *_ in rows]
    return Report(points, as_utc(state[0]))


def whole_usage_of_days(connection: Connection, tenant_id: str, days: Days) -> Batches:
    """As :func:`whole_usage`, for days that :func:`usage_of_days` has just read."""
    return _batches_of_days(connection, _OF_DAYS, tenant_id, days)


def named_usage_of_days(connection: Connection, tenant_id: str, days: Days) -> Batches:
    """As :func:`named_usage`, for days that :func:`usage_of_days` has just read."""
    return _batches_of_days(connection, _NAMED_OF_DAYS, tenant_id, days)


def _batches_of_days(
    connection: Connection, statements: dict[bool, Reading], tenant_id: str, days: Days
) -> Batches:
    return Batches(
        connection,
        statements[days.are_utc],
        first=days.utc_first,
        last=days.utc_last,
        tenant_id=tenant_id,
        **edges(days),
    )


def edges(days: Days) -> dict[str, Any]:
    """Of days of a zone, the masks of hours before they begin and before they end."""
    if days.are_utc:
        return {}
    begin = days.begin - days.utc_first.toordinal() * DAY_HOURS
    end = days.end - days.utc_last.toordinal() * DAY_HOURS
    return {"before_begin": mask_before(begin), "before_end": mask_before(end)}


def agents_of_days(*, are_utc: bool) -> Select[*tuple[Any, ...]]:
    """The agents of some days, with their tokens on these.

    Of the first and of the last UTC day, the days of a zone may have a part only.
    """
    usage = daily_agent_issuance.c
    first, last = sa.bindparam("first", type_=sa.Date), sa.bindparam("last", type_=sa.Date)
    rows = sa.select(usage.agent_id, usage.issued).where(
        usage.tenant_id == TENANT, usage.date.between(first, last)
    )
    if not are_utc:
        begin, end = (
            sa.bindparam(name, type_=sa.Integer) for name in ("before_begin", "before_end")
        )
        masked = rows.add_columns(
            usage.hours,
            sa.case((usage.date == first, begin), else_=0).label("before_begin"),
            sa.case((usage.date == last, end), else_=mask_before(DAY_HOURS)).label("before_end"),
        )
        rows = parts(masked.subquery("masked"))
    found = rows.subquery("rows").c
    return (
        sa.select(found.agent_id, total(found.issued).label("issued"))
        .group_by(found.agent_id)
        .having(sa.func.sum(found.issued) > 0)
    )


def _top_of_days(*, are_utc: bool) -> Select[*tuple[Any, ...]]:
    found = agents_of_days(are_utc=are_utc).subquery("used")
    top = sa.select(found).order_by(found.c.issued.desc(), found.c.agent_id)
    return top.limit(sa.bindparam("limit", type_=sa.BigInteger))


# By whether the days are UTC days.
_TOP_OF_DAYS = {
    are_utc: with_finer_state(
        daily_agent_issuance, _top_of_days(are_utc=are_utc), "-issued", "agent_id"
    )
    for are_utc in (True, False)
}
_OF_DAYS = {
    are_utc: with_state(agents_of_days(are_utc=are_utc), "-issued", "agent_id")
    for are_utc in (True, False)
}


def _agents() -> Select[*tuple[Any, ...]]:
    usage = monthly_agent_issuance.c
    month = sa.bindparam("month", type_=sa.Date)
    return sa.select(usage.agent_id, usage.issued).where(
        usage.tenant_id == TENANT, usage.month == month, usage.issued > 0
    )


def _top_agents() -> Select[*tuple[Any, ...]]:
    usage = monthly_agent_issuance.c
    return _agents().order_by(usage.issued.desc(), usage.agent_id).limit(_LIMIT)


def _named(found: Subquery) -> Select[*tuple[Any, ...]]:
    """The rows of a subquery with the names of their agents."""
    agent = agents.c
    names = sa.select(agent.agent_id, agent.name).where(agent.tenant_id == TENANT).subquery("names")
    joined = found.outerjoin(names, names.c.agent_id == found.c.agent_id)
    others = [column for column in found.c if column.name != "agent_id"]
    return sa.select(found.c.agent_id, names.c.name, *others).select_from(joined)


_LIMIT = sa.bindparam("limit", type_=sa.BigInteger)
_USAGE = with_state(_agents(), "-issued", "agent_id")
_TOP_USAGE = with_state(_top_agents(), "-issued", "agent_id")
_TOP_NAMED = with_state(_named(_top_agents().subquery("top")), "-issued", "agent_id")
_NAMED_USAGE = with_state(_named(_agents().subquery("used")), "-issued", "agent_id")
_NAMED_OF_DAYS = {
    are_utc: with_state(
        _named(agents_of_days(are_utc=are_utc).subquery("used")), "-issued", "agent_id"
    )
    for are_utc in (True, False)
}
