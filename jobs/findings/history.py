"""History: the days before a judged one, as the rules of detection read them.

Every read is a range of a primary key. What a read returns is limited: of an organization with more
agents than the rules judge, only the largest ones are read.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from app.dates import month_of
from app.detection import (
    HISTORY_DAYS,
    LARGEST_AGENTS,
    OTHERS,
    AgentSeries,
    Series,
    merge_smallest,
)
from app.detection.calendar import earlier_days, earlier_hours
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
        _add_earlier_days(connection, self._tenant_id, start, agents, agents)
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
        hours, agents = _hours_and_agents(connection, tenant_id, first, last)
        if agents is None:
            return LargeHistory(database, tenant_id, began)
        later = (last - first).days
        rare = [
            agent for agent, one in agents.items() if _is_quiet(one.issued) and _is_rare(one, later)
        ]
        _add_earlier_days(connection, tenant_id, start, agents, rare)
    return History(Series(start, began, _days(hours), hours, agents))


def _is_quiet(issued: Sequence[int]) -> bool:
    """Whether an agent was issued no token for 30 days up to a judged day."""
    judged = range(HISTORY_DAYS + 1, len(issued) + 1)
    if any(issued[judged[-1] - DORMANT_DAYS : judged[0]]):  # these days are in all those 30
        return False
    return not all(any(issued[end - DORMANT_DAYS : end]) for end in judged)


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


def never_seen_before(
    connection: Connection, tenant_id: str, agents: Iterable[str], day: date
) -> list[str]:
    """Those of some agents that had no token before a day."""
    wanted = sorted(agents)
    old = _first_months(connection, tenant_id, day, wanted)
    return [agent for agent in wanted if agent not in old]


def _hours(connection: Connection, tenant_id: str, first: date, last: date) -> list[int]:
    """The tokens of each hour of a range of days."""
    values = {"tenant_id": tenant_id, "first": first, "recent": first, "last": last}
    ((hours, issued),) = connection.execute(_HOURS, {**values, "earlier_hours": []})
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
    """The hours and agents of judged days and of HISTORY_DAYS before.

    ``None`` if the agents are too many. Days that decide nothing have no tokens.
    """
    values = _values(tenant_id, first, last)
    start = values["first"]
    hours: list[int] = []
    of_agents, months = [], {}
    for row in connection.execute(_HOURS_AND_AGENTS, values).all():
        if row[0] is None:
            hours = _in_order(row[1], row[2], start, last)
        elif row[2] is None:
            months[row[0]] = start + min(numbers(row[1])) * DAY
        else:
            of_agents.append(row)
    if len({agent for agent, *_ in of_agents} | months.keys()) > MOST_AGENTS:
        return hours, None
    agents = _agent_series(of_agents, start, last)
    if sum(len(one.issued) - one.issued.count(0) for one in agents.values()) >= values["rows"]:
        return hours, None
    quiet = [agent for agent, one in agents.items() if _is_quiet(one.issued)]
    quiet += months.keys() - agents.keys()
    if quiet:
        rows = connection.execute(_ALL_DAYS, {**values, "agents": sorted(quiet)})
        agents |= _agent_series(rows, start, last)
    _date_back(connection, tenant_id, values["recent"], agents, months)
    return hours, agents


def _values(tenant_id: str, first: date, last: date) -> dict[str, Any]:
    """What the statements read of an organization whose days from ``first`` on are judged."""
    start, recent = first - HISTORY_DAYS * DAY, first - LARGEST_DAYS * DAY
    size = (last - start).days + 1
    judged = [last - number * DAY for number in range(size - HISTORY_DAYS)]
    days = {day for one in judged for day in earlier_days(one) if day < recent}
    of_hours = {day for one in judged for day in earlier_hours(one) if day < recent}
    return {
        "tenant_id": tenant_id,
        "first": start,
        "recent": recent,
        "last": last,
        "earlier": sorted(days),
        "earlier_hours": sorted(of_hours),
        "first_month": month_of(start),
        "last_month": month_of(recent),
        "rows": MOST_AGENTS * size + 1,
    }


def _date_back(
    connection: Connection,
    tenant_id: str,
    recent: date,
    agents: Mapping[str, AgentSeries],
    months: Mapping[str, date],
) -> None:
    """Date agents back to the month of their first token, if that was before ``recent``.

    Args:
        months: the first month with a token, of the agents of some months up to ``recent``.
    """
    young = []
    for agent, one in agents.items():
        if one.first >= recent:
            one.first = min(one.first, months.get(agent, one.first))
            if one.first >= month_of(recent):
                young.append(agent)
    for agent, month in _first_months(connection, tenant_id, recent, young).items():
        agents[agent].first = month


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


def _add_earlier_days(
    connection: Connection,
    tenant_id: str,
    start: date,
    agents: Mapping[str, AgentSeries],
    some: Collection[str],
) -> None:
    """Add to some agents the month of their first token and their days, if before ``start``."""
    first = _first_months(connection, tenant_id, start, sorted(some))
    for agent, month in first.items():
        agents[agent].first = month
    if first:
        row = daily_agent_issuance.c
        ours = sa.and_(row.tenant_id == tenant_id, row.date < start, row.issued > 0)
        number = sa.func.count().label("days")
        days = sa.select(row.agent_id, number).where(ours, row.agent_id.in_(sorted(first)))
        for one in connection.execute(days.group_by(row.agent_id)):
            agents[one.agent_id].earlier_days = one.days


def _first_months(
    connection: Connection, tenant_id: str, day: date, agents: Sequence[str]
) -> dict[str, date]:
    """The months of the first tokens of some agents, of those with any before ``day``."""
    if not agents:
        return {}
    values = {"tenant_id": tenant_id, "month": month_of(day), "day": day, "agents": agents}
    found: dict[str, date] = {}
    for agent, first in connection.execute(_FIRST_MONTHS, values):
        found[agent] = min(first, found.get(agent, first))
    return found


def _day(name: str) -> sa.BindParameter[date]:
    return sa.bindparam(name, type_=sa.Date)


def _agents() -> sa.BindParameter[Sequence[str]]:
    return sa.bindparam("agents", expanding=True)


def _number_of(day: sa.ColumnElement[date]) -> sa.ColumnElement[int]:
    """The number of a day in the range that is read, from 0 on."""
    return sa.cast(days_between(_day("first"), day), sa.BigInteger)


def _by_agent(rows: sa.SelectBase) -> sa.Select[*tuple[Any, ...]]:
    """One row for each agent of some rows, with its days, their masks, and its tokens.

    A day and its mask are one number: the mask has 24 bits.
    """
    row = rows.subquery().c
    days = _number_of(row.date) * (1 << 24) + row.hours
    return sa.select(row.agent_id, joined(days), joined(row.issued)).group_by(row.agent_id)


def _of_tenant(column: Any) -> sa.ColumnElement[bool]:
    ours: sa.ColumnElement[bool] = column.tenant_id == sa.bindparam("tenant_id", type_=sa.Text)
    return ours


def _of_deciding_days(
    rows: sa.Select[*tuple[Any, ...]], day: sa.Column[date], earlier: str
) -> sa.CompoundSelect[*tuple[Any, ...]]:
    """The rows of the days from ``recent`` to ``last``, and of some earlier ones."""
    some = sa.bindparam(earlier, type_=sa.Date, expanding=True)
    recent = rows.where(day.between(_day("recent"), _day("last")))
    return sa.union_all(recent, rows.where(day.in_(some)))


_HOUR, _AGENT, _OLD = hourly_issuance.c, daily_agent_issuance.c, monthly_agent_issuance.c
_DAYS = _of_deciding_days(
    sa.select(_HOUR.date, _HOUR.hour, _HOUR.issued).where(_of_tenant(_HOUR)),
    _HOUR.date,
    "earlier_hours",
).subquery()
_HOURS = sa.select(
    joined(_number_of(_DAYS.c.date) * 24 + _DAYS.c.hour).label("hours"),
    joined(_DAYS.c.issued).label("issued"),
)
_ACTIVE = sa.select(_AGENT.date, _AGENT.agent_id, _AGENT.issued, _AGENT.hours).where(
    _of_tenant(_AGENT), _AGENT.issued > 0
)
_AGENTS = _by_agent(
    _of_deciding_days(_ACTIVE, _AGENT.date, "earlier").limit(sa.bindparam("rows", type_=sa.Integer))
).limit(MOST_AGENTS + 1)
# The months before the days of which all is read, so that agents of these months are known as well.
_MONTHS = (
    sa.select(_OLD.agent_id, joined(_number_of(_OLD.month)), sa.cast(sa.null(), sa.LargeBinary))
    .where(
        _of_tenant(_OLD),
        _OLD.month.between(_day("first_month"), _day("last_month")),
        _OLD.issued > 0,
    )
    .group_by(_OLD.agent_id)
    .limit(MOST_AGENTS + 1)
)
# Together, since each statement costs as much as the rows of some agents.
_HOURS_AND_AGENTS = sa.union_all(
    sa.select(sa.cast(sa.null(), sa.Text).label("agent_id"), *_HOURS.subquery("of_days").c),
    sa.select(_AGENTS.subquery("of_agents")),
    sa.select(_MONTHS.subquery("of_months")),
)
_ALL_DAYS = _by_agent(
    _ACTIVE.where(
        _AGENT.date.between(_day("first"), _day("last")),
        _AGENT.agent_id.in_(_agents()),
    )
)


def _earlier(column: Any) -> sa.ColumnElement[bool]:
    some = column.agent_id.in_(_agents())
    return sa.and_(_of_tenant(column), some, column.issued > 0)


# To build a statement takes as long as to execute it.
_MONTH, _DAY = _day("month"), _day("day")
_FIRST_MONTHS = sa.union_all(
    sa.select(_OLD.agent_id, sa.func.min(_OLD.month).label("first"))
    .where(_earlier(_OLD), _OLD.month < _MONTH)
    .group_by(_OLD.agent_id),
    sa.select(_AGENT.agent_id, _MONTH).where(
        _earlier(_AGENT), _AGENT.date >= _MONTH, _AGENT.date < _DAY
    ),
)
