"""Trend: tokens a day, beside the usual count and the period before.

The first half reads daily_issuance, or a finer table for days of a time zone and for one agent. The
second half is arithmetic, without SQL and HTML.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Select

from app.dates import days_until
from app.reports.agent_days import divided
from app.reports.base import (
    TENANT,
    Count,
    Point,
    Report,
    read_report,
    read_with_totals,
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
    state, rows = read_finer(
        connection,
        _AGENT_DAYS,
        daily_agent_issuance,
        span,
        tenant_id=tenant_id,
        agent_id=agent_id,
    )
    own = {day.toordinal(): (issued, hours) for _, day, issued, hours, _ in rows if issued}
    days = span.days
    return Report(list(map(DayCount, days, divided(own, days.begins))), as_utc(state[0]))


@dataclass(frozen=True)
class History(Report[DayCount]):
    """A trend, and the first day on which the organization was issued a token, if there is one."""

    began: date | None


def token_history(connection: Connection, tenant_id: str, *, last: date, days: int) -> History:
    """As :func:`token_trend`, with the organization's first day."""
    wanted = days_until(last, days)
    state, rows = read_with_totals(
        connection, _HISTORY, tenant_id=tenant_id, first=wanted[0], last=last
    )
    return History(_filled(wanted, rows), as_utc(state[0]), began=state[-1])


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


def _first_day() -> Select[*tuple[Any, ...]]:
    day = daily_issuance.c
    return sa.select(sa.func.min(day.date).label("began")).where(
        day.tenant_id == TENANT, day.issued > 0
    )


_TREND = with_state(_days(), "date")
_AGENT_DAYS = with_finer_state(daily_agent_issuance, _agent_days(), "date")
_HISTORY = with_state(_days(), "date", totals=_first_day())


@dataclass(frozen=True)
class Day:
    """One UTC day of the trend.

    ``state`` is ``"whole"``, ``"partial"`` (counted up to some time of the day) or ``"pending"``
    (not counted yet, so that its 0 means nothing).
    """

    date: date
    count: int
    state: str

    @property
    def weekend(self) -> bool:
        return _is_weekend(self.date)


@dataclass(frozen=True)
class Trend:
    """The requested days and their total, compared with as many days before them.

    Only whole counted days are compared: ``whole`` of the requested days, with ``whole_total``
    tokens, and the same days of the period before, with ``before`` tokens. ``began`` is the first
    day with a token. That day may not be whole either, so the period before must begin after it.
    """

    days: list[Day]
    total: int
    whole: int
    whole_total: int
    before: int
    began: date | None

    @property
    def change(self) -> float | None:
        """The growth of the whole days as a share of ``before``; ``None`` without comparison."""
        if not self.before or not self.is_known_before:
            return None
        return (self.whole_total - self.before) / self.before

    @property
    def is_known_before(self) -> bool:
        """Whether the organization had tokens before the period before."""
        first = self.days[0].date - timedelta(days=len(self.days))
        return self.began is not None and self.began < first

    @property
    def highest(self) -> int:
        return max(day.count for day in self.days)


def trend(history: History, days: int) -> Trend:
    """The last ``days`` of a history, which covers twice as many days."""
    points, counted_at = history.points, history.counted_at
    shown = [
        Day(point.date, point.count, _state(point.date, counted_at)) for point in points[-days:]
    ]
    before = points[-2 * days : -days]
    whole = [pair for pair in zip(shown, before, strict=True) if pair[0].state == "whole"]
    return Trend(
        days=shown,
        total=sum(day.count for day in shown),
        whole=len(whole),
        whole_total=sum(day.count for day, _ in whole),
        before=sum(point.count for _, point in whole),
        began=history.began,
    )


def _state(day: date, counted_at: datetime | None) -> str:
    if counted_at is None or counted_at.date() < day:
        return "pending"
    return "partial" if counted_at.date() == day else "whole"


def _is_weekend(day: date) -> bool:
    return day.isoweekday() >= 6
