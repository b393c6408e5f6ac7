"""An organization whose days pass in the test: its events, and detection at each step."""

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from itertools import count
from typing import Any

import pytest
import sqlalchemy as sa

from app.storage.database import Database
from app.storage.tables import findings, issuance_events, rollup_state
from jobs.counting.run import run_rollup
from jobs.findings.task import Pass, judge_findings
from tests.support.settings import TENANT, make_settings

FIRST = date(2026, 1, 5)  # a Monday
DAY = timedelta(days=1)
SOON = timedelta(seconds=20)  # after which an event arrives


class Life:
    """Events of organizations that arrive one after the other, and what detection makes of them."""

    def __init__(self, database: Database, url: str) -> None:
        self.database = database
        self.settings = make_settings(url)
        self._numbers = count()
        self._arriving: list[dict[str, Any]] = []

    def issue(
        self,
        at: datetime,
        times: int = 1,
        *,
        agent: str = "agent-1",
        tenant: str = TENANT,
        delay: timedelta = SOON,
    ) -> None:
        """Let tokens be issued within the hour after ``at``; they arrive before the next run.

        Args:
            delay: between issuance and receipt, as the rows say.
        """
        self._arriving += [
            {
                "tenant_id": tenant,
                "event_id": f"event-{next(self._numbers):08}",
                "agent_id": agent,
                "issued_at": (issued := at + number * timedelta(hours=1) / times),
                "received_at": issued + delay,
            }
            for number in range(times)
        ]

    def work(self, day: date, *, tenant: str = TENANT) -> None:
        """Let 20 tokens be issued in each hour from 8 to 18, by two agents."""
        for hour in range(8, 18):
            self.issue(at(day, hour), 12, agent="agent-1", tenant=tenant)
            self.issue(at(day, hour), 8, agent="agent-2", tenant=tenant)

    def arrive(self) -> None:
        """Store the events that were issued."""
        rows, self._arriving = self._arriving, []
        if rows:
            insert = sa.insert(issuance_events)
            self.database.write(lambda connection: connection.execute(insert, rows))

    def run(self, now: datetime) -> None:
        """Count what has arrived, as if the run had ended at ``now``."""
        self.arrive()
        run_rollup(self.database, window_ids=1_000_000, wait_seconds=5)
        ended = sa.update(rollup_state).values(last_finished=now)
        self.database.write(lambda connection: connection.execute(ended))

    def judge(self) -> Pass:
        """One tick of detection."""
        return judge_findings(self.database, self.settings)

    def tick(self, now: datetime) -> Pass:
        """A run, and then a tick of detection."""
        self.run(now)
        return self.judge()

    def findings(self, *, until: datetime | None = None) -> list[dict[str, Any]]:
        """The stored findings that hold, without the times at which they were noticed."""
        kept = [column for column in findings.c if column.name not in {"detected_at", "updated_at"}]
        statement = sa.select(*kept).order_by(findings.c.tenant_id, findings.c.id)
        statement = statement.where(findings.c.resolution.is_distinct_from("corrected"))
        if until is not None:
            statement = statement.where(findings.c.opened_at <= until)
        with self.database.reading() as connection:
            return [dict(row._mapping) for row in connection.execute(statement)]

    def forget(self) -> None:
        """Delete all findings."""
        self.database.write(lambda connection: connection.execute(sa.delete(findings)))


def at(day: date, hour: int = 0) -> datetime:
    """An hour of a day."""
    return datetime.combine(day, time(hour), UTC)


@pytest.fixture
def life(database: Database, database_url: str) -> Life:
    return Life(database, database_url)


@pytest.fixture
def weeks(life: Life) -> Callable[..., date]:
    """Weeks of steady work on each day; returns the day after them."""

    def weeks(number: int, *, tenant: str = TENANT) -> date:
        for day in range(7 * number):
            life.work(FIRST + day * DAY, tenant=tenant)
        return FIRST + 7 * number * DAY

    return weeks
