"""The database's schema version against the one this code was written for."""

from functools import cache
from pathlib import Path

import sqlalchemy as sa
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

MIGRATIONS = Path(__file__).resolve().parents[1] / "migrations"

_VERSION = sa.table("alembic_version", sa.column("version_num", sa.Text))


@cache
def expected_revision() -> str | None:
    """The newest migration that comes with this code."""
    return ScriptDirectory(MIGRATIONS).get_current_head()


def current_revision(connection: Connection) -> str | None:
    """The newest migration that the database has; ``None`` before the first."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.scalar(sa.select(_VERSION.c.version_num))


def is_current(connection: Connection) -> bool:
    """Whether the database is reachable and has every migration."""
    try:
        return current_revision(connection) == expected_revision()
    except DBAPIError:
        return False
