"""The schema version: the one in the database, and the one that this code needs."""

from functools import cache
from pathlib import Path

import sqlalchemy as sa
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from app.config.settings import Settings
from app.errors import RefusedError, SettingsError
from app.storage.database import Database
from app.storage.failures import is_unavailable

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"

# The rows that the downgrade of each migration deletes, by table. A test compares this with the
# migrations. purged_months is not here: migrations/env.py keeps its rows.
_DELETED: dict[str, tuple[sa.TableClause, ...]] = {
    "0001": (
        sa.table("issuance_events"),
        sa.table("daily_issuance"),
        sa.table("dow_hour_activity"),
        sa.table("monthly_agent_issuance"),
    ),
    "0002": (sa.table("rollup_runs"), sa.table("rollup_corrections")),
    "0003": (sa.table("agents"),),
}
# Columns that such a downgrade deletes. The values that the next upgrade writes again are not here.
_DELETED_VALUES = {"0004": (sa.table("rollup_state", sa.column("refusal")),)}

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


def lost_by_downgrade(connection: Connection, target: str) -> dict[str, int]:
    """The rows that a downgrade to ``target`` deletes, by table; for a value, by its column.

    Raises:
        RefusedError: there is no such revision.
    """
    script = ScriptDirectory(MIGRATIONS)
    current = current_revision(connection)
    if current is None:
        return {}
    try:
        steps = list(script.iterate_revisions(current, target, select_for_downgrade=True))
    except (RevisionError, CommandError) as error:
        raise RefusedError(str(error)) from error
    revisions = [step.revision for step in steps]
    count = sa.select(sa.func.count())
    counts = {
        table.name: count.select_from(table)
        for revision in revisions
        for table in _DELETED.get(revision, ())
    } | {
        f"{table.name}.{column.name}": count.select_from(table).where(column.is_not(None))
        for revision in revisions
        for table in _DELETED_VALUES.get(revision, ())
        for column in table.c
    }
    lost = {name: connection.scalar(rows) or 0 for name, rows in counts.items()}
    return {name: rows for name, rows in lost.items() if rows}


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
