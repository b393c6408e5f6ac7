"""The audit log: who changed what, and when. Every administrative change records itself here.

A change is recorded in its own transaction, so the log has a row exactly if the change was
committed. The details have no secrets and no free text of people.
"""

import getpass
import os
import socket
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection, Row

from app.storage.tables import audit_log

KEPT = timedelta(days=400)
# Rows that a list fetches at once.
STREAMED = 1000


class Change(NamedTuple):
    """A recorded change.

    ``tenant_id`` is ``None`` for a change of no single organization.
    """

    at: datetime
    actor: str
    action: str
    tenant_id: str | None
    subject: str
    details: dict[str, Any] | None


def record_change(  # noqa: PLR0913 - the columns of the log
    connection: Connection,
    *,
    tenant_id: str | None,
    actor: str,
    action: str,
    subject: str,
    details: Mapping[str, Any] | None = None,
    at: datetime,
) -> None:
    """Record a change, in the transaction that makes it.

    Args:
        actor: the subject of a caller, or :func:`shell_user` for a command.
        action: as ``key.created``.
        subject: what was changed, as the id of the key.
        details: as JSON takes it; no secrets.
    """
    values = {
        "tenant_id": tenant_id,
        "changed_at": at,
        "actor": actor,
        "action": action,
        "subject": subject,
        "details": None if details is None else msgspec.json.encode(details).decode(),
    }
    # Inline, so that PostgreSQL returns no id: a role may then add rows without a right to read.
    connection.execute(_INSERT, values)


def changes(
    connection: Connection,
    *,
    tenant_id: str | None = None,
    begin: datetime | None = None,
    end: datetime | None = None,
) -> Iterator[Change]:
    """The recorded changes from ``begin`` until before ``end``, newest first; for operators.

    Args:
        connection: in a transaction, because the rows are read as a stream.
        tenant_id: only those of one organization, its deletion included.
    """
    column, conditions = audit_log.c, []
    if tenant_id is not None:
        about = sa.and_(column.tenant_id.is_(None), column.subject == tenant_id)
        conditions.append(sa.or_(column.tenant_id == tenant_id, about))
    if begin is not None:
        conditions.append(column.changed_at >= begin)
    if end is not None:
        conditions.append(column.changed_at < end)
    newest_first = column.changed_at.desc(), column.id.desc()
    statement = sa.select(audit_log).where(*conditions).order_by(*newest_first)
    with connection.execute(statement, execution_options={"yield_per": STREAMED}) as found:
        for row in found:
            yield _read(row)


def changes_page(
    connection: Connection, tenant_id: str, *, limit: int, before: int | None = None
) -> tuple[list[Change], int | None]:
    """The latest changes of an organization, and the cursor of the next page, if there is one.

    Args:
        before: the cursor that the previous page returned.
    """
    values = {"tenant_id": tenant_id, "before": before or _NO_END, "limit": limit + 1}
    rows = connection.execute(_PAGE, values).all()
    return [_read(row) for row in rows[:limit]], rows[limit - 1].id if len(rows) > limit else None


def forget_old_changes(connection: Connection, now: datetime) -> None:
    """Delete the changes of more than 400 days ago."""
    connection.execute(sa.delete(audit_log).where(audit_log.c.changed_at < now - KEPT))


def shell_user() -> str:
    """The actor of a command: ``shell:``, and the user of the operating system at this host."""
    return f"shell:{system_user()}"


def system_user() -> str:
    """The user of the operating system at this host, as ``alice@web-1``."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _read(row: Row[Any]) -> Change:
    details = None if row.details is None else msgspec.json.decode(row.details)
    return Change(row.changed_at, row.actor, row.action, row.tenant_id, row.subject, details)


_INSERT = sa.insert(audit_log).inline()
_NO_END = 2**63 - 1
# By the id, which rises with the time: the database draws it when the change is recorded.
_PAGE = (
    sa.select(audit_log)
    .where(
        audit_log.c.tenant_id == sa.bindparam("tenant_id", type_=sa.Text),
        audit_log.c.id < sa.bindparam("before", type_=sa.BigInteger),
    )
    .order_by(audit_log.c.id.desc())
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
