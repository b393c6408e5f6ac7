"""The directory of agents: their names, and the months in which they were issued tokens.

``app.intake.agent_names`` stores the names.
"""

from dataclasses import dataclass
from datetime import date
from typing import Any

import sqlalchemy as sa
from sqlalchemy import CTE, Connection, Select

from app.ids import Id
from app.reports.base import (
    TENANT,
    Count,
    Month,
    Point,
    Report,
    contains,
    like,
    read_report,
    total,
    with_state,
)
from app.storage.driver import Reading
from app.storage.tables import agents, monthly_agent_issuance


class Agent(Point, frozen=True):
    """One agent: its name, its first and last month, and all tokens counted so far."""

    agent_id: Id
    name: Id | None
    first_month: Month | None
    last_month: Month | None
    token_count: Count


@dataclass(frozen=True)
class AgentsPage(Report[Agent]):
    """One page of the directory; ``next_after`` is the next page's ``after``, if there is one."""

    next_after: str | None


def agents_page(
    connection: Connection, tenant_id: str, *, after: str, limit: int, text: str | None
) -> AgentsPage:
    """The agents that have a name or were issued tokens, by id; at most ``limit``.

    Months and totals come from the monthly summary table. The report is one statement. Its cost
    grows with ``limit`` and with the number of months, and a search may read all agents.

    Args:
        after: the id after which the page begins; empty for the first page.
        text: a part of the name or the id; ASCII letters match in any case.
    """
    parameters: dict[str, Any] = {"tenant_id": tenant_id, "after": after, "limit": limit}
    if text is None:
        found = read_report(connection, _PAGE, **parameters)
    else:
        found = read_report(connection, _SEARCH, **parameters, pattern=contains(text))
    points = [
        Agent(agent_id, name, _month(first), _month(last), count)
        for _, agent_id, name, first, last, count in found.points
    ]
    next_after = points[limit - 1].agent_id if len(points) > limit else None
    return AgentsPage(points[:limit], found.counted_at, next_after)


def _month(day: date | None) -> str | None:
    return None if day is None else f"{day:%Y-%m}"


# The primary key of the monthly table begins with the tenant and the month. So one range of it
# holds the agents of one month, by id. A page steps from agent to agent in each of these ranges.
# Each step is a subquery of its own, because a join may be planned to read all months.

_AFTER = sa.bindparam("after", type_=sa.Text)
_LIMIT = sa.bindparam("limit", type_=sa.Integer)


def _months() -> CTE:
    """The tenant's months. Each is found in the key from the one before, without its agents."""
    usage = monthly_agent_issuance

    def first(*conditions: sa.ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
        ours = sa.select(usage.c.month).where(usage.c.tenant_id == TENANT, *conditions)
        return ours.order_by(usage.c.month).limit(1)

    months = sa.select(first().scalar_subquery().label("month")).cte("months", recursive=True)
    later = first(usage.c.month > months.c.month).correlate(months).scalar_subquery()
    return months.union_all(sa.select(later).where(months.c.month.is_not(None)))


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
    return sa.select(ids).order_by(ids).limit(_LIMIT + 1).cte("page")


def _agents(*, search: bool) -> Select[*tuple[Any, ...]]:
    """A page of the directory.

    Each count is found by the whole key, for each agent of the page and each month.

    Args:
        search: only agents whose name or id is like ``pattern``.
    """
    months = _months()
    page = _page(months, search=search)
    usage, agent = monthly_agent_issuance.c, agents.c
    count = sa.select(usage.issued).where(
        usage.tenant_id == TENANT,
        usage.month == months.c.month,
        usage.agent_id == page.c.agent_id,
        usage.issued > 0,
    )
    issued = count.correlate(page, months).scalar_subquery().label("issued")
    each = page.join(months, sa.true())
    cells = sa.select(page.c.agent_id, months.c.month, issued).select_from(each).subquery("cells")
    used = sa.case((cells.c.issued > 0, cells.c.month))
    name = sa.select(agent.name).where(
        agent.tenant_id == TENANT, agent.agent_id == cells.c.agent_id
    )
    return sa.select(
        cells.c.agent_id,
        name.correlate(cells).scalar_subquery().label("name"),
        sa.func.min(used).label("first"),
        sa.func.max(used).label("last"),
        total(cells.c.issued).label("issued"),
    ).group_by(cells.c.agent_id)


def _directory(*, search: bool) -> Reading:
    return with_state(_agents(search=search), "agent_id")


_PAGE = _directory(search=False)
_SEARCH = _directory(search=True)
