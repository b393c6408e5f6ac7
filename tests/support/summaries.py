"""Rows of the summary tables for events, counted in Python; a test then needs no events or runs."""

from collections import Counter
from collections.abc import Iterable
from datetime import date, datetime
from typing import Any

import sqlalchemy as sa

from app.storage.database import Database
from app.storage.tables import (
    daily_agent_issuance,
    daily_issuance,
    dow_hour_activity,
    dow_hour_total,
    hourly_issuance,
    monthly_agent_issuance,
    rollup_state,
)
from tests.support.settings import NOW, TENANT

Issued = tuple[datetime, str] | tuple[datetime, str, int]  # when, to which agent, how many tokens


def fill(
    database: Database,
    issued: Iterable[Issued],
    *,
    tenant: str = TENANT,
    counted_at: datetime = NOW,
    finer: bool = True,
) -> None:
    """Add the rows of a tenant without any; ``finer=False`` leaves the finer tables empty."""
    tables: dict[sa.Table[Any], Counter[tuple[Any, ...]]] = {
        table: Counter()
        for table in (
            *(daily_issuance, hourly_issuance, daily_agent_issuance),
            *(monthly_agent_issuance, dow_hour_activity, dow_hour_total),
        )
    }
    masks: dict[tuple[date, str], int] = {}
    for when, agent, *times in issued:
        count = times[0] if times else 1
        day, month, cell = (
            when.date(),
            when.date().replace(day=1),
            (when.isoweekday() % 7, when.hour),
        )
        tables[daily_issuance][(day,)] += count
        tables[hourly_issuance][day, when.hour] += count
        tables[daily_agent_issuance][day, agent] += count
        tables[monthly_agent_issuance][month, agent] += count
        tables[dow_hour_activity][month, *cell] += count
        tables[dow_hour_total][cell] += count
        masks[day, agent] = masks.get((day, agent), 0) | 1 << when.hour
    if not finer:
        tables[hourly_issuance].clear()
        tables[daily_agent_issuance].clear()

    def write(connection: sa.Connection) -> None:
        for table, counts in tables.items():
            keys = [column.name for column in table.primary_key][1:]
            rows = [
                {"tenant_id": tenant, **dict(zip(keys, key, strict=True)), "issued": count}
                | ({"hours": masks[key]} if table is daily_agent_issuance else {})
                for key, count in counts.items()
            ]
            if rows:
                connection.execute(sa.insert(table), rows)
        connection.execute(sa.update(rollup_state).values(last_finished=counted_at))

    database.write(write)
