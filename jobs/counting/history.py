"""The history of runs: one row for each run that counted events or failed.

The row is written in the transaction that adds a window. So the history shows exactly the events
that were counted, and the row of a killed run stays ``running``.
"""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal

import sqlalchemy as sa
from sqlalchemy import Connection

from app.storage.locks import Holder
from app.storage.tables import rollup_runs
from app.storage.types import database_now
from jobs.counting.watermark import Writer

KEPT = timedelta(days=30)
ERROR_CHARACTERS = 500

Outcome = Literal["running", "done", "held_up", "failed"]


@dataclass(frozen=True)
class Run:
    """One run: its progress so far, or its result.

    ``held_up``: some events committed before the run are not counted yet. A writer's transaction
    stayed open, another transaction held a lock (``writers`` names either), or the run was stopped.
    Nothing is lost; the next run resumes.
    """

    started_at: datetime
    watermark_from: int
    watermark: int
    outcome: Outcome = "running"
    events: int = 0
    buckets: int = 0
    seconds: float = 0.0
    writers: Sequence[Writer | Holder] = field(default_factory=list)
    error: str | None = None
    id: int | None = None


def record_run(connection: Connection, run: Run) -> Run:
    """Insert or update the run's row; returns the run with the id of its row."""
    values = {
        "finished_at": None if run.outcome == "running" else database_now(),
        "outcome": run.outcome,
        "events": run.events,
        "buckets": run.buckets,
        "watermark_to": run.watermark,
        "error": run.error and run.error[:ERROR_CHARACTERS],
    }
    if run.id is not None:
        mine = rollup_runs.c.id == run.id
        connection.execute(sa.update(rollup_runs).where(mine).values(values))
        return run
    insert = sa.insert(rollup_runs).values(
        values
        | {
            "started_at": run.started_at,
            "watermark_from": run.watermark_from,
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
    )
    return replace(run, id=connection.scalar(insert.returning(rollup_runs.c.id)))


def forget_old_runs(connection: Connection, now: datetime) -> None:
    """Delete the rows of runs that started more than 30 days ago."""
    connection.execute(sa.delete(rollup_runs).where(rollup_runs.c.started_at < now - KEPT))
