"""Where the rollup stands, for ``flask rollup status``."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row, Table

from app.db import database_now
from app.models import issuance_events, rollup_corrections, rollup_runs, rollup_state
from jobs.state import no_state
from jobs.watermark import Candidate, Writer, describe_writers, open_writers

SHOWN = 10


@dataclass(frozen=True)
class Status:
    """The state row, what lies beyond its watermark, and what happened lately.

    ``pending``: committed events not counted yet. ``lag_seconds``: how long ago the oldest
    of them was received; 0 without any. ``candidate``: the id that a run could not reach,
    and ``writers``: whose open transactions still hold it up. ``runs`` and ``corrections``:
    the newest rows of the history and of the journal.
    """

    watermark: int
    pending: int
    lag_seconds: float
    candidate: int | None
    writers: list[Writer]
    last_started: datetime | None
    last_finished: datetime | None
    runs: list[dict[str, Any]]
    corrections: list[dict[str, Any]]


def rollup_status(connection: Connection) -> Status:
    """Read the status; its cost follows the pending events, not the history."""
    row = _state(connection)
    lag = (row.now - row.oldest).total_seconds() if row.oldest else 0.0
    waiting = Candidate(row.candidate or 0, frozenset((row.writers or "").split()))
    waiting = waiting.remaining(open_writers(connection)) if row.candidate else waiting
    return Status(
        watermark=row.watermark,
        pending=row.events,
        lag_seconds=max(lag, 0.0),
        candidate=row.candidate,
        writers=describe_writers(connection, waiting),
        last_started=row.last_started,
        last_finished=row.last_finished,
        runs=_newest(connection, rollup_runs, "id"),
        corrections=_newest(connection, rollup_corrections, "correction"),
    )


def _state(connection: Connection) -> Row[Any]:
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
    ).one_or_none()
    if row is None:
        raise no_state()
    return row


def _newest(connection: Connection, table: Table[Any], column: str) -> list[dict[str, Any]]:
    rows = connection.execute(sa.select(table).order_by(table.c[column].desc()).limit(SHOWN))
    return [dict(row._mapping) for row in rows]
