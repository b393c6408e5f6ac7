"""An independent count of the raw events, in plain Python."""

from collections import Counter
from datetime import UTC

from sqlalchemy import select

from app.storage.database import Database
from app.storage.tables import (
    daily_agent_issuance,
    daily_issuance,
    dow_hour_activity,
    dow_hour_total,
    hourly_issuance,
    issuance_events,
    monthly_agent_issuance,
    rollup_state,
)


def recount(events):
    """Every summary table as it should be, from ``(tenant, agent, instant)``: see ``stored``."""
    days, cells, agents = Counter(), Counter(), Counter()
    hours, agents_days, week = Counter(), {}, Counter()
    for tenant, agent, instant in events:
        at = instant.astimezone(UTC)
        day, month, dow = at.date(), at.date().replace(day=1), at.isoweekday() % 7
        days[tenant, day] += 1
        cells[tenant, month, dow, at.hour] += 1
        agents[tenant, month, agent] += 1
        hours[tenant, day, at.hour] += 1
        issued, mask = agents_days.get((tenant, day, agent), (0, 0))
        agents_days[tenant, day, agent] = (issued + 1, mask | 1 << at.hour)
        week[tenant, dow, at.hour] += 1
    return {
        daily_issuance: days,
        dow_hour_activity: cells,
        monthly_agent_issuance: agents,
        hourly_issuance: hours,
        daily_agent_issuance: agents_days,
        dow_hour_total: week,
    }


def stored(database: Database, table):
    """A summary table as keys and counts; with a mask, as keys and pairs."""
    size = len(table.primary_key)
    with database.reading() as connection:
        rows = connection.execute(select(table)).all()
    return {tuple(row[:size]): row[size:] if row[size + 1 :] else row.issued for row in rows}


def numbers(rows):
    """The counts of the rows of ``stored``, and one for each hour of their masks."""
    issued, hours = Counter(), Counter()
    for key, value in rows.items():
        issued[key], mask = value if isinstance(value, tuple) else (value, 0)
        hours.update((*key, hour) for hour in range(24) if mask >> hour & 1)
    return issued, hours


def assert_exact(database: Database, *, counted_only: bool = False) -> int:
    """Every summary table equals the recount; returns the number of events.

    With ``counted_only`` events beyond the watermark are left out.
    """
    event = issuance_events.c
    query = select(event.tenant_id, event.agent_id, event.issued_at)
    if counted_only:
        query = query.where(event.id <= select(rollup_state.c.counted_upto).scalar_subquery())
    with database.reading() as connection:
        events = connection.execute(query).all()
    for table, expected in recount(events).items():
        assert stored(database, table) == expected, table.name
    return len(events)
