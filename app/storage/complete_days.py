"""Complete days: whether a table of hours or of agents counts every token of an organization's day.

``daily_issuance`` counts all tokens. ``hourly_issuance`` and ``daily_agent_issuance`` do not know
the days before the upgrade that added them, until ``flask rollup backfill`` has counted their
events. A day whose events were purged before stays incomplete. So does a day that retention has
deleted. A day is complete in such a table if its hours, or its agents, sum to ``daily_issuance``.
"""

from collections.abc import Mapping
from datetime import date
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Column, ColumnElement, Select, Table

from app.storage.tables import (
    daily_agent_issuance,
    daily_issuance,
    hourly_issuance,
    rollup_state,
)

# The day from which on a table is complete, once the backfill has ended; null: every day is.
COMPLETE_FROM: Mapping[Table[Any], Column[date]] = {
    hourly_issuance: rollup_state.c.hours_from,
    daily_agent_issuance: rollup_state.c.agents_from,
}


def incomplete_days(
    finer: Table,
    first: ColumnElement[date] | date,
    last: ColumnElement[date] | date,
    tenant_id: ColumnElement[str] | None = None,
) -> Select[str, date]:
    """The days from ``first`` to ``last`` that ``finer`` does not count whole, with their tenants.

    Args:
        finer: ``hourly_issuance`` or ``daily_agent_issuance``.
        tenant_id: the tenant, as a bound parameter; by default all tenants.
    """
    day, row = daily_issuance.c, finer.c
    counted = (
        sa.select(row.tenant_id, row.date, sa.func.sum(row.issued).label("issued"))
        .where(row.date.between(first, last))
        .group_by(row.tenant_id, row.date)
    )
    days = sa.select(day.tenant_id, day.date).where(day.date.between(first, last))
    if tenant_id is not None:
        counted = counted.where(row.tenant_id == tenant_id)
        days = days.where(day.tenant_id == tenant_id)
    sums = counted.subquery("counted")
    same = sa.and_(sums.c.tenant_id == day.tenant_id, sums.c.date == day.date)
    missing = day.issued != sa.func.coalesce(sums.c.issued, sa.literal(0))
    return days.outerjoin(sums, same).where(missing)
