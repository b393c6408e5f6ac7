"""The schema version: the one in the database, and the one that this code needs."""

import io
from functools import cache
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection
from sqlalchemy.exc import DBAPIError

from app.config.settings import Settings
from app.errors import RefusedError, SettingsError
from app.storage.citus import distribute
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


def install_schema(database: Database) -> None:
    """Bring an empty database to this version, in one transaction.

    One that has the extension Citus is distributed, as ``flask db upgrade`` does it.

    Raises:
        RefusedError: it cannot hold the data.
    """
    config = Config(stdout=io.StringIO())
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))

    def migrate(connection: Connection) -> None:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        distribute(connection)

    try:
        database.write(migrate)
    except (CommandError, RuntimeError) as error:
        raise RefusedError(str(error)) from error


def refuse_other_schema(settings: Settings) -> None:
    """Stop the start of a server in production whose database is not migrated to this version.

    One that is away may come back: the service starts and says so at ``/ready``.

    Raises:
        SettingsError: names ``DATABASE_URL`` and what to do.
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
            "DATABASE_URL", "has a schema version that its role may not read"
        ) from None
    finally:
        database.dispose()
    if revision != expected_revision():
        raise SettingsError(
            "DATABASE_URL",
            f"has schema {revision or 'none'}, this version needs {expected_revision()}:"
            " run `flask db upgrade`",
        )


_accepted: set[URL] = set()


def refuse_other_schema_once(settings: Settings) -> None:
    """As :func:`refuse_other_schema`, but for a database that this process has started with.

    gunicorn reads its settings anew on a reload, and a migration that came between must not end
    a service that works.
    """
    if settings.database_url not in _accepted:
        refuse_other_schema(settings)
        _accepted.add(settings.database_url)
