"""The findings after a fault run: those that schedulers stored, compared with a recompute."""

import time
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import make_url

from app.config.settings import Settings
from app.detection import Kind
from app.storage.database import Database
from app.storage.tables import daily_issuance, findings, rollup_state, usual
from jobs.findings.recompute import recompute_findings
from jobs.findings.task import judge_findings
from tests.support.settings import make_settings

PATIENCE_SECONDS = 600
SHOWN = 10
# When a finding was noticed depends on the schedulers.
NOTICED = {"detected_at", "updated_at", "version"}


def misjudged(url: str) -> tuple[int, list[str]]:
    """How many findings the whole days have, and in which of them the two differ."""
    database, settings = Database(make_url(url)), make_settings(url)
    try:
        _judge(database, settings)
        with database.reading() as connection:
            first = connection.scalar(sa.select(sa.func.min(daily_issuance.c.date)))
            last = connection.scalar(sa.select(sa.func.min(usual.c.judged_through)))
        lived = _holding(database, last)
        database.write(lambda connection: connection.execute(sa.delete(findings)))
        recompute_findings(database, settings, first, last)
        # The hours of the days that are not whole are judged by schedulers alone.
        due = sa.update(usual).values(
            due_at=sa.select(rollup_state.c.last_finished).scalar_subquery()
        )
        database.write(lambda connection: connection.execute(due))
        _judge(database, settings)
        anew = _holding(database, last)
    finally:
        database.dispose()
    keys = sorted(key for key in lived.keys() | anew.keys() if lived.get(key) != anew.get(key))
    return len(lived), [f"{key}: {lived.get(key)} != {anew.get(key)}" for key in keys[:SHOWN]]


def _judge(database: Database, settings: Settings) -> None:
    """Judge until nothing is due."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while (done := judge_findings(database, settings)).organizations or done.outcome != "done":
        assert time.monotonic() < give_up, done


def _holding(database: Database, last: date) -> dict[tuple[str, str], dict[str, Any]]:
    """The findings that were opened up to the end of a day and hold, by organization and id.

    Those of budgets are of the moment, and a recompute leaves them alone.
    """
    end = datetime.combine(last + timedelta(days=1), time_of_day(), UTC)
    kept = [column for column in findings.c if column.name not in NOTICED]
    statement = sa.select(*kept).where(
        findings.c.opened_at <= end,
        findings.c.resolution.is_distinct_from("corrected"),
        findings.c.kind != Kind.BUDGET.value,
    )
    with database.reading() as connection:
        rows = [dict(row._mapping) for row in connection.execute(statement)]
    return {(row["tenant_id"], row["id"]): row for row in rows}
