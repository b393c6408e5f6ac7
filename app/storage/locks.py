"""Locks: how long a request waits for one, and which transactions hold them.

A lock that one transaction holds must not stop the requests that do not need it. So not every
thread of the web may wait for locks. A statement first waits for ``BRIEF_SECONDS``, which is longer
than transactions of the service usually last. If the lock is still held, the statement takes a slot
(see ``app.waits``) and is run again with ``PATIENT_SECONDS``. Without a free slot the request fails
at once. While no slot is free, the first wait lasts for ``HURRIED_SECONDS`` only.
"""

import sqlite3
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from app.errors import UnavailableError
from app.storage.failures import is_locked
from app.waits import Waits, seconds_left

T = TypeVar("T")

BRIEF_SECONDS = 0.3
HURRIED_SECONDS = 0.02
PATIENT_SECONDS = 3.5
# The first wait where all writers take turns.
TURN_SECONDS = 2.0
# SQLite looks three times in it whether it may write.
LOOK_SECONDS = 0.008
# How long jobs and commands wait for a lock.
LOCK_SECONDS = 30.0
# The database ends a wait for a lock this long before the request ends. Then the answer says why.
SPARE_SECONDS = 1.0

# A session that waits for a lock itself is not the cause. Its locks are left out.
_HOLDERS = sa.text("""
    SELECT DISTINCT held.pid, activity.application_name AS application, prepared.gid,
           CAST(extract(epoch FROM clock_timestamp()
                - coalesce(activity.xact_start, prepared.prepared)) AS bigint) AS seconds
    FROM pg_locks AS held
    LEFT JOIN pg_stat_activity AS activity ON activity.pid = held.pid
    LEFT JOIN pg_locks AS own ON held.pid IS NULL AND own.locktype = 'transactionid'
         AND own.virtualtransaction = held.virtualtransaction
    LEFT JOIN pg_prepared_xacts AS prepared ON prepared.transaction = own.transactionid
    WHERE held.granted AND held.pid IS DISTINCT FROM pg_backend_pid()
    AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (held.locktype = 'advisory' AND held.objsubid = 1
         AND CAST(held.classid AS bigint) << 32 | CAST(held.objid AS bigint) = :advisory
         OR held.locktype = 'relation' AND (held.mode <> 'AccessShareLock' OR :readers)
         AND held.relation IN (
             SELECT to_regclass(name) FROM unnest(CAST(:tables AS text[])) AS name))
    AND NOT EXISTS (
        SELECT FROM pg_locks AS awaited WHERE awaited.pid = held.pid AND NOT awaited.granted)
    ORDER BY seconds DESC NULLS LAST, held.pid
""")


@dataclass(frozen=True)
class Holder:
    """A transaction that holds a lock, as far as this role may see it."""

    pid: int | None
    application: str | None
    gid: str | None
    seconds: int | None

    def __str__(self) -> str:
        if self.pid is None:
            return f"prepared transaction {self.gid!r}, open for {self.seconds} s"
        age = "a time that this role may not see" if self.seconds is None else f"{self.seconds} s"
        return f"pid {self.pid} ({self.application or 'no application name'}), open for {age}"


class LockedError(UnavailableError):
    """A lock was not free in time; ``holders`` are the transactions that may hold it."""

    def __init__(self, holders: Iterable[Holder]) -> None:
        self.holders = list(holders)
        names = "; ".join(map(str, self.holders)) or "another process"
        super().__init__(f"a lock is held by {names}: end that transaction, then run this again")


def lock_holders(
    connection: Connection, tables: Iterable[str], *, readers: bool = False, advisory: int = -1
) -> list[Holder]:
    """The open transactions that lock one of the tables, the oldest first.

    Args:
        readers: include transactions that have only read.
        advisory: include transactions and sessions that hold this advisory lock.
    """
    if connection.dialect.name != "postgresql":
        return []
    given = {"tables": list(tables), "readers": readers, "advisory": advisory}
    return [Holder(*row) for row in connection.execute(_HOLDERS, given)]


def within_request(seconds: float) -> float:
    """How long to wait for a lock: so many seconds, but no longer than the request has left."""
    return max(0.0, min(seconds, seconds_left() - SPARE_SECONDS))


def begin_in_turn(connection: Connection, statement: str, seconds: float, *, then: float) -> None:
    """Begin to write on SQLite; wait for other writers for at most ``seconds``.

    SQLite looks whether it may write after 1, 2, 5 ms and so on, and after a while only every
    100 ms. So writers that came last would be first. One that has waited for a while begins anew,
    and then looks more often than those that came later.

    Args:
        then: for how many seconds the statements after it wait.
    """
    give_up = time.monotonic() + seconds
    _set_wait(connection, min(seconds, BRIEF_SECONDS))
    try:
        connection.exec_driver_sql(statement)
    except DBAPIError as error:
        if not is_locked(error) or not _began_anew(connection, statement, give_up):
            raise
    finally:
        _set_wait(connection, then)


def _began_anew(connection: Connection, statement: str, give_up: float) -> bool:
    """Begin anew until the lock is taken; whether it was in time."""
    _set_wait(connection, LOOK_SECONDS)
    # Not by SQLAlchemy, whose listeners would make a record of each look.
    driver: Any = connection.connection.driver_connection
    while time.monotonic() < give_up:
        try:
            driver.execute(statement)
        except sqlite3.OperationalError as error:
            if is_locked(error):
                continue
            connection.exec_driver_sql(statement)  # it raises the error as SQLAlchemy's
        return True
    return False


def _set_wait(connection: Connection, seconds: float) -> None:
    connection.exec_driver_sql(f"PRAGMA busy_timeout = {round(seconds * 1000)}")


def with_patience(waits: Waits, attempt: Callable[[float], T], *, one_lock: bool) -> T:
    """Run ``attempt``, which waits for locks for as many seconds as its argument says.

    Args:
        one_lock: the database has one lock for all writers, as SQLite has. So a wait is usual.

    Raises:
        DBAPIError: a lock was not free in time, or the attempt failed.
    """
    try:
        if one_lock:
            return attempt(TURN_SECONDS)
        return attempt(HURRIED_SECONDS if waits.is_full else BRIEF_SECONDS)
    except DBAPIError as error:
        if not is_locked(error) or not waits.enter():
            raise
    try:
        return attempt(PATIENT_SECONDS)
    finally:
        waits.leave()
