"""Reports of all organizations for any days, for commands: organizations, tokens, agents.

They read the summary tables of all tenants at once, so they are for operators with a shell. The
web reads the list of ``app.reports.organizations`` instead.
"""

from collections.abc import Iterable, Iterator
from datetime import date, datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection, FromClause, Select

from app.dates import kept_from
from app.errors import RefusedError, UnavailableError
from app.reports.base import BATCH, NO_STATE, total
from app.reports.days import Days
from app.reports.trend import DayCount
from app.storage.tables import (
    agents,
    daily_agent_issuance,
    daily_issuance,
    dow_hour_total,
    findings,
    rollup_state,
)


class OrganizationOfDays(NamedTuple):
    """An organization and its tokens; members as ``app.reports.organizations.Organization``."""

    organization_id: str
    token_count: int
    previous_token_count: int
    change: float | None
    share: float
    active_agents: int | None
    last_day: date | None
    open_findings: int


class AgentOfDays(NamedTuple):
    """An agent and its tokens; ``share`` is its part of the tokens of all agents of the report."""

    organization_id: str
    agent_id: str
    name: str | None
    token_count: int
    share: float


def organizations_of_days(
    connection: Connection,
    days: Days,
    *,
    agent_days: int,
    tenant_id: str | None = None,
    limit: int | None = None,
) -> Iterator[list[OrganizationOfDays]]:
    """Organizations in batches, most tokens first, then by id.

    Args:
        connection: in a transaction, because the rows are read as a stream.
        agent_days: for how many days the days of agents are kept; 0 for good.
        tenant_id: only this one; its share is still that of all tokens.
    """
    known_from = _agents_from(connection, agent_days)
    knows_agents = known_from is not None and days.first >= known_from
    every = _organizations(days, knows_agents=knows_agents).subquery("every")
    statement = sa.select(every)
    if tenant_id is not None:
        statement = statement.where(every.c.tenant_id == tenant_id)
    statement = statement.order_by(every.c.tokens.desc(), every.c.tenant_id).limit(limit)
    for rows in _batches(connection, statement):
        yield [OrganizationOfDays(*row) for row in rows]


def tokens_of_days(
    connection: Connection, days: Days, tenant_id: str | None = None
) -> list[DayCount]:
    """The tokens of each day, of one organization or of all together."""
    day = daily_issuance.c
    statement = sa.select(day.date, total(day.issued).label("issued")).where(
        day.date.between(days.first, days.last)
    )
    if tenant_id is not None:
        statement = statement.where(day.tenant_id == tenant_id)
    found = connection.execute(statement.group_by(day.date))
    counts = {row.date: row.issued for row in found}
    return [DayCount(at, counts.get(at, 0)) for at in days]


def agents_of_days(
    connection: Connection,
    days: Days,
    *,
    agent_days: int,
    tenant_id: str | None = None,
    limit: int | None = None,
) -> Iterable[list[AgentOfDays]]:
    """Agents in batches, most tokens first, then by organization and id; as above.

    Raises:
        RefusedError: the days of agents are no longer kept.
        UnavailableError: they are still being filled.
    """
    known_from = _agents_from(connection, agent_days)
    if known_from is None:
        raise UnavailableError(
            "the days of agents are still being filled after an upgrade; run"
            " `flask rollup backfill`, then run this again"
        )
    if days.first < known_from:
        raise RefusedError(
            f"--from must be {known_from} or later: earlier days of agents are not kept, or not"
            " complete"
        )
    batches = _batches(connection, _agents(days, tenant_id, limit))
    return ([AgentOfDays(*row) for row in rows] for rows in batches)


def _batches(connection: Connection, statement: Select[Any]) -> Iterator[Any]:
    with connection.execute(statement, execution_options={"yield_per": BATCH}) as found:
        yield from found.partitions()


def _agents_from(connection: Connection, agent_days: int) -> date | None:
    """The day from which on the days of agents are complete; ``None`` while any may lack some."""
    state = connection.execute(sa.select(rollup_state)).one_or_none()
    if state is None:
        raise UnavailableError(NO_STATE)
    if state.backfilled < state.backfill_end:
        return None
    finished: datetime | None = state.last_finished
    kept = None if finished is None else kept_from(finished.date(), agent_days)
    return max(kept or date.min, state.agents_from or date.min)


def _organizations(days: Days, *, knows_agents: bool) -> Select[*tuple[Any, ...]]:
    tenants = sa.select(dow_hour_total.c.tenant_id).distinct().subquery("tenants")
    day, own, finding = daily_issuance.c, daily_agent_issuance.c, findings.c
    before = days.before
    sums = (
        sa.select(
            day.tenant_id,
            total(sa.case((day.date >= days.first, day.issued))).label("tokens"),
            total(sa.case((day.date < days.first, day.issued))).label("before"),
        )
        .where(day.date.between(before.first, days.last))
        .group_by(day.tenant_id)
        .subquery("sums")
    )
    used = (
        sa.select(own.tenant_id, sa.func.count(own.agent_id.distinct()).label("agents"))
        .where(own.date.between(days.first, days.last), own.issued > 0)
        .group_by(own.tenant_id)
        .subquery("used")
    )
    opened = (
        sa.select(finding.tenant_id, sa.func.count().label("open"))
        .where(finding.status == "open")
        .group_by(finding.tenant_id)
        .subquery("opened")
    )
    last_day = (
        sa.select(day.date)
        .where(day.tenant_id == tenants.c.tenant_id, day.issued > 0)
        .order_by(day.date.desc())
        .limit(1)
        .scalar_subquery()
    )
    sources: FromClause = tenants
    for part in (sums, opened, *([used] if knows_agents else [])):
        sources = sources.outerjoin(part, part.c.tenant_id == tenants.c.tenant_id)
    tokens = sa.func.coalesce(sums.c.tokens, 0)
    earlier = sa.func.coalesce(sums.c.before, 0)
    nothing = sa.cast(sa.null(), sa.BigInteger)
    return sa.select(
        tenants.c.tenant_id,
        tokens.label("tokens"),
        earlier.label("before"),
        (_double(tokens - earlier) / _double(sa.func.nullif(earlier, 0))).label("change"),
        _share(tokens),
        (sa.func.coalesce(used.c.agents, 0) if knows_agents else nothing).label("agents"),
        last_day.label("last_day"),
        sa.func.coalesce(opened.c.open, 0).label("open"),
    ).select_from(sources)


def _agents(days: Days, tenant_id: str | None, limit: int | None) -> Select[*tuple[Any, ...]]:
    own = daily_agent_issuance.c
    sums = (
        sa.select(own.tenant_id, own.agent_id, total(own.issued).label("tokens"))
        .where(own.date.between(days.first, days.last), own.issued > 0)
        .group_by(own.tenant_id, own.agent_id)
    )
    if tenant_id is not None:
        sums = sums.where(own.tenant_id == tenant_id)
    every = sums.subquery("every").c
    order = (every.tokens.desc(), every.tenant_id, every.agent_id)
    ranked = sa.select(every.tenant_id, every.agent_id, every.tokens, _share(every.tokens))
    most = ranked.order_by(*order).limit(limit).subquery("most")
    named = sa.and_(agents.c.tenant_id == most.c.tenant_id, agents.c.agent_id == most.c.agent_id)
    return (
        sa.select(most.c.tenant_id, most.c.agent_id, agents.c.name, most.c.tokens, most.c.share)
        .select_from(most.outerjoin(agents, named))
        .order_by(most.c.tokens.desc(), most.c.tenant_id, most.c.agent_id)
    )


def _share(tokens: sa.ColumnElement[int]) -> sa.Label[float]:
    """The part of the tokens of all rows; 0 if there are none."""
    every = sa.func.nullif(sa.func.sum(tokens).over(), 0)
    return sa.func.coalesce(_double(tokens) / _double(every), 0.0).label("share")


def _double(number: sa.ColumnElement[Any]) -> sa.ColumnElement[float]:
    return sa.cast(number, sa.Double)
