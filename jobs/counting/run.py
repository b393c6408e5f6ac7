"""A rollup run: the only code that moves the watermark.

**Why the numbers are exact.**

1. A run counts windows of ids, *watermark < id <= upto*. One transaction locks the state row, reads
   the watermark, adds the window to every summary table, and sets the watermark to the end of the
   window. It is READ COMMITTED on PostgreSQL and BEGIN IMMEDIATE on SQLite.
2. The lock makes runs take turns, so windows never overlap.
3. The commit joins the addition and the watermark. A run that is killed has counted a window as a
   whole or not at all.
4. The next window starts where the last one ended, so no id is skipped.
5. A window misses no event, because ``upto`` is safe (see ``jobs.counting.watermark``). Every id up
   to it is committed and visible to the fresh snapshot of the statement, or will never exist.
6. No event is counted twice: ``(tenant_id, event_id)`` is unique, and a row keeps its id.
7. Late and out-of-order events have new ids. They are added to their buckets like all others. A
   mask of hours is merged by OR, which gives the same mask in any order.
8. An upgrade that adds tables notes, while no run can move on, that they lack the events with
   *backfilled < id <= backfill_end*; runs count later ones. ``flask rollup backfill`` adds windows
   from ``backfilled`` on, and moves it, as in points 1 to 4. So each id is counted once.
9. Points 4 to 6 need new ids above the watermark, and the counted events below it. The state row
   holds the newest counted event, so that each run checks both. If a run finds a mismatch, counting
   is refused until a recount has proven the numbers (see ``jobs.counting.refusals``).
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from threading import Event as Signal
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from app.storage.database import Database
from app.storage.locks import LockedError
from app.storage.tables import rollup_state
from app.storage.types import database_now
from jobs.counting.adding import Window, add_window
from jobs.counting.history import Run, record_run
from jobs.counting.refusals import note_newest, refuse_refused
from jobs.counting.state import note_first_kept, read_state
from jobs.counting.tables import FOR_GOOD, SUMMARY_TABLES, Kept, Retention, kept_days
from jobs.counting.watermark import (
    Candidate,
    candidate_or_refusal,
    describe_writers,
    open_writers,
)

POLL_SECONDS = 0.05
# A run waits at least this long for a lock. A window that another run counts takes seconds, too.
MIN_LOCK_SECONDS = 5.0

# Set unless this process adds a window at this moment. Work that can wait lets the run go first.
NOT_ADDING = Signal()
NOT_ADDING.set()

# Called with the number of ids counted so far, and of all ids to count.
OnIds = Callable[[int, int], None]


class Counted(NamedTuple):
    """A window that was added: the new watermark, its events, and the buckets it touched."""

    watermark: int
    events: int
    buckets: int


def run_rollup(  # noqa: PLR0913 - settings, and ways to follow and to stop a run
    database: Database,
    *,
    window_ids: int,
    wait_seconds: float,
    retention: Retention = FOR_GOOD,
    stop: Signal | None = None,
    on_ids: OnIds = lambda _counted, _all: None,
) -> Run:
    """Count every event committed before the call.

    Args:
        window_ids: the largest number of ids in one transaction.
        wait_seconds: how long to wait for writers that were open at the start, and for a lock that
            another session holds.
        retention: for how many days summary tables keep their rows; older events are not added.
        stop: when set, the run ends early, between two transactions.
        on_ids: called between two transactions, and while the run waits.

    Raises:
        RefusedError: counting would give wrong numbers here; nothing was counted.
    """
    began = time.monotonic()
    with database.reading() as connection:
        state = read_state(connection, rollup_state, database_now().label("now"))
    refuse_refused(state)
    run = Run(state.now, state.counted_upto, state.counted_upto)
    give_up = began + wait_seconds
    lock_seconds = max(wait_seconds, MIN_LOCK_SECONDS)
    kept = kept_days(retention, state.now)
    add_next = partial(add_next_window, window_ids=window_ids, kept=kept)
    progress = _Progress(database, run, add_next, lock_seconds, on_ids)
    try:
        progress.count(state, give_up, stop or Signal())
    except LockedError as error:
        progress.give_way(error)
    except Exception as error:
        progress.fail(error)
        raise
    return replace(progress.run, seconds=time.monotonic() - began)


class _Progress:
    """A run in progress."""

    def __init__(
        self,
        database: Database,
        run: Run,
        add_next: Callable[[Connection, int], Counted],
        lock_seconds: float,
        on_ids: OnIds,
    ) -> None:
        self.run = run
        self._database = database
        self._write = partial(database.write, lock_seconds=lock_seconds)
        self._add_next = add_next
        self._on_ids = on_ids

    def count(self, state: Row[Any], give_up: float, stop: Signal) -> None:
        """Count windows until the newest id is counted, or the time to wait is over."""
        newest = candidate_or_refusal(self._database, state)
        resumed = _left_behind(state)
        if resumed.upto > newest.upto:
            resumed = Candidate(0)  # it was stored before the database was restored
        while self.run.watermark < newest.upto and not stop.is_set():
            self._report(newest)
            with self._database.reading() as connection:
                now_open = open_writers(connection)
            newest, resumed = newest.remaining(now_open), resumed.remaining(now_open)
            # Every writer that delays the resumed candidate also delays the newest one. So the
            # resumed one is safe first, and runs make progress even if writers never pause.
            safe = max((c.upto for c in (newest, resumed) if not c.writers), default=0)
            if safe > self.run.watermark:
                self.run = self._write(partial(self._count_next, upto=safe))
            elif time.monotonic() >= give_up:
                break
            else:
                stop.wait(POLL_SECONDS)
        self._report(newest)
        if self.run.watermark < newest.upto:
            self._leave_behind(resumed if resumed.upto > self.run.watermark else newest)
        else:
            self._finish()

    def _report(self, newest: Candidate) -> None:
        counted = self.run.watermark - self.run.watermark_from
        ids = newest.upto - self.run.watermark_from
        if ids:
            self._on_ids(min(counted, ids), ids)  # another run may have counted further

    def fail(self, error: Exception) -> None:
        """Record the failure in the history, if the database can be reached."""
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        failed = replace(self.run, outcome="failed", error=reason)
        try:
            self._database.write(lambda connection: record_run(connection, failed))
        except (sa.exc.SQLAlchemyError, LockedError):
            return  # the caller raises the failure

    def give_way(self, error: LockedError) -> None:
        """End as held up by the transactions that hold the lock, and record it if possible."""
        self.run = replace(self.run, outcome="held_up", writers=error.holders)
        with suppress(sa.exc.SQLAlchemyError, LockedError):
            self.run = self._database.write(
                lambda connection: record_run(connection, self.run), lock_seconds=1
            )

    def _count_next(self, connection: Connection, upto: int) -> Run:
        NOT_ADDING.clear()
        try:
            counted = self._add_next(connection, upto)
        finally:
            NOT_ADDING.set()
        run = replace(
            self.run,
            watermark=counted.watermark,
            events=self.run.events + counted.events,
            buckets=self.run.buckets + counted.buckets,
        )
        return record_run(connection, run) if counted.events else run

    def _leave_behind(self, candidate: Candidate) -> None:
        """Store the candidate for the next run.

        If each run took a new candidate, none might ever become safe.
        """
        with self._database.reading() as connection:
            writers = describe_writers(connection, candidate)
        held_up = replace(self.run, outcome="held_up", writers=writers)
        left = rollup_state.c.candidate
        kept = (
            sa.update(rollup_state)
            .where(rollup_state.c.counted_upto < candidate.upto)
            # A concurrent run may have stored an earlier candidate, which is safe sooner.
            .where(
                sa.or_(left.is_(None), left <= rollup_state.c.counted_upto, left >= candidate.upto)
            )
            .values(candidate=candidate.upto, writers=" ".join(sorted(candidate.writers)))
        )

        def leave(connection: Connection) -> Run:
            connection.execute(kept)
            return record_run(connection, held_up)

        self.run = self._write(leave)

    def _finish(self) -> None:
        done = replace(self.run, outcome="done")

        def finish(connection: Connection) -> Run:
            # A candidate that is still stored waits for nothing, or is of another server.
            connection.execute(
                sa.update(rollup_state).values(
                    last_finished=database_now(), candidate=None, writers=None
                )
            )
            return done if done.id is None else record_run(connection, done)

        self.run = self._write(finish)


def add_next_window(connection: Connection, upto: int, window_ids: int, kept: Kept) -> Counted:
    """Count the next window, at most up to ``upto``, in the caller's transaction.

    If every event up to ``upto`` is counted already, it only returns the watermark.
    """
    state = read_state(connection, lock=True)
    refuse_refused(state)  # another run may have stored it since this run began
    watermark: int = state.counted_upto
    if upto <= watermark:
        return Counted(watermark, 0, 0)
    window = Window(watermark, min(upto, watermark + window_ids))
    events, buckets = add_window(connection, SUMMARY_TABLES, window, kept)
    note_first_kept(connection, state, kept)
    candidate = rollup_state.c.candidate
    connection.execute(
        sa.update(rollup_state).values(
            counted_upto=window.upto,
            candidate=sa.case((candidate > window.upto, candidate)),
            writers=sa.case((candidate > window.upto, rollup_state.c.writers)),
        )
    )
    note_newest(connection, window.upto)
    return Counted(window.upto, events, buckets)


def _left_behind(state: Row[Any]) -> Candidate:
    """The candidate that an earlier run stored; id 0 if there is none."""
    return Candidate(state.candidate or 0, frozenset((state.writers or "").split()))
