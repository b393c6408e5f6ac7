"""Failures of the database: tells an unavailable database and a conflict from other errors."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, OperationalError

from app.errors import UnavailableError

_DEADLOCK, _SERIALIZATION_FAILURE = "40P01", "40001"
_READ_ONLY, _UNDEFINED_TABLE = "25006", "42P01"
_FROZEN_TOO_LONG = "25P03"
# The causes in this order: a standby before its promotion; a database before its migration; a
# transaction that was idle for too long, so that the server ended its session.
_NOT_READY = (_READ_ONLY, _UNDEFINED_TABLE, _FROZEN_TOO_LONG)
# A cluster that lost a node, or has just moved a shard, reports an internal error. Only the text
# distinguishes it from other internal errors.
_NODES_CHANGED = ("connection", "for shard")


def is_conflict(error: DBAPIError) -> bool:
    """Whether a deadlock or a serialization conflict rolled this transaction back."""
    return getattr(error.orig, "sqlstate", None) in (_DEADLOCK, _SERIALIZATION_FAILURE)


def is_unavailable(error: BaseException) -> bool:
    """Whether the database is unreachable, full or busy; false if the statement is wrong."""
    if isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _NOT_READY:
        return True
    if isinstance(error, sa.exc.InternalError):
        return any(words in str(error.orig) for words in _NODES_CHANGED)
    unavailable = OperationalError | sa.exc.InterfaceError | sa.exc.TimeoutError | UnavailableError
    return isinstance(error, unavailable)


def as_sqlalchemy_error(connection: Connection, statement: str, error: Any) -> Exception:
    """A driver's error as SQLAlchemy's error, for a statement sent without SQLAlchemy.

    The error holds no values. A broken connection is invalidated.
    """
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
