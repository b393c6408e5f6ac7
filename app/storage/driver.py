"""Reads that are sent straight to PostgreSQL's driver, without SQLAlchemy.

A report is one small statement. SQLAlchemy takes longer to prepare it and to describe its rows than
the driver takes to send it and to receive the rows (docs/performance.md). So the statement is
compiled once. It is then sent on the same connection, after the same tenant guard has checked it.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import CompoundSelect, Connection, Dialect, Select
from sqlalchemy.exc import DBAPIError

from app.storage import tenant_guard
from app.storage.engines import milliseconds
from app.storage.failures import as_sqlalchemy_error, is_locked
from app.storage.locks import BRIEF_SECONDS, PATIENT_SECONDS, within_request
from app.waits import Waits

Reading = CompoundSelect[*tuple[Any, ...]] | Select[*tuple[Any, ...]]

_LOCK_TIMEOUT = "SELECT set_config('lock_timeout', %(limit)s, false)"


def fetch(connection: Connection, statement: Reading, parameters: dict[str, Any]) -> Sequence[Any]:
    """All rows of a statement, as tuples in the order of its columns.

    Args:
        statement: built once; its compiled text is cached.

    Raises:
        DBAPIError: the statement failed; the error is the same as from SQLAlchemy.
        TenantGuardError: the statement does not read the tenant of this connection.
    """
    if connection.dialect.name != "postgresql":
        return connection.execute(statement, parameters).all()
    tenant_guard.check_read(connection, statement, parameters)
    text, values = _compiled(statement, connection.dialect)
    values = values | parameters
    waits: Waits | None = connection.get_execution_options().get("waits")
    try:
        return _rows(connection, text, values)
    except DBAPIError as error:
        if waits is None or not is_locked(error) or not waits.enter():
            raise
    # As in app.storage.locks.with_patience(); a first wait that is shorter would cost a round trip.
    try:
        _set_lock_timeout(connection, within_request(PATIENT_SECONDS))
        found = _rows(connection, text, values)
        _set_lock_timeout(connection, BRIEF_SECONDS)
        return found
    except BaseException:
        connection.invalidate()  # its session has another lock_timeout than the pool expects
        raise
    finally:
        waits.leave()


def _rows(connection: Connection, text: str, values: dict[str, Any]) -> list[Any]:
    driver: Any = connection.connection.driver_connection
    try:
        found: list[Any] = driver.cursor().execute(text, values).fetchall()
    except connection.dialect.loaded_dbapi.Error as error:
        raise as_sqlalchemy_error(connection, text, error) from error
    return found


def fetch_batches(
    connection: Connection, statement: Reading, parameters: dict[str, Any], size: int
) -> Iterator[list[Any]]:
    """The rows of a statement as :func:`fetch` returns them, at most ``size`` at a time.

    On PostgreSQL a cursor of the server keeps the others, for as long as its transaction is open.

    Raises:
        DBAPIError: the statement failed, at its beginning or later.
        TenantGuardError: the statement does not read the tenant of this connection.
    """
    text = ""
    driver: Any = None
    cursor: Any = None
    try:
        if connection.dialect.name == "postgresql":
            tenant_guard.check_read(connection, statement, parameters)
            text, values = _compiled(statement, connection.dialect)
            if not connection.in_transaction():
                connection.begin()
            driver = connection.connection.driver_connection
            driver.limit()
            cursor = driver.cursor(name="batches")
            cursor.execute(text, values | parameters)
        else:
            cursor = connection.execute(statement, parameters).cursor
        while rows := cursor.fetchmany(size):
            yield rows
            if driver is not None:
                driver.limit()  # a client may have taken its time
    except connection.dialect.loaded_dbapi.Error as error:
        raise as_sqlalchemy_error(connection, text, error) from error
    finally:
        if driver is not None:
            driver.limit()  # also for the end of the transaction
        if cursor is not None and not connection.invalidated:
            cursor.close()


def _set_lock_timeout(connection: Connection, seconds: float) -> None:
    _rows(connection, _LOCK_TIMEOUT, {"limit": milliseconds(seconds)})


@lru_cache(maxsize=256)
def _compiled(statement: Reading, dialect: Dialect) -> tuple[str, dict[str, Any]]:
    """The SQL text for the driver, and the values that the statement itself contains."""
    compiled = statement.compile(dialect=dialect)
    binds = compiled.binds.items()
    return str(compiled), {name: bind.effective_value for name, bind in binds if not bind.required}
