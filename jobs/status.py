"""Where the rollup stands, for ``flask rollup status``."""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection

from app.db import database_now
from app.models import issuance_events, rollup_state


@dataclass(frozen=True)
class Status:
    """The state row, and what lies beyond its watermark.

    ``pending``: committed events not counted yet. ``lag_seconds``: how long ago the oldest
    of them was received; 0 without any. ``candidate``: the id that a run could not reach
    because of an open writer.
    """

    watermark: int
    pending: int
    lag_seconds: float
    candidate: int | None
    last_started: datetime | None
    last_finished: datetime | None


def rollup_status(connection: Connection) -> Status:
    """Read the status; its cost follows the pending events, not the history."""
    event = issuance_events.c
    pending = (
        sa.select(sa.func.count().label("events"), sa.func.min(event.received_at).label("oldest"))
        .where(event.id > sa.select(rollup_state.c.watermark).scalar_subquery())
        .subquery()
    )
    row = connection.execute(
        sa.select(rollup_state, pending, database_now().label("now")).select_from(
            rollup_state.join(pending, sa.true())
        )
    ).one()
    lag = (row.now - row.oldest).total_seconds() if row.oldest else 0.0
    return Status(
        watermark=row.watermark,
        pending=row.events,
        lag_seconds=max(lag, 0.0),
        candidate=row.candidate,
        last_started=row.last_started,
        last_finished=row.last_finished,
    )
