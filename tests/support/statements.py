"""What a database is asked, through SQLAlchemy or straight from the driver."""

from contextlib import contextmanager
from unittest.mock import patch

import psycopg
from sqlalchemy import event as hooks


@contextmanager
def watched(database, note):
    """Call ``note`` with the driver's connection, text and values before each statement."""

    noted = []

    def by_sqlalchemy(connection, cursor, text, values, *_):
        noted.append(cursor)
        note(connection.connection.driver_connection, text, values)

    def by_itself(cursor, text, values=None, **options):
        if cursor in noted:
            noted.remove(cursor)
        elif values and isinstance(text, str):  # not what prepares a session or a test
            note(cursor.connection, text, values)
        return execute(cursor, text, values, **options)

    execute = psycopg.Cursor.execute
    hooks.listen(database.engine, "before_cursor_execute", by_sqlalchemy)
    try:
        with patch.object(psycopg.Cursor, "execute", by_itself):
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
