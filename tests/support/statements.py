"""The statements sent to a database, through SQLAlchemy or straight to the driver."""

from contextlib import contextmanager
from unittest.mock import patch

import psycopg
from sqlalchemy import event as hooks


@contextmanager
def watched(database, note):
    """Call ``note`` with the driver's connection, text and values before each statement."""
    ours = set()  # the connections of this database
    busy = set()  # those on which SQLAlchemy runs a statement, which is noted already

    def by_sqlalchemy(connection, _cursor, text, values, *_):
        busy.add(connection.connection.driver_connection)
        note(connection.connection.driver_connection, text, values)

    def done(connection, *_):
        busy.discard(connection.connection.driver_connection)

    def failed(context):
        if context.connection is not None:
            done(context.connection)

    def by_itself(cursor, text, values=None, **options):
        # A session's preparation has no values.
        if values is not None and cursor.connection in ours - busy:
            note(cursor.connection, text, values)
        return execute(cursor, text, values, **options)

    execute = psycopg.Cursor.execute
    listeners = {
        "checkout": lambda driver, *_: ours.add(driver),
        "before_cursor_execute": by_sqlalchemy,
        "after_cursor_execute": done,
        "handle_error": failed,
    }
    with listening(database.engine, listeners), patch.object(psycopg.Cursor, "execute", by_itself):
        yield


@contextmanager
def listening(engine, listeners):
    """Have functions called at SQLAlchemy's events."""
    for name, listener in listeners.items():
        hooks.listen(engine, name, listener)
    try:
        yield
    finally:
        for name, listener in listeners.items():
            hooks.remove(engine, name, listener)


@contextmanager
def statements(database):
    """The texts of the statements within, but for what begins transactions and SQLite's pragmas."""
    sent = []

    def note(_driver, text, _values):
        if not text.startswith(("BEGIN", "PRAGMA")):
            sent.append(text)

    with watched(database, note):
        yield sent
