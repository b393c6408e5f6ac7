"""One rollup run: the only code that moves the watermark.

**Why the numbers are exact.** A run consumes windows of ids, *watermark < id <= upto*.
In one READ COMMITTED transaction (BEGIN IMMEDIATE on SQLite) it locks the state row, reads
the watermark, adds the window to every summary table and sets the watermark to the window's
end. The lock makes runs take turns, so windows never overlap; the commit makes addition
and watermark one, so a run killed at any point has either counted a window whole or not at
all; the next window starts where the last one ended, so none is skipped. Within a window
no event is missed, because ``upto`` is safe (see ``jobs.watermark``): all ids up to it are
committed, visible to the statements' fresh snapshots, or will never exist. None is counted
twice, because ``(tenant_id, event_id)`` is unique and a row keeps its id. Late and
out-of-order events need no care: they have new ids, and their buckets are added to.
"""

import time
from dataclasses import dataclass, field
from threading import Event as Signal
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection, Row
from sqlalchemy.dialects import postgresql, sqlite

from app.db import Database, database_now
from app.models import issuance_events, rollup_state
from jobs.rollups import ROLLUPS, Window, add_window, in_window
from jobs.watermark import (
    Candidate,
    Writer,
    describe_writers,
    newest_candidate,
    open_writers,
)

POLL_SECONDS = 0.05
STATE = sa.select(rollup_state)


@dataclass
class Run:
    """What one run did.

    ``held_up`` means: not every event committed before the run is counted yet, since a
    writer's transaction stayed open (``writers`` names who) or the run was told to stop.
    Nothing is lost, the next run resumes.
    """

    watermark: int
    outcome: Literal["done", "held_up"] = "done"
    events: int = 0
    buckets: int = 0
    seconds: float = 0.0
    writers: list[Writer] = field(default_factory=list)


class Counted(NamedTuple):
    """A window that was added: the new watermark, its events, the buckets they touched."""

    watermark: int
    events: int
    buckets: int


def run_rollup(
    database: Database, *, window_ids: int, wait_seconds: float, stop: Signal | None = None
) -> Run:
    """Count every event committed before the call.

    Args:
        window_ids: at most so many ids per transaction.
        wait_seconds: how long to wait for writers that were open at the start.
        stop: when set, the run ends early, between two transactions.

    Raises:
        RefusedError: counting would be wrong here; nothing was changed.
    """
    started, stop = time.monotonic(), stop or Signal()
    with database.reading() as connection:
        state = connection.execute(STATE).one()
        newest = newest_candidate(connection, state.watermark)
    run, resumed = Run(state.watermark), _left_behind(state)
    while run.watermark < newest.upto and not stop.is_set():
        with database.reading() as connection:
            now_open = open_writers(connection)
        newest, resumed = newest.remaining(now_open), resumed.remaining(now_open)
        # Whoever holds the resumed candidate up was open when the newest was taken, too. So
        # it is safe first, and counting up to it is progress even if writers never pause.
        safe = max((c.upto for c in (newest, resumed) if not c.writers), default=0)
        if safe > run.watermark:
            _count_next(database, safe, window_ids, run)
        elif time.monotonic() - started >= wait_seconds:
            break
        else:
            stop.wait(POLL_SECONDS)
    if run.watermark < newest.upto:
        _leave_behind(database, run, resumed if resumed.upto > run.watermark else newest)
    else:
        finished = sa.update(rollup_state).values(last_finished=database_now())
        database.write(lambda connection: connection.execute(finished))
    run.seconds = time.monotonic() - started
    return run


def add_next_window(connection: Connection, upto: int, window_ids: int) -> Counted:
    """Count the next window, at most up to ``upto``, in the caller's transaction.

    Without anything left to count up to there, only says where the watermark is.
    """
    watermark: int = connection.execute(STATE.with_for_update()).one().watermark
    if upto <= watermark:
        return Counted(watermark, 0, 0)
    window = Window(watermark, min(upto, watermark + window_ids))
    upsert = (postgresql if connection.dialect.name == "postgresql" else sqlite).Insert
    counted = sa.select(sa.func.count()).select_from(issuance_events).where(in_window(window))
    events = connection.execute(counted).scalar_one()
    buckets = 0
    for rollup in ROLLUPS:
        added = connection.execute(
            add_window(rollup, upsert, window), execution_options={"preserve_rowcount": True}
        )
        buckets += added.rowcount
    candidate = rollup_state.c.candidate
    connection.execute(
        sa.update(rollup_state).values(
            watermark=window.upto,
            candidate=sa.case((candidate > window.upto, candidate)),
            writers=sa.case((candidate > window.upto, rollup_state.c.writers)),
        )
    )
    return Counted(window.upto, events, buckets)


def _count_next(database: Database, upto: int, window_ids: int, run: Run) -> None:
    counted = database.write(lambda connection: add_next_window(connection, upto, window_ids))
    run.watermark = counted.watermark
    run.events += counted.events
    run.buckets += counted.buckets


def _left_behind(state: Row[Any]) -> Candidate:
    """The candidate that an earlier run could not wait for; id 0 when there is none."""
    return Candidate(state.candidate or 0, frozenset((state.writers or "").split()))


def _leave_behind(database: Database, run: Run, candidate: Candidate) -> None:
    """Keep the candidate for the next run: one that started anew each time might never end."""
    run.outcome = "held_up"
    with database.reading() as connection:
        run.writers = describe_writers(connection, candidate)
    kept = (
        sa.update(rollup_state)
        .where(rollup_state.c.watermark < candidate.upto)
        .values(candidate=candidate.upto, writers=" ".join(sorted(candidate.writers)))
    )
    database.write(lambda connection: connection.execute(kept))
