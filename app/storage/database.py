"""The database: one engine per process, and the only place that begins a transaction.

Reads run on :meth:`Database.reading`, writes on :meth:`Database.write`. What the
two supported databases do differently about connections and transactions is
settled here, so that nobody else has to know.
"""

import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import DBAPIError

from app.errors import RefusedError
from app.storage import tenant_guard as fence
from app.storage.engines import postgresql_engine, sqlite_engine
from app.storage.failures import is_conflict

S = TypeVar("S")
T = TypeVar("T")


ATTEMPTS = 6


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
        self.engine = postgresql_engine(url, pool) if postgresql else sqlite_engine(url, pool)
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
