"""Deletion of an organization: every row of it in every table (``flask organizations delete``).

**Why the numbers of all others stay exact.** Each bucket, event and drift belongs to one
organization. What the organizations share is the state row, ``purged_months`` and the progress of
detection. These change as follows, always while the state row is locked, so beside no run, purge or
rebuild.

1. *Begin* notes in ``erasures`` that the organization is being deleted. From then on verify,
   rebuild, resume and purge leave it out, so it may be deleted in many transactions.
2. Resume needs of each purged month: events counted = kept + purged, over all organizations. So in
   the same transaction, *begin* takes those of this organization out of ``purged_months``: what it
   counts in the month less what is kept of it. A purge no longer deletes its events, so it adds
   none of them to ``purged_months``.
3. A *batch* deletes some rows of one table. If it deletes the newest counted event, which the state
   row names, it notes the next older one, as a purge does. The watermark itself does not move: ids
   up to it are counted or gone, and new events get ids above it.
4. *End* deletes what is left, together with the note in ``erasures``. Runs add the organization's
   new events until then. Each is counted by then, and its buckets go with it, or is not counted,
   and is deleted before it could be. So after the commit no event up to the watermark is left, and
   no bucket: the recount of the organization is empty, and so are its tables.
5. A transaction that was open at the end may still commit events. Their ids are above the
   watermark, because that passes no open writer. A later run counts them as those of a new
   organization.
6. *End* also changes the number of corrections. So a rebuild that has computed differences before
   *begin* computes them again. And it changes the turn of detection: a scheduler that has judged
   the organization before the end stores nothing. The list of organizations is summed up in
   transactions that lock the row of its state, and *end* locks it, too.

After a kill, each transaction is there as a whole or not at all. The next call finds the note and
goes on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from threading import Event as Signal
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row, Table

from app.storage.audit import record_change
from app.storage.database import Database
from app.storage.tables import (
    daily_issuance,
    detection_state,
    erasures,
    issuance_events,
    metadata,
    organization_summary_state,
    purged_months,
    rollup_state,
)
from app.storage.types import database_now
from jobs.counting.buckets import MonthOf, issued_month
from jobs.counting.refusals import note_newest, refuse_refused
from jobs.counting.state import read_state
from jobs.counting.tables import SUMMARY_TABLES
from jobs.counting.watermark import candidate_or_refusal

BATCH_ROWS = 10_000
TENANT = "tenant_id"
# A table that refers to others comes first.
TABLES = [table for table in reversed(metadata.sorted_tables) if TENANT in table.c]


def _has_many_rows(table: Table[Any]) -> bool:
    """Whether an organization has many rows in a table, in the order of the table's key."""
    key = table.primary_key.columns.keys()
    return TENANT in key and len(key) > 1 and table is not erasures


def _turn(table: Table[Any]) -> int:
    """Endpoints and findings go first, so that nobody hears of the deletion, and buckets last."""
    if table is issuance_events:
        return 1
    return 2 if table in {summary.table for summary in SUMMARY_TABLES} else 0


_LARGE = sorted(filter(_has_many_rows, TABLES), key=_turn)
_SMALL = [table for table in TABLES if table not in (*_LARGE, erasures)]

OnRows = Callable[[int], None]


@dataclass(frozen=True)
class Deleted:
    """The number of rows that this call has deleted, and whether none are left."""

    rows: int
    finished: bool


def rows_of(database: Database, tenant_id: str) -> dict[str, int]:
    """The number of an organization's rows in each table that has some."""
    with database.reading() as connection:
        numbers = {
            str(table.name): connection.scalar(
                sa.select(sa.func.count()).select_from(table).where(table.c[TENANT] == tenant_id)
            )
            or 0
            for table in TABLES
        }
    return {name: rows for name, rows in sorted(numbers.items()) if rows}


def delete_organization(  # noqa: PLR0913 - what to delete, and ways to follow and to stop it
    database: Database,
    tenant_id: str,
    *,
    by: str,
    batch_rows: int = BATCH_ROWS,
    stop: Signal | None = None,
    on_rows: OnRows = lambda _deleted: None,
) -> Deleted:
    """Delete every row of an organization. After an interruption, call it again.

    Args:
        by: the actor, for the audit log.
        stop: when set, the deletion ends early, between two transactions.
        on_rows: called between two transactions with the number of deleted rows.

    Raises:
        RefusedError: counting is refused, so the numbers of others could not be kept right.
    """
    with database.reading() as connection:
        state = read_state(connection)
    candidate_or_refusal(database, state)
    deleted = database.write(partial(_begin, tenant_id=tenant_id))
    for table in _LARGE:
        found = batch_rows
        while found == batch_rows:
            on_rows(deleted)
            if stop is not None and stop.is_set():
                return Deleted(deleted, finished=False)
            batch = partial(_delete_batch, table=table, tenant_id=tenant_id, rows=batch_rows)
            found = database.write(batch)
            deleted += found
    deleted += database.write(partial(_end, tenant_id=tenant_id, by=by, deleted=deleted))
    on_rows(deleted)
    return Deleted(deleted, finished=True)


def _begin(connection: Connection, *, tenant_id: str) -> int:
    """Note the deletion, and delete keys, settings and all that is small."""
    state = _locked(connection)
    note = erasures.c.tenant_id == tenant_id, erasures.c.agent_id == ""
    if connection.execute(sa.select(erasures).where(*note)).one_or_none() is None:
        _take_out_of_purged_months(connection, state, tenant_id)
        values = {"tenant_id": tenant_id, "agent_id": "", "begun_at": database_now()}
        connection.execute(sa.insert(erasures).values(values))
    return sum(_delete_all(connection, table, tenant_id) for table in _SMALL)


def _take_out_of_purged_months(connection: Connection, state: Row[Any], tenant_id: str) -> None:
    """Take the organization out of the numbers of the months that lost raw events.

    Of each such month these are the events that it counts, less those that are kept.
    """
    months = list(connection.scalars(sa.select(purged_months.c.month)))
    if not months:
        return
    day, event = daily_issuance.c, issuance_events.c
    month = MonthOf(day.date)
    counted = (
        sa.select(month, sa.cast(sa.func.sum(day.issued), sa.BigInteger))
        .where(day.tenant_id == tenant_id, month.in_(months))
        .group_by(month)
    )
    kept = (
        sa.select(issued_month, sa.func.count())
        .where(
            event.tenant_id == tenant_id,
            event.id <= state.counted_upto,
            issued_month.in_(months),
        )
        .group_by(issued_month)
    )
    missing = {row[0]: row[1] for row in connection.execute(counted)}
    for first_day, events in connection.execute(kept):
        missing[first_day] = missing.get(first_day, 0) - events
    for first_day, events in missing.items():
        row = sa.update(purged_months).where(purged_months.c.month == first_day)
        connection.execute(row.values(events=purged_months.c.events - events))


def _delete_batch(connection: Connection, *, table: Table[Any], tenant_id: str, rows: int) -> int:
    """Delete the first rows of an organization by the table's key, at most so many."""
    state = _locked(connection)
    key = [column for column in table.primary_key if column.name != TENANT]
    ours = table.c[TENANT] == tenant_id
    last = connection.execute(
        sa.select(*key).where(ours).order_by(*key).offset(rows - 1).limit(1)
    ).one_or_none()
    if last is None:
        return _delete_all(connection, table, tenant_id, state)
    values = (sa.literal(value, column.type) for value, column in zip(last, key, strict=True))
    batch = sa.and_(ours, sa.tuple_(*key) <= sa.tuple_(*values))
    deleted = connection.execute(sa.delete(table).where(batch)).rowcount
    _note_newest(connection, table, tenant_id, state)
    return deleted


def _end(connection: Connection, *, tenant_id: str, by: str, deleted: int) -> int:
    """Delete what has come meanwhile, and record the deletion."""
    state = _locked(connection)
    connection.execute(
        sa.update(detection_state).values(turn=detection_state.c.turn + 1, claimed_until=None)
    )
    # It also waits for the task that may be summing up this organization at this moment.
    after = organization_summary_state.c.after
    connection.execute(
        sa.update(organization_summary_state).values(after=sa.case((after != tenant_id, after)))
    )
    rows = sum(
        _delete_all(connection, table, tenant_id, state)
        for table in TABLES
        if table is not erasures
    )
    connection.execute(sa.delete(erasures).where(erasures.c.tenant_id == tenant_id))
    connection.execute(sa.update(rollup_state).values(corrections=state.corrections + 1))
    if deleted + rows:
        record_change(
            connection,
            tenant_id=None,
            actor=by,
            action="organization.deleted",
            subject=tenant_id,
            details={"rows": deleted + rows},
            at=connection.execute(sa.select(database_now())).scalar_one(),
        )
    return rows


def _locked(connection: Connection) -> Row[Any]:
    state = read_state(connection, lock=True)
    refuse_refused(state)
    return state


def _delete_all(
    connection: Connection, table: Table[Any], tenant_id: str, state: Row[Any] | None = None
) -> int:
    delete = sa.delete(table).where(table.c[TENANT] == tenant_id)
    deleted = connection.execute(delete).rowcount
    if state is not None:
        _note_newest(connection, table, tenant_id, state)
    return deleted


def _note_newest(
    connection: Connection, table: Table[Any], tenant_id: str, state: Row[Any]
) -> None:
    """After events were deleted: if the newest counted one may be among them, note the next."""
    if table is issuance_events and state.newest_tenant_id == tenant_id:
        note_newest(connection, state.newest_upto)


def describe(rows: Mapping[str, int]) -> str:
    """The numbers of rows by table, as text."""
    return ", ".join(f"{number} {name}" for name, number in rows.items())
