"""One agent: its days beside those before, its share, its hours of the week, and what it needs.

The reads are those of the directory and of the trends. The rest is arithmetic, without SQL.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from app.errors import UnavailableError, ValidationError
from app.reports.days import Days, hour_of
from app.reports.finer import Span
from app.reports.trend import DayCount, agent_history, daily_tokens
from app.reports.usual_days import WEEKS, usual

DAY_SECONDS = 86_400
MONTH_DAYS = 30
USUAL_DAYS = 7 * WEEKS
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class AgentDays:
    """The days of an agent, compared with earlier ones; all are of one zone.

    ``days``: its tokens on each day of the range. ``before``: on each compared day, or ``None``
    where these are not known. ``whole``: how many of the days are wholly counted. ``organization``
    and ``organization_before``: the tokens of all agents on the same days. ``active``: on how many
    days it was active, by day of the week (0 is Sunday) and hour. ``usual_day``: the median of the
    last whole days; ``None`` if there are too few.
    """

    days: list[DayCount]
    before: list[DayCount] | None
    whole: int
    organization: int
    organization_before: int
    active: Counter[tuple[int, int]]
    usual_day: int | None
    counted_at: datetime | None

    @property
    def total(self) -> int:
        return _sum(self.days)

    @property
    def whole_total(self) -> int:
        return _sum(self.days[: self.whole])

    @property
    def whole_before(self) -> int:
        """The tokens on the compared days of the whole days."""
        return _sum(self.before[: self.whole]) if self.before else 0

    @property
    def change(self) -> float | None:
        """The growth on whole days; ``None`` if there is nothing to compare."""
        before = self.whole_before
        return (self.whole_total - before) / before if before else None

    @property
    def share(self) -> float | None:
        """Its part of all tokens of the range; ``None`` without any."""
        return self.total / self.organization if self.organization else None

    @property
    def share_before(self) -> float | None:
        if self.before is None or not self.organization_before:
            return None
        return _sum(self.before) / self.organization_before

    def weekdays(self) -> Counter[int]:
        """How often each day of the week (0 is Sunday) is in the range."""
        return Counter(day.date.isoweekday() % 7 for day in self.days)


def agent_days(
    connection: Connection, tenant_id: str, agent_id: str, span: Span, compared: Days | None
) -> AgentDays:
    """The days of an agent, in two statements: its own days, and those of the organization.

    Args:
        compared: the days to compare with; left out if they are not kept or not complete.

    Raises:
        ValidationError, UnavailableError: see :func:`~app.reports.finer.read_finer`.
    """
    days = span.days
    if compared is not None:
        try:
            return _read(connection, tenant_id, agent_id, span, compared)
        except (ValidationError, UnavailableError):
            pass
    found = _read(connection, tenant_id, agent_id, span, days)
    return AgentDays(
        found.days,
        None,
        found.whole,
        found.organization,
        0,
        found.active,
        found.usual_day,
        found.counted_at,
    )


def _read(
    connection: Connection, tenant_id: str, agent_id: str, span: Span, compared: Days
) -> AgentDays:
    days = span.days
    first = min(compared.first, days.first, days.last - USUAL_DAYS * _DAY)
    all_days = Days(first, days.last, days.zone)
    every = Span(all_days, span.kept)
    own = agent_history(connection, tenant_id, agent_id, every, active_from=days.first)
    organization = daily_tokens(connection, tenant_id, every)
    whole = whole_days(days, own.counted_at)
    return AgentDays(
        own.points[-len(days) :],
        _part(own.points, all_days, compared),
        whole,
        _sum(organization.points[-len(days) :]),
        _sum(_part(organization.points, all_days, compared)),
        own.active,
        _usual_day(own.points[: len(own.points) - len(days) + whole]),
        own.counted_at,
    )


def _part(points: list[DayCount], days: Days, part: Days) -> list[DayCount]:
    """The points of some of the days."""
    begin = (part.first - days.first).days
    return points[begin : begin + len(part)]


def _usual_day(whole: list[DayCount]) -> int | None:
    """The median of the last whole days, 8 weeks at most, after the first one with tokens."""
    last = whole[-USUAL_DAYS:]
    first = next((place for place, one in enumerate(last) if one.count), len(last))
    return usual(one.count for one in last[first + 1 :])


def whole_days(days: Days, counted_at: datetime | None) -> int:
    """How many of the days are wholly counted, from the first on."""
    if counted_at is None:
        return 0
    counted = hour_of(counted_at)
    return sum(end <= counted for end in days.begins[1:])


def counted_days(days: Days, counted_at: datetime | None) -> int:
    """How many of the days are counted at least in part, from the first on."""
    if counted_at is None:
        return 0
    counted = hour_of(counted_at)
    return sum(begin <= counted for begin in days.begins[:-1])


@dataclass(frozen=True)
class Need:
    """The tokens that an agent needs if it keeps each one, beside those that it was issued.

    ``lifetime``: in seconds. ``needed``: a day. ``times``: how often it asks as often as needed.
    ``avoidable``: a month of 30 days; ``cost``: of these, or ``None`` without a price.
    """

    lifetime: int
    needed: int
    usual_day: int
    avoidable: int
    cost: float | None

    @property
    def times(self) -> float:
        return self.usual_day / self.needed


def need(usual_day: int | None, lifetime: int, per_thousand: float | None) -> Need | None:
    """What an agent needs that is issued ``usual_day`` tokens a day; ``None`` if that is unknown.

    As for findings of the kind ``token_waste``, an agent needs one token for each lifetime, and at
    least one a day.
    """
    if not usual_day:
        return None
    needed = max(round(DAY_SECONDS / lifetime), 1)
    avoidable = max(usual_day - needed, 0) * MONTH_DAYS
    cost = None if per_thousand is None else avoidable / 1000 * per_thousand
    return Need(lifetime, needed, usual_day, avoidable, cost)


def _sum(points: Sequence[DayCount]) -> int:
    return sum(point.count for point in points)
