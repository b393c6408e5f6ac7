"""Trend: tokens a day, of all agents or of one.

It reads daily_issuance, or a finer table for days of a time zone and for one agent.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection, Select

from app.reports.agent_days import DAY_HOURS, divided
from app.reports.base import (
    TENANT,
    Count,
    Point,
    Report,
    read_report,
    with_state,
)
from app.reports.days import Days
from app.reports.finer import Span, read_finer, with_finer_state
from app.reports.hours import hours_of
from app.storage.tables import daily_agent_issuance, daily_issuance
from app.storage.types import as_utc


class DayCount(Point, frozen=True):
    """Tokens issued on one day."""

    date: date
    count: Count


def token_trend(
    connection: Connection, tenant_id: str, *, last: date, days: int
) -> Report[DayCount]:
    """Tokens per UTC day for ``days`` days up to ``last``, oldest first; 0 on silent days."""
    first = last - timedelta(days=days - 1)
    return daily_tokens(connection, tenant_id, Span(Days(first, last)))


def daily_tokens(connection: Connection, tenant_id: str, span: Span) -> Report[DayCount]:
    """Tokens on each of the days, oldest first; 0 on silent days.

    Raises:
        ValidationError, UnavailableError: see :func:`~app.reports.finer.read_finer`.
    """
    days = span.days
    if not days.are_utc:
        hours = hours_of(connection, tenant_id, span)
        return Report(list(map(DayCount, days, hours.of_days())), hours.counted_at)
    found = read_report(connection, _TREND, tenant_id=tenant_id, first=days.first, last=days.last)
    return Report(_filled(days, found.points), found.counted_at)


def agent_tokens(
    connection: Connection, tenant_id: str, agent_id: str, span: Span
) -> Report[DayCount]:
    """As :func:`daily_tokens`, for one agent; 0 on each day for an unknown agent."""
    state, own = _agent_rows(connection, tenant_id, agent_id, span)
    days = span.days
    return Report(list(map(DayCount, days, divided(own, days.begins))), as_utc(state[0]))


class AgentHistory(NamedTuple):
    """An agent's tokens on each of some days, and when in the week it was active.

    ``active``: by day of the week (0 is Sunday) and hour of the zone, on how many days of the last
    ``active_days`` days it was issued any.
    """

    points: list[DayCount]
    active: Counter[tuple[int, int]]
    counted_at: datetime | None


def agent_history(
    connection: Connection, tenant_id: str, agent_id: str, span: Span, *, active_from: date
) -> AgentHistory:
    """As :func:`agent_tokens`, with the hours of the week of the days from ``active_from`` on.

    Raises:
        ValidationError, UnavailableError: see :func:`~app.reports.finer.read_finer`.
    """
    state, own = _agent_rows(connection, tenant_id, agent_id, span)
    days = span.days
    active: Counter[tuple[int, int]] = Counter()
    for hour in Days(max(active_from, days.first), days.last, days.zone).hours():
        ordinal, place = divmod(hour.number, DAY_HOURS)
        if own.get(ordinal, (0, 0))[1] >> place & 1:
            active[hour.begin.isoweekday() % 7, hour.begin.hour] += 1
    points = list(map(DayCount, days, divided(own, days.begins)))
    return AgentHistory(points, active, as_utc(state[0]))


def _agent_rows(
    connection: Connection, tenant_id: str, agent_id: str, span: Span
) -> tuple[Sequence[Any], dict[int, tuple[int, int]]]:
    """The state's row, and the agent's tokens and mask of each UTC day, by its ordinal."""
    state, rows = read_finer(
        connection,
        _AGENT_DAYS,
        daily_agent_issuance,
        span,
        tenant_id=tenant_id,
        agent_id=agent_id,
    )
    return state, {day.toordinal(): (issued, hours) for _, day, issued, hours, *_ in rows if issued}


def _filled(wanted: Iterable[date], rows: Sequence[Any]) -> list[DayCount]:
    issued = {row[1]: row[2] for row in rows}
    return [DayCount(day, issued.get(day, 0)) for day in wanted]


def _days() -> Select[*tuple[Any, ...]]:
    day = daily_issuance.c
    first, last = sa.bindparam("first", type_=sa.Date), sa.bindparam("last", type_=sa.Date)
    return sa.select(day.date, day.issued).where(
        day.tenant_id == TENANT, day.date.between(first, last)
    )


def _agent_days() -> Select[*tuple[Any, ...]]:
    """The organization's days, with the agent's tokens and hours on each.

    Each is found by the whole key. A range of days would hold the rows of all agents.
    """
    agent, day = daily_agent_issuance.c, _days().subquery("day")

    def own(column: sa.ColumnElement[int]) -> sa.ColumnElement[Any]:
        found = sa.select(column).where(
            agent.tenant_id == TENANT,
            agent.date == day.c.date,
            agent.agent_id == sa.bindparam("agent_id", type_=sa.Text),
        )
        return found.correlate(day).scalar_subquery()

    return sa.select(day.c.date, own(agent.issued).label("issued"), own(agent.hours).label("hours"))


def first_day() -> Select[*tuple[Any, ...]]:
    """The first UTC day with a token, as the column ``began``."""
    day = daily_issuance.c
    return sa.select(sa.func.min(day.date).label("began")).where(
        day.tenant_id == TENANT, day.issued > 0
    )


_TREND = with_state(_days(), "date")
_AGENT_DAYS = with_finer_state(daily_agent_issuance, _agent_days(), "date")
