"""Shared views: what the page of a share link shows of some days."""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection

from app.errors import UnavailableError, ValidationError
from app.reports.activity import Week, week_of_days
from app.reports.base import TENANT, Report
from app.reports.findings import FindingsFilter, FindingsPage, OptionsOf, findings_page
from app.reports.finer import Span
from app.reports.summary import Summary, summary
from app.reports.trend import DayCount, daily_tokens
from app.reports.usage import AgentCount, usage_of_days
from app.storage.tables import agents

# Of a long list, the page shows the first ones.
SHOWN_AGENTS, SHOWN_FINDINGS = 20, 20

T = TypeVar("T")


@dataclass(frozen=True)
class SharedViews:
    """The chosen views. One that is not chosen, or cannot be read any more, is ``None``.

    ``names``: of the agents that are shown, as far as they have names.
    """

    summary: Summary | None = None
    tokens: Report[DayCount] | None = None
    activity: Week | None = None
    agents: Report[AgentCount] | None = None
    findings: FindingsPage | None = None
    names: Mapping[str, str] = field(default_factory=dict)


def shared_views(
    connection: Connection, tenant_id: str, span: Span, views: Set[str], options_of: OptionsOf
) -> SharedViews:
    """The chosen views of some days.

    Args:
        options_of: as for :func:`~app.reports.findings.findings_page`.
    """
    wanted = FindingsFilter(first=span.days.first, last=span.days.last)
    reads: dict[str, Callable[[], object]] = {
        "summary": lambda: summary(connection, tenant_id, span),
        "tokens": lambda: daily_tokens(connection, tenant_id, span),
        "activity": lambda: week_of_days(connection, tenant_id, span),
        "agents": lambda: usage_of_days(connection, tenant_id, span, limit=SHOWN_AGENTS),
        "findings": lambda: findings_page(
            connection, tenant_id, wanted, options_of, limit=SHOWN_FINDINGS
        ),
    }
    found = {view: _readable(read) for view, read in reads.items() if view in views}
    # Each function returns what its field has.
    shared = SharedViews(**found)  # type: ignore[arg-type]
    if shared.agents is None:
        return shared
    ids = [agent.agent_id for agent in shared.agents.points]
    rows = connection.execute(_NAMES, {"tenant_id": tenant_id, "ids": ids})
    return replace(shared, names={row.agent_id: row.name for row in rows})


_NAMES = sa.select(agents.c.agent_id, agents.c.name).where(
    agents.c.tenant_id == TENANT,
    agents.c.agent_id.in_(sa.bindparam("ids", expanding=True)),
    agents.c.name.is_not(None),
)


def _readable(read: Callable[[], T]) -> T | None:
    """What is read; ``None`` if retention has deleted some of the days, or a backfill goes on."""
    try:
        return read()
    except (ValidationError, UnavailableError):
        return None
