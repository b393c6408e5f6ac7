"""Storing: compares judged findings with the stored ones, and writes only the difference.

All of it is one transaction with the claim. So a killed process has stored the findings of an
organization together with how far it was judged, or neither.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from app.detection import Finding, Kind, Part, Severity
from app.intake.finding_marks import NO_MARK, Mark, severity_of, standing
from app.storage.database import Database
from app.storage.outbox import FindingEvent, enqueue_events, event_kind
from app.storage.tables import findings, usual
from jobs.findings.claim import Claim

CORRECTED = "corrected"
LAST = datetime.max.replace(tzinfo=UTC)
_CONTENT = msgspec.json.Decoder(Finding)
_FINDING = findings.c


@dataclass
class Judged:
    """What judging one organization has found.

    Attributes:
        after, upto: findings that were opened after the first instant, up to the second, are those
            of ``findings`` and no others. Others of ``findings`` were opened before.
        open_from: the beginning of the days that are not whole.
        findings: by id.
        progress: new values for the columns of the organization's row in ``usual``.
    """

    tenant_id: str
    after: datetime = LAST
    upto: datetime = LAST
    open_from: datetime = LAST
    findings: dict[str, Finding] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)

    def add_open_days(self, later: "Judged") -> None:
        """Add what was found on the days that follow, which are not whole."""
        self.after = min(self.after, later.after)
        self.open_from = later.after
        self.upto = later.upto
        self.findings |= later.findings
        self.progress |= later.progress


@dataclass(frozen=True)
class Change:
    """A finding to insert, if it is new, or to update.

    Attributes:
        may_wait: whether it is the silence of an organization on a day that is not whole.
    """

    tenant_id: str
    finding: Finding
    is_new: bool
    may_wait: bool = False


def changes(connection: Connection, judged: Sequence[Judged]) -> list[Change]:
    """The difference between what was found in some organizations and what is stored."""
    stored = _stored(connection, judged)
    return [change for one in judged for change in _changes(one, stored.get(one.tenant_id, {}))]


def store(
    database: Database,
    claim: Claim,
    found: Sequence[Change],
    judged: Sequence[Judged],
    now: datetime,
) -> None:
    """Store changes, and how far the organizations are judged, in one transaction.

    Raises:
        LostClaimError: another process judges, and nothing was stored.
    """
    progress = [one for one in judged if one.progress]
    if found or progress:
        database.write(partial(_write, claim, found, progress, now))


def _changes(judged: Judged, rows: Mapping[str, Any]) -> Iterator[Change]:
    tenant_id = judged.tenant_id
    for finding_id, finding in sorted(judged.findings.items()):
        row = rows.get(finding_id)
        if row is not None:
            if _CONTENT.decode(row.content) != finding:
                yield Change(tenant_id, finding, is_new=False)
        # A finding that was opened before these days was left out then, and is no news now.
        elif judged.after < finding.opened_at <= judged.upto:
            is_silence = finding.kind is Kind.SILENCE and finding.part is Part.ORGANIZATION
            may_wait = is_silence and finding.opened_at > judged.open_from
            yield Change(tenant_id, finding, is_new=True, may_wait=may_wait)
    for finding_id, row in rows.items():
        if finding_id not in judged.findings and judged.after < row.opened_at <= judged.upto:
            finding = _CONTENT.decode(row.content)
            if finding.resolution != CORRECTED:
                at = finding.resolved_at or finding.last_seen
                corrected = replace(finding, resolved_at=at, resolution=CORRECTED)
                yield Change(tenant_id, corrected, is_new=False)


def _stored(connection: Connection, judged: Sequence[Judged]) -> dict[str, dict[str, Any]]:
    """The stored findings that may change, by organization and id.

    Those of budgets are judged elsewhere, by what is counted now.
    """
    if not judged:
        return {}
    ids = [finding_id for one in judged for finding_id in one.findings]
    begin = min(one.after for one in judged)
    statement = sa.select(
        _FINDING.tenant_id, _FINDING.id, _FINDING.opened_at, _FINDING.content
    ).where(
        _FINDING.tenant_id.in_([one.tenant_id for one in judged]),
        _FINDING.kind != Kind.BUDGET.value,
        sa.or_(_FINDING.opened_at > begin, _FINDING.id.in_(ids)),
    )
    found: dict[str, dict[str, Any]] = {}
    for row in connection.execute(statement):
        found.setdefault(row.tenant_id, {})[row.id] = row
    return found


def _write(
    claim: Claim,
    found: Sequence[Change],
    judged: Sequence[Judged],
    now: datetime,
    connection: Connection,
) -> None:
    claim.renew(connection)
    by_tenant: dict[str, list[Finding]] = {}
    for change in found:
        by_tenant.setdefault(change.tenant_id, []).append(change.finding)
    new: list[dict[str, Any]] = []
    changed: list[dict[str, Any]] = []
    events: list[FindingEvent] = []
    for tenant_id, some in by_tenant.items():
        known = _known(connection, tenant_id, [finding.id for finding in some])
        for finding in some:
            before = known.get(finding.id)
            mark = NO_MARK if before is None else before.mark
            values = {"tenant_id": tenant_id, "updated_at": now} | _columns(finding, mark)
            events.append(_event(before, values))
            if before is not None:
                # Columns of the condition have other names than those that are set.
                ours = {"of_tenant": values.pop("tenant_id"), "of_id": values.pop("id")}
                changed.append(values | ours)
            else:
                new.append(values | {"detected_at": now, "version": 1})
    _write_findings(connection, new, changed)
    enqueue_events(connection, events, now)
    for columns, rows in _by_columns(judged):
        update = sa.update(usual).where(usual.c.tenant_id == sa.bindparam("of_tenant"))
        given: dict[str, Any] = {name: sa.bindparam(f"new_{name}") for name in columns}
        connection.execute(update.values(given), rows)


def _write_findings(
    connection: Connection, new: list[dict[str, Any]], changed: list[dict[str, Any]]
) -> None:
    if new:
        connection.execute(sa.insert(findings), new)
    if changed:
        connection.execute(_UPDATE, changed)


class _Known(NamedTuple):
    """What is stored of a finding: a person's mark, and what a change is compared with."""

    mark: Mark
    status: str
    severity: Severity
    resolution: str | None


def _known(connection: Connection, tenant_id: str, ids: Sequence[str]) -> dict[str, _Known]:
    """The stored ones of some findings, which are locked."""
    rows = connection.execute(_KNOWN, {"of_tenant": tenant_id, "of_ids": ids})
    return {
        row.id: _Known(
            Mark(row.acknowledged_at, row.acknowledged_by, severity_of(row.acknowledged_severity)),
            row.status,
            Severity(row.severity),
            row.resolution,
        )
        for row in rows
    }


def _event(before: _Known | None, values: Mapping[str, Any]) -> FindingEvent:
    kind = event_kind(None if before is None else before.status, values["status"])
    urgent = before is not None and (
        Severity(values["severity"]).rank > before.severity.rank
        or values["resolution"] != before.resolution
    )
    return FindingEvent(values["tenant_id"], values["id"], kind, urgent)


def _by_columns(
    judged: Sequence[Judged],
) -> Iterator[tuple[tuple[str, ...], list[dict[str, Any]]]]:
    """The new values of rows in ``usual``, of those rows together that get the same columns."""
    found: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for one in judged:
        row = {f"new_{name}": value for name, value in one.progress.items()}
        row["of_tenant"] = one.tenant_id
        found.setdefault(tuple(sorted(one.progress)), []).append(row)
    yield from found.items()


def _columns(finding: Finding, mark: Mark) -> dict[str, Any]:
    return {
        "id": finding.id,
        "kind": finding.kind.value,
        "severity": finding.severity.value,
        "agent_id": finding.agent if finding.part is Part.AGENT else None,
        "begins_at": finding.start,
        "ends_at": finding.end,
        "opened_at": finding.opened_at,
        "content": msgspec.json.encode(finding).decode(),
        **standing(finding, mark),
    }


_KNOWN = (
    sa.select(
        _FINDING.id,
        _FINDING.status,
        _FINDING.severity,
        _FINDING.resolution,
        _FINDING.acknowledged_at,
        _FINDING.acknowledged_by,
        _FINDING.acknowledged_severity,
    )
    .where(
        _FINDING.tenant_id == sa.bindparam("of_tenant"),
        _FINDING.id.in_(sa.bindparam("of_ids", expanding=True)),
    )
    .with_for_update()
)
_UPDATE = (
    sa.update(findings)
    .where(_FINDING.tenant_id == sa.bindparam("of_tenant"), _FINDING.id == sa.bindparam("of_id"))
    .values(version=_FINDING.version + 1)
)
