"""Usage: tokens of a month or of some days by agent, and each agent's share.

Sums, ranks, limits and searches are SQL on monthly_agent_issuance, and for days on
daily_agent_issuance, because an organization may have a million agents.
"""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Select, Subquery

from app.dates import last_day
from app.ids import Id
from app.reports.agent_days import DAY_HOURS, mask_before, parts
from app.reports.base import (
    TENANT,
    Batches,
    Count,
    Point,
    Report,
    contains,
    like,
    read_report,
    read_with_totals,
    total,
    with_state,
)
from app.reports.days import Days
from app.reports.finer import Span, read_finer, with_finer_state
from app.storage.driver import Reading
from app.storage.tables import (
    agents,
    daily_agent_issuance,
    daily_issuance,
    monthly_agent_issuance,
)
from app.storage.types import as_utc

MOST = 10_000  # agents that are read at once


class AgentCount(Point, frozen=True):
    """Tokens issued to one agent in a month or on some days."""

    agent_id: Id
    token_count: Count


class NamedUsage(Point, frozen=True):
    """Tokens issued to one agent in a month, with the agent's name, for pages."""

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
    points = [AgentCount(agent_id, count) for _, agent_id, count, _ in rows]
    return Report(points, as_utc(state[0]))


def whole_usage_of_days(connection: Connection, tenant_id: str, days: Days) -> Batches:
    """As :func:`whole_usage`, for days that :func:`usage_of_days` has just read."""
    return Batches(
        connection,
        _OF_DAYS[days.are_utc],
        first=days.utc_first,
        last=days.utc_last,
        tenant_id=tenant_id,
        **edges(days),
    )


def edges(days: Days) -> dict[str, int]:
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
_OFFSET = sa.bindparam("offset", type_=sa.BigInteger)
_USAGE = with_state(_agents(), "-issued", "agent_id")
_TOP_USAGE = with_state(_top_agents(), "-issued", "agent_id")
_NAMED_USAGE = with_state(_named(_agents().subquery("used")), "-issued", "agent_id")


HEAVY_SHARE = 0.8  # of a month's tokens; above this share an agent is heavy
# With fewer tokens, or with one agent, a large share is ordinary.
HEAVY_TOKENS, HEAVY_AGENTS = 100, 2
SORTS = ("count", "name", "id")


@dataclass(frozen=True)
class Share:
    """An agent's share of the tokens of a month.

    ``rank`` 1 has the most. It is ``None`` in another order than by count if there are more than
    MOST agents, because ranks would need all of them sorted.
    """

    agent_id: str
    name: str | None
    count: int
    rank: int | None
    share: float


@dataclass(frozen=True)
class Ranking:
    """Agents of a month for one page, with totals of the whole month.

    ``all_agents`` counts the agents up to MOST + 1, which means more than MOST. ``has_more`` says
    whether the search finds agents after the page. ``heavy`` is the agent with more than
    HEAVY_SHARE of the tokens, if there is one.
    """

    agents: list[Share]
    has_more: bool
    all_agents: int
    total: int
    heavy: Share | None
    counted_at: datetime | None

    @property
    def is_counted(self) -> bool:
        """Whether ``all_agents`` is the number of agents; otherwise there are more than MOST."""
        return self.all_agents <= MOST

    @property
    def others(self) -> int:
        """The tokens of the agents that the page does not show."""
        return self.total - sum(agent.count for agent in self.agents)

    @property
    def others_share(self) -> float:
        return self.others / self.total if self.total else 0.0


def ranking(  # noqa: PLR0913 - the filters of a page
    connection: Connection,
    tenant_id: str,
    *,
    month: date,
    search: str | None,
    sort: str,
    limit: int,
    offset: int = 0,
) -> Ranking:
    """The agents that ``search`` finds, in the order of ``sort``, from ``offset`` on.

    Args:
        search: a part of the name or the id; ASCII letters match in any case.
        sort: ``count`` (most first), ``name`` (unnamed agents last) or ``id``.
    """
    values: dict[str, Any] = {
        "tenant_id": tenant_id,
        "month": month,
        "last": last_day(month),
        "limit": limit + 1,  # if one more is found, there is another page
        "offset": offset,
    }
    searched = search is not None
    if search is not None:
        values["pattern"] = contains(search)
    statement = _BY_COUNT
    if searched or sort != SORTS[0]:
        agents = read_report(connection, _COUNT, **values).points[0][1]
        statement = (_RANKED if agents <= MOST else _UNRANKED)[sort, searched]
    state, rows = read_with_totals(connection, statement, **values)
    all_agents, tokens = state[-2:]
    shown = [_share(row, tokens) for row in rows]
    return Ranking(
        agents=shown[:limit],
        has_more=len(shown) > limit,
        all_agents=all_agents,
        total=tokens,
        heavy=_heavy(connection, values, shown, all_agents, tokens),
        counted_at=as_utc(state[0]),
    )


def _heavy(
    connection: Connection,
    values: dict[str, Any],
    shown: list[Share],
    all_agents: int,
    tokens: int,
) -> Share | None:
    """The heavy agent of the month, which may not be on the page."""
    if all_agents < HEAVY_AGENTS or tokens < HEAVY_TOKENS:
        return None
    first = next((one for one in shown if one.rank == 1), None)
    if first is None:
        largest = values | {"limit": 1, "offset": 0}
        first = _share(read_report(connection, _BY_COUNT, **largest).points[0], tokens)
    return first if first.share > HEAVY_SHARE else None


def _share(row: Any, tokens: int) -> Share:
    _, _, agent_id, name, count, rank = row[:6]
    return Share(agent_id, name, count, rank, count / tokens if tokens else 0.0)


def _agent_count() -> Select[*tuple[Any, ...]]:
    """The number of agents of a month, up to MOST + 1, so that a million are not counted."""
    used = _agents().limit(MOST + 1).subquery("used").c
    return sa.select(sa.func.count(used.agent_id).label("agents"))


def _month_totals() -> Select[*tuple[Any, ...]]:
    """The number of agents, and the tokens of the month, which its days have counted already."""
    day, month = daily_issuance.c, sa.bindparam("month", type_=sa.Date)
    days = sa.select(total(day.issued).label("tokens")).where(
        day.tenant_id == TENANT, day.date.between(month, sa.bindparam("last", type_=sa.Date))
    )
    agents_, days_ = _agent_count().subquery("counted"), days.subquery("days")
    return sa.select(agents_.c.agents, days_.c.tokens).join_from(agents_, days_, sa.true())


def _found(*, searched: bool) -> Select[*tuple[Any, ...]]:
    """The agents of a month, or those of them that the search finds."""
    if not searched:
        return _agents()
    agent = agents.c
    named = sa.select(agent.agent_id).where(agent.tenant_id == TENANT, like(agent.name))
    ids = monthly_agent_issuance.c.agent_id
    return _agents().where(sa.or_(like(ids), ids.in_(named)))


def _order(columns: sa.ColumnCollection[str, Any], sort: str) -> tuple[sa.ColumnElement[Any], ...]:
    if sort == "name":
        return columns.name.is_(None), sa.func.lower(columns.name), columns.agent_id
    return (columns.agent_id,) if sort == "id" else (columns.issued.desc(), columns.agent_id)


def _page(found: Select[*tuple[Any, ...]], sort: str) -> Subquery:
    """A page of agents with their names. Except to sort by names, only its own are looked up."""

    def part(rows: Subquery) -> Select[*tuple[Any, ...]]:
        page = sa.select(rows).order_by(*_order(rows.c, sort))
        return page.limit(_LIMIT).offset(_OFFSET)

    rows = found.subquery("found")
    if sort == "name":
        return part(_named(rows).subquery("named")).subquery("page")
    return _named(part(rows).subquery("top")).subquery("page")


def _listing(page: Subquery, sort: str, rank: sa.ColumnElement[Any]) -> Reading:
    position = sa.func.row_number().over(order_by=_order(page.c, sort)).label("position")
    columns = (page.c.agent_id, page.c.name, page.c.issued, rank.label("rank"))
    return with_state(sa.select(position, *columns), "position", totals=_month_totals())


def _by_count() -> Reading:
    """A page of all agents by count, where the rank is the position."""
    page = _page(_found(searched=False), "count")
    rank = _OFFSET + sa.func.row_number().over(order_by=_order(page.c, "count"))
    return _listing(page, "count", rank)


def _ranked(sort: str, *, searched: bool) -> Reading:
    """A page in another order, or of the agents that a search finds, with their ranks."""
    every = _agents().subquery("every")
    rank = sa.func.row_number().over(order_by=_order(every.c, "count")).label("rank")
    ranks = sa.select(every.c.agent_id, rank).subquery("ranks")
    found = _found(searched=searched).subquery("found_agents")
    joined = found.join(ranks, ranks.c.agent_id == found.c.agent_id)
    page = _page(sa.select(found, ranks.c.rank).select_from(joined), sort)
    return _listing(page, sort, page.c.rank)


def _unranked(sort: str, *, searched: bool) -> Reading:
    """The same without ranks."""
    page = _page(_found(searched=searched), sort)
    return _listing(page, sort, sa.cast(sa.null(), sa.BigInteger))


_COUNT = with_state(_agent_count(), "agents")
_BY_COUNT = _by_count()
_CHOICES = [(sort, searched) for sort in SORTS for searched in (False, True)]
_RANKED = {(sort, searched): _ranked(sort, searched=searched) for sort, searched in _CHOICES}
_UNRANKED = {(sort, searched): _unranked(sort, searched=searched) for sort, searched in _CHOICES}
