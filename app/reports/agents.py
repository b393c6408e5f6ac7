"""The directory of agents: their names, and the months and days on which they were issued tokens.

``app.intake.agent_names`` stores the names.
"""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy import CTE, Connection, Select, Subquery

from app.dates import months_back
from app.ids import Id
from app.reports.base import (
    TENANT,
    Count,
    Month,
    Point,
    Report,
    contains,
    like,
    read_with_totals,
    total,
    with_state,
)
from app.storage.driver import Reading
from app.storage.tables import (
    agents,
    daily_agent_issuance,
    daily_issuance,
    monthly_agent_issuance,
    rollup_state,
)
from app.storage.types import as_utc

# While the tables are being filled, any day may be incomplete.
_FILLING = date.max
SORTS = ("id", "lastSeen")

Seconds = Annotated[int, msgspec.Meta(ge=1)]


class Agent(Point, frozen=True):
    """One agent: its name, its first and last month and day, and all tokens counted so far.

    ``active_days`` counts the days with tokens among those that are kept. A day is null if it is
    not kept, and all three are while they are still being filled after an upgrade.
    ``token_lifetime``: the seconds for which it can keep a token; null unless set for this agent.
    """

    agent_id: Id
    name: Id | None
    first_month: Month | None
    last_month: Month | None
    token_count: Count
    first_day: date | None
    last_day: date | None
    active_days: Count | None
    token_lifetime: Seconds | None


class Place(NamedTuple):
    """The place of an agent in the directory.

    ``seen`` is its last day, or else its last month, or else the first day of all. It is used in
    the order by ``lastSeen`` only.
    """

    agent_id: str
    seen: date = date.min


FIRST_SEEN = Place("", date.max)  # before every agent, in both orders


@dataclass(frozen=True)
class AgentsPage(Report[Agent]):
    """One page of the directory; ``next_after`` is the next page's ``after``, if there is one."""

    next_after: Place | None


def agents_page(  # noqa: PLR0913 - the parameters of a page
    connection: Connection,
    tenant_id: str,
    *,
    limit: int,
    after: Place = FIRST_SEEN,
    text: str | None = None,
    sort: str = SORTS[0],
    kept_from: date | None = None,
) -> AgentsPage:
    """The agents that have a name or were issued tokens, at most ``limit``.

    Months and totals come from the monthly summary table, and days from the table of agents' days.
    The report is one statement. Its cost grows with ``limit`` and with the number of months. A
    search may read all agents, and so does the order by ``lastSeen``, in each of its months.

    Args:
        after: the place after which the page begins.
        text: a part of the name or the id; ASCII letters match in any case.
        sort: ``id``, or ``lastSeen`` for the latest day first, then by id.
        kept_from: the first day that is kept; ``None`` for all days.
    """
    parameters: dict[str, Any] = {
        "tenant_id": tenant_id,
        "after": after.agent_id,
        "limit": limit,
        "kept_from": kept_from or date.min,
    }
    if sort != SORTS[0]:
        parameters["seen"] = after.seen
    if text is not None:
        parameters["pattern"] = contains(text)
    statement = _PAGES[sort, text is not None]
    state, rows = read_with_totals(connection, statement, **parameters)
    known_from = max(kept_from or date.min, state[-1] or date.min)
    points = [_agent(row, known_from) for row in rows[:limit]]
    next_after = None
    if len(rows) > limit:
        last = rows[limit - 1]
        next_after = Place(last[1], last[-2])
    return AgentsPage(points, as_utc(state[0]), next_after)


class MonthCount(NamedTuple):
    """An agent's tokens in a month, by the month's first day."""

    month: date
    issued: int


class Rank(NamedTuple):
    """The place of an agent among those of a month: 1 has the most tokens."""

    rank: int
    agents: int


@dataclass(frozen=True)
class AgentLife:
    """What is known of one agent: its name, its months, its first and last days, and its rank.

    ``months`` has the organization's months from the agent's first one on. ``ranks`` are those of
    two months, the later first; ``None`` where it has no tokens.
    """

    agent: Agent
    months: list[MonthCount]
    ranks: tuple[Rank | None, Rank | None]
    counted_at: datetime | None


def agent_life(
    connection: Connection,
    tenant_id: str,
    agent_id: str,
    *,
    month: date,
    kept_from: date | None = None,
) -> AgentLife | None:
    """One agent of an organization; ``None`` if it has no name and was never issued a token.

    It is one statement. Each count is found by the whole key, except for the ranks, which read the
    agents of two months.

    Args:
        month: the later month of the ranks, by its first day. The other one is that before it.
        kept_from: the first day that is kept; ``None`` for all days.
    """
    state, rows = read_with_totals(
        connection,
        _LIFE,
        tenant_id=tenant_id,
        agent_id=agent_id,
        month=month,
        before=months_back(month, 1),
        kept_from=kept_from or date.min,
    )
    name, lifetime, *ranks, unsure_before = state[-7:]
    known_from = max(kept_from or date.min, unsure_before or date.min)
    used = [row for row in rows if row[2]]
    if not used and name is None:
        return None
    days = [row for row in used if row[3] is not None]
    agent = _agent(
        (
            None,
            agent_id,
            name,
            lifetime,
            used[0][1] if used else None,
            used[-1][1] if used else None,
            sum(row[2] for row in used),
            days[0][3] if days else None,
            days[-1][4] if days else None,
            sum(row[5] for row in days),
        ),
        known_from,
    )
    months = [MonthCount(row[1], row[2] or 0) for row in rows]
    first = next((place for place, one in enumerate(months) if one.issued), len(months))
    places = tuple(Rank(rank, among) if rank else None for rank, among in (ranks[:2], ranks[2:4]))
    return AgentLife(agent, months[first:], (places[0], places[1]), as_utc(state[0]))


def _agent(row: Any, known_from: date) -> Agent:
    """A row as an agent; its days are known from ``known_from`` on, the first of a month."""
    _, agent_id, name, lifetime, first, last, count, first_day, last_day, days, *_ = row
    return Agent(
        agent_id,
        name,
        _month(first),
        _month(last),
        count,
        first_day if first and first >= known_from else None,
        last_day if last and last >= known_from else None,
        None if known_from == _FILLING else days,
        lifetime,
    )


def _month(day: date | None) -> str | None:
    return None if day is None else f"{day:%Y-%m}"


# The primary key of the monthly table begins with the tenant and the month. So one range of it
# holds the agents of one month, by id. A page steps from agent to agent in each of these ranges.
# Each step is a subquery of its own, because a join may be planned to read all months.

_AFTER = sa.bindparam("after", type_=sa.Text)
_LIMIT = sa.bindparam("limit", type_=sa.Integer)
_SEEN = sa.bindparam("seen", type_=sa.Date)
_NEVER, _NO_END = sa.literal(date.min, sa.Date), sa.literal(date.max, sa.Date)


def months_of_tenant() -> CTE:
    """The tenant's months. Each is found in the key from the one before, without its agents."""
    usage = monthly_agent_issuance

    def first(*conditions: sa.ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
        ours = sa.select(usage.c.month).where(usage.c.tenant_id == TENANT, *conditions)
        return ours.order_by(usage.c.month).limit(1)

    months = sa.select(first().scalar_subquery().label("month")).cte("months", recursive=True)
    later = first(usage.c.month > months.c.month).correlate(months).scalar_subquery()
    return months.union_all(sa.select(later).where(months.c.month.is_not(None)))


def _spans(months: CTE) -> CTE:
    """Each of the tenant's months, with the next one. All its days in between are of the month."""
    later = months.alias("later")
    following = sa.select(sa.func.min(later.c.month)).where(later.c.month > months.c.month)
    end = sa.func.coalesce(following.correlate(months).scalar_subquery(), _NO_END)
    return (
        sa.select(months.c.month, end.label("next_month"))
        .where(months.c.month.is_not(None))
        .cte("spans")
    )


def _counted(months: CTE) -> CTE:
    """The first agents of each month after the page's beginning, one more than a page."""
    usage = monthly_agent_issuance.c

    def first(month: Any, after: Any, outer: CTE) -> sa.ColumnElement[Any]:
        ids = sa.select(usage.agent_id).where(
            usage.tenant_id == TENANT,
            usage.month == month,
            usage.agent_id > after,
            usage.issued > 0,
        )
        return ids.order_by(usage.agent_id).limit(1).correlate(outer).scalar_subquery()

    month = months.c.month
    begin = sa.select(
        month, first(month, _AFTER, months).label("agent_id"), sa.literal(1).label("number")
    ).where(month.is_not(None))
    steps = begin.cte("steps", recursive=True)
    step = sa.select(
        steps.c.month, first(steps.c.month, steps.c.agent_id, steps), steps.c.number + 1
    )
    return steps.union_all(step.where(steps.c.agent_id.is_not(None), steps.c.number <= _LIMIT))


def _page(months: CTE, *, search: bool) -> CTE:
    """The ids of a page, and one more, which tells whether there is a next page.

    A search reads all agents at once: few may match, and steps to the next one would be long.
    """
    agent, usage = agents.c, monthly_agent_issuance.c
    named = sa.select(agent.agent_id).where(
        agent.tenant_id == TENANT, agent.agent_id > _AFTER, agent.name.is_not(None)
    )
    if search:
        named = named.where(like(agent.name, agent.agent_id))
        used = sa.select(usage.agent_id).where(
            usage.tenant_id == TENANT,
            usage.agent_id > _AFTER,
            usage.issued > 0,
            like(usage.agent_id),
        )
    else:
        first = named.order_by(agent.agent_id).limit(_LIMIT + 1).subquery("named")
        named, counted = sa.select(first.c.agent_id), _counted(months).c
        used = sa.select(counted.agent_id).where(counted.agent_id.is_not(None))
    ids = sa.union(named, used).subquery("ids").c.agent_id
    return sa.select(ids, _NEVER.label("seen")).order_by(ids).limit(_LIMIT + 1).cte("page")


def _latest_page(spans: CTE, *, search: bool) -> CTE:
    """The same in the order of last days. Every agent's last day must be known for it."""
    agent, usage = agents.c, monthly_agent_issuance.c
    named = sa.select(agent.agent_id, sa.cast(sa.null(), sa.Date).label("month")).where(
        agent.tenant_id == TENANT, agent.name.is_not(None)
    )
    used = sa.select(usage.agent_id, usage.month).where(usage.tenant_id == TENANT, usage.issued > 0)
    if search:
        found = sa.select(agent.agent_id).where(agent.tenant_id == TENANT, like(agent.name))
        named = named.where(like(agent.name, agent.agent_id))
        used = used.where(sa.or_(like(usage.agent_id), usage.agent_id.in_(found)))
    both = sa.union_all(named, used).subquery("found")
    months = sa.select(both.c.agent_id, sa.func.max(both.c.month).label("month"))
    last = months.group_by(both.c.agent_id).subquery("last")
    day = _days()
    last_day = (
        sa.select(day.c.date)
        .where(*_within(day, spans), _active(last.c.agent_id, last, day))
        .order_by(day.c.date.desc())
        .limit(1)
        .correlate(last, spans)
        .scalar_subquery()
    )
    seen = sa.func.coalesce(last_day, last.c.month, _NEVER).label("seen")
    joined = last.outerjoin(spans, spans.c.month == last.c.month)
    every = sa.select(last.c.agent_id, seen).select_from(joined).subquery("every")
    after = sa.or_(every.c.seen < _SEEN, sa.and_(every.c.seen == _SEEN, every.c.agent_id > _AFTER))
    page = sa.select(every).where(after).order_by(every.c.seen.desc(), every.c.agent_id)
    return page.limit(_LIMIT + 1).cte("page")


def _days() -> Subquery:
    """The organization's days that are known, by their key."""
    day = daily_issuance.c
    complete_from = sa.select(rollup_state.c.agents_from).scalar_subquery()
    known = sa.select(day.date).where(
        day.tenant_id == TENANT,
        day.date >= sa.bindparam("kept_from", type_=sa.Date),
        day.date >= sa.func.coalesce(complete_from, _NEVER),
    )
    return known.subquery("day")


def _within(day: Subquery, spans: Any) -> tuple[sa.ColumnElement[bool], ...]:
    """The conditions that a day is of a month."""
    return day.c.date >= spans.c.month, day.c.date < spans.c.next_month


def _active(agent_id: sa.ColumnElement[str], outer: Any, day: Subquery) -> sa.ColumnElement[bool]:
    """Whether an agent was issued tokens on a day of the organization, found by the whole key."""
    own = daily_agent_issuance.c
    found = sa.select(own.issued).where(
        own.tenant_id == TENANT, own.date == day.c.date, own.agent_id == agent_id
    )
    return found.correlate(day, outer).scalar_subquery() > 0


def _agents(*, search: bool, latest: bool) -> Select[*tuple[Any, ...]]:
    """A page of the directory.

    Each count is found by the whole key, for each agent of the page and each month or day.

    Args:
        search: only agents whose name or id is like ``pattern``.
        latest: in the order of last days.
    """
    months = months_of_tenant()
    spans = _spans(months)
    page = _latest_page(spans, search=search) if latest else _page(months, search=search)
    usage, agent, day = monthly_agent_issuance.c, agents.c, _days()
    count = sa.select(usage.issued).where(
        usage.tenant_id == TENANT,
        usage.month == spans.c.month,
        usage.agent_id == page.c.agent_id,
        usage.issued > 0,
    )
    issued = count.correlate(page, spans).scalar_subquery().label("issued")
    cells = (
        sa.select(page.c.agent_id, page.c.seen, spans.c.month, spans.c.next_month, issued)
        .select_from(page.outerjoin(spans, sa.true()))
        .cte("cells")
    )
    active = (
        sa.select(
            cells.c.agent_id,
            sa.func.min(day.c.date).label("first_day"),
            sa.func.max(day.c.date).label("last_day"),
            sa.func.count(day.c.date).label("days"),
        )
        .select_from(cells.join(day, sa.and_(*_within(day, cells))))
        .where(cells.c.issued > 0, _active(cells.c.agent_id, cells, day))
        .group_by(cells.c.agent_id)
        .subquery("active")
    )
    used = sa.case((cells.c.issued > 0, cells.c.month))

    def stored(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        found = sa.select(column).where(
            agent.tenant_id == TENANT, agent.agent_id == cells.c.agent_id
        )
        return found.correlate(cells).scalar_subquery().label(column.name)

    known = cells.outerjoin(active, active.c.agent_id == cells.c.agent_id)
    return (
        sa.select(
            cells.c.agent_id,
            stored(agent.name),
            stored(agent.token_lifetime),
            sa.func.min(used).label("first"),
            sa.func.max(used).label("last"),
            total(cells.c.issued).label("issued"),
            sa.func.min(active.c.first_day).label("first_day"),
            sa.func.max(active.c.last_day).label("last_day"),
            sa.func.coalesce(sa.func.max(active.c.days), 0).label("days"),
            sa.func.max(cells.c.seen).label("seen"),
        )
        .select_from(known)
        .group_by(cells.c.agent_id)
    )


def _directory(*, search: bool, latest: bool) -> Reading:
    order = ("-seen", "agent_id") if latest else ("agent_id",)
    rows = _agents(search=search, latest=latest)
    return with_state(rows, *order, totals=sa.select(_unsure_before()))


def _unsure_before() -> sa.Label[date | None]:
    """The day from which on all days of agents are complete, in the state's row; null for all."""
    state = rollup_state.c
    filling = (state.backfilled < state.backfill_end, sa.literal(_FILLING, sa.Date))
    return sa.case(filling, else_=state.agents_from).label("unsure_before")


# By the order, and whether it is a search.
_PAGES = {
    (sort, search): _directory(search=search, latest=sort != SORTS[0])
    for sort in SORTS
    for search in (False, True)
}


_AGENT = sa.bindparam("agent_id", type_=sa.Text)


def _life() -> Reading:
    """The organization's months, with one agent's tokens and days in each."""
    months = months_of_tenant()
    spans, usage, day = _spans(months), monthly_agent_issuance.c, _days()
    count = sa.select(usage.issued).where(
        usage.tenant_id == TENANT, usage.month == spans.c.month, usage.agent_id == _AGENT
    )
    cells = sa.select(
        spans.c.month, spans.c.next_month, count.correlate(spans).scalar_subquery().label("issued")
    ).cte("cells")

    def of_days(value: sa.ColumnElement[Any], name: str) -> sa.Label[Any]:
        found = sa.select(value).where(*_within(day, cells), _active(_AGENT, cells, day))
        # Only months with tokens have days with tokens.
        return sa.case(
            (cells.c.issued > 0, found.correlate(cells).scalar_subquery()), else_=None
        ).label(name)

    rows = sa.select(
        cells.c.month,
        cells.c.issued,
        of_days(sa.func.min(day.c.date), "first_day"),
        of_days(sa.func.max(day.c.date), "last_day"),
        of_days(sa.func.count(day.c.date), "days"),
    )
    stored = agents.c
    own = (stored.tenant_id == TENANT, stored.agent_id == _AGENT)
    totals = sa.select(
        sa.select(stored.name).where(*own).scalar_subquery().label("name"),
        sa.select(stored.token_lifetime).where(*own).scalar_subquery().label("token_lifetime"),
        *_rank("month"),
        *_rank("before"),
        _unsure_before(),
    )
    return with_state(rows, "month", totals=totals)


def _rank(name: str) -> tuple[sa.Label[Any], sa.Label[Any]]:
    """The rank of an agent in a month, null without tokens, and the number of agents."""
    usage, month = monthly_agent_issuance.c, sa.bindparam(name, type_=sa.Date)
    of_month = (usage.tenant_id == TENANT, usage.month == month, usage.issued > 0)
    own = monthly_agent_issuance.alias(f"own_{name}").c
    issued = (
        sa.select(own.issued)
        .where(own.tenant_id == TENANT, own.month == month, own.agent_id == _AGENT, own.issued > 0)
        .scalar_subquery()
    )
    ahead = sa.or_(usage.issued > issued, sa.and_(usage.issued == issued, usage.agent_id < _AGENT))
    rank = sa.select(sa.func.count(usage.agent_id) + 1).where(*of_month, ahead).scalar_subquery()
    every = sa.select(sa.func.count(usage.agent_id)).where(*of_month).scalar_subquery()
    return (
        sa.case((issued.is_not(None), rank)).label(f"rank_{name}"),
        every.label(f"agents_{name}"),
    )


_LIFE = _life()
