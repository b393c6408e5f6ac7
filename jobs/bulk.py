"""Rows of a whole table, out of one database and into another, whatever their number: they
are read and written as a stream, and memory stays flat.

A row is a plain tuple in the order of the table's columns. Ids, texts and instants mean the
same in both databases, so two equal tables give equal streams.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar, cast

import psycopg
import sqlalchemy as sa
from sqlalchemy import Column, ColumnElement, Connection, Table

from app.storage.failures import as_sqlalchemy_error

BATCH_ROWS = 10_000

T = TypeVar("T")

Row = tuple[Any, ...]
# Two rows of one key that differ; None: there is no such row.
Pair = tuple[Row | None, Row | None]

# As pg_dump does: no default of a role or a database stops the copy half-way or hides rows
# from it without an error. Instants are read in UTC, since the driver's end with the year
# 9999 in the session's zone.
_UNDISTURBED = sa.text("""
    SELECT set_config('statement_timeout', '0', true),
           set_config('idle_in_transaction_session_timeout', '0', true),
           set_config('row_security', 'off', true),
           set_config('timezone', 'UTC', true)
""")


def undisturbed(connection: Connection) -> None:
    """Make the transaction fit for reading and writing whole tables."""
    if connection.dialect.name == "postgresql":
        connection.execute(_UNDISTURBED)


def key_of(table: Table[Any]) -> list[Column[Any]]:
    """The columns that rows are read in the order of; events come in that of their arrival."""
    if "id" in table.c:
        return [table.c.id]
    return list(table.primary_key)


@contextmanager
def read_rows(
    connection: Connection,
    table: Table[Any],
    *conditions: ColumnElement[bool],
    cleared: Iterable[Column[Any]] = (),
    on_rows: Callable[[int], None] | None = None,
) -> Iterator[Iterator[Row]]:
    """The rows that meet all ``conditions``, by key, with ``cleared`` columns as ``None``.

    ``on_rows`` is told of the rows read since it was last called.
    """
    empty = set(cleared)
    columns = [sa.null().label(c.name) if c in empty else c for c in table.c]
    # A text's order is the database's own unless it is said.
    order = "C" if connection.dialect.name == "postgresql" else "BINARY"
    keys = [c.collate(order) if isinstance(c.type, sa.String) else c for c in key_of(table)]
    query = sa.select(*columns).where(*conditions).order_by(*keys)
    options = {"yield_per": BATCH_ROWS}  # and a server-side cursor with it

    def rows() -> Iterator[Row]:
        for part in result.partitions():
            yield from map(tuple, part)
            if on_rows is not None:
                on_rows(len(part))

    with connection.execute(query, execution_options=options) as result:
        yield rows()


def batches(rows: Iterable[T]) -> Iterator[list[T]]:
    """The rows, at most BATCH_ROWS at a time."""
    rest = iter(rows)
    while batch := list(islice(rest, BATCH_ROWS)):
        yield batch


def write_rows(connection: Connection, table: Table[Any], rows: Iterable[Row]) -> None:
    """Insert rows as they are, with the ids that they have."""
    if connection.dialect.name == "postgresql":
        _copy_in(connection, table, rows)
        return
    names = [column.name for column in table.c]
    for batch in batches(rows):
        values = [dict(zip(names, row, strict=True)) for row in batch]
        connection.execute(sa.insert(table), values)


def _copy_in(connection: Connection, table: Table[Any], rows: Iterable[Row]) -> None:
    """COPY, which also takes values for ``GENERATED ALWAYS AS IDENTITY``."""
    quoted = connection.dialect.identifier_preparer
    columns = ", ".join(quoted.format_column(column) for column in table.c)
    statement = f"COPY {quoted.format_table(table)} ({columns}) FROM STDIN"
    driver = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
    try:
        # The driver escapes each value; nothing here is put together from data.
        with driver.cursor() as cursor, cursor.copy(statement.encode()) as copy:
            for row in rows:
                copy.write_row(row)
    except psycopg.Error as error:
        raise as_sqlalchemy_error(connection, statement, error) from error


def differences(
    mine: Iterator[Row], theirs: Iterator[Row], key: Callable[[Row], Any]
) -> Iterator[Pair]:
    """How two streams, each in the order of ``key``, differ."""
    one, other = next(mine, None), next(theirs, None)
    while one is not None or other is not None:
        if one == other:
            one, other = next(mine, None), next(theirs, None)
        elif other is None or (one is not None and key(one) < key(other)):
            yield one, None
            one = next(mine, None)
        elif one is None or key(other) < key(one):
            yield None, other
            other = next(theirs, None)
        else:
            yield one, other
            one, other = next(mine, None), next(theirs, None)


def key_getter(table: Table[Any]) -> Callable[[Row], Sequence[Any]]:
    """The function from a row of ``table`` to its key."""
    places = [list(table.c).index(column) for column in key_of(table)]
    return lambda row: [row[place] for place in places]
