"""The database: one engine a process, and the only place that begins a transaction.

Reads run on :meth:`Database.reading`, writes on :meth:`Database.write`. PostgreSQL and SQLite
differ in connections and transactions, and this package hides the difference.
"""

import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import DBAPIError

from app.errors import RefusedError
from app.storage import tenant_guard
from app.storage.engines import postgresql_engine, sqlite_engine
from app.storage.failures import is_conflict

S = TypeVar("S")
T = TypeVar("T")

ATTEMPTS = 6
_POOLED = (
    "the database session changed between two transactions: connect to PostgreSQL itself, not"
    " through a pooler in transaction mode"
)

_NAME_TENANT = sa.select(
    sa.func.set_config("analytics.tenant_id", sa.bindparam("name", type_=sa.Text), False)
)
# Set for this transaction only. The names are separated by a character that no id contains.
_NAME_WRITTEN = sa.select(
    sa.func.set_config("analytics.written", sa.bindparam("names", type_=sa.Text), True)
)

# The statement that begins a transaction of each kind. The drivers neither begin nor commit.
# - A read on PostgreSQL is one statement, so it needs no BEGIN and ROLLBACK around it.
# - Exact counting needs a fresh snapshot for each statement. So READ COMMITTED is requested
#   explicitly, because the database or the role may have another default.
# - A writer on SQLite takes its lock at once. A transaction that begins as a reader may fail at its
#   first write, or may have read a watermark that another run then moves.
_BEGIN: dict[str, dict[str, str | None]] = {
    "postgresql": {
        "read": None,
        "current": "BEGIN ISOLATION LEVEL READ COMMITTED",
        "snapshot": "BEGIN ISOLATION LEVEL REPEATABLE READ",
        "write": "BEGIN ISOLATION LEVEL READ COMMITTED",
    },
    "sqlite": {
        "read": "BEGIN",
        "current": "BEGIN",
        "snapshot": "BEGIN",
        "write": "BEGIN IMMEDIATE",
    },
}


class Database:
    """One database and its connection pool.

    Args:
        url: SQLite or PostgreSQL (psycopg 3), as the settings hold it.
        pool_size: connections that stay open; a web worker needs one for each of its threads.
        overflow: further connections, which are closed after use.
        row_security: send PostgreSQL the tenant of every read, for row-level security policies.
    """

    def __init__(
        self, url: URL, *, pool_size: int = 5, overflow: int = 10, row_security: bool = False
    ) -> None:
        postgresql = url.get_backend_name() == "postgresql"
        pool = {"pool_size": pool_size, "max_overflow": overflow}
        self.engine = postgresql_engine(url, pool) if postgresql else sqlite_engine(url, pool)
        self.engine.update_execution_options(begin="current")
        sa.event.listen(self.engine, "begin", _begin)
        self._reader = self.engine.execution_options(begin="read")
        self._guarded = tenant_guard.guard(self._reader)
        self._writer = self.engine.execution_options(begin="write")
        self._row_security = row_security and postgresql

    @property
    def is_postgresql(self) -> bool:
        return self.engine.dialect.name == "postgresql"

    def dispose(self) -> None:
        """Close the pooled connections."""
        self.engine.dispose()

    def reading(self) -> Connection:
        """A connection for reads, to be used in ``with``.

        On PostgreSQL every statement sees the newest commits.
        """
        return self._reader.connect()

    def reading_for(self, tenant_id: str | None) -> Connection:
        """A connection for the reads of one tenant; the caller must close it.

        A statement that could show another tenant's rows raises
        :class:`~app.storage.tenant_guard.TenantGuardError`. With ``None``, no table that has
        tenants can be read.
        """
        return self._admitted(self._guarded, tenant_id)

    def snapshot_for(self, tenant_id: str) -> Connection:
        """As :meth:`reading_for`, with one snapshot of the database for all statements."""
        return self._admitted(self._guarded.execution_options(begin="snapshot"), tenant_id)

    def _admitted(self, engine: sa.Engine, tenant_id: str | None) -> Connection:
        connection = engine.connect()
        tenant_guard.admit(connection, tenant_id)
        if self._row_security:
            # Set for the session, because a read has no transaction around it. The next reader on
            # this connection sets its own tenant.
            try:
                connection.execute(_NAME_TENANT, {"name": tenant_id or ""})
            except BaseException:
                connection.close()
                raise
        return connection

    @contextmanager
    def snapshot(self, *, current: bool = False) -> Iterator[Connection]:
        """A read transaction whose statements all see the same snapshot of the database.

        Args:
            current: on PostgreSQL, each statement sees the newest commits instead, and rows can
                be locked.
        """
        engine = self.engine.execution_options(begin="current" if current else "snapshot")
        with engine.begin() as connection:
            if self.is_postgresql:
                # The transaction blocks no writer, so it may be idle, for example while its rows
                # wait in a pager.
                connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            yield connection

    def read_then_write(
        self, read: Callable[[Connection], S], write: Callable[[Connection, S], T]
    ) -> T:
        """A long ``read`` and a short ``write``: two transactions on one connection.

        ``write`` receives the result of ``read``, and can use the temporary tables of ``read``.

        Raises:
            RefusedError: a pooler in transaction mode used another session for ``write``.
        """
        with self.engine.connect() as connection:
            try:
                with connection.begin():
                    session, found = self._session(connection), read(connection)
                with connection.execution_options(begin="write").begin():
                    if self._session(connection) != session:
                        raise RefusedError(_POOLED)
                    return write(connection, found)
            finally:
                connection.invalidate()  # closing the connection drops the temporary tables

    def _session(self, connection: Connection) -> int | None:
        """The id of PostgreSQL's process for a connection; ``None`` on SQLite."""
        if not self.is_postgresql:
            return None
        return connection.scalar(sa.select(sa.func.pg_backend_pid()))

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in one transaction and commit it.

        A deadlock or a serialization conflict rolls the transaction back. The transaction is then
        run again, so ``work`` may be called more than once.
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

    def name_tenants(self, connection: Connection, tenant_ids: Iterable[str]) -> None:
        """Send PostgreSQL the tenants of the rows to be written, for row-level security."""
        if self._row_security:
            connection.execute(_NAME_WRITTEN, {"names": "\x1f".join(tenant_ids)})

    def _write_once(self, work: Callable[[Connection], T]) -> T:
        with self._writer.begin() as connection:
            return work(connection)


def _begin(connection: Connection) -> None:
    statement = _BEGIN[connection.dialect.name][connection.get_execution_options()["begin"]]
    if statement is not None:
        connection.exec_driver_sql(statement)
