"""Backfill: count older events into the tables that an upgrade added (``flask rollup backfill``).

Runs count new events into these tables from the upgrade on. The state row says which events are
left: *backfilled < id <= backfill_end*. A backfill adds windows of these ids as a run does, see
``jobs.counting.run``. An interrupted one continues where it was.

Until it has ended, no raw events are purged (see ``jobs.retention``). The days before the upgrade
whose events were purged earlier stay incomplete, see ``app.storage.complete_days``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from threading import Event as Signal
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from app.errors import RefusedError
from app.storage.database import Database
from app.storage.tables import rollup_state
from app.storage.types import database_now
from jobs.counting.adding import Window, add_window
from jobs.counting.refusals import refuse_refused
from jobs.counting.state import note_first_kept, read_state
from jobs.counting.tables import FINER_TABLES, FOR_GOOD, Kept, Retention, kept_days

# A run waits for a window of a backfill. So windows are short, and runs get turns in between.
WINDOW_IDS = 50_000
PAUSE_SECONDS = 0.1


@dataclass(frozen=True)
class Backfilled:
    """The events that were added, the buckets touched, and whether none are left."""

    events: int = 0
    buckets: int = 0
    finished: bool = True


def backfill(
    database: Database,
    *,
    retention: Retention = FOR_GOOD,
    stop: Signal | None = None,
    on_ids: Callable[[int, int], None] = lambda _counted, _all: None,
) -> Backfilled:
    """Count the older events that are left into the tables that an upgrade added.

    Args:
        retention: as for a run.
        stop: when set, the backfill ends early, between two transactions.
        on_ids: called between two transactions with the ids that are counted, and with all.

    Raises:
        RefusedError: counting is refused.
    """
    stop = stop or Signal()
    with database.reading() as connection:
        state = read_state(connection, rollup_state, database_now().label("now"))
    add_next = partial(_add_next, kept=kept_days(retention, state.now))
    done, left = Backfilled(), ids_left(state)
    total = left
    while left:
        on_ids(total - left, total)
        if stop.is_set():
            return Backfilled(done.events, done.buckets, finished=False)
        left, events, buckets = database.write(add_next)
        done = Backfilled(done.events + events, done.buckets + buckets)
        stop.wait(PAUSE_SECONDS)
    if total:
        on_ids(total, total)
    return done


def ids_left(state: Row[Any]) -> int:
    """The number of ids that a backfill has yet to count."""
    return max(int(state.backfill_end - state.backfilled), 0)


def refuse_before_backfill(state: Row[Any]) -> None:
    """Refuse to delete raw events that a backfill has yet to count.

    Raises:
        RefusedError: the backfill has not ended.
    """
    if ids_left(state):
        raise RefusedError(
            "raw events are kept until the tables that an upgrade added have counted them: run"
            " `flask rollup backfill`"
        )


def _add_next(connection: Connection, kept: Kept) -> tuple[int, int, int]:
    """Count the next window; returns the ids left after it, its events and the buckets touched."""
    state = read_state(connection, lock=True)
    refuse_refused(state)
    left = ids_left(state)
    if not left:  # another backfill has counted the rest
        return 0, 0, 0
    window = Window(state.backfilled, state.backfilled + min(left, WINDOW_IDS))
    events, buckets = add_window(connection, FINER_TABLES, window, kept)
    note_first_kept(connection, state, kept)
    connection.execute(sa.update(rollup_state).values(backfilled=window.upto))
    return state.backfill_end - window.upto, events, buckets
