"""The rows of a read, on PostgreSQL straight from the driver.

A read over HTTP is one small statement. What SQLAlchemy does around it, to prepare it and to
describe its rows, takes longer than to send it and to receive them. So it is compiled once,
and then sent as it is, on the same connection and behind the same fence.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import CompoundSelect, Connection, Dialect

from app.storage import tenant_guard as fence
from app.storage.failures import as_sqlalchemys

Reading = CompoundSelect[*tuple[Any, ...]]


def fetch(connection: Connection, statement: Reading, parameters: dict[str, Any]) -> Sequence[Any]:
    """All rows of a statement that is built once, in its columns' order.

    Raises:
        DBAPIError: as SQLAlchemy's own.
        FenceError: it is not for the tenant whose connection this is.
    """
    if connection.dialect.name != "postgresql":
        return connection.execute(statement, parameters).all()
    fence.check_read(connection, statement, parameters)
    text, values = _compiled(statement, connection.dialect)
    driver: Any = connection.connection.driver_connection
    try:
        found: list[Any] = driver.cursor().execute(text, values | parameters).fetchall()
    except connection.dialect.loaded_dbapi.Error as error:
        raise as_sqlalchemys(connection, text, error) from error
    return found


@lru_cache(maxsize=256)
def _compiled(statement: Reading, dialect: Dialect) -> tuple[str, dict[str, Any]]:
    """The text for the driver, and the values that are the statement's own."""
    compiled = statement.compile(dialect=dialect)
    binds = compiled.binds.items()
    return str(compiled), {name: bind.effective_value for name, bind in binds if not bind.required}
