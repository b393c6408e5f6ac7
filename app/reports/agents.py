"""The directory of agents: their names, and the months in which they were issued tokens.

``app.intake.agent_names`` stores the names.
"""

from dataclasses import dataclass
from datetime import date
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Select

from app.ids import Id
from app.reports.base import TENANT, Count, Month, Point, Report, read_report, with_state
from app.storage.tables import agents, monthly_agent_issuance

_ESCAPE = "\\"


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
    grows with the number of the tenant's rows there, and is the same for every page.

    Args:
        after: the id after which the page begins; empty for the first page.
        text: a part of the name or the id; ASCII letters match in any case.
    """
    # One agent more than the page shows: if it is found, there is a next page.
    parameters = {"tenant_id": tenant_id, "after": after, "limit": limit + 1}
    if text is None:
        found = read_report(connection, _PAGE, **parameters)
    else:
        found = read_report(connection, _SEARCH, **parameters, pattern=_pattern(text))
    points = [
        Agent(agent_id, name, _month(first), _month(last), count)
        for _, agent_id, name, first, last, count in found.points
    ]
    next_after = points[limit - 1].agent_id if len(points) > limit else None
    return AgentsPage(points[:limit], found.counted_at, next_after)


def _month(day: date | None) -> str | None:
    return None if day is None else f"{day:%Y-%m}"


def _pattern(text: str) -> str:
    """A pattern for LIKE that finds ``text`` anywhere; none of its characters is a wildcard."""
    # On bytes, lower() changes ASCII letters only.
    folded = text.encode().lower().decode()
    for special in (_ESCAPE, "%", "_"):
        folded = folded.replace(special, _ESCAPE + special)
    return f"%{folded}%"


def _both() -> sa.Subquery:
    """Names and counted months, as one list of rows.

    Grouped by agent, they equal the result of a FULL JOIN, which older versions of SQLite lack.
    """
    agent, usage = agents.c, monthly_agent_issuance.c
    after = sa.bindparam("after", type_=sa.Text)
    no_month, none_issued = sa.cast(sa.null(), sa.Date), sa.literal(0, sa.BigInteger)
    named = sa.select(
        agent.agent_id, agent.name, no_month.label("month"), none_issued.label("issued")
    ).where(agent.tenant_id == TENANT, agent.agent_id > after, agent.name.is_not(None))
    counted = sa.select(
        usage.agent_id, sa.cast(sa.null(), agent.name.type), usage.month, usage.issued
    ).where(usage.tenant_id == TENANT, usage.agent_id > after, usage.issued > 0)
    return sa.union_all(named, counted).subquery("both")


def _agents(*, search: bool) -> Select[*tuple[Any, ...]]:
    """A page of the directory.

    Args:
        search: only agents whose name or id is like ``pattern``. Both columns are ``COLLATE "C"``,
            so that lower() changes ASCII letters only, on PostgreSQL as on SQLite.
    """
    both = _both().c
    name = sa.func.max(both.name)
    found = sa.select(
        both.agent_id,
        name.label("name"),
        sa.func.min(both.month).label("first"),
        sa.func.max(both.month).label("last"),
        # On PostgreSQL the sum of big integers is a decimal; the cast keeps it an integer.
        sa.cast(sa.func.sum(both.issued), sa.BigInteger).label("issued"),
    ).group_by(both.agent_id)
    if search:
        pattern = sa.bindparam("pattern", type_=sa.Text)
        texts = (sa.func.lower(name), sa.func.lower(both.agent_id))
        found = found.having(sa.or_(*(text.like(pattern, escape=_ESCAPE) for text in texts)))
    return found.order_by(both.agent_id).limit(sa.bindparam("limit", type_=sa.Integer))


_PAGE = with_state(_agents(search=False), "agent_id")
_SEARCH = with_state(_agents(search=True), "agent_id")
