"""Engines for SQLite and PostgreSQL: session settings, pools, checks of pooled connections.

The limits of waits are explained in ``deadlines`` and in ``locks``.

A pooled connection may be dead, so it is tested before it is used. A ping costs a round trip, as
long as a read itself, so the socket is checked first. A server that stopped, or ended the session,
has closed the socket. Such a socket has something to read, although no answer is due. A connection
that a network has dropped does not show this. Networks drop only connections that are idle for
longer, so a connection that was idle for a second is pinged.
"""

import select
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.exc import InvalidatePoolError

from app.errors import SettingsError

if TYPE_CHECKING:  # the driver is imported for PostgreSQL only
    from app.storage.deadlines import Server

# date_bin() is new in this version.
MIN_VERSION = 14
# How long a request waits for a pooled connection. There is one for each place, so it has to wait
# only if a caller keeps several. This wait alone does not end with its request, so it is short.
POOL_SECONDS = 2

# These settings override the defaults of the role and of the database. Dates must be readable by
# the driver, and a commit must be durable before it is acknowledged. A process that freezes, or
# whose host vanishes, in the middle of a transaction must not keep its locks. To compile a report
# (JIT) takes longer than to run it.
_SESSION = """
    SELECT set_config('datestyle', 'ISO', false),
           set_config('jit', 'off', false),
           set_config('idle_in_transaction_session_timeout', '60s', false),
           set_config('tcp_keepalives_idle', '30', false),
           set_config('tcp_keepalives_interval', '10', false),
           set_config('tcp_keepalives_count', '3', false),
           set_config('lock_timeout', %(lock)s, false),
           CASE WHEN %(statement)s <> '' THEN set_config('statement_timeout', %(statement)s, false)
           END,
           CASE WHEN current_setting('synchronous_commit') = 'off'
           THEN set_config('synchronous_commit', 'on', false) END,
           EXISTS (SELECT FROM pg_extension WHERE extname = 'citus')
"""
CITUS = "citus"


def postgresql_engine(
    url: URL, pool: dict[str, Any], *, lock_seconds: float, for_requests: bool
) -> "tuple[sa.Engine, Server]":
    """An engine, and the server that its connections lead to.

    Args:
        lock_seconds: how long a statement waits for a lock, unless its transaction says otherwise.
        for_requests: the connections are for requests of the web, which end after some seconds.
    """
    from app.storage import deadlines  # noqa: PLC0415 - imports the driver

    engine = sa.create_engine(
        url,
        **pool,
        pool_timeout=POOL_SECONDS,
        hide_parameters=True,  # logs must not contain data of tenants
        isolation_level="AUTOCOMMIT",  # the driver must neither begin nor commit
        connect_args={
            "client_encoding": "utf8",
            "application_name": url.query.get("application_name", "agentidp-analytics"),
        }
        | {name: value for name, value in deadlines.TCP.items() if name not in url.query},
    )
    server = deadlines.Server(for_requests=for_requests, on_return=engine.dispose)
    settings = {
        "lock": milliseconds(lock_seconds),
        "statement": milliseconds(deadlines.REQUEST_STATEMENT_SECONDS) if for_requests else "",
    }

    # Not by the event do_connect: its first listener decides, and tracing listens as well.
    engine.dialect.connect = server.connect  # type: ignore[method-assign, assignment]  # on this engine only

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, record: Any) -> None:
        version = connection.info.server_version // 10_000
        if version < MIN_VERSION:
            raise SettingsError(
                "DATABASE_URL",
                f"leads to PostgreSQL {version}; upgrade it to {MIN_VERSION} or newer",
            )
        record.info[CITUS] = connection.execute(_SESSION, settings).fetchone()[-1]

    test_before_use(engine)
    return engine, server


def milliseconds(seconds: float) -> str:
    """A limit as PostgreSQL reads it. At least 1 ms, since 0 would mean no limit."""
    return f"{max(round(seconds * 1000), 1)}ms"


def sqlite_engine(url: URL, pool: dict[str, Any], *, lock_seconds: float) -> sa.Engine:
    """An engine whose connections wait ``lock_seconds`` for another writer."""
    engine = sa.create_engine(
        url,
        **pool,
        pool_timeout=POOL_SECONDS,
        hide_parameters=True,
        connect_args={"timeout": lock_seconds},
    )

    @sa.event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # the driver must neither begin nor commit
        connection.execute("PRAGMA journal_mode = WAL")
        # An acknowledged event must survive a power cut.
        connection.execute("PRAGMA synchronous = FULL")
        connection.create_aggregate("bit_or", 1, _BitOr)

    return engine


class _BitOr:
    """The aggregate that PostgreSQL has, for SQLite."""

    def __init__(self) -> None:
        self._bits = 0

    def step(self, bits: int) -> None:
        self._bits |= bits

    def finalize(self) -> int:
        return self._bits


IDLE_SECONDS = 1.0
_SINCE = "idle_since"


def test_before_use(engine: sa.Engine) -> None:
    """Make the pool test each PostgreSQL connection before a caller gets it, and limit its waits.

    A connection that was idle for long may be dead although its server is well. So a ping without
    an answer only makes the pool open another connection.
    """
    from app.storage.deadlines import PING_SECONDS  # noqa: PLC0415 - imports the driver

    @sa.event.listens_for(engine, "checkin")
    def note_time(_connection: Any, record: Any) -> None:
        record.info[_SINCE] = time.monotonic()

    @sa.event.listens_for(engine, "checkout")
    def test(connection: Any, record: Any, _proxy: Any) -> None:
        since = record.info.get(_SINCE)
        # Without a time the connection is new.
        if since is not None and (
            time.monotonic() - since >= IDLE_SECONDS or not _is_quiet(connection)
        ):
            connection.limit(PING_SECONDS, closes_gate=False)
            try:
                engine.dialect.do_ping(connection)
            except engine.dialect.loaded_dbapi.Error as error:
                # The other connections are probably dead as well, so the whole pool is replaced.
                raise InvalidatePoolError from error
        connection.limit()


def _is_quiet(connection: Any) -> bool:
    """Whether the socket has nothing to read: neither data nor the end of the connection."""
    try:
        socket = select.poll()
        socket.register(connection.fileno(), select.POLLIN)
        return not socket.poll(0)
    except connection.OperationalError:  # the connection is closed
        return False
