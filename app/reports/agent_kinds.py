"""Kinds of agents: rising, new, quiet and unnamed ones, among those with tokens in some periods."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import CTE

from app.reports.agent_periods import bind
from app.reports.agents import months_of_tenant
from app.reports.base import TENANT, like
from app.storage.tables import (
    agents,
    daily_agent_issuance,
    daily_issuance,
    monthly_agent_issuance,
)

SHOWN = ("all", "rising", "new", "quiet", "unnamed")
RISING_TOKENS = 100


def _was_used_earlier(used: CTE) -> sa.ColumnElement[bool]:
    """Whether an agent had tokens before the days: in an earlier month, or earlier in this one."""
    months, usage, own = months_of_tenant(), monthly_agent_issuance.c, daily_agent_issuance.c
    in_month = sa.select(usage.issued).where(
        usage.tenant_id == TENANT,
        usage.month == months.c.month,
        usage.agent_id == used.c.agent_id,
    )
    day = days_of_tenant("earlier", bind("first_month"), bind("first"))
    is_first = own.date == bind("first")
    hours = sa.case(
        (is_first, own.hours.bitwise_and(bind("before_first", sa.Integer))), else_=own.hours
    )
    on_day = sa.select(hours).where(
        own.tenant_id == TENANT, own.date == day.c.date, own.agent_id == used.c.agent_id
    )
    return sa.or_(
        sa.select(months.c.month)
        .where(
            months.c.month < bind("first_month"),
            in_month.correlate(months, used).scalar_subquery() > 0,
        )
        .correlate(used)
        .exists(),
        sa.select(day.c.date)
        .where(on_day.correlate(day, used).scalar_subquery() != 0)
        .correlate(used)
        .exists(),
    )


def days_of_tenant(name: str, first: Any, last: Any) -> sa.Subquery:
    """The organization's days in a range; each row of an agent is found with one by its key."""
    day = daily_issuance.c
    found = sa.select(day.date).where(day.tenant_id == TENANT, day.date.between(first, last))
    return found.subquery(name)


def kinds_of_agents(used: CTE, gate: CTE) -> CTE:
    """The agents with their names, their rank, and the kinds that each is of."""
    agent, row = agents.c, used.c
    names = (
        sa.select(agent.agent_id, agent.name)
        .where(agent.tenant_id == TENANT, agent.name.is_not(None))
        .subquery("names")
    )

    def flag(*conditions: Any) -> sa.ColumnElement[int]:
        # One inside the other, so that the last one, which looks rows up, is seldom evaluated.
        value: sa.ColumnElement[int] = sa.literal(1, sa.Integer)
        for condition in reversed(conditions):
            value = sa.case((condition, value), else_=0)
        return value

    rank = sa.func.row_number().over(order_by=(row.issued.desc(), row.agent_id))
    grown = row.whole - row.before
    is_rising = (row.before > 0, grown >= RISING_TOKENS, 3 * grown >= row.before)
    is_compared = sa.select(gate.c.is_unsure == 0).scalar_subquery()
    is_judged = sa.and_(bind("is_judged", sa.Integer) == 1, is_compared)
    is_quiet = (is_judged, row.recent == 0, row.before >= bind("whole_days", sa.Integer))
    is_new = (row.issued > 0, row.before == 0, sa.not_(_was_used_earlier(used)))
    pattern = bind("pattern", sa.Text)
    return (
        sa.select(
            *row,
            names.c.name,
            rank.label("rank"),
            flag(row.issued > 0).label("is_used"),
            flag(*is_rising).label("is_rising"),
            flag(*is_new).label("is_new"),
            flag(*is_quiet).label("is_quiet"),
            flag(row.issued > 0, names.c.name.is_(None)).label("is_unnamed"),
            flag(sa.or_(pattern.is_(None), like(row.agent_id, names.c.name))).label("is_found"),
        )
        .select_from(used.outerjoin(names, names.c.agent_id == row.agent_id))
        .cte("kinds")
    )
