"""Storing events: exactly one row for each ``(tenant_id, event_id)``, however often it comes."""

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite

from app.db import Database
from app.events import Event
from app.models import issuance_events

_COLUMNS = ("tenant_id", "event_id", "agent_id", "issued_at")
_TEXTS, _INSTANTS = postgresql.ARRAY(sa.Text()), postgresql.ARRAY(sa.DateTime(timezone=True))
_ARRAYS = dict.fromkeys(_COLUMNS[:3], _TEXTS) | {"issued_at": _INSTANTS}


class Recorded(NamedTuple):
    """What became of a batch: ``received == accepted + duplicates``."""

    received: int
    accepted: int
    duplicates: int


def record_events(database: Database, events: Sequence[Event]) -> Recorded:
    """Store a batch, all of it or nothing, and commit.

    An id that is stored already, or comes twice in the batch, is a duplicate: the first
    delivery stays as it is. Rows go in ordered by key, so that two deliveries of the same
    events in different order wait for each other instead of deadlocking.
    """
    if not events:
        return Recorded(0, 0, 0)
    first: dict[tuple[str, str], Event] = {}
    for event in events:
        first.setdefault(event[:2], event)
    ordered = sorted(first.values())
    insert = _insert_unnested if database.is_postgresql else _insert_each
    accepted = database.write(lambda connection: insert(connection, ordered))
    return Recorded(len(events), accepted, len(events) - accepted)


def _insert_each(connection: Connection, events: list[Event]) -> int:
    """SQLite: one prepared statement, stepped through the rows inside the driver."""
    insert = sqlite.insert(issuance_events).on_conflict_do_nothing()
    rows = [event._asdict() for event in events]
    result = connection.execute(insert, rows, execution_options={"preserve_rowcount": True})
    return result.rowcount


def _insert_unnested(connection: Connection, events: list[Event]) -> int:
    """PostgreSQL: one statement over four arrays, whatever the number of rows.

    Without a conflict target, so that it needs no right to read the table.
    """
    columns = dict(zip(_COLUMNS, map(list, zip(*events, strict=True)), strict=True))
    arrays = [sa.bindparam(name, columns[name], type_=kind) for name, kind in _ARRAYS.items()]
    rows = sa.func.unnest(*arrays).table_valued(*_COLUMNS, name="event").render_derived()
    insert = postgresql.insert(issuance_events).from_select(
        _COLUMNS, sa.select(*rows.c), include_defaults=False
    )
    result = connection.execute(
        insert.on_conflict_do_nothing(), execution_options={"preserve_rowcount": True}
    )
    return result.rowcount
