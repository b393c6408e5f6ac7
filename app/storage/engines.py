"""Engines for SQLite and PostgreSQL: session settings, pools, checks of pooled connections.

A pooled connection may be dead, so it is tested before it is used. A ping costs a round trip, as
long as a read itself, so the socket is checked first. A server that stopped, or ended the session,
has closed the socket. Such a socket has something to read, although no answer is due. A connection
that a network has dropped does not show this. Networks drop only connections that are idle for
longer, so a connection that was idle for a second is pinged.
"""

import select
import sqlite3
import time
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.exc import InvalidatePoolError

# How long a SQLite connection waits for another writer.
SQLITE_BUSY_SECONDS = 30


# These settings override the defaults of the role and of the database. Dates must be readable by
# the driver, and a commit must be durable before it is acknowledged. A process that freezes, or
# whose host vanishes, in the middle of a transaction must not keep its locks.
_SESSION = """
    SELECT set_config('datestyle', 'ISO', false),
           set_config('idle_in_transaction_session_timeout', '60s', false),
           set_config('tcp_keepalives_idle', '30', false),
           set_config('tcp_keepalives_interval', '10', false),
           set_config('tcp_keepalives_count', '3', false),
           CASE WHEN current_setting('synchronous_commit') = 'off'
           THEN set_config('synchronous_commit', 'on', false) END,
           EXISTS (SELECT FROM pg_extension WHERE extname = 'citus')
"""
CITUS = "citus"


def postgresql_engine(url: URL, pool: dict[str, Any]) -> sa.Engine:
    engine = sa.create_engine(
        url,
        **pool,
        hide_parameters=True,  # logs must not contain data of tenants
        isolation_level="AUTOCOMMIT",  # the driver must neither begin nor commit
        connect_args={
            "connect_timeout": 5,
            "client_encoding": "utf8",
            "application_name": url.query.get("application_name", "agentidp-analytics"),
        },
    )

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, record: Any) -> None:
        record.info[CITUS] = connection.execute(_SESSION).fetchone()[-1]

    test_before_use(engine)
    return engine


def sqlite_engine(url: URL, pool: dict[str, Any]) -> sa.Engine:
    engine = sa.create_engine(
        url,
        **pool,
        hide_parameters=True,
        connect_args={"timeout": SQLITE_BUSY_SECONDS},
    )

    @sa.event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # the driver must neither begin nor commit
        connection.execute("PRAGMA journal_mode = WAL")
        # An acknowledged event must survive a power cut.
        connection.execute("PRAGMA synchronous = FULL")

    return engine


IDLE_SECONDS = 1.0
_SINCE = "idle_since"


def test_before_use(engine: sa.Engine) -> None:
    """Make the pool test each PostgreSQL connection before a caller gets it."""

    @sa.event.listens_for(engine, "checkin")
    def note_time(_connection: Any, record: Any) -> None:
        record.info[_SINCE] = time.monotonic()

    @sa.event.listens_for(engine, "checkout")
    def test(connection: Any, record: Any, _proxy: Any) -> None:
        since = record.info.get(_SINCE)
        if since is None:  # the connection is new
            return
        if time.monotonic() - since < IDLE_SECONDS and _is_quiet(connection):
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            # The other connections are probably dead as well, so the whole pool is replaced.
            raise InvalidatePoolError from error


def _is_quiet(connection: Any) -> bool:
    """Whether the socket has nothing to read: neither data nor the end of the connection."""
    try:
        socket = select.poll()
        socket.register(connection.fileno(), select.POLLIN)
        return not socket.poll(0)
    except connection.OperationalError:  # the connection is closed
        return False
