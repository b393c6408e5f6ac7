"""One day of an organization: its hours beside the usual ones, and its agents beside theirs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Select

from app.reports.agent_days import DAY_HOURS, divided
from app.reports.base import TENANT
from app.reports.days import Days, LocalHour, hour_number, hour_of
from app.reports.finer import Span, complete_from, read_finer, with_finer_state
from app.reports.usage import agents_of_days, edges
from app.reports.usual_days import WEEKS, days_like, usual
from app.storage.tables import agents, daily_agent_issuance, daily_issuance, hourly_issuance
from app.storage.types import as_utc

MOST_AGENTS = 50


@dataclass(frozen=True)
class DayHour:
    """An hour of the day, its tokens, and the usual ones; ``None`` if these are unknown."""

    hour: LocalHour
    count: int
    usual: int | None


@dataclass(frozen=True)
class DayHours:
    """The hours of a day of a zone; 23 or 25 where the clock is changed.

    ``counted``: how many of them are counted at least in part.
    """

    hours: list[DayHour]
    counted: int
    counted_at: datetime | None

    @property
    def total(self) -> int:
        return sum(hour.count for hour in self.hours)

    @property
    def usual(self) -> int | None:
        """The usual tokens of the whole day; ``None`` if they are unknown."""
        known = [hour.usual for hour in self.hours if hour.usual is not None]
        return sum(known) if known and len(known) == len(self.hours) else None


def day_hours(connection: Connection, tenant_id: str, span: Span) -> DayHours:
    """The hours of the one day of ``span``, in one statement.

    The usual tokens of an hour are the median of the same hour on the days like it, as
    :mod:`app.reports.usual_days` has it. These that are not kept, or not complete, are left out.

    Raises:
        ValidationError, UnavailableError: see :func:`~app.reports.finer.read_finer`.
    """
    day = span.days
    like = [Days(one, one, day.zone) for one in days_like(day.first)]
    state, rows = read_finer(
        connection,
        _HOURS,
        hourly_issuance,
        span,
        checked_from=like[-1].utc_first,
        tenant_id=tenant_id,
        **_dates([day, *like]),
    )
    counts = {hour_number(at, hour): issued for _, at, hour, issued, *_ in rows}
    known = [
        [(hour.begin.hour, counts.get(hour.number, 0)) for hour in one.hours()]
        for one in _known(like, span.kept.hours, state)
    ]
    hours = [
        DayHour(
            hour,
            counts.get(hour.number, 0),
            usual(count for one in known for at, count in one if at == hour.begin.hour),
        )
        for hour in day.hours()
    ]
    counted_at = as_utc(state[0])
    counted = 0 if counted_at is None else hour_of(counted_at) + 1 - day.begin
    return DayHours(hours, min(max(counted, 0), len(hours)), counted_at)


@dataclass(frozen=True)
class DayAgent:
    """An agent on a day: its tokens, the usual ones, and the hours in which it was active.

    ``active``: for each hour of the day, whether it was issued any.
    """

    agent_id: str
    name: str | None
    count: int
    usual: int | None
    active: list[bool]


@dataclass(frozen=True)
class DayAgents:
    """The agents with the most tokens on a day, at most MOST_AGENTS of all ``among``.

    ``total``: the tokens of all.
    """

    agents: list[DayAgent]
    among: int
    total: int

    @property
    def others(self) -> int:
        """The tokens of the agents that are not listed."""
        return self.total - sum(one.count for one in self.agents)


def day_agents(connection: Connection, tenant_id: str, span: Span) -> DayAgents:
    """The agents of the one day of ``span``, in one statement.

    An agent's usual tokens are the median of its days like this one, from its first of these on.

    Raises:
        ValidationError, UnavailableError: see :func:`~app.reports.finer.read_finer`.
    """
    day = span.days
    like = [Days(one, one, day.zone) for one in days_like(day.first)]
    state, rows = read_finer(
        connection,
        _AGENTS[day.are_utc],
        daily_agent_issuance,
        span,
        checked_from=like[-1].utc_first,
        tenant_id=tenant_id,
        limit=MOST_AGENTS,
        **_dates([day, *like]),
        **edges(day),
    )
    known = _known(like, span.kept.agents, state)
    found = []
    for agent_id, parts in groupby(rows, key=itemgetter(1)):
        own = list(parts)
        masks = {row[6].toordinal(): (row[7], row[8]) for row in own}
        usuals = [divided(masks, one.begins)[0] for one in known]
        # Days before the agent's first one say nothing of it.
        while usuals and not usuals[-1]:
            usuals.pop()
        name, count = own[0][2:4]
        found.append(DayAgent(agent_id, name, count, usual(usuals), _active(masks, day)))
    among, all_tokens = rows[0][4:6] if rows else (0, 0)
    return DayAgents(found, among, all_tokens)


def _active(masks: Mapping[int, tuple[int, int]], day: Days) -> list[bool]:
    """Whether an agent was active in each hour of a day."""
    places = (divmod(hour.number, DAY_HOURS) for hour in day.hours())
    return [bool(masks.get(ordinal, (0, 0))[1] >> hour & 1) for ordinal, hour in places]


def _known(like: list[Days], kept: date | None, state: Sequence[Any]) -> list[Days]:
    """Those days that are kept, complete, and after the organization's first day with tokens."""
    began: date | None = state[-3]
    if began is None:
        return []
    known_from = max(filter(None, (kept, complete_from(state), began + timedelta(days=1))))
    return [one for one in like if one.utc_first >= known_from]


def _dates(days: list[Days]) -> dict[str, date]:
    """The UTC days of some days of a zone, as the parameters of a statement."""
    dates = sorted({each for one in days for each in Days(one.utc_first, one.utc_last)})
    # The statement has a fixed number of parameters.
    padded = dates + dates[-1:] * (_MOST_DATES - len(dates))
    return {f"date_{place}": at for place, at in enumerate(padded)}


# A day of a zone lies in two UTC days at most.
_MOST_DATES = 2 * (WEEKS + 1)
_DATES = [sa.bindparam(f"date_{place}", type_=sa.Date) for place in range(_MOST_DATES)]


def _began() -> sa.ColumnElement[date]:
    day = daily_issuance.c
    first = sa.select(sa.func.min(day.date)).where(day.tenant_id == TENANT, day.issued > 0)
    return first.scalar_subquery().label("began")


def _hours() -> Select[*tuple[Any, ...]]:
    hour = hourly_issuance.c
    return sa.select(hour.date, hour.hour, hour.issued).where(
        hour.tenant_id == TENANT, hour.date.in_(_DATES)
    )


def _agents(*, are_utc: bool) -> Select[*tuple[Any, ...]]:
    """The first agents of the day, each with its rows of the day and of the days like it."""
    used = agents_of_days(are_utc=are_utc).subquery("used").c
    tokens = sa.cast(sa.func.sum(used.issued).over(), sa.BigInteger).label("tokens")
    counted = sa.select(
        used.agent_id, used.issued, sa.func.count(used.agent_id).over().label("among"), tokens
    )
    limit = sa.bindparam("limit", type_=sa.BigInteger)
    top = counted.order_by(used.issued.desc(), used.agent_id).limit(limit).subquery("top")
    agent, own = agents.c, daily_agent_issuance
    name = sa.select(agent.name).where(agent.tenant_id == TENANT, agent.agent_id == top.c.agent_id)
    return (
        sa.select(
            top.c.agent_id,
            name.correlate(top).scalar_subquery().label("name"),
            top.c.issued,
            top.c.among,
            top.c.tokens,
            own.c.date,
            own.c.issued.label("day_issued"),
            own.c.hours,
        )
        .select_from(top.join(own, own.c.agent_id == top.c.agent_id))
        .where(own.c.tenant_id == TENANT, own.c.date.in_(_DATES))
    )


_HOURS = with_finer_state(hourly_issuance, _hours(), "date", more=[_began()])
_AGENTS = {
    are_utc: with_finer_state(
        daily_agent_issuance,
        _agents(are_utc=are_utc),
        *("-issued", "agent_id", "date"),
        more=[_began()],
    )
    for are_utc in (True, False)
}
