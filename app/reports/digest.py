"""Digest: a week or a month of an organization, for people who do not watch a dashboard.

Only days that are counted to their end are in it. It reads what the dashboard reads.
"""

import re
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Literal

import sqlalchemy as sa
from sqlalchemy import Connection

from app.dates import last_day, month_of, months_back, parse_month
from app.detection import Kind, Severity
from app.ids import Id
from app.reports.agent_list import AgentList, ListedAgent, Wanted, agent_list
from app.reports.base import TENANT, Count, Point
from app.reports.days import Days
from app.reports.findings import Finding, FindingsFilter, OptionsOf, findings_page
from app.reports.finer import Kept, Span
from app.reports.summary import Fraction
from app.reports.trend import DayCount, daily_tokens, first_day
from app.storage.tables import agents

WEEKLY: Literal["weekly"] = "weekly"
MONTHLY: Literal["monthly"] = "monthly"
# Lines of a list. The dashboard has the others.
MOST_AGENTS, MOST_FINDINGS = 5, 10
# Findings that are read, to count them and what could be saved.
_MOST_READ = 500
_WASTE_DAYS = 7  # a finding of this kind has the tokens of so many days
_CORRECTED = "corrected"  # later counts have shown that there was nothing
_WEEK = re.compile(r"([0-9]{4})-W([0-9]{2})")
_DAY = timedelta(days=1)
_FIRST_YEAR, _LAST_YEAR = 1970, 9998


class Period(Point, frozen=True):
    """A week or a month of a digest, as ``2026-W14`` or ``2026-03``, in UTC.

    ``before``: the week or the month before it.
    """

    name: str
    kind: Literal["weekly", "monthly"]
    first: date
    last: date
    before_first: date
    before_last: date

    @property
    def days(self) -> Days:
        return Days(self.first, self.last)

    @property
    def before(self) -> Days:
        return Days(self.before_first, self.before_last)


class DigestAgent(Point, frozen=True):
    """An agent of a digest. ``change`` and ``before`` compare with as many days before."""

    agent_id: Id
    agent_name: Id | None
    token_count: Count
    share: Fraction
    before: Count | None
    change: float | None


class DigestAgents(Point, frozen=True):
    """The agents of a digest: how many of each kind, and the first of each."""

    active: Count
    rising_count: Count
    new_count: Count
    quiet_count: Count
    top: list[DigestAgent]
    rising: list[DigestAgent]
    new: list[DigestAgent]
    quiet: list[DigestAgent]


class Waste(Point, frozen=True):
    """Tokens of the period that agents would save if they kept theirs; ``cost`` of these."""

    agents: Count
    token_count: Count
    cost: float | None


class DigestBudget(Point, frozen=True):
    """A budget and its use at the time of the digest; ``agent_id`` is null for the organization.

    ``used`` is null while it is unknown. ``exceeded_days``: the days of the digest on which the
    organization exceeded its budget of a day; null for other budgets.
    """

    agent_id: Id | None
    agent_name: Id | None
    period: Literal["day", "month"]
    tokens: Count
    used: Count | None
    projected: Count | None
    crosses_on: date | None
    exceeded_days: Count | None = None


class Digest(Point, frozen=True):
    """The numbers of a week or a month.

    Attributes:
        counted: how many days, from the first on, are counted to their end. All numbers are of
            these, and ``previous`` are those of the period before: of the same days of a week, or
            of the whole month.
        change: the growth of the tokens a day; ``None`` if nothing can be compared.
        cost: of all tokens, and ``currency`` its currency; ``None`` without a price.
        agents: ``None`` if they cannot be read for these days; ``problem`` then says why.
        findings: those of the days, the gravest first, and ``finding_count`` of them.
    """

    tenant_id: Id
    period: Period
    counted: Count
    token_count: Count
    previous: Count | None
    change: float | None
    cost: float | None
    currency: str | None
    data: list[DayCount]
    data_before: list[DayCount]
    agents: DigestAgents | None
    problem: str | None
    findings: list[Finding]
    finding_count: Count
    waste: Waste | None
    budgets: list[DigestBudget]
    counted_at: datetime | None

    @property
    def is_whole(self) -> bool:
        """Whether all days are counted to their end."""
        return self.counted == len(self.period.days)

    @property
    def a_day(self) -> float:
        """The tokens a day."""
        return self.token_count / max(self.counted, 1)


def parse_week(text: str) -> Period:
    """An ISO week, as ``2026-W14``: Monday to Sunday.

    Raises:
        ValueError: there is no such week.
    """
    match = _WEEK.fullmatch(text)
    if match is None or not _FIRST_YEAR <= int(match[1]) <= _LAST_YEAR:
        raise ValueError("must be a week, as 2026-W14")
    try:
        monday = date.fromisocalendar(int(match[1]), int(match[2]), 1)
    except ValueError:
        raise ValueError(f"must be a week of {match[1]}, as {match[1]}-W14") from None
    return week_of(monday)


def parse_month_name(text: str) -> Period:
    """A month, as ``2026-03``.

    Raises:
        ValueError: there is no such month.
    """
    month = parse_month(text)
    if month.year > _LAST_YEAR:
        raise ValueError("must be a month, as 2026-03")
    return month_period(month)


def week_of(day: date) -> Period:
    """The ISO week of a day."""
    monday = day - day.weekday() * _DAY
    year, week, _ = monday.isocalendar()
    return Period(
        f"{year}-W{week:02}", WEEKLY, monday, monday + 6 * _DAY, monday - 7 * _DAY, monday - _DAY
    )


def month_period(day: date) -> Period:
    """The month of a day."""
    first = month_of(day)
    before = months_back(first, 1)
    return Period(f"{first:%Y-%m}", MONTHLY, first, last_day(first), before, first - _DAY)


def last_period(kind: str, today: date) -> Period:
    """The last week or month that is over."""
    if kind == WEEKLY:
        return week_of(today - 7 * _DAY)
    return month_period(months_back(month_of(today), 1))


def digest(  # noqa: PLR0913, PLR0917 - whose numbers, which, and what is beside them
    connection: Connection,
    tenant_id: str,
    period: Period,
    kept: Kept,
    options_of: OptionsOf,
    budgets: Sequence[DigestBudget] = (),
) -> Digest:
    """The digest of a week or a month.

    Args:
        options_of: the settings of the organization, as for
            :func:`~app.reports.findings.findings_page`.
        budgets: without names; these are added.

    Raises:
        UnavailableError: the state row is missing.
    """
    days = period.days
    both = Days(period.before_first, period.last)
    trend = daily_tokens(connection, tenant_id, Span(both))
    began = connection.execute(_BEGAN, {"tenant_id": tenant_id}).scalar()
    counts = {point.date: point for point in trend.points}
    whole = days.whole(trend.counted_at)
    shown = [counts[day] for day in days][:whole]
    before = [counts[day] for day in period.before]
    compared = before[:whole] if period.kind == WEEKLY else before
    # The first day with a token may have begun late, so it is not compared.
    is_compared = bool(whole) and began is not None and began < period.before_first
    total, options = _sum(shown), options_of(tenant_id)
    price = options.price_per_thousand
    leading = days.leading(max(whole, 1))
    listed: DigestAgents | str | None = None
    found: list[Finding] = []
    if whole:
        listed = _agents(connection, tenant_id, Span(leading, kept), trend.counted_at)
        found = _findings(connection, tenant_id, leading, options_of)
    return Digest(
        tenant_id=tenant_id,
        period=period,
        counted=whole,
        token_count=total,
        previous=_sum(compared) if is_compared else None,
        change=_change(shown, compared) if is_compared else None,
        cost=None if price is None else total / 1000 * price,
        currency=None if price is None else options.currency,
        data=shown,
        data_before=before if is_compared else [],
        agents=None if isinstance(listed, str) else listed,
        problem=listed if isinstance(listed, str) else None,
        findings=found[:MOST_FINDINGS],
        finding_count=len(found),
        waste=_waste(found, whole, price),
        budgets=_named(connection, tenant_id, budgets, shown),
        counted_at=trend.counted_at,
    )


def _agents(
    connection: Connection, tenant_id: str, span: Span, counted_at: datetime | None
) -> DigestAgents | str:
    """The agents of the days, compared with as many days before; or why there are none.

    The kinds are read if the organization has such agents.
    """

    def read(show: str, sort: str) -> AgentList:
        wanted = Wanted(limit=MOST_AGENTS, show=show, sort=sort)
        return agent_list(
            connection, tenant_id, span, wanted, compared=span.days.before, counted_at=counted_at
        )

    found = read("all", "tokens")
    if found.problem is not None:
        return found.problem
    if found.is_long:
        return f"there are more than {found.limit:,} agents a month; the dashboard has the largest"
    sizes = found.sizes
    return DigestAgents(
        active=sizes.all,
        rising_count=sizes.rising,
        new_count=sizes.new,
        quiet_count=sizes.quiet,
        top=_lines(found),
        rising=_lines(read("rising", "change")) if sizes.rising else [],
        new=_lines(read("new", "tokens")) if sizes.new else [],
        quiet=_lines(read("quiet", "tokens")) if sizes.quiet else [],
    )


def _lines(listed: AgentList) -> list[DigestAgent]:
    return [_line(one) for one in listed.agents]


def _line(one: ListedAgent) -> DigestAgent:
    return DigestAgent(one.agent_id, one.name, one.count, one.share, one.before, one.change)


def _findings(
    connection: Connection, tenant_id: str, days: Days, options_of: OptionsOf
) -> list[Finding]:
    """The findings of the days that were not corrected, the gravest first, then the newest."""
    wanted = FindingsFilter(status="all", first=days.first, last=days.last)
    page = findings_page(connection, tenant_id, wanted, options_of, limit=_MOST_READ)
    found = [one for one in page.findings if one.resolution != _CORRECTED]
    return sorted(found, key=lambda one: -Severity(one.severity).rank)


def _waste(found: Sequence[Finding], days: int, price: float | None) -> Waste | None:
    """What the agents would save that do not keep their tokens; ``None`` without any."""
    of_kind = [one for one in found if one.kind == Kind.TOKEN_WASTE]
    # An agent may have had two such findings; it wastes its tokens once.
    by_agent = {one.agents[0].agent_id: one for one in of_kind if one.agents}
    tokens = round(
        sum(
            max(one.observed - (one.usual.typical if one.usual else 0), 0)
            for one in by_agent.values()
        )
        / _WASTE_DAYS
        * days
    )
    if not tokens:
        return None
    return Waste(len(by_agent), tokens, None if price is None else tokens / 1000 * price)


def _named(
    connection: Connection,
    tenant_id: str,
    budgets: Sequence[DigestBudget],
    shown: Sequence[DayCount],
) -> list[DigestBudget]:
    """The budgets with the names of their agents, and the days that exceeded those of a day."""
    ids = sorted({one.agent_id for one in budgets if one.agent_id is not None})
    rows = connection.execute(_NAMES, {"tenant_id": tenant_id, "ids": ids}) if ids else ()
    names = {row.agent_id: row.name for row in rows}
    return [
        DigestBudget(
            one.agent_id,
            names.get(one.agent_id or ""),
            one.period,
            one.tokens,
            one.used,
            one.projected,
            one.crosses_on,
            sum(day.count > one.tokens for day in shown)
            if one.agent_id is None and one.period == "day"
            else None,
        )
        for one in budgets
    ]


def _change(shown: Sequence[DayCount], compared: Sequence[DayCount]) -> float | None:
    """The growth of the tokens a day, since months have different lengths."""
    if not _sum(compared):
        return None
    return (_sum(shown) / len(shown)) / (_sum(compared) / len(compared)) - 1


def _sum(points: Sequence[DayCount]) -> int:
    return sum(point.count for point in points)


_BEGAN = first_day()
_NAMES = sa.select(agents.c.agent_id, agents.c.name).where(
    agents.c.tenant_id == TENANT,
    agents.c.agent_id.in_(sa.bindparam("ids", expanding=True)),
    agents.c.name.is_not(None),
)
