"""The schema version: the one in the database, and the one that this code needs."""

from functools import cache
from pathlib import Path

import sqlalchemy as sa
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from app.config.settings import Settings
from app.errors import SettingsError
from app.storage.database import Database
from app.storage.failures import is_unavailable

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"

_VERSION = sa.Table("alembic_version", sa.MetaData(), sa.Column("version_num", sa.Text))


@cache
def expected_revision() -> str | None:
    """The newest migration of this code."""
    return ScriptDirectory(MIGRATIONS).get_current_head()


def current_revision(connection: Connection) -> str | None:
    """The newest migration in the database; ``None`` before the first."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.scalar(sa.select(_VERSION.c.version_num))


def is_current(connection: Connection) -> bool:
    """Whether the database is reachable and its schema is current."""
    try:
        return current_revision(connection) == expected_revision()
    except DBAPIError:
        return False


def refuse_other_schema(settings: Settings) -> None:
    """Refuse to start in production when the database has another schema version.

    If the database is unavailable, the service starts, and ``/ready`` reports the failure.

    Raises:
        SettingsError: the version differs or cannot be read; the message says what to do.
    """
    if not settings.production:
        return
    database = Database(settings.database_url)
    try:
        with database.reading() as connection:
            revision = current_revision(connection)
    except DBAPIError as error:
        if is_unavailable(error):
            return
        raise SettingsError(
            "DATABASE_URL",
            "has a schema version that its role may not read; grant SELECT on alembic_version",
        ) from None
    finally:
        database.dispose()
    if revision != expected_revision():
        raise SettingsError(
            "DATABASE_URL",
            f"has schema {revision or 'none'}, this version needs {expected_revision()}:"
            " run `flask db upgrade`",
        )
