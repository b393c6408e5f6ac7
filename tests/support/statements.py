"""What a database is asked, through SQLAlchemy or straight from the driver."""

from contextlib import contextmanager
from unittest.mock import patch

import psycopg
from sqlalchemy import event as hooks


@contextmanager
def watched(database, note):
    """Call ``note`` with the driver's connection, text and values before each statement."""

    def by_sqlalchemy(connection, _cursor, text, values, *_):
        note(connection.connection.driver_connection, text, values)

    def by_itself(driver, text, values=None, **options):
        if values is not None:  # a session's preparation has none
            note(driver, text, values)
        return execute(driver, text, values, **options)

    execute = psycopg.Connection.execute
    hooks.listen(database.engine, "before_cursor_execute", by_sqlalchemy)
    try:
        with patch.object(psycopg.Connection, "execute", by_itself):
            yield
    finally:
        hooks.remove(database.engine, "before_cursor_execute", by_sqlalchemy)


@contextmanager
def statements(database):
    """The texts of the statements within, but for what begins transactions and SQLite's pragmas."""
    sent = []

    def note(_driver, text, _values):
        if not text.startswith(("BEGIN", "PRAGMA")):
            sent.append(text)

    with watched(database, note):
        yield sent
