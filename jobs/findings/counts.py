"""Counts: the rows of the summary tables, as the rules of detection read them.

Every read is a range of a primary key. What a read returns is limited: of an organization with more
agents than the rules judge, only the largest ones are read.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from app.dates import month_of
from app.detection import (
    HISTORY_DAYS,
    LARGEST_AGENTS,
    OTHERS,
    AgentSeries,
    Series,
    merge_smallest,
)
from app.detection.series import LARGEST_DAYS
from app.storage.database import Database
from app.storage.tables import (
    daily_agent_issuance,
    daily_issuance,
    hourly_issuance,
    monthly_agent_issuance,
)
from app.storage.types import days_between, joined, numbers

DAY = timedelta(days=1)
# An agent that had a token on so many days is dormant after so many days without.
ACTIVE_DAYS, DORMANT_DAYS = 30, 30
# With more agents, not all of them are read.
MOST_AGENTS = 5000
# So many agents of some organizations' open days are read without ranking them.
FEW_ROWS = 20_000


@dataclass
class DayCounts:
    """The counts of one organization on one day so far: by hour, and by agent with its hours."""

    hours: list[int] = field(default_factory=lambda: [0] * 24)
    agents: dict[str, tuple[int, int]] = field(default_factory=dict)

    def keep_largest(self) -> None:
        """Keep the largest LARGEST_AGENTS agents, those with the first ids among equals."""
        if len(self.agents) > LARGEST_AGENTS:
            order = sorted(self.agents.items(), key=lambda one: (-one[1][0], one[0]))
            self.agents = dict(order[:LARGEST_AGENTS])


class History:
    """The counts of one organization in a range of days, from which each day is judged."""

    def __init__(self, series: Series) -> None:
        self._series = series

    def until(self, day: date) -> Series:
        """The series whose last day is ``day``, as the rules read it."""
        whole = self._series
        end = (day - whole.start).days + 1
        begin = end - HISTORY_DAYS - 1
        start = whole.start + begin * DAY
        agents = {}
        for agent, one in whole.agents.items():
            issued = one.issued[begin:end]
            if any(issued):
                # Of an earlier first day only the month counts, however far back was read.
                first = one.first if one.first >= start else month_of(one.first)
                earlier = one.earlier_days + begin - one.issued[:begin].count(0)
                agents[agent] = AgentSeries(issued, one.hours[begin:end], first, earlier)
        hours = whole.hours[24 * begin : 24 * end]
        series = Series(start, whole.began, whole.days[begin:end], hours, agents)
        return merge_smallest(series)


class LargeHistory:
    """As :class:`History`, of an organization with too many agents for the memory.

    Each day is read on its own, with the largest agents and the sums of the others.
    """

    def __init__(self, database: Database, tenant_id: str, began: date) -> None:
        self._database = database
        self._tenant_id = tenant_id
        self._began = began

    def until(self, day: date) -> Series:
        """As :meth:`History.until`."""
        with self._database.reading() as connection:
            return self._read(connection, day)

    def _read(self, connection: Connection, day: date) -> Series:
        start = day - HISTORY_DAYS * DAY
        largest = self._largest(connection, start, day)
        row = daily_agent_issuance.c
        ours = sa.and_(
            row.tenant_id == self._tenant_id, row.date.between(start, day), row.issued > 0
        )
        kept = sa.select(row.date, row.agent_id, row.issued, row.hours).where(
            ours, row.agent_id.in_(largest)
        )
        agents = _agent_series(connection.execute(_by_agent(kept), {"first": start}), start, day)
        _add_earlier_days(connection, self._tenant_id, start, agents)
        row = daily_agent_issuance.c
        bits = [sa.func.max(row.hours.bitwise_rshift(bit).bitwise_and(1)) for bit in range(24)]
        total = sa.cast(sa.func.sum(row.issued), sa.BigInteger)
        statement = (
            sa.select(row.date, total, *bits)
            .where(ours, row.agent_id.not_in(largest))
            .group_by(row.date)
        )
        size = (day - start).days + 1
        others = AgentSeries([0] * size, [0] * size, self._began)
        for at, issued, *mask in connection.execute(statement):
            others.issued[(at - start).days] = issued
            others.hours[(at - start).days] = sum(bit << hour for hour, bit in enumerate(mask))
        agents[OTHERS] = others
        hours = _hours(connection, self._tenant_id, start, day)
        series = Series(start, self._began, _days(hours), hours, agents)
        series.new_others = self._new_others(connection, largest, day)
        return series

    def _largest(self, connection: Connection, start: date, day: date) -> list[str]:
        row = daily_agent_issuance.c
        recent = sa.case((row.date >= day - LARGEST_DAYS * DAY, row.issued), else_=0)
        ranked = (
            sa.select(row.agent_id)
            .where(row.tenant_id == self._tenant_id, row.date.between(start, day), row.issued > 0)
            .group_by(row.agent_id)
            .order_by(sa.func.sum(recent).desc(), row.agent_id.desc())
            .limit(LARGEST_AGENTS)
        )
        return list(connection.scalars(ranked))

    def _new_others(self, connection: Connection, largest: Sequence[str], day: date) -> int:
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
        return connection.scalar(new) or 0


def history(
    database: Database, tenant_id: str, first: date, last: date, began: date
) -> History | LargeHistory:
    """The counts that judging the days from ``first`` to ``last`` needs.

    Args:
        began: the first day that is known.
    """
    start = first - HISTORY_DAYS * DAY
    with database.reading() as connection:
        hours, agents = _hours_and_agents(connection, tenant_id, start, last)
        if agents is None:
            return LargeHistory(database, tenant_id, began)
        recent = start + (HISTORY_DAYS - LARGEST_DAYS) * DAY
        rare = [agent for agent, one in agents.items() if _is_rare(one, (last - first).days)]
        young = [agent for agent, one in agents.items() if one.first >= recent]
        _add_earlier_days(connection, tenant_id, start, agents, young=young, rare=rare)
    return History(Series(start, began, _days(hours), hours, agents))


def _is_rare(agent: AgentSeries, later: int) -> bool:
    """Whether days before the series decide if the agent is dormant on a judged day.

    Args:
        later: how many days follow the first judged one.
    """
    issued = agent.issued
    if len(issued) - issued.count(0) >= ACTIVE_DAYS + later:
        return False
    active = [day for day, count in enumerate(issued) if count]
    return any(
        max(last + DORMANT_DAYS, HISTORY_DAYS) < back
        for last, back in pairwise([*active, HISTORY_DAYS + later + 1])
    )


def first_days(connection: Connection, tenants: Sequence[str], kept_from: date) -> dict[str, date]:
    """The first day with a token that is known, of each of some organizations that has any.

    Args:
        kept_from: hours of earlier days are not kept.
    """
    day = daily_issuance.c
    rows = connection.execute(
        sa.select(day.tenant_id, sa.func.min(day.date).label("first"))
        .where(day.tenant_id.in_(tenants), day.issued > 0)
        .group_by(day.tenant_id)
    )
    return {row.tenant_id: max(row.first, kept_from) for row in rows}


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
    for tenant, day, at, issued in hours:
        found[tenant][day].hours[at] = issued
    for tenant, day, agent_id, issued, mask in _agents_of_days(connection, tenants, first, last):
        found[tenant][day].agents[agent_id] = (issued, mask)
    for of_tenant in found.values():
        for counts in of_tenant.values():
            counts.keep_largest()
    return found


def _agents_of_days(
    connection: Connection, tenants: Sequence[str], first: date, last: date
) -> Sequence[Row[*tuple[Any, ...]]]:
    """Each organization's agents of each day, at least the largest, with their tokens and masks."""
    agent = daily_agent_issuance.c
    ours = sa.and_(agent.tenant_id.in_(tenants), agent.date.between(first, last), agent.issued > 0)
    all_agents = sa.select(
        agent.tenant_id, agent.date, agent.agent_id, agent.issued, agent.hours
    ).where(ours)
    found = connection.execute(all_agents.limit(FEW_ROWS + 1)).all()
    if len(found) <= FEW_ROWS:
        return found
    # To rank the agents takes longer, and is rarely needed.
    rank = (
        sa.func.row_number()
        .over(
            partition_by=(agent.tenant_id, agent.date),
            order_by=(agent.issued.desc(), agent.agent_id),
        )
        .label("rank")
    )
    ranked = all_agents.add_columns(rank).subquery().c
    largest = sa.select(
        ranked.tenant_id, ranked.date, ranked.agent_id, ranked.issued, ranked.hours
    ).where(ranked.rank <= LARGEST_AGENTS)
    return connection.execute(largest).all()


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


def never_seen_before(
    connection: Connection, tenant_id: str, agents: Iterable[str], day: date
) -> list[str]:
    """Those of some agents that had no token before a day."""
    wanted = sorted(agents)
    if not wanted:
        return []
    old = _first_months(connection, tenant_id, day, wanted)
    return [agent for agent in wanted if agent not in old]


def _hours(connection: Connection, tenant_id: str, first: date, last: date) -> list[int]:
    """The tokens of each hour of a range of days."""
    values = {"tenant_id": tenant_id, "first": first, "last": last}
    ((hours, issued),) = connection.execute(_HOURS, values)
    return _in_order(hours, issued, first, last)


def _in_order(hours: Any, issued: Any, first: date, last: date) -> list[int]:
    found = [0] * (24 * ((last - first).days + 1))
    for hour, count in zip(numbers(hours), numbers(issued), strict=True):
        found[hour] = count
    return found


def _days(hours: Sequence[int]) -> list[int]:
    return [sum(hours[at : at + 24]) for at in range(0, len(hours), 24)]


def _hours_and_agents(
    connection: Connection, tenant_id: str, first: date, last: date
) -> tuple[list[int], dict[str, AgentSeries] | None]:
    """The hours of a range of days, and the days of all agents; ``None`` if these are too many.

    Each agent's first day is the first one here.
    """
    values = {"tenant_id": tenant_id, "first": first, "last": last}
    values["rows"] = limit = MOST_AGENTS * ((last - first).days + 1) + 1
    hours: list[int] = []
    of_agents = []
    for row in connection.execute(_HOURS_AND_AGENTS, values):
        if row[0] is None:
            hours = _in_order(row[1], row[2], first, last)
        else:
            of_agents.append(row)
    if len(of_agents) > MOST_AGENTS:
        return hours, None
    agents = _agent_series(of_agents, first, last)
    is_cut = sum(len(one.issued) - one.issued.count(0) for one in agents.values()) >= limit
    return hours, None if is_cut else agents


def _agent_series(rows: Iterable[Any], first: date, last: date) -> dict[str, AgentSeries]:
    size = (last - first).days + 1
    found = {}
    for agent, days, issued in rows:
        one = found[agent] = AgentSeries([0] * size, [0] * size, last)
        counts, masks, in_days = one.issued, one.hours, numbers(days)
        for day_hours, count in zip(in_days, numbers(issued), strict=True):
            day = day_hours >> 24
            counts[day] = count
            masks[day] = day_hours & 0xFFFFFF
        one.first = first + (min(in_days) >> 24) * DAY
    return found


def _add_earlier_days(  # noqa: PLR0913 - which agents, and what of them
    connection: Connection,
    tenant_id: str,
    start: date,
    agents: Mapping[str, AgentSeries],
    *,
    young: Collection[str] | None = None,
    rare: Collection[str] | None = None,
) -> None:
    """Add to some agents what is known of the days before ``start``, where it decides anything.

    Args:
        young: get the month of their first token, if that is earlier; all agents by default.
        rare: the same, and the number of their days; all agents by default.
    """
    rare = agents.keys() if rare is None else rare
    ids = sorted({*(agents.keys() if young is None else young), *rare})
    if not ids:
        return
    row = daily_agent_issuance.c
    ours = sa.and_(row.tenant_id == tenant_id, row.date < start, row.issued > 0)
    first = _first_months(connection, tenant_id, start, ids)
    for agent, month in first.items():
        agents[agent].first = month
    counted = sorted(first.keys() & rare)
    if counted:
        number = sa.func.count().label("days")
        days = sa.select(row.agent_id, number).where(ours, row.agent_id.in_(counted))
        for one in connection.execute(days.group_by(row.agent_id)):
            agents[one.agent_id].earlier_days = one.days


def _first_months(
    connection: Connection, tenant_id: str, day: date, agents: Sequence[str]
) -> dict[str, date]:
    """The months of the first tokens of some agents, of those with any before ``day``."""
    values = {"tenant_id": tenant_id, "month": month_of(day), "day": day, "agents": agents}
    found: dict[str, date] = {}
    for agent, first in connection.execute(_FIRST_MONTHS, values):
        found[agent] = min(first, found.get(agent, first))
    return found


def _in_range(column: Any) -> sa.ColumnElement[bool]:
    first, last = (sa.bindparam(name, type_=sa.Date) for name in ("first", "last"))
    ours: sa.ColumnElement[bool] = column.tenant_id == sa.bindparam("tenant_id", type_=sa.Text)
    return sa.and_(ours, column.date.between(first, last))


def _number_of(day: sa.ColumnElement[date]) -> sa.ColumnElement[int]:
    """The number of a day in the range that is read, from 0 on."""
    return sa.cast(days_between(sa.bindparam("first", type_=sa.Date), day), sa.BigInteger)


def _by_agent(rows: sa.Select[*tuple[Any, ...]]) -> sa.Select[*tuple[Any, ...]]:
    """One row for each agent of some rows, with its days, their masks, and its tokens.

    A day and its mask are one number: the mask has 24 bits.
    """
    row = rows.subquery().c
    days = _number_of(row.date) * (1 << 24) + row.hours
    return sa.select(row.agent_id, joined(days), joined(row.issued)).group_by(row.agent_id)


_HOUR, _AGENT = hourly_issuance.c, daily_agent_issuance.c
_HOURS = sa.select(
    joined(_number_of(_HOUR.date) * 24 + _HOUR.hour).label("hours"),
    joined(_HOUR.issued).label("issued"),
).where(_in_range(_HOUR))
_AGENTS = _by_agent(
    sa.select(_AGENT.date, _AGENT.agent_id, _AGENT.issued, _AGENT.hours)
    .where(_in_range(_AGENT), _AGENT.issued > 0)
    .limit(sa.bindparam("rows", type_=sa.Integer))
).limit(MOST_AGENTS + 1)
# Together, since each statement costs as much as the rows of some agents.
_HOURS_AND_AGENTS = sa.union_all(
    sa.select(sa.cast(sa.null(), sa.Text).label("agent_id"), *_HOURS.subquery("of_days").c),
    sa.select(_AGENTS.subquery("of_agents")),
)


def _earlier(column: Any) -> sa.ColumnElement[bool]:
    ours: sa.ColumnElement[bool] = column.tenant_id == sa.bindparam("tenant_id", type_=sa.Text)
    some = column.agent_id.in_(sa.bindparam("agents", expanding=True))
    return sa.and_(ours, some, column.issued > 0)


# To build a statement takes as long as to execute it.
_MONTH, _DAY = (sa.bindparam(name, type_=sa.Date) for name in ("month", "day"))
_OLD = monthly_agent_issuance.c
_FIRST_MONTHS = sa.union_all(
    sa.select(_OLD.agent_id, sa.func.min(_OLD.month).label("first"))
    .where(_earlier(_OLD), _OLD.month < _MONTH)
    .group_by(_OLD.agent_id),
    sa.select(_AGENT.agent_id, _MONTH).where(
        _earlier(_AGENT), _AGENT.date >= _MONTH, _AGENT.date < _DAY
    ),
)
