"""Usage: tokens of a month by agent, and each agent's share.

The first half reads monthly_agent_issuance. The second half is arithmetic, without SQL and HTML.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Select

from app.ids import Id
from app.reports.base import TENANT, Count, Point, Report, read_report, with_state
from app.storage.tables import agents, monthly_agent_issuance


class AgentCount(Point, frozen=True):
    """Tokens issued to one agent in a month."""

    agent_id: Id
    token_count: Count


class NamedUsage(Point, frozen=True):
    """Tokens issued to one agent in a month, with the agent's name, for pages."""

    agent_id: Id
    name: Id | None
    token_count: Count


def agent_usage(
    connection: Connection, tenant_id: str, *, month: date, limit: int | None
) -> Report[AgentCount]:
    """Tokens of a month by agent, most first, then by id; at most ``limit`` agents."""
    if limit is None:
        found = read_report(connection, _USAGE, tenant_id=tenant_id, month=month)
    else:
        found = read_report(connection, _TOP_USAGE, tenant_id=tenant_id, month=month, limit=limit)
    points = [AgentCount(agent_id, count) for _, agent_id, count in found.points]
    return Report(points, found.counted_at)


def named_usage(connection: Connection, tenant_id: str, *, month: date) -> Report[NamedUsage]:
    """The usage of all agents, with their names."""
    found = read_report(connection, _NAMED_USAGE, tenant_id=tenant_id, month=month)
    points = [NamedUsage(agent_id, name, count) for _, agent_id, count, name in found.points]
    return Report(points, found.counted_at)


def _agents() -> Select[*tuple[Any, ...]]:
    usage = monthly_agent_issuance.c
    month = sa.bindparam("month", type_=sa.Date)
    return sa.select(usage.agent_id, usage.issued).where(
        usage.tenant_id == TENANT, usage.month == month, usage.issued > 0
    )


def _top_agents() -> Select[*tuple[Any, ...]]:
    usage, limit = monthly_agent_issuance.c, sa.bindparam("limit", type_=sa.Integer)
    return _agents().order_by(usage.issued.desc(), usage.agent_id).limit(limit)


def _named_agents() -> Select[*tuple[Any, ...]]:
    usage, agent = monthly_agent_issuance, agents.c
    names = sa.select(agent.agent_id, agent.name).where(agent.tenant_id == TENANT).subquery("names")
    joined = usage.outerjoin(names, names.c.agent_id == usage.c.agent_id)
    return _agents().add_columns(names.c.name).select_from(joined)


_USAGE = with_state(_agents(), "-issued", "agent_id")
_TOP_USAGE = with_state(_top_agents(), "-issued", "agent_id")
_NAMED_USAGE = with_state(_named_agents(), "-issued", "agent_id")


HEAVY_SHARE = 0.8  # of a month's tokens; above this share an agent is heavy


@dataclass(frozen=True)
class Share:
    """An agent's share of the tokens of a month; ``rank`` 1 has the most."""

    agent_id: str
    name: str | None
    count: int
    rank: int
    share: float

    @property
    def heavy(self) -> bool:
        return self.share > HEAVY_SHARE


def shares(points: Sequence[NamedUsage]) -> list[Share]:
    """The share of each agent, in the order of the report: most tokens first."""
    total = sum(point.token_count for point in points)
    return [
        Share(point.agent_id, point.name, point.token_count, rank, point.token_count / total)
        for rank, point in enumerate(points, start=1)
    ]


def found(agents: Iterable[Share], text: str) -> list[Share]:
    """The agents whose name or id contains ``text``; the case of letters is ignored."""
    folded = text.casefold()
    return [
        agent
        for agent in agents
        if folded in (agent.name or "").casefold() or folded in agent.agent_id.casefold()
    ]


def ordered(agents: Iterable[Share], by: str) -> list[Share]:
    """The agents by ``count`` (most first), ``name`` (unnamed agents last) or ``id``."""
    keys = {
        "count": lambda agent: (agent.rank,),
        "name": lambda agent: (agent.name is None, (agent.name or "").casefold(), agent.agent_id),
        "id": lambda agent: (agent.agent_id,),
    }
    return sorted(agents, key=keys[by])


@dataclass(frozen=True)
class Ranking:
    """The agents of a month that a page shows, with counts and totals of the whole month.

    ``matching`` counts the agents that the search finds, ``heavy`` has those above HEAVY_SHARE.
    """

    agents: list[Share]
    matching: int
    all_agents: int
    heavy: list[Share]
    total: int


def ranking(
    points: Sequence[NamedUsage], *, search: str | None, sort: str, limit: int | None
) -> Ranking:
    """The agents that ``search`` finds, in the order of ``sort``; at most ``limit``."""
    every = shares(points)
    matching = ordered(found(every, search or ""), sort)
    return Ranking(
        agents=matching[:limit],
        matching=len(matching),
        all_agents=len(every),
        heavy=[agent for agent in every if agent.heavy],
        total=sum(agent.count for agent in every),
    )
