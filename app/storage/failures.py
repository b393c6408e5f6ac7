"""Errors of the database that are nobody's mistake: it is away, full or busy, or two met in it."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, OperationalError

from app.errors import UnavailableError

_DEADLOCK, _SERIALIZATION_FAILURE = "40P01", "40001"
_READ_ONLY, _UNDEFINED_TABLE = "25006", "42P01"
_FROZEN_TOO_LONG = "25P03"
# A standby before its promotion, a database before its migration, a connection that the
# server has given up.
_NOT_READY = (_READ_ONLY, _UNDEFINED_TABLE, _FROZEN_TOO_LONG)
# Of a cluster that has lost a node, or has just moved a shard: internal errors, all in words.
_NODES_CHANGED = ("connection", "for shard")


def is_conflict(error: DBAPIError) -> bool:
    """Whether the database chose this transaction as a deadlock's or a conflict's victim."""
    return getattr(error.orig, "sqlstate", None) in (_DEADLOCK, _SERIALIZATION_FAILURE)


def is_unavailable(error: BaseException) -> bool:
    """Whether the database is away, full or busy, rather than the statement wrong."""
    if isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _NOT_READY:
        return True
    if isinstance(error, sa.exc.InternalError):
        return any(words in str(error.orig) for words in _NODES_CHANGED)
    away = OperationalError | sa.exc.InterfaceError | sa.exc.TimeoutError | UnavailableError
    return isinstance(error, away)


def as_sqlalchemys(connection: Connection, statement: str, error: Any) -> Exception:
    """An error of the driver, to which a statement went past SQLAlchemy, as SQLAlchemy would
    raise it: without values, and with the connection given up if that is what broke."""
    dialect = connection.dialect
    broken = dialect.is_disconnect(error, connection.connection.driver_connection, None)
    if broken:
        connection.invalidate(error)
    raised: Exception = DBAPIError.instance(
        statement,
        None,
        error,
        dialect.loaded_dbapi.Error,
        hide_parameters=True,
        connection_invalidated=broken,
        dialect=dialect,
    )
    return raised
