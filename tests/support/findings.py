"""Stored findings, for tests that do not judge."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import sqlalchemy as sa

from app.detection import Finding, Kind, Part, Range, Severity, Share
from app.intake.finding_marks import NO_MARK, standing
from app.storage.database import Database
from app.storage.tables import findings
from tests.support.settings import TENANT

START = datetime(2026, 4, 14, tzinfo=UTC)
SPIKE = Finding(
    id="0" * 32,
    kind=Kind.SPIKE,
    part=Part.ORGANIZATION,
    agent="",
    severity=Severity.WARNING,
    opened_at=START + timedelta(hours=11),
    start=START,
    end=START + timedelta(hours=11),
    last_seen=START + timedelta(hours=11),
    observed=5120,
    usual=Range(1150, 1390, 1640),
    agents=(Share("agent-1", 3900, 780, 0.83),),
    detail="day",
)


def stored(database: Database, *changes: dict[str, object], tenant: str = TENANT) -> list[Finding]:
    """Store findings: SPIKE, each with some changes and with an id of its own."""
    made = [
        replace(SPIKE, **({"id": f"{number:032x}"} | one))  # type: ignore[arg-type]  # by name
        for number, one in enumerate(changes)
    ]
    rows = [
        {
            "tenant_id": tenant,
            "id": one.id,
            "kind": one.kind.value,
            "severity": one.severity.value,
            "agent_id": one.agent or None,
            "begins_at": one.start,
            "ends_at": one.end,
            "opened_at": one.opened_at,
            "detected_at": one.opened_at + timedelta(seconds=30),
            "updated_at": one.opened_at + timedelta(seconds=30),
            "content": msgspec.json.encode(one).decode(),
            **standing(one, NO_MARK),
        }
        for one in made
    ]
    database.write(lambda connection: connection.execute(sa.insert(findings), rows))
    return made
