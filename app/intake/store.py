"""Store events: one row for each ``(tenant_id, event_id)``, however often it is delivered."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError

from app.intake.agent_names import add_names, newest_names
from app.intake.events import Event
from app.storage.citus import is_citus
from app.storage.database import Database
from app.storage.failures import is_duplicate
from app.storage.tables import issuance_events

_COLUMNS = ("tenant_id", "event_id", "agent_id", "issued_at")
_INSTANTS = postgresql.ARRAY(sa.DateTime(timezone=True))
_SEPARATOR = "\x1f"


# Runs a prepared insert and returns the number of rows that it added.
Insert = Callable[[Connection], int]


class Stored(NamedTuple):
    """The outcome of a batch: ``received == accepted + duplicates``."""

    received: int
    accepted: int
    duplicates: int


def store_events(database: Database, events: Sequence[Event]) -> Stored:
    """Store a batch as a whole or not at all, and commit.

    An event whose id is stored already, or occurs earlier in the batch, is a duplicate: the first
    delivery wins. Rows are inserted in the order of their key. So two deliveries of the same events
    in different order wait for each other instead of deadlocking. The agent names of the events
    are stored with them (see ``app.intake.agent_names``).
    """
    return prepare_storing(database, events)()


def prepare_storing(
    database: Database, events: Sequence[Event], *, expected_new: bool = False
) -> Callable[[], Stored]:
    """Prepare a batch; the returned function stores it, as :func:`store_events` does.

    The returned function mostly waits for the database, so it can run in another thread.

    Args:
        expected_new: none of the events is expected to be stored already. PostgreSQL then gets a
            plain INSERT, and the usual statement only if that finds a duplicate. To look for
            duplicates takes a quarter of the time.
    """
    if not events:
        return partial(Stored, 0, 0, 0)
    if expected_new and database.is_postgresql:
        plain = prepare_insert(database, events, plain=True)
        return partial(_store_expected_new, database, events, plain)
    return partial(database.write, prepare_insert(database, events))


def _store_expected_new(
    database: Database, events: Sequence[Event], plain: Callable[[Connection], Stored]
) -> Stored:
    try:
        return database.write(plain)
    except IntegrityError as error:
        if not is_duplicate(error):
            raise
    return store_events(database, events)


def prepare_insert(
    database: Database, events: Sequence[Event], *, plain: bool = False
) -> Callable[[Connection], Stored]:
    """Prepare a batch; the returned function stores it in the caller's write transaction.

    So the batch commits together with other changes, such as the position of its source.

    Args:
        plain: on PostgreSQL, the function raises an error if an event is stored already.
    """
    if not events:
        return lambda _connection: Stored(0, 0, 0)
    first: dict[tuple[str, str], Event] = {}
    for event in events:
        first.setdefault(event[:2], event)
    ordered = sorted(first.values())
    insert = _unnested(ordered, plain=plain) if database.is_postgresql else _each(ordered)
    names = newest_names(events)

    def store(connection: Connection) -> Stored:
        accepted = insert(connection)
        add_names(database, connection, names)
        return Stored(len(events), accepted, len(events) - accepted)

    return store


def _each(events: list[Event]) -> Insert:
    """SQLite: one prepared statement, which the driver runs for each row."""
    rows = [(*event[:3], _sqlite_text(event.issued_at)) for event in events]
    return lambda connection: connection.exec_driver_sql(_INSERT_EACH, rows).rowcount


def _sqlite_text(instant: datetime) -> str:
    """The text that ``UTCDateTime`` stores. To convert by that type costs more than the insert."""
    return instant.astimezone(UTC).isoformat(" ", "microseconds").removesuffix("+00:00")


def _unnested(events: list[Event], *, plain: bool) -> Insert:
    """PostgreSQL: one statement over four arrays, for any number of rows.

    The statement names no conflict target, so it needs no right to read the table. The arrays are
    sent as text that is written here: the driver would take as long for them as the server for the
    rows.
    """
    *texts, instants, _names = zip(*events, strict=True)
    arrays = [*map(_joined, texts), _instant_array(instants)]
    values = dict(zip(_COLUMNS, arrays, strict=True))
    return partial(_insert_all if plain else _insert_missing, values=values)


def _insert_all(connection: Connection, values: dict[str, str]) -> int:
    options = {"preserve_rowcount": True}
    return connection.execute(_INSERT, values, execution_options=options).rowcount


def _insert_missing(connection: Connection, values: dict[str, str]) -> int:
    if is_citus(connection):
        # Citus counts the rows that were sent, duplicates included.
        return len(connection.execute(_INSERT_MISSING_RETURNING, values).all())
    options = {"preserve_rowcount": True}
    return connection.execute(_INSERT_MISSING, values, execution_options=options).rowcount


def _joined(texts: Sequence[str]) -> str:
    """Ids as one text. No id has a control character, so such a character can separate them."""
    joined = _SEPARATOR.join(texts)
    if joined.count(_SEPARATOR) != len(texts) - 1:
        raise ValueError("an id has a control character")
    return joined


def _instant_array(instants: Sequence[datetime]) -> str:
    """A ``timestamptz[]`` in PostgreSQL's notation, which differs from JSON in its brackets only.

    To write JSON takes a hundredth of ``isoformat()``.
    """
    return "{" + msgspec.json.encode(instants)[1:-1].decode() + "}"


def _insert() -> postgresql.Insert:
    texts = [sa.bindparam(name, type_=sa.Text) for name in _COLUMNS]
    arrays = [sa.func.string_to_array(text, _SEPARATOR) for text in texts[:3]]
    instants = sa.cast(texts[3], _INSTANTS)
    rows = sa.func.unnest(*arrays, instants).table_valued(*_COLUMNS, name="event").render_derived()
    return postgresql.insert(issuance_events).from_select(
        _COLUMNS, sa.select(*rows.c), include_defaults=False
    )


_INSERT = _insert()
_INSERT_MISSING = _insert().on_conflict_do_nothing()
# It returns a constant, because to return a column needs the right to read it.
_INSERT_MISSING_RETURNING = _INSERT_MISSING.returning(sa.literal_column("1", sa.Integer))
_INSERT_EACH = (
    "INSERT INTO issuance_events (tenant_id, event_id, agent_id, issued_at)"
    " VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
