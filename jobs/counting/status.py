"""The status of counting, for ``flask rollup status`` and for metrics."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row, Table

from app.storage.tables import issuance_events, rollup_corrections, rollup_runs, rollup_state
from app.storage.types import database_now
from jobs.counting.backfill import ids_left
from jobs.counting.state import no_state
from jobs.counting.watermark import Candidate, Writer, describe_writers, open_writers

SHOWN = 10
# A transaction that stays open for a day delays runs, so no run finishes meanwhile.
_CREDIBLE = timedelta(days=1)


@dataclass(frozen=True)
class Status:
    """The state row, the events beyond its watermark, and the latest runs and corrections.

    ``pending``: committed events that are not counted yet. ``lag_seconds``: the age of the oldest
    of them, since its receipt; 0 without any. ``refusal``: why counting is refused until
    ``flask rollup resume``. ``candidate``: the id that a run could not reach; ``writers``: the open
    transactions that delay it. ``last_started``: when a scheduler last began a run; runs by hand do
    not change it. ``finished_seconds``: the time since ``last_finished``. ``runs`` and
    ``corrections``: the newest rows of the history and of the journal. ``backfill_ids``: the number
    of event ids that ``flask rollup backfill`` has yet to count.
    """

    watermark: int
    pending: int
    lag_seconds: float
    refusal: str | None
    candidate: int | None
    writers: list[Writer]
    last_started: datetime | None
    last_finished: datetime | None
    finished_seconds: float | None
    runs: list[dict[str, Any]]
    corrections: list[dict[str, Any]]
    backfill_ids: int


@dataclass(frozen=True)
class Standing:
    """The numbers of the status, for metrics.

    ``refused``: whether counting is refused until ``flask rollup resume``.
    ``oldest_writer_seconds``: the age of the oldest transaction that may delay a run; 0 without
    any, and for transactions whose start this role may not see.
    """

    watermark: int
    pending: int
    lag_seconds: float
    refused: bool
    last_finished: datetime | None
    oldest_writer_seconds: float
    backfill_ids: int


def standing(connection: Connection) -> Standing:
    """Read the numbers for metrics; the cost grows with the number of pending events."""
    row = _state(connection)
    writers = describe_writers(connection, Candidate(0, open_writers(connection)))
    since = min((writer.since for writer in writers if writer.since), default=row.now)
    return Standing(
        watermark=row.counted_upto,
        pending=row.events,
        lag_seconds=_lag(row),
        refused=row.refusal is not None,
        last_finished=row.last_finished,
        oldest_writer_seconds=max((row.now - since).total_seconds(), 0.0),
        backfill_ids=ids_left(row),
    )


def rollup_status(connection: Connection) -> Status:
    """Read the status; the cost grows with the number of pending events, not with the history."""
    row = _state(connection)
    waiting = Candidate(row.candidate or 0, frozenset((row.writers or "").split()))
    waiting = waiting.remaining(open_writers(connection)) if row.candidate else waiting
    return Status(
        watermark=row.counted_upto,
        pending=row.events,
        lag_seconds=_lag(row),
        refusal=row.refusal,
        candidate=row.candidate,
        writers=describe_writers(connection, waiting),
        last_started=row.last_tick,
        last_finished=row.last_finished,
        finished_seconds=_age(row, row.last_finished) if row.last_finished else None,
        runs=_newest(connection, rollup_runs, "id"),
        corrections=_newest(connection, rollup_corrections, "correction"),
        backfill_ids=ids_left(row),
    )


def behind(found: Status, seconds: float) -> str | None:
    """Why counting is behind by more than some seconds, or refused; ``None`` if it is not."""
    if found.refusal is not None:
        return f"counting is refused: {found.refusal}"
    if found.lag_seconds > seconds:
        return f"an event has been waiting for {found.lag_seconds:.0f} s"
    if found.finished_seconds is None:
        return "no run has finished yet"
    if found.finished_seconds > seconds:
        return f"the last run finished {found.finished_seconds:.0f} s ago"
    return None


def _lag(row: Row[Any]) -> float:
    """The age of the oldest pending event.

    A plain INSERT may set any receipt. A receipt in the future, or long before the last run that
    counted everything, is not believed: such an event came after that run.
    """
    if row.oldest is None:
        return 0.0
    finished = row.last_finished
    if finished and not finished - _CREDIBLE <= row.oldest <= row.now:
        return _age(row, finished)
    return _age(row, row.oldest)


def _age(row: Row[Any], when: datetime) -> float:
    now: datetime = row.now
    return max((now - when).total_seconds(), 0.0)


def _state(connection: Connection) -> Row[Any]:
    event = issuance_events.c
    pending = (
        sa.select(sa.func.count().label("events"), sa.func.min(event.received_at).label("oldest"))
        .where(event.id > sa.select(rollup_state.c.counted_upto).scalar_subquery())
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
