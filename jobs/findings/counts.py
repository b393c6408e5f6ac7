"""Counts: the days that are not over, as the rules of detection read them.

Of an organization with more agents than the rules judge, only the largest ones are read.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from app.detection import LARGEST_AGENTS, OTHERS
from app.storage.tables import daily_agent_issuance, hourly_issuance
from jobs.findings.history import DAY

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
