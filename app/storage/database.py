"""The database: one engine a process, and the only place that begins a transaction.

Reads run on :meth:`Database.reading`, writes on :meth:`Database.write`. PostgreSQL and SQLite
differ in connections and transactions, and this package hides the difference.
"""

import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import DBAPIError

from app.errors import RefusedError
from app.storage import tenant_guard
from app.storage.engines import milliseconds, postgresql_engine, sqlite_engine
from app.storage.failures import is_conflict, is_locked
from app.storage.locks import (
    BRIEF_SECONDS,
    LOCK_SECONDS,
    PATIENT_SECONDS,
    LockedError,
    begin_in_turn,
    lock_holders,
    with_patience,
    within_request,
)
from app.storage.tables import metadata
from app.waits import Waits, seconds_left

if TYPE_CHECKING:
    from app.storage.deadlines import Server

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
# No organization has this id, since it is a control character. See docs/operate/postgresql.md.
_OPERATOR = "\x1f"
# Set for the session, since a read has no transaction around it. The next use sets its own key.
_NAME_KEY = sa.select(
    sa.func.set_config("analytics.key_id", sa.bindparam("name", type_=sa.Text), False)
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
        waits: the slots of a process that serves requests. Each of its reads and writes then ends
            after some seconds (see ``deadlines`` and ``locks``).
    """

    def __init__(
        self,
        url: URL,
        *,
        pool_size: int = 5,
        overflow: int = 10,
        row_security: bool = False,
        waits: Waits | None = None,
    ) -> None:
        postgresql = url.get_backend_name() == "postgresql"
        pool = {"pool_size": pool_size, "max_overflow": overflow}
        self._waits = waits
        self._session_lock_seconds = BRIEF_SECONDS if waits else LOCK_SECONDS
        self._server: Server | None = None
        if postgresql:
            self.engine, self._server = postgresql_engine(
                url,
                pool,
                lock_seconds=self._session_lock_seconds,
                for_requests=waits is not None,
            )
        else:
            usual = PATIENT_SECONDS if waits else LOCK_SECONDS
            self.engine = sqlite_engine(url, pool, lock_seconds=usual)
            self.engine.update_execution_options(usual_lock_seconds=usual)
        self.engine.update_execution_options(begin="current")
        sa.event.listen(self.engine, "begin", _begin)
        self._reader = self.engine.execution_options(begin="read", waits=waits)
        self._guarded = tenant_guard.guard(self._reader)
        self._guarded_snapshot = self._guarded.execution_options(begin="snapshot")
        # By how long their statements wait for a lock.
        self._writers: dict[float | None, sa.Engine] = {}
        self._row_security = row_security and postgresql

    @property
    def is_postgresql(self) -> bool:
        return self.engine.dialect.name == "postgresql"

    def dispose(self) -> None:
        """Close the pooled connections."""
        self.engine.dispose()

    def reading(self, *, seconds: float | None = None) -> Connection:
        """A connection for reads, to be used in ``with``.

        On PostgreSQL every statement sees the newest commits.

        Args:
            seconds: in a job or a command, how long its statements may wait for the server; by
                default as long as it answers other connections.
        """
        connection = self._connect(self._reader)
        if seconds is not None and self.is_postgresql:
            driver: Any = connection.connection.driver_connection
            driver.limit(seconds)
        return connection

    def reading_for(self, tenant_id: str | None) -> Connection:
        """A connection for the reads of one tenant; the caller must close it.

        A statement that could show another tenant's rows raises
        :class:`~app.storage.tenant_guard.TenantGuardError`. With ``None``, no table that has
        tenants can be read.
        """
        return self._admitted(self._guarded, tenant_id)

    def snapshot_for(self, tenant_id: str) -> Connection:
        """As :meth:`reading_for`, with one snapshot of the database for all statements."""
        return self._admitted(self._guarded_snapshot, tenant_id)

    def reading_organizations(self, *, snapshot: bool = False) -> Connection:
        """A connection for the list of all organizations; the caller must close it.

        It reads ``organization_summaries`` for all tenants, and no other table that has tenants.
        Only callers with the scope ``analytics:read:any`` may get it.

        Args:
            snapshot: all statements see one snapshot of the database.
        """
        engine = self._guarded_snapshot if snapshot else self._guarded
        return self._admitted(engine, None, operator=True)

    def _admitted(
        self, engine: sa.Engine, tenant_id: str | None, *, operator: bool = False
    ) -> Connection:
        connection = self._connect(engine)
        tenant_guard.admit(connection, tenant_id, operator=operator)
        if self._row_security:
            # Set for the session, because a read has no transaction around it. The next reader on
            # this connection sets its own tenant.
            try:
                connection.execute(
                    _NAME_TENANT, {"name": _OPERATOR if operator else tenant_id or ""}
                )
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
            LockedError: a lock was not free in time.
        """
        with self._naming_holders(), self.engine.connect() as connection:
            try:
                with connection.begin():
                    session, found = self._session(connection), read(connection)
                with connection.execution_options(begin="write").begin():
                    if self._session(connection) != session:
                        raise RefusedError(_POOLED)
                    return write(connection, found)
            finally:
                connection.invalidate()  # closing the connection drops the temporary tables

    def shares_sessions(self) -> bool:
        """Whether a pooler in transaction mode is between this process and PostgreSQL."""
        if not self.is_postgresql:
            return False
        with self.reading() as one:
            session = self._session(one)
            driver: Any = one.connection.driver_connection
            if session == driver.info.backend_pid:
                return False  # no pooler at all
            # A pooler in session mode keeps the session for this connection. Another one gives it
            # to the next transaction, or continues with another session.
            with self.engine.begin() as other:
                return self._session(other) == session or self._session(one) != session

    def _session(self, connection: Connection) -> int | None:
        """The id of PostgreSQL's process for a connection; ``None`` on SQLite."""
        if not self.is_postgresql:
            return None
        return connection.scalar(sa.select(sa.func.pg_backend_pid()))

    def write(self, work: Callable[[Connection], T], *, lock_seconds: float | None = None) -> T:
        """Run ``work`` in one transaction and commit it.

        A deadlock or a serialization conflict rolls the transaction back. The transaction is then
        run again, so ``work`` may be called more than once. It is also run again after a brief wait
        for a lock, in a process that serves requests.

        Args:
            lock_seconds: in a job or a command, how long a statement waits for a lock.

        Raises:
            LockedError: in a job or a command, a lock was not free in time.
        """
        if self._waits is not None:
            return with_patience(
                self._waits,
                lambda seconds: self._write(work, seconds),
                one_lock=not self.is_postgresql,
            )
        with self._naming_holders():
            return self._write(work, lock_seconds)

    def _write(self, work: Callable[[Connection], T], lock_seconds: float | None) -> T:
        engine = self._writer_with(lock_seconds)
        for attempt in range(1, ATTEMPTS):
            try:
                return self._write_once(engine, work)
            except DBAPIError as error:
                if not is_conflict(error):
                    raise
                # S311: jitter, not a secret.
                pause = random.uniform(0, 0.02 * 2**attempt)  # noqa: S311
                time.sleep(min(pause, seconds_left()))
        return self._write_once(engine, work)

    def _writer_with(self, lock_seconds: float | None) -> sa.Engine:
        """The engine for writes that wait for locks so long; ``None``: as long as the session."""
        if self.is_postgresql and lock_seconds == self._session_lock_seconds:
            lock_seconds = None
        if lock_seconds not in self._writers:  # to make one costs more than to begin a transaction
            engine = self.engine.execution_options(begin="write", lock_seconds=lock_seconds)
            self._writers[lock_seconds] = engine
        return self._writers[lock_seconds]

    @contextmanager
    def _naming_holders(self) -> Iterator[None]:
        """Raise a :class:`LockedError` if a lock was not free in time."""
        try:
            yield
        except DBAPIError as error:
            if not is_locked(error):
                raise
            with self.reading() as connection:
                holders = lock_holders(connection, metadata.tables)
            raise LockedError(holders) from error

    def name_tenants(self, connection: Connection, tenant_ids: Iterable[str]) -> None:
        """Send PostgreSQL the tenants of the rows to be written, for row-level security."""
        if self._row_security:
            connection.execute(_NAME_WRITTEN, {"names": "\x1f".join(tenant_ids)})

    def write_briefly(self, work: Callable[[Connection], T], lock_seconds: float) -> T:
        """Run ``work`` in one transaction, once, and wait for locks no longer than that."""
        return self._write_once(self._writer_with(lock_seconds), work)

    def name_key(self, connection: Connection, key_id: str) -> None:
        """Send PostgreSQL the API key that is read or written next, for row-level security."""
        if self._row_security:
            connection.execute(_NAME_KEY, {"name": key_id})

    def _write_once(self, engine: sa.Engine, work: Callable[[Connection], T]) -> T:
        with self._connect(engine) as connection, connection.begin():
            return work(connection)

    def _connect(self, engine: sa.Engine) -> Connection:
        """A connection.

        Raises:
            UnavailableError: the server does not answer requests at this moment, or this request
                has no time left.
        """
        if self._server is not None:
            self._server.check()
        return engine.connect()


def _begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    statement = _BEGIN[connection.dialect.name][options["begin"]]
    seconds = options.get("lock_seconds")
    if statement is None:
        return
    if connection.dialect.name == "sqlite" and options["begin"] == "write":
        usual = options["usual_lock_seconds"]
        wait = usual if seconds is None else within_request(seconds)
        begin_in_turn(connection, statement, wait, then=usual)
    elif seconds is None:
        connection.exec_driver_sql(statement)
    else:
        # One message to the server. Without parameters, the driver allows two statements.
        limit = f"SET LOCAL lock_timeout = '{milliseconds(within_request(seconds))}'"
        connection.exec_driver_sql(f"{statement}; {limit}")
