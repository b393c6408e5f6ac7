"""Marks of people on findings: acknowledged, and a note.

An acknowledged finding is resolved. Detection keeps the marks when it judges the counts anew.
"""

from datetime import datetime
from typing import Annotated, Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from app.detection import Finding, Severity, is_muted
from app.intake.events import prepared
from app.storage.audit import record_change
from app.storage.database import Database
from app.storage.outbox import FindingEvent, enqueue_events, event_kind
from app.storage.tables import findings

MAX_NOTE = 1000
ACKNOWLEDGED = "acknowledged"
_CONTENT = msgspec.json.Decoder(Finding)


@prepared
class MarkBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Marks to set on a finding. A member that is left out stays as it is."""

    acknowledged: bool | msgspec.UnsetType = msgspec.UNSET
    note: Annotated[
        Annotated[str, msgspec.Meta(max_length=MAX_NOTE)] | msgspec.UnsetType | None,
        msgspec.Meta(description=f"At most {MAX_NOTE} characters; null removes the note"),
    ] = msgspec.UNSET


def mark_finding(  # noqa: PLR0913, PLR0917 - which finding, the marks, by whom and when
    database: Database, tenant_id: str, finding_id: str, body: MarkBody, by: str, now: datetime
) -> bool:
    """Mark a finding of an organization. Returns whether there is such a finding.

    Args:
        by: the person or client that marks.
    """
    where = sa.and_(findings.c.tenant_id == tenant_id, findings.c.id == finding_id)

    def work(connection: Connection) -> bool:
        database.name_tenants(connection, {tenant_id})
        row = connection.execute(_READ.where(where).with_for_update()).one_or_none()
        if row is None:
            return False
        values = _changed(row, body, by, now)
        is_news = values.get("status", row.status) != row.status
        if values:
            values["updated_at"] = now
            if is_news:
                values["version"] = findings.c.version + 1
            connection.execute(sa.update(findings).where(where).values(values))
            record_change(
                connection,
                tenant_id=tenant_id,
                actor=by,
                action="finding.marked",
                subject=finding_id,
                details=_marked(body),
                at=now,
            )
        if is_news:
            kind = event_kind(row.status, values["status"])
            enqueue_events(connection, [FindingEvent(tenant_id, finding_id, kind)], now)
        return True

    return database.write(work)


def _changed(row: Any, body: MarkBody, by: str, now: datetime) -> dict[str, Any]:
    """The columns that a body changes in the row of a finding."""
    finding = _CONTENT.decode(row.content)
    values: dict[str, Any] = {}
    if body.note is not msgspec.UNSET:
        values["note"] = body.note
    is_acknowledged = is_muted(finding, severity_of(row.acknowledged_severity))
    if body.acknowledged is True and not is_acknowledged:
        mark = Mark(now, by, finding.severity)
        values |= mark.columns() | standing(finding, mark)
    elif body.acknowledged is False and row.acknowledged_at is not None:
        values |= NO_MARK.columns() | standing(finding, NO_MARK)
    return values


def _marked(body: MarkBody) -> dict[str, Any]:
    """What a body marks, for the audit log: of a note only whether there is one."""
    details: dict[str, Any] = {}
    if body.acknowledged is not msgspec.UNSET:
        details["acknowledged"] = body.acknowledged
    if body.note is not msgspec.UNSET:
        details["note"] = body.note is not None
    return details


class Mark(NamedTuple):
    """A person's acknowledgement: when, by which person or client, and at which severity."""

    at: datetime | None
    by: str | None
    severity: Severity | None

    def columns(self) -> dict[str, Any]:
        """The mark as columns of the finding's row."""
        severity = None if self.severity is None else self.severity.value
        return {
            "acknowledged_at": self.at,
            "acknowledged_by": self.by,
            "acknowledged_severity": severity,
        }


NO_MARK = Mark(None, None, None)


def severity_of(text: str | None) -> Severity | None:
    """The severity in a column, which may be null."""
    return None if text is None else Severity(text)


def standing(finding: Finding, mark: Mark) -> dict[str, Any]:
    """Whether a finding is open or resolved, with the person's mark, as columns of its row."""
    if finding.is_open and is_muted(finding, mark.severity):
        return {"status": "resolved", "resolved_at": mark.at, "resolution": ACKNOWLEDGED}
    return {
        "status": "open" if finding.is_open else "resolved",
        "resolved_at": finding.resolved_at,
        "resolution": finding.resolution,
    }


_READ = sa.select(
    findings.c.acknowledged_at,
    findings.c.acknowledged_severity,
    findings.c.content,
    findings.c.status,
)
