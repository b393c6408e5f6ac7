"""The mark that a copy leaves in the database it fills: its row in the run history.

The row tells how far the events have come and is written in the transaction that brings
them, so that a copy that was killed goes on where it was. Its outcome is ``copying`` while
the database is half a copy, which then has no state row either, and ``copied`` afterwards:
it lets the copy be topped up for as long as nobody else has written there.
"""

import os
import socket
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import Connection

from app.errors import RefusedError
from app.storage.tables import issuance_events, metadata, rollup_runs, rollup_state
from app.storage.types import database_now
from jobs.counting.sequences import advance

COPYING, COPIED = "copying", "copied"


@dataclass(frozen=True)
class Mark:
    """A copy into the database that holds the row: every event up to ``upto`` is there."""

    id: int
    outcome: Literal["copying", "copied"]
    started_at: datetime
    host: str
    pid: int
    upto: int


def find_mark(connection: Connection, *, lock: bool = False) -> Mark | None:
    """The copy that the database is filled by so far; ``None`` when it is empty.

    ``lock``: wait for a copy that is bringing a batch, and let no other go on until the
    transaction ends. Without it, or a snapshot, the mark may be read before such a batch and
    the events after it.

    Raises:
        RefusedError: there is anything that no copy has brought.
    """
    run = rollup_runs.c
    marked = sa.select(rollup_runs).where(run.outcome.in_([COPYING, COPIED]))
    newest = marked.order_by(run.id.desc()).limit(1)
    chosen = newest.with_for_update() if lock else newest
    row = connection.execute(chosen).one_or_none()
    if row is None and lock:
        # The one that was waited for may be gone, and another one in its place.
        row = connection.execute(chosen).one_or_none()
    if row is None:
        _refuse_rows(connection)
        return None
    mark = Mark(row.id, row.outcome, row.started_at, row.host, row.pid, row.watermark_to)
    for what, own in (
        ("events", issuance_events.c.id > mark.upto),
        ("rollup runs", run.id > mark.id),
    ):
        if connection.scalar(sa.select(sa.exists().where(own))):
            raise RefusedError(f"the target is in use: it has {what} of its own")
    return mark


def _refuse_rows(connection: Connection) -> None:
    for table in metadata.sorted_tables:
        if table is not rollup_state and connection.execute(sa.select(table).limit(1)).first():
            raise RefusedError(f"the target holds other data, in {table.name}")


def claim(connection: Connection, seen: Mark | None, newest: int) -> Mark:
    """Make the database half a copy, which is the caller's to go on with. Call it in a write.

    Args:
        seen: what the caller decided by.
        newest: the source's newest id. Whoever writes here meanwhile draws ids beyond it, so
            that they are told from the source's.

    Raises:
        RefusedError: the database is not as it was ``seen``.
    """
    # Runs take their turn on this row, and so do first copies: a second one sees the first's.
    connection.execute(sa.select(rollup_state.c.id).with_for_update())
    if find_mark(connection, lock=True) != seen:
        raise _overtaken()
    connection.execute(sa.delete(rollup_state))
    advance(connection, issuance_events.c.id, newest)
    mine = {
        "outcome": COPYING,
        "started_at": database_now(),
        "finished_at": None,
        "host": socket.gethostname(),
        "pid": os.getpid(),
    }
    if seen is None:
        nothing = dict.fromkeys(("events", "buckets", "watermark_from", "watermark_to"), 0)
        connection.execute(sa.insert(rollup_runs).values(mine | nothing))
    else:
        _update(connection, seen, mine)
    claimed = find_mark(connection)
    if claimed is None:
        raise _overtaken()
    return claimed


def move(connection: Connection, mark: Mark, upto: int, events: int = 0) -> Mark:
    """Note ``events`` more, up to ``upto``. Call it in the transaction that brings them.

    Raises:
        RefusedError: another copy has claimed the database since.
    """
    _update(connection, mark, {"watermark_to": upto, "events": rollup_runs.c.events + events})
    return replace(mark, upto=upto)


def finish(connection: Connection, mark: Mark, events: int) -> int:
    """Leave the mark of a whole copy beside the source's own history; its row's id.

    Call it in the transaction that has replaced the history, and the ``mark`` with it.
    """
    row = {
        "outcome": COPIED,
        "started_at": mark.started_at,
        "finished_at": database_now(),
        "events": events,
        "buckets": 0,
        "watermark_from": 0,
        "watermark_to": mark.upto,
        "host": mark.host,
        "pid": mark.pid,
    }
    added = sa.insert(rollup_runs).values(row).returning(rollup_runs.c.id)
    return connection.execute(added).scalar_one()


def _update(connection: Connection, mark: Mark, values: dict[str, Any]) -> None:
    same = {
        "id": mark.id,
        "outcome": mark.outcome,
        "started_at": mark.started_at,
        "host": mark.host,
        "pid": mark.pid,
        "watermark_to": mark.upto,
    }
    mine = [rollup_runs.c[name] == value for name, value in same.items()]
    if connection.execute(sa.update(rollup_runs).where(*mine).values(values)).rowcount != 1:
        raise _overtaken()


def _overtaken() -> RefusedError:
    return RefusedError("another copy into the target, or somebody who uses it, came between")
