"""Id sequences: read the newest id that was drawn, and advance a sequence beyond an id."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import Column, Connection
from sqlalchemy.dialects.postgresql import REGCLASS

_SQLITE = sa.table("sqlite_sequence", sa.column("name", sa.Text), sa.column("seq", sa.Integer))


def newest_id(connection: Connection, column: Column[Any]) -> int:
    """The newest id drawn for ``column``, even if its row does not exist; 0 before the first."""
    if connection.dialect.name == "sqlite":
        seq = sa.select(_SQLITE.c.seq).where(_SQLITE.c.name == column.table.name)
        return int(connection.scalar(seq) or 0)
    # A new sequence reports 1 before that id is drawn. S608: the server returns the name quoted.
    newest = sa.text(
        f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {_name(connection, column)}"  # noqa: S608
    )
    return int(connection.scalar(newest) or 0)


def advance(connection: Connection, column: Column[Any], newest: int) -> None:
    """Make ids for ``column`` begin beyond ``newest``; a sequence is never set back.

    On PostgreSQL a rollback does not undo it, because sequences are not transactional.
    """
    if newest <= newest_id(connection, column):
        return
    if connection.dialect.name == "postgresql":
        sequence = sa.cast(_name(connection, column), REGCLASS)
        connection.execute(sa.select(sa.func.setval(sequence, newest)))
        return
    table = column.table.name
    moved = sa.update(_SQLITE).where(_SQLITE.c.name == table).values(seq=newest)
    if not connection.execute(moved).rowcount:
        connection.execute(sa.insert(_SQLITE).values(name=table, seq=newest))


def _name(connection: Connection, column: Column[Any]) -> str:
    """PostgreSQL's name of the sequence, quoted for SQL."""
    name = sa.func.pg_get_serial_sequence(column.table.name, column.name)
    return str(connection.scalar(sa.select(name)))
