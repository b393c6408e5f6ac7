"""Digests of organizations: makes one with everything that belongs into it, and adds its messages.

An endpoint gets the digest of each week, or of each month, once: the id of the message is made of
the period and the endpoint, and the outbox takes an id once.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from app.alerts.budgets import list_budgets
from app.config.settings import Settings
from app.dates import kept_from
from app.intake.organization_settings import options_between, options_of, settings_of
from app.reports.digest import MONTHLY, WEEKLY, Digest, DigestBudget, Period, digest, last_period
from app.reports.digest_texts import digest_text, subject
from app.reports.finer import Kept
from app.storage.outbox import Document, enqueue_message
from app.storage.tables import erasures, rollup_state, webhook_endpoints, webhook_messages

# After the end of a period, for events that arrive late.
SETTLED = timedelta(hours=6)
# How long after its end a digest is still news. It is shorter than messages are kept in the log:
# there they tell what was sent.
NEWS = {WEEKLY: timedelta(days=6), MONTHLY: timedelta(days=14)}
_KINDS = {WEEKLY: "week", MONTHLY: "month"}
# Their texts are shown with other letters, and in a few lines.
_CHATS = ("slack", "teams")
_ENDPOINT, _MESSAGE = webhook_endpoints.c, webhook_messages.c


class Receiver(NamedTuple):
    """An endpoint that waits for a digest."""

    tenant_id: str
    endpoint_id: str
    format: str


def organization_digest(
    connection: Connection, tenant_id: str, period: Period, settings: Settings, now: datetime
) -> Digest:
    """The digest of an organization for a week or a month; budgets are those of now.

    Raises:
        UnavailableError: the state row is missing.
    """
    options = options_of(settings_of(connection, tenant_id), settings.token_lifetime_seconds)
    budgets = [
        DigestBudget(
            agent_id=one.agent_id,
            agent_name=None,
            # It is one of these two in the database.
            period="day" if one.period == "day" else "month",
            tokens=one.tokens,
            used=one.used,
            projected=one.projected,
            crosses_on=one.crosses_on,
        )
        for one in list_budgets(connection, tenant_id, now, options_between).budgets
    ]
    kept = Kept(
        kept_from(now.date(), settings.hourly_retention_days),
        kept_from(now.date(), settings.agent_daily_retention_days),
    )
    return digest(connection, tenant_id, period, kept, lambda _tenant: options, budgets)


def due_periods(connection: Connection, now: datetime) -> list[Period]:
    """The last week and the last month, if they are counted to their end and still news."""
    counted_at = connection.execute(sa.select(rollup_state.c.last_finished)).scalar()
    found = [last_period(kind, now.date()) for kind in (WEEKLY, MONTHLY)]
    return [
        period
        for period in found
        if counted_at is not None
        and counted_at >= end_of(period)
        and SETTLED <= now - end_of(period) <= NEWS[period.kind]
    ]


def receivers(
    connection: Connection, period: Period, *, after: Receiver | None, limit: int
) -> list[Receiver]:
    """The endpoints that want the digest of a period and have not got it, at most ``limit``.

    They are in the order of organizations and ids, from the one behind ``after``. Those of
    organizations that are being deleted are left out.
    """
    values = {
        "kind": period.kind,
        "prefix": f"{message_id(period)}.",
        # No tenant has an empty id.
        "after_tenant": "" if after is None else after.tenant_id,
        "after_id": "" if after is None else after.endpoint_id,
        "limit": limit,
    }
    return [Receiver(*row) for row in connection.execute(_RECEIVERS, values)]


def add_digest(
    connection: Connection,
    found: Digest,
    to: Sequence[Receiver],
    now: datetime,
    base_url: str | None,
) -> int:
    """Add the messages of a digest for some endpoints. Returns how many are new."""
    added = 0
    for is_chat in (False, True):
        ids = [one.endpoint_id for one in to if (one.format in _CHATS) == is_chat]
        if ids:
            added += enqueue_message(
                connection,
                tenant_id=found.tenant_id,
                endpoint_ids=ids,
                message_id=message_id(found.period),
                kind=f"digest.{_KINDS[found.period.kind]}",
                document=digest_document(found, base_url, is_chat=is_chat),
                now=now,
            )
    return added


def digest_document(found: Digest, base_url: str | None, *, is_chat: bool) -> Document:
    """The message of a digest."""
    if is_chat:
        return Document(subject(found), digest_text(found, "brief", base_url))
    data: dict[str, Any] = msgspec.to_builtins(found)
    return Document(
        subject(found),
        digest_text(found, "text", base_url),
        digest_text(found, "html", base_url),
        data,
    )


def message_id(period: Period) -> str:
    """The first part of the ids of a period's messages, as ``digest-week-2026-W14``."""
    return f"digest-{_KINDS[period.kind]}-{period.name}"


def end_of(period: Period) -> datetime:
    """The end of a period."""
    return _midnight(period.last) + timedelta(days=1)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _receivers() -> sa.Select[*tuple[Any, ...]]:
    sent = sa.exists(
        sa.select(sa.literal(1))
        .select_from(webhook_messages)
        .where(
            _MESSAGE.tenant_id == _ENDPOINT.tenant_id,
            _MESSAGE.id == sa.bindparam("prefix", type_=sa.Text) + _ENDPOINT.id,
        )
    )
    erased = sa.exists(
        sa.select(sa.literal(1))
        .select_from(erasures)
        .where(erasures.c.tenant_id == _ENDPOINT.tenant_id, erasures.c.agent_id == "")
    )
    return (
        sa.select(_ENDPOINT.tenant_id, _ENDPOINT.id, _ENDPOINT.format)
        .where(
            _ENDPOINT.digest == sa.bindparam("kind", type_=sa.Text),
            _ENDPOINT.disabled_at.is_(None),
            sa.tuple_(_ENDPOINT.tenant_id, _ENDPOINT.id)
            > sa.tuple_(
                sa.bindparam("after_tenant", type_=sa.Text),
                sa.bindparam("after_id", type_=sa.Text),
            ),
            ~sent,
            ~erased,
        )
        .order_by(_ENDPOINT.tenant_id, _ENDPOINT.id)
        .limit(sa.bindparam("limit", type_=sa.Integer))
    )


_RECEIVERS = _receivers()
