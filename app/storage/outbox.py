"""The outbox: messages that wait to be sent to the endpoints of organizations.

A change of a finding adds its messages in its own transaction. So a message exists exactly if the
change was committed, and ``jobs.delivery`` sends it later, in no transaction. One statement adds
the messages of many findings. Organizations without endpoints cost one look into an index.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Select
from sqlalchemy.dialects import postgresql, sqlite

from app.storage.tables import findings, webhook_endpoints, webhook_messages
from app.storage.types import seconds_between

OPENED, UPDATED, RESOLVED = "finding.opened", "finding.updated", "finding.resolved"
WAITING, DELIVERED, PARKED, DROPPED = "waiting", "delivered", "parked", "dropped"
# A finding that is noticed later than this is stored, and not sent to anybody.
LATE = timedelta(hours=48)
# How long a message is tried.
TRIED = timedelta(hours=24)
# How long a message that is done stays in the log.
KEPT = timedelta(days=30)
# Ids in one statement, and rows that are deleted in one transaction.
BATCH, BATCH_DELETED = 500, 10_000
SEVERITIES = ("info", "warning", "critical")

_ENDPOINT, _FINDING, _MESSAGE = webhook_endpoints.c, findings.c, webhook_messages.c


class FindingEvent(NamedTuple):
    """A change of a finding, which has got a new ``version`` with it.

    ``kind``: ``OPENED``, ``UPDATED`` or ``RESOLVED``. ``is_urgent``: an update is sent even if the
    endpoint was told of the finding a short time ago.
    """

    tenant_id: str
    finding_id: str
    kind: str
    is_urgent: bool = False


class Document(msgspec.Struct):
    """A message that is about no finding.

    ``text`` is plain. ``html`` is a whole document, for e-mail. ``data``: JSON for programs.
    """

    subject: str
    text: str
    html: str | None = None
    data: dict[str, Any] | None = None


def event_kind(before: str | None, after: str) -> str:
    """The kind of a change, from the status of the finding before (``None``: new) and after."""
    if after == "resolved" and before != "resolved":
        return RESOLVED
    return UPDATED if before == after else OPENED


def enqueue_events(connection: Connection, events: Sequence[FindingEvent], now: datetime) -> None:
    """Add the messages of some changes, in the transaction that changes the findings.

    A message is added for each enabled endpoint whose kinds and severity match. An update is left
    out during the endpoint's cool-down after the last message about the same finding. So is all
    about a finding that was noticed too late.
    """
    if not events:
        return
    endpoint = _ENDPOINT.tenant_id
    told = sa.select(endpoint).where(
        endpoint.in_(sorted({one.tenant_id for one in events})), _ENDPOINT.disabled_at.is_(None)
    )
    with_endpoints = set(connection.scalars(told.distinct()))
    wanted = sorted(one for one in events if one.tenant_id in with_endpoints)
    for (tenant_id, kind, urgent), some in groupby(sorted(wanted, key=_group), key=_group):
        ids = [one.finding_id for one in some]
        for start in range(0, len(ids), BATCH):
            part = ids[start : start + BATCH]
            added = _of_findings(tenant_id, part, kind, now, is_urgent=urgent)
            _insert(connection, added)


def enqueue_message(  # noqa: PLR0913 - a message, and where it goes
    connection: Connection,
    *,
    tenant_id: str,
    endpoint_ids: Sequence[str] | None,
    message_id: str,
    kind: str,
    document: Document,
    now: datetime,
) -> int:
    """Add a message that is about no finding. Returns the number of endpoints that will get it.

    Args:
        endpoint_ids: some endpoints; ``None`` for all of the organization. Disabled ones are left
            out.
        message_id: letters, digits, ``-`` and ``_``. A message that was added before is not added
            again.
        kind: as ``digest.week``.
    """
    where = [_ENDPOINT.tenant_id == tenant_id, _ENDPOINT.disabled_at.is_(None)]
    if endpoint_ids is not None:
        where.append(_ENDPOINT.id.in_(endpoint_ids))
    values: dict[str, Any] = {
        "tenant_id": _ENDPOINT.tenant_id,
        "id": sa.literal(f"{message_id}.", _MESSAGE.id.type) + _ENDPOINT.id,
        "endpoint_id": _ENDPOINT.id,
        "kind": sa.literal(kind, sa.Text),
        "document": sa.literal(msgspec.json.encode(document).decode(), sa.Text),
        **_waiting(now),
    }
    return _insert(connection, _select(values).where(*where))


def drop_waiting(connection: Connection, tenant_id: str, endpoint_id: str, now: datetime) -> None:
    """Drop what waits for an endpoint that was disabled."""
    waiting = sa.and_(
        _MESSAGE.tenant_id == tenant_id,
        _MESSAGE.endpoint_id == endpoint_id,
        _MESSAGE.next_at.is_not(None),
    )
    connection.execute(
        sa.update(webhook_messages)
        .where(waiting)
        .values(done(DROPPED, now) | {"error": "the endpoint was disabled"})
    )


def done(status: str, now: datetime) -> dict[str, Any]:
    """The columns of a message that is not tried again."""
    return {"status": status, "next_at": None, "document": None, "body": None, "done_at": now}


def forget_old_messages(connection: Connection, now: datetime) -> int:
    """Delete messages that were done long ago, some of them. Returns how many were deleted."""
    key = _MESSAGE.tenant_id, _MESSAGE.id
    old = (
        sa.select(*key)
        .where(_MESSAGE.created_at < now - KEPT, _MESSAGE.next_at.is_(None))
        .order_by(_MESSAGE.created_at)
        .limit(BATCH_DELETED)
    )
    rows = connection.execute(old).all()
    by_tenant = groupby(sorted(rows), key=lambda row: row.tenant_id)
    for tenant_id, some in by_tenant:
        ids = [row.id for row in some]
        ours = sa.and_(_MESSAGE.tenant_id == tenant_id, _MESSAGE.id.in_(ids))
        connection.execute(sa.delete(webhook_messages).where(ours))
    return len(rows)


def _group(event: FindingEvent) -> tuple[str, str, bool]:
    return event.tenant_id, event.kind, event.is_urgent


def _of_findings(
    tenant_id: str, ids: Sequence[str], kind: str, now: datetime, *, is_urgent: bool
) -> Select[Any]:
    values: dict[str, Any] = {
        "tenant_id": _FINDING.tenant_id,
        "id": _FINDING.id + "." + sa.cast(_FINDING.version, sa.Text) + "." + _ENDPOINT.id,
        "endpoint_id": _ENDPOINT.id,
        "kind": sa.literal(kind, sa.Text),
        "severity": _FINDING.severity,
        "finding_id": _FINDING.id,
        "version": _FINDING.version,
        "content": _FINDING.content,
        "finding_status": _FINDING.status,
        "detected_at": _FINDING.detected_at,
        "updated_at": _FINDING.updated_at,
        "resolved_at": _FINDING.resolved_at,
        "resolution": _FINDING.resolution,
        **_waiting(now),
    }
    kinds = sa.literal(" ", sa.Text) + _ENDPOINT.kinds + " "
    conditions = [
        _FINDING.tenant_id == tenant_id,
        _FINDING.id.in_(ids),
        _ENDPOINT.tenant_id == tenant_id,
        _ENDPOINT.disabled_at.is_(None),
        sa.or_(_ENDPOINT.kinds.is_(None), kinds.like("% " + _FINDING.kind + " %")),
        seconds_between(_FINDING.opened_at, _FINDING.detected_at) <= LATE.total_seconds(),
        _rank(_FINDING.severity) >= _rank(_ENDPOINT.min_severity),
    ]
    if kind == UPDATED and not is_urgent:
        conditions.append(_is_cool(now))
    joined = findings.join(webhook_endpoints, _FINDING.tenant_id == _ENDPOINT.tenant_id)
    return _select(values).select_from(joined).where(*conditions)


def _is_cool(now: datetime) -> ColumnElement[bool]:
    """Whether the endpoint's cool-down after its last message about the finding is over."""
    age = seconds_between(_MESSAGE.created_at, sa.literal(now, _MESSAGE.created_at.type))
    recent = sa.select(_MESSAGE.id).where(
        _MESSAGE.tenant_id == _FINDING.tenant_id,
        _MESSAGE.finding_id == _FINDING.id,
        _MESSAGE.endpoint_id == _ENDPOINT.id,
        age < _ENDPOINT.cooldown_minutes * 60,
    )
    return sa.not_(sa.exists(recent.correlate(findings, webhook_endpoints)))


def _rank(severity: ColumnElement[Any]) -> ColumnElement[int]:
    ranks = ((severity == name, number) for number, name in enumerate(SEVERITIES))
    return sa.case(*ranks, else_=0)


def _waiting(now: datetime) -> dict[str, Any]:
    moment = _MESSAGE.created_at.type
    return {
        "status": sa.literal(WAITING, sa.Text),
        "created_at": sa.literal(now, moment),
        "next_at": sa.literal(now, moment),
        "expires_at": sa.literal(now + TRIED, moment),
        "attempts": sa.literal(0, sa.Integer),
    }


def _select(values: dict[str, Any]) -> Select[Any]:
    return sa.select(*(value.label(name) for name, value in values.items()))


def _insert(connection: Connection, rows: Select[Any]) -> int:
    upsert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    names = [column.name for column in rows.selected_columns]
    insert = upsert(webhook_messages).from_select(names, rows).on_conflict_do_nothing()
    # Otherwise SQLAlchemy does not keep the number of an INSERT.
    return connection.execute(insert.execution_options(preserve_rowcount=True)).rowcount
