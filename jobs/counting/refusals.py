"""Refusals to count: the checks before each run, and the refusal that lasts.

The argument of ``jobs.counting.run`` needs these facts about ids:

1. A new event gets an id above the watermark: the id sequence is not below it, and it draws ids one
   by one.
2. An id that is drawn later is above every event: no event is beyond the sequence.
3. The events up to the watermark are the counted ones. A purge may remove some of them.

A logical switch-over, a restore without its sequence, or an id that was inserted by hand breaks
one of them. The state row holds the newest counted event: its id and its key. Before a run counts,
it reads the newest events and then the sequence, and compares both with the state row. A purge that
deletes the newest counted event notes the next older one in the same transaction. The previous
version moves the watermark alone, so the comparison goes up to ``newest_upto`` and no further.

A broken fact may seem to hold again: new events lift the sequence past the watermark, but those in
between would never be counted. So a mismatch is stored as the refusal. Nothing is counted or purged
until ``flask rollup resume`` has recounted all events and ended it.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row, Select

from app.errors import RefusedError
from app.storage.tables import issuance_events, rollup_state
from jobs.counting.sequences import newest_id
from jobs.counting.state import read_state

_SEQUENCE = sa.text("""
    SELECT pg_is_in_recovery() AS standby,
           (SELECT seqcache = 1 AND seqincrement = 1 AND NOT seqcycle FROM pg_sequence
            WHERE seqrelid = CAST(pg_get_serial_sequence('issuance_events', 'id') AS regclass)
           ) AS ordered
""")
_REMEDY = "counting is refused until `flask rollup resume` has verified the numbers"


class MismatchError(RefusedError):
    """Ids, sequence and events do not fit the state row, so the refusal has to last."""


def refuse_refused(state: Row[Any]) -> None:
    """Raise the refusal in the state row, if there is one.

    Raises:
        RefusedError: counting is refused.
    """
    if state.refusal is not None:
        raise RefusedError(f"{state.refusal}; {_REMEDY}")


def checked_newest_id(connection: Connection, state: Row[Any]) -> int:
    """The newest id drawn so far, after the checks.

    Args:
        state: as read before this call. A purge may have deleted its newest event meanwhile, so a
            mismatch is certain only while the state row is locked.

    Raises:
        RefusedError: the database is a standby.
        MismatchError: counting would give wrong numbers.
    """
    _require_ordered_ids(connection)
    newest, counted = _newest_events(connection, state.newest_upto)
    # Read after the events: every event that is visible above has drawn its id by now.
    drawn = newest_id(connection, issuance_events.c.id)
    if drawn < state.counted_upto:
        raise MismatchError(
            f"the newest event id drawn, {drawn}, is below the watermark, {state.counted_upto}:"
            " events and tables come from different backups, or the id sequence was left behind"
        )
    if newest > drawn:
        raise MismatchError(
            f"the event with id {newest} is beyond the newest id drawn, {drawn}: the id sequence"
            " was left behind, or an id was inserted by hand"
        )
    problem = _difference(state, counted)
    if problem is not None:
        raise MismatchError(
            f"{problem}: events and tables come from different backups, or events were added or"
            " removed below the watermark"
        )
    return drawn


def store_refusal(connection: Connection) -> None:
    """Check again while the state row is locked, and store the refusal if there is a mismatch."""
    state = read_state(connection, lock=True)
    try:
        checked_newest_id(connection, state)
    except MismatchError as mismatch:
        if state.refusal is None:
            connection.execute(sa.update(rollup_state).values(refusal=mismatch.message))


def note_newest(connection: Connection, upto: int) -> None:
    """Note the newest event up to ``upto``, a watermark, while the state row is locked.

    Once a sequence was left behind, two events may have the newest id. Then nothing is noted, and
    nothing compared until there are newer events.
    """
    rows = connection.execute(_newest(2).where(issuance_events.c.id <= upto)).all()
    doubled = len(rows) == 2 and rows[0].id == rows[1].id
    number, tenant_id, event_id = rows[0] if rows and not doubled else (None, None, None)
    connection.execute(
        sa.update(rollup_state).values(
            newest=number,
            newest_tenant_id=tenant_id,
            newest_event_id=event_id,
            newest_upto=0 if doubled else upto,
        )
    )


def _newest(limit: int) -> Select[int, str, str]:
    event = issuance_events.c
    return (
        sa.select(event.id, event.tenant_id, event.event_id).order_by(event.id.desc()).limit(limit)
    )


def _newest_events(connection: Connection, upto: int) -> tuple[int, list[tuple[int, str, str]]]:
    """The id of the newest event of all, and the two newest events up to ``upto``.

    Two, because a sequence that was left behind draws an id again. One statement that looks into
    the index, so that a run costs no more with a long history.
    """
    counted = _newest(2).where(issuance_events.c.id <= upto).subquery("counted")
    newest = sa.select(sa.func.max(issuance_events.c.id).label("id")).subquery("newest")
    none = sa.null().label("tenant_id"), sa.null().label("event_id")
    rows = connection.execute(
        sa.union_all(
            sa.select(sa.literal_column("1").label("which"), *counted.c),
            sa.select(sa.literal_column("2"), newest.c.id, *none),
        )
    ).all()
    found = [(row.id, row.tenant_id, row.event_id) for row in rows if row.which == 1]
    return max(row.id or 0 for row in rows), sorted(found, reverse=True)


def _difference(state: Row[Any], counted: list[tuple[int, str, str]]) -> str | None:
    """How the newest events up to the noted watermark differ from the noted one.

    If there are none at all, every event was deleted, and so no event there is uncounted.
    """
    if not counted:
        return None
    noted, (newest, *key) = state.newest, counted[0]
    if noted is not None and newest < noted:
        return f"the newest counted event, with id {noted}, is missing"
    if newest != noted:
        return f"the event with id {newest} was added below the watermark, {state.newest_upto}"
    if len(counted) == 2 and counted[1][0] == noted:
        return f"two events have the id {noted} of the newest counted event"
    if key != [state.newest_tenant_id, state.newest_event_id]:
        return f"the newest counted event, with id {noted}, is another event now"
    return None


def _require_ordered_ids(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        return
    sequence = connection.execute(_SEQUENCE).one()
    if sequence.standby:
        raise RefusedError("this database is a standby; connect to the primary")
    if not sequence.ordered:
        raise MismatchError(
            "the sequence of issuance_events.id must have INCREMENT 1 and CACHE 1, without CYCLE;"
            " restore it with ALTER SEQUENCE, and restart every writer, because a session keeps"
            " ids that it drew in advance"
        )
