"""Status: how far an organization's events are counted, to tell 0 from what is not counted yet."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Select

from app.errors import UnavailableError
from app.reports.base import NO_STATE, TENANT
from app.storage.tables import issuance_events, rollup_state, usual
from app.storage.types import as_utc, database_now

MOST_PENDING = 10_000
# A transaction that stays open for a day delays runs, so no run finishes meanwhile.
_CREDIBLE = timedelta(days=1)


@dataclass(frozen=True)
class Status:
    """The status of an organization.

    ``complete_through``: hours that end by then are counted, as far as their events arrive as
    early as usual. ``lag_seconds``: the age of the oldest pending event, since its receipt; 0
    without any. ``pending_events``: events that are not counted yet, up to MOST_PENDING.
    """

    counted_at: datetime | None
    complete_through: datetime | None
    lag_seconds: int
    pending_events: int


def status(connection: Connection, tenant_id: str) -> Status:
    """The status of an organization.

    The cost grows with the number of events that are pending in the whole service.

    Raises:
        UnavailableError: the state row is missing.
    """
    state = connection.execute(_STATE, {"tenant_id": tenant_id}).one_or_none()
    if state is None:
        raise UnavailableError(NO_STATE)
    values = {
        "tenant_id": tenant_id,
        "counted_upto": state.counted_upto,
        "most": MOST_PENDING,
    }
    pending, oldest = connection.execute(_PENDING, values).one()
    return Status(
        state.last_finished,
        _complete_through(state.last_finished, timedelta(seconds=state.delay or 0)),
        _lag_seconds(state.now, state.last_finished, as_utc(oldest)),
        pending,
    )


def _complete_through(counted_at: datetime | None, delay: timedelta) -> datetime | None:
    if counted_at is None:
        return None
    return (counted_at - delay).replace(minute=0, second=0, microsecond=0)


def _lag_seconds(now: datetime, counted_at: datetime | None, oldest: datetime | None) -> int:
    """The age of the oldest pending event.

    A plain INSERT may set any receipt. A receipt in the future, or long before the last run that
    counted everything, is not believed: such an event came after that run.
    """
    if oldest is None:
        return 0
    if counted_at and not counted_at - _CREDIBLE <= oldest <= now:
        oldest = counted_at
    return max(int((now - oldest).total_seconds()), 0)


def _usual_delay() -> sa.ColumnElement[int]:
    """The seconds after which an organization's events have usually arrived."""
    stored = sa.select(usual.c.delay_seconds).where(usual.c.tenant_id == TENANT).scalar_subquery()
    return sa.func.coalesce(stored, 0)


def _pending() -> Select[*tuple[Any, ...]]:
    """The organization's events above the watermark, up to MOST_PENDING.

    The watermark is a value and no subquery: only so does PostgreSQL expect few events above it,
    and reads these by their ids.
    """
    event = issuance_events.c
    first = (
        sa.select(event.received_at)
        .where(
            event.tenant_id == TENANT,
            event.id > sa.bindparam("counted_upto", type_=sa.BigInteger),
        )
        .order_by(event.id)
        .limit(sa.bindparam("most", type_=sa.BigInteger))
        .subquery("pending")
    )
    return sa.select(
        sa.func.count(first.c.received_at), sa.func.min(first.c.received_at)
    ).select_from(first)


_STATE = sa.select(
    rollup_state.c.last_finished,
    rollup_state.c.counted_upto,
    database_now().label("now"),
    _usual_delay().label("delay"),
).select_from(rollup_state)
_PENDING = _pending()
