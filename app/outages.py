"""Errors of the database that are nobody's mistake: it is away, full or busy, or two met in it."""

import sqlalchemy as sa
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
