"""The database: one engine per process, and the only place that begins a transaction.

Reads run on :meth:`Database.reading`, writes on :meth:`Database.write`. What the
two supported databases do differently about connections and transactions is
settled here, so that nobody else has to know.
"""

import random
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from app import fence
from app.errors import RefusedError
from app.outages import is_conflict
from app.pool import replace_the_dead

S = TypeVar("S")
T = TypeVar("T")

# Seconds a SQLite connection waits for another writer before it gives up.
SQLITE_BUSY_SECONDS = 30
ATTEMPTS = 6
# Whatever the role's or the database's defaults are: dates that the driver can read, and no
# acknowledgement before the commit is safe. And no lock for a process that froze, or whose
# host vanished, in the middle of a transaction.
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
_CITUS = "citus"
_POOLED = (
    "this needs one session of PostgreSQL: connect to the server itself, not through a pooler in"
    " transaction mode"
)

_NAME_TENANT = sa.select(
    sa.func.set_config("analytics.tenant_id", sa.bindparam("name", type_=sa.Text), False)
)
# For the transaction alone, separated by a character that no id has.
_NAME_WRITTEN = sa.select(
    sa.func.set_config("analytics.written", sa.bindparam("names", type_=sa.Text), True)
)


class _Beginnings(NamedTuple):
    """What begins a transaction of each kind; neither driver does so, or commits, by itself."""

    reading: str | None
    moving: str
    snapshot: str
    writing: str


_BEGINNINGS = {
    # A read is one statement: it needs no BEGIN and ROLLBACK around it. The rollup's argument
    # needs a fresh snapshot per statement, whatever the database's or the role's default is.
    "postgresql": _Beginnings(
        None,
        "BEGIN ISOLATION LEVEL READ COMMITTED",
        "BEGIN ISOLATION LEVEL REPEATABLE READ",
        "BEGIN ISOLATION LEVEL READ COMMITTED",
    ),
    # A writer takes its lock at once. Begun as a reader it would fail when it turns writer, or
    # read a watermark that another run is about to move.
    "sqlite": _Beginnings("BEGIN", "BEGIN", "BEGIN", "BEGIN IMMEDIATE"),
}


class UTCDateTime(sa.types.TypeDecorator[datetime]):
    """Aware datetimes in UTC: ``timestamptz`` on PostgreSQL, ``YYYY-MM-DD HH:MM:SS.ffffff``
    text on SQLite, which has no zones."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None or dialect.name == "postgresql":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return as_utc(value)


def as_utc(value: datetime | str | None) -> datetime | None:
    """An instant as either driver returns it, aware and in UTC."""
    if value is None:
        return None
    instant = datetime.fromisoformat(value) if isinstance(value, str) else value
    return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)


class database_now(FunctionElement[datetime]):  # noqa: N801 - reads as SQL's now()
    """The database's clock, to the millisecond or better: hosts' clocks differ."""

    type = UTCDateTime()
    inherit_cache = True


@compiles(database_now)
def _now(_element: database_now, compiler: SQLCompiler, **_: Any) -> str:
    if compiler.dialect.name == "postgresql":
        # A cluster refuses clock_timestamp() for its tables: each node would ask its own clock.
        return "statement_timestamp()"
    return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"


class Database:
    """One database and its connection pool.

    Args:
        url: SQLite or PostgreSQL (psycopg 3), as the settings hold it.
        pool_size: connections kept open; a web worker wants one for each of its threads.
        overflow: further ones, that are closed after use.
        row_security: tell PostgreSQL the tenant of every read, for policies that ask for it.
    """

    def __init__(
        self, url: URL, *, pool_size: int = 5, overflow: int = 10, row_security: bool = False
    ) -> None:
        postgresql = url.get_backend_name() == "postgresql"
        pool = {"pool_size": pool_size, "max_overflow": overflow}
        self.engine = _postgresql(url, pool) if postgresql else _sqlite(url, pool)
        self._begin = _BEGINNINGS[self.engine.dialect.name]
        self.engine.update_execution_options(begin=self._begin.moving)
        sa.event.listen(self.engine, "begin", _begin)
        self._reader = self.engine.execution_options(begin=self._begin.reading)
        self._fenced = fence.around(self._reader)
        self._writer = self.engine.execution_options(begin=self._begin.writing)
        self._row_security = row_security and postgresql

    @property
    def is_postgresql(self) -> bool:
        return self.engine.dialect.name == "postgresql"

    def dispose(self) -> None:
        """Close the pooled connections."""
        self.engine.dispose()

    def reading(self) -> Connection:
        """A connection for reads, for ``with``; on PostgreSQL every statement sees the newest
        commits."""
        return self._reader.connect()

    def reading_for(self, tenant_id: str | None) -> Connection:
        """A connection for one tenant's reads, or for none that touch a tenant's table; to be
        closed, as by ``with``.

        A statement that could show another tenant's rows raises ``fence.FenceError``.
        """
        connection = self._fenced.connect()
        fence.admit(connection, tenant_id)
        if self._row_security:
            # For the session: a read is a statement without a transaction around it, and the
            # next reader on this connection says its own.
            try:
                connection.execute(_NAME_TENANT, {"name": tenant_id or ""})
            except BaseException:
                connection.close()
                raise
        return connection

    @contextmanager
    def snapshot(self, *, moving: bool = False) -> Iterator[Connection]:
        """A read transaction in which all statements see the database as the first one does.

        ``moving``: on PostgreSQL each sees the newest commits, and rows may be locked.
        """
        begin = self._begin.moving if moving else self._begin.snapshot
        engine = self.engine.execution_options(begin=begin)
        with engine.begin() as connection:
            if self.is_postgresql:
                # It holds nobody up, and its reader may stand still as a pager does.
                connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            yield connection

    def read_then_write(
        self, read: Callable[[Connection], S], write: Callable[[Connection, S], T]
    ) -> T:
        """A long ``read`` and a short ``write``, each a transaction, on one connection.

        ``write`` finds the temporary tables that ``read`` made, and what it returned.

        Raises:
            RefusedError: it would not: a pooler in transaction mode took another session.
        """
        with self.engine.connect() as connection:
            try:
                with connection.begin():
                    session, found = self._session(connection), read(connection)
                with connection.execution_options(begin=self._begin.writing).begin():
                    if self._session(connection) != session:
                        raise RefusedError(_POOLED)
                    return write(connection, found)
            finally:
                connection.invalidate()  # the temporary tables go with the connection

    def _session(self, connection: Connection) -> int | None:
        """The server's process behind a connection, on PostgreSQL."""
        if not self.is_postgresql:
            return None
        return connection.scalar(sa.select(sa.func.pg_backend_pid()))

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in one transaction and commit it.

        A transaction that the database chose as a deadlock's or a serialization
        conflict's victim has left nothing behind and is run again, so ``work``
        may be called more than once.
        """
        for attempt in range(1, ATTEMPTS):
            try:
                return self._write_once(work)
            except DBAPIError as error:
                if not is_conflict(error):
                    raise
                # S311: jitter, not a secret.
                time.sleep(random.uniform(0, 0.02 * 2**attempt))  # noqa: S311
        return self._write_once(work)

    def name_written(self, connection: Connection, tenant_ids: Iterable[str]) -> None:
        """Tell PostgreSQL whose rows the transaction is about to write, for policies that ask."""
        if self._row_security:
            connection.execute(_NAME_WRITTEN, {"names": "\x1f".join(tenant_ids)})

    def _write_once(self, work: Callable[[Connection], T]) -> T:
        with self._writer.begin() as connection:
            return work(connection)


def _begin(connection: Connection) -> None:
    if statement := connection.get_execution_options()["begin"]:
        connection.exec_driver_sql(statement)


def is_citus(connection: Connection) -> bool:
    """Whether the database had the extension Citus when the session began."""
    return bool(connection.info.get(_CITUS))


def _postgresql(url: URL, pool: dict[str, Any]) -> sa.Engine:
    engine = sa.create_engine(
        url,
        **pool,
        hide_parameters=True,  # a tenant's data does not belong in a log
        isolation_level="AUTOCOMMIT",  # the driver's
        connect_args={
            "connect_timeout": 5,
            "client_encoding": "utf8",
            "application_name": url.query.get("application_name", "agentidp-analytics"),
        },
    )

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, record: Any) -> None:
        record.info[_CITUS] = connection.execute(_SESSION).fetchone()[-1]

    replace_the_dead(engine)
    return engine


def _sqlite(url: URL, pool: dict[str, Any]) -> sa.Engine:
    engine = sa.create_engine(
        url,
        **pool,
        hide_parameters=True,
        connect_args={"timeout": SQLITE_BUSY_SECONDS},
    )

    @sa.event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # so that the driver neither begins nor commits
        connection.execute("PRAGMA journal_mode = WAL")
        # An acknowledged event survives a power cut.
        connection.execute("PRAGMA synchronous = FULL")

    return engine
