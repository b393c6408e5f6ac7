"""Failures of the database: tells an unavailable database and a conflict from other errors."""

import sqlite3
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    InternalError,
    OperationalError,
)

from app.errors import UnavailableError

_DEADLOCK, _SERIALIZATION_FAILURE = "40P01", "40001"
_UNIQUE_VIOLATION = "23505"
_LOCK_NOT_AVAILABLE, _QUERY_CANCELED = "55P03", "57014"
_READ_ONLY, _UNDEFINED_TABLE = "25006", "42P01"
_FROZEN_TOO_LONG = "25P03"
# The causes in this order: a standby before its promotion; a database before its migration; a
# transaction that was idle for too long, so that the server ended its session.
_NOT_READY = (_READ_ONLY, _UNDEFINED_TABLE, _FROZEN_TOO_LONG)
# A cluster that lost a node, or has just moved a shard, reports an internal error. Only the text
# distinguishes it from other internal errors.
_NODES_CHANGED = ("connection", "for shard")

_OF_VALUES = (DataError, IntegrityError, InternalError)


def is_conflict(error: DBAPIError) -> bool:
    """Whether a deadlock or a serialization conflict rolled this transaction back."""
    return getattr(error.orig, "sqlstate", None) in (_DEADLOCK, _SERIALIZATION_FAILURE)


def is_duplicate(error: IntegrityError) -> bool:
    """Whether PostgreSQL refused a row because its key is stored already."""
    return getattr(error.orig, "sqlstate", None) == _UNIQUE_VIOLATION


def is_locked(error: BaseException) -> bool:
    """Whether a lock was not free in time."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.OperationalError):
        # The lower byte: the others say in which situation.
        return cause.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
    return getattr(cause, "sqlstate", None) == _LOCK_NOT_AVAILABLE


def is_missing_table(error: BaseException) -> bool:
    """Whether the statement names a table that does not exist."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.OperationalError):
        return str(cause).startswith("no such table")
    return getattr(cause, "sqlstate", None) == _UNDEFINED_TABLE


def unavailable_message(error: BaseException) -> str:
    """Why the database is unavailable, for a caller: without names and values."""
    if isinstance(error, UnavailableError):
        return error.message
    cause = error.orig if isinstance(error, DBAPIError) else error
    reasons = {
        "the database has no current schema; run `flask db upgrade`": is_missing_table(error),
        "another transaction holds a lock on these rows or their table; try again later": (
            is_locked(error)
        ),
        "the database took too long; try again later": (
            getattr(cause, "sqlstate", None) == _QUERY_CANCELED
        ),
        "no database connection is free; try again later": (isinstance(error, sa.exc.TimeoutError)),
        # Named only, because the class comes with the driver for PostgreSQL.
        "the database does not answer; try again later": type(cause).__name__ == "NoAnswerError",
    }
    default = "the database is unavailable; try again"
    return next((message for message, applies in reasons.items() if applies), default)


def is_unavailable(error: BaseException) -> bool:
    """Whether the database is unreachable, full or busy; false if the statement is wrong."""
    if isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _NOT_READY:
        return True
    if isinstance(error, InternalError):
        return any(words in str(error.orig) for words in _NODES_CHANGED)
    unavailable = OperationalError | sa.exc.InterfaceError | sa.exc.TimeoutError | UnavailableError
    return isinstance(error, unavailable)


def concerns_all(error: BaseException) -> bool:
    """Whether a failure would meet all other work, too: of the database, a lock, or a privilege.

    Others are of what was worked on, as by a value or a statement that took too long. Then work on
    the rest goes on.
    """
    if not isinstance(error, DBAPIError):
        return is_unavailable(error)
    if getattr(error.orig, "sqlstate", None) == _QUERY_CANCELED:
        return False
    return is_unavailable(error) or not isinstance(error, _OF_VALUES)


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
