"""An independent count of the raw events, in plain Python."""

from collections import Counter
from datetime import UTC

from sqlalchemy import select

from app.storage.database import Database
from app.storage.tables import (
    daily_issuance,
    dow_hour_activity,
    issuance_events,
    monthly_agent_issuance,
    rollup_state,
)


def recount(events):
    """The three tables as they should be, from ``(tenant, agent, instant)``."""
    days, cells, agents = Counter(), Counter(), Counter()
    for tenant, agent, instant in events:
        at = instant.astimezone(UTC)
        month = at.date().replace(day=1)
        days[tenant, at.date()] += 1
        cells[tenant, month, at.isoweekday() % 7, at.hour] += 1
        agents[tenant, month, agent] += 1
    return {daily_issuance: days, dow_hour_activity: cells, monthly_agent_issuance: agents}


def stored(database: Database, table):
    """A summary table as keys and counts."""
    with database.reading() as connection:
        return {tuple(row[:-1]): row.issued for row in connection.execute(select(table))}


def assert_exact(database: Database, *, counted_only: bool = False) -> int:
    """Every summary table equals the recount; returns the number of events.

    With ``counted_only`` events beyond the watermark are left out.
    """
    event = issuance_events.c
    query = select(event.tenant_id, event.agent_id, event.issued_at)
    if counted_only:
        query = query.where(event.id <= select(rollup_state.c.watermark).scalar_subquery())
    with database.reading() as connection:
        events = connection.execute(query).all()
    for table, expected in recount(events).items():
        assert stored(database, table) == expected, table.name
    return len(events)
