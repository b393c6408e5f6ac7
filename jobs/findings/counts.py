"""Counts: the rows of the summary tables, as the rules of detection read them.

Every read is a range of a primary key. What a read returns is limited: of an organization with more
agents than the rules judge, only the largest ones are read.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import cast

import sqlalchemy as sa
from sqlalchemy import Connection

from app.dates import month_of
from app.detection import (
    HISTORY_DAYS,
    LARGEST_AGENTS,
    OTHERS,
    AgentSeries,
    Series,
    build_series,
    merge_smallest,
)
from app.detection.series import LARGEST_DAYS
from app.storage.tables import (
    daily_agent_issuance,
    daily_issuance,
    hourly_issuance,
    monthly_agent_issuance,
)

EARLIER_HOURS = 168
DAY = timedelta(days=1)
# An agent that had a token on so many days may become dormant.
ACTIVE_DAYS = 30
# With more agents, not all of them are read.
MOST_AGENTS = 5000


HourRow = tuple[date, int, int]  # day, hour, tokens
AgentRow = tuple[date, str, int, int]  # day, agent, tokens, mask of hours


@dataclass
class DayCounts:
    """The counts of one organization on one day so far: by hour, and by agent with its hours."""

    hours: list[int] = field(default_factory=lambda: [0] * 24)
    agents: dict[str, tuple[int, int]] = field(default_factory=dict)


class History:
    """The counts of one organization in a range of days, from which each day is judged."""

    def __init__(self, series: Series) -> None:
        self._series = series
        # For each agent the positions of the days on which it was issued a token.
        self._active = {
            agent: [index for index, issued in enumerate(one.issued) if issued]
            for agent, one in series.agents.items()
        }

    def until(self, day: date) -> Series:
        """The series whose last day is ``day``, as the rules read it."""
        whole = self._series
        end = (day - whole.start).days + 1
        begin = end - HISTORY_DAYS - 1
        start = whole.start + begin * DAY
        agents = {}
        for agent, one in whole.agents.items():
            active = self._active[agent]
            before = bisect_left(active, begin)
            if before < bisect_left(active, end):
                # Of an earlier first day only the month counts, however far back was read.
                first = one.first if one.first >= start else month_of(one.first)
                agents[agent] = AgentSeries(
                    one.issued[begin:end], one.hours[begin:end], first, one.earlier_days + before
                )
        hours = whole.hours[24 * begin : 24 * end]
        series = Series(start, whole.began, whole.days[begin:end], hours, agents)
        return merge_smallest(series)


class LargeHistory:
    """As :class:`History`, of an organization with too many agents for the memory.

    Each day is read on its own, with the largest agents and the sums of the others.
    """

    def __init__(self, connection: Connection, tenant_id: str, began: date) -> None:
        self._connection = connection
        self._tenant_id = tenant_id
        self._began = began

    def until(self, day: date) -> Series:
        """As :meth:`History.until`."""
        start = day - HISTORY_DAYS * DAY
        largest = self._largest(start, day)
        row = daily_agent_issuance.c
        ours = sa.and_(
            row.tenant_id == self._tenant_id, row.date.between(start, day), row.issued > 0
        )
        kept = self._connection.execute(
            sa.select(row.date, row.agent_id, row.issued, row.hours).where(
                ours, row.agent_id.in_(largest)
            )
        )
        bits = [sa.func.max(row.hours.bitwise_rshift(bit).bitwise_and(1)) for bit in range(24)]
        total = sa.cast(sa.func.sum(row.issued), sa.BigInteger)
        rest = self._connection.execute(
            sa.select(row.date, total, *bits)
            .where(ours, row.agent_id.not_in(largest))
            .group_by(row.date)
        )
        agents = [(found.date, found.agent_id, found.issued, found.hours) for found in kept]
        agents += [
            (at, OTHERS, issued, sum(bit << number for number, bit in enumerate(mask)))
            for at, issued, *mask in rest
        ]
        hours = _hours(self._connection, self._tenant_id, start, day)
        known = _known(self._connection, self._tenant_id, start, largest, largest)
        known[OTHERS] = (self._began, 0)
        series = build_series(start, day, self._began, hours=hours, agents=agents, known=known)
        series.new_others = self._new_others(largest, day)
        return series

    def _largest(self, start: date, day: date) -> list[str]:
        row = daily_agent_issuance.c
        recent = sa.case((row.date >= day - LARGEST_DAYS * DAY, row.issued), else_=0)
        ranked = (
            sa.select(row.agent_id)
            .where(row.tenant_id == self._tenant_id, row.date.between(start, day), row.issued > 0)
            .group_by(row.agent_id)
            .order_by(sa.func.sum(recent).desc(), row.agent_id.desc())
            .limit(LARGEST_AGENTS)
        )
        return list(self._connection.scalars(ranked))

    def _new_others(self, largest: Sequence[str], day: date) -> int:
        """The number of agents beyond the largest whose first token is of this day."""
        then, month = daily_agent_issuance.c, monthly_agent_issuance.c
        before = daily_agent_issuance.alias("before").c
        earlier_month = sa.exists().where(
            month.tenant_id == self._tenant_id,
            month.month < month_of(day),
            month.agent_id == then.agent_id,
            month.issued > 0,
        )
        earlier_day = sa.exists().where(
            before.tenant_id == self._tenant_id,
            before.date >= month_of(day),
            before.date < day,
            before.agent_id == then.agent_id,
            before.issued > 0,
        )
        new = sa.select(sa.func.count()).where(
            then.tenant_id == self._tenant_id,
            then.date == day,
            then.issued > 0,
            then.agent_id.not_in(largest),
            ~earlier_month,
            ~earlier_day,
        )
        return self._connection.scalar(new) or 0


def history(
    connection: Connection, tenant_id: str, first: date, last: date, began: date
) -> History | LargeHistory:
    """The counts that judging the days from ``first`` to ``last`` needs.

    Args:
        began: the first day that is known.
    """
    start = first - HISTORY_DAYS * DAY
    agents = _agents(connection, tenant_id, start, last)
    if agents is None:
        return LargeHistory(connection, tenant_id, began)
    hours = _hours(connection, tenant_id, start, last)
    rare = _rare(agents, ACTIVE_DAYS + (last - first).days)
    known = _known(connection, tenant_id, start, {row[1] for row in agents}, rare)
    return History(build_series(start, last, began, hours=hours, agents=agents, known=known))


def first_day(connection: Connection, tenant_id: str, kept_from: date) -> date | None:
    """The first day with a token that is known; ``None`` if there is none.

    Args:
        kept_from: hours of earlier days are not kept.
    """
    day = daily_issuance.c
    first: date | None = connection.scalar(
        sa.select(sa.func.min(day.date)).where(day.tenant_id == tenant_id, day.issued > 0)
    )
    return None if first is None else max(first, kept_from)


def open_days(
    connection: Connection, tenants: Sequence[str], first: date, last: date
) -> dict[str, dict[date, DayCounts]]:
    """The counts of some organizations by day; each day of the range is there."""
    days = [first + number * DAY for number in range((last - first).days + 1)]
    found = {tenant: {day: DayCounts() for day in days} for tenant in tenants}
    hour = hourly_issuance.c
    hours = connection.execute(
        sa.select(hour.tenant_id, hour.date, hour.hour, hour.issued).where(
            hour.tenant_id.in_(tenants), hour.date.between(first, last)
        )
    )
    for row in hours:
        found[row.tenant_id][row.date].hours[row.hour] = row.issued
    agent = daily_agent_issuance.c
    rank = (
        sa.func.row_number()
        .over(
            partition_by=(agent.tenant_id, agent.date),
            order_by=(agent.issued.desc(), agent.agent_id),
        )
        .label("rank")
    )
    ranked = (
        sa.select(*agent, rank)
        .where(agent.tenant_id.in_(tenants), agent.date.between(first, last), agent.issued > 0)
        .subquery()
        .c
    )
    largest = sa.select(
        ranked.tenant_id, ranked.date, ranked.agent_id, ranked.issued, ranked.hours
    ).where(ranked.rank <= LARGEST_AGENTS)
    for one in connection.execute(largest):
        found[one.tenant_id][one.date].agents[one.agent_id] = (one.issued, one.hours)
    return found


def with_others(counts: DayCounts, unknown: Collection[str]) -> dict[str, tuple[int, int]]:
    """The agents of a day, with the ``unknown`` ones and those that were not read as OTHERS."""
    agents = {agent: found for agent, found in counts.agents.items() if agent not in unknown}
    issued = sum(counts.hours) - sum(found for found, _ in agents.values())
    hours = 0
    for agent in unknown:
        hours |= counts.agents[agent][1]
    if issued > 0:
        agents[OTHERS] = (issued, hours)
    return agents


def earlier_hours(connection: Connection, tenant_id: str, day: date) -> list[int]:
    """The tokens of the 168 hours before a day."""
    start = day - EARLIER_HOURS // 24 * DAY
    hours = [0] * EARLIER_HOURS
    for at, hour, issued in _hours(connection, tenant_id, start, day - DAY):
        hours[(at - start).days * 24 + hour] = issued
    return hours


def never_seen_before(
    connection: Connection, tenant_id: str, agents: Iterable[str], day: date
) -> list[str]:
    """Those of some agents that had no token before a day."""
    wanted = sorted(agents)
    if not wanted:
        return []
    old = set(_first_months(connection, tenant_id, day, wanted))
    row = daily_agent_issuance.c
    this_month = sa.select(row.agent_id).where(
        row.tenant_id == tenant_id,
        row.date >= month_of(day),
        row.date < day,
        row.issued > 0,
        row.agent_id.in_(wanted),
    )
    old |= set(connection.scalars(this_month))
    return [agent for agent in wanted if agent not in old]


def _hours(connection: Connection, tenant_id: str, first: date, last: date) -> list[HourRow]:
    row = hourly_issuance.c
    statement = sa.select(row.date, row.hour, row.issued).where(
        row.tenant_id == tenant_id, row.date.between(first, last)
    )
    # Thousands of rows: names of columns would take longer than the query.
    return cast("list[HourRow]", connection.execute(statement).all())


def _agents(
    connection: Connection, tenant_id: str, first: date, last: date
) -> list[AgentRow] | None:
    """The days of all agents in the range; ``None`` if there are too many agents."""
    row = daily_agent_issuance.c
    ours = sa.and_(row.tenant_id == tenant_id, row.date.between(first, last), row.issued > 0)
    statement = sa.select(row.date, row.agent_id, row.issued, row.hours).where(ours)
    limit = MOST_AGENTS * ((last - first).days + 1)
    found = cast("list[AgentRow]", connection.execute(statement.limit(limit + 1)).all())
    return found if len({one[1] for one in found}) <= MOST_AGENTS else None


def _rare(agents: Sequence[AgentRow], enough: int) -> set[str]:
    """The agents with less than ``enough`` days, of which earlier days decide what is dormant."""
    days = Counter(row[1] for row in agents)
    return {agent for agent, count in days.items() if count < enough}


def _known(
    connection: Connection,
    tenant_id: str,
    start: date,
    agents: Collection[str],
    rare: Collection[str],
) -> dict[str, tuple[date, int]]:
    """For each of some agents with a token before ``start``: its first month, and its days.

    Args:
        rare: those of the agents whose days are counted.
    """
    months = _first_months(connection, tenant_id, start, sorted(agents))
    row = daily_agent_issuance.c
    ours = sa.and_(row.tenant_id == tenant_id, row.date < start, row.issued > 0)
    this_month = connection.scalars(
        sa.select(row.agent_id).where(
            ours, row.date >= month_of(start), row.agent_id.in_(sorted(agents))
        )
    )
    first = {agent: month_of(start) for agent in this_month} | months
    days: dict[str, int] = {}
    wanted = sorted(first.keys() & set(rare))
    if wanted:
        number = sa.func.count().label("days")
        counted = sa.select(row.agent_id, number).where(ours, row.agent_id.in_(wanted))
        days = {
            one.agent_id: one.days for one in connection.execute(counted.group_by(row.agent_id))
        }
    return {agent: (month, days.get(agent, 0)) for agent, month in first.items()}


def _first_months(
    connection: Connection, tenant_id: str, day: date, agents: Sequence[str]
) -> dict[str, date]:
    """The first months of some agents, if these are before the month of ``day``."""
    if not agents:
        return {}
    row = monthly_agent_issuance.c
    found = connection.execute(
        sa.select(row.agent_id, sa.func.min(row.month).label("first"))
        .where(
            row.tenant_id == tenant_id,
            row.month < month_of(day),
            row.issued > 0,
            row.agent_id.in_(agents),
        )
        .group_by(row.agent_id)
    )
    return {one.agent_id: one.first for one in found}
