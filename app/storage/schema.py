"""The schema version: the one in the database, and the one that this code needs."""

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from app.config.settings import Settings
from app.errors import RefusedError, SettingsError
from app.storage.database import Database
from app.storage.failures import is_unavailable
from app.storage.locks import LockedError, lock_holders
from app.storage.tables import metadata

# How long a migration waits for a lock, how long the statements that queued behind it may then
# pass, and after which time it fails. An idle transaction does not last as long, where its role has
# the timeout that docs/operate/postgresql.md sets.
LOCK_SECONDS = 2
PAUSE_SECONDS = 1
PATIENCE_SECONDS = 75

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
    "0005": (sa.table("api_keys"),),
    "0006": (sa.table("source_positions"),),
    "0007": (
        sa.table("hourly_issuance"),
        sa.table("daily_agent_issuance"),
        sa.table("dow_hour_total"),
    ),
    "0008": (
        sa.table("findings"),
        sa.table("usual"),
        sa.table("detection_state"),
        sa.table("organization_settings"),
    ),
    "0010": (sa.table("audit_log"), sa.table("erasures"), sa.table("share_links")),
    "0011": (sa.table("budgets"),),
    "0012": (sa.table("webhook_endpoints"), sa.table("webhook_messages")),
    "0014": (sa.table("client_organizations"),),
    "0013": (sa.table("page_sessions"),),
    "0009": (sa.table("organization_summaries"), sa.table("organization_summary_state")),
}
# Columns that such a downgrade deletes. The values that the next upgrade writes again are not here.
_DELETED_VALUES = {
    "0004": (sa.table("rollup_state", sa.column("refusal")),),
    "0008": (sa.table("agents", sa.column("token_lifetime")),),
}

_VERSION = sa.Table("alembic_version", sa.MetaData(), sa.Column("version_num", sa.Text))


@cache
def expected_revision() -> str | None:
    """The newest migration of this code."""
    # Few commands need Alembic, and its import takes a fifth of a start.
    from alembic.script import ScriptDirectory  # noqa: PLC0415

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
    # As above.
    from alembic.script import ScriptDirectory  # noqa: PLC0415
    from alembic.script.revision import RevisionError  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

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
    """Whether the schema is current.

    Raises:
        DBAPIError: the database is unavailable.
    """
    try:
        return current_revision(connection) == expected_revision()
    except DBAPIError as error:
        if is_unavailable(error):
            raise
        return False


def change_schema(
    database: Database,
    change: Callable[[Connection], None],
    *,
    advisory: int,
    on_wait: Callable[[str], None],
) -> None:
    """Run a change of the schema in one transaction.

    Other statements queue behind a change that waits for a lock. So it soon gives up, lets them
    pass, and tries again.

    Args:
        advisory: the advisory lock that the change takes.
        on_wait: called with the reason before each further attempt.

    Raises:
        LockedError: a lock was held all the time; the message names its holders.
    """
    give_up = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return database.write(change, lock_seconds=LOCK_SECONDS)
        except LockedError:
            with database.reading() as connection:
                holders = lock_holders(connection, metadata.tables, readers=True, advisory=advisory)
        error = LockedError(holders)
        if time.monotonic() > give_up:
            raise error
        on_wait(f"waiting: {error.message}")
        time.sleep(PAUSE_SECONDS)


def refuse_other_schema(settings: Settings) -> None:
    """Refuse to start with a database that cannot be used.

    That is PostgreSQL in a version that is too old, or behind a pooler in transaction mode. In
    production it is also a database with another schema version. If the database is unavailable,
    the service starts, and ``/ready`` reports the failure.

    Raises:
        SettingsError: the message says what to do.
    """
    database = Database(settings.database_url)
    if not (settings.production or database.is_postgresql):
        return
    try:
        if database.shares_sessions():
            raise SettingsError(
                "DATABASE_URL",
                "leads to a pooler in transaction mode; connect to PostgreSQL itself, or set"
                " pool_mode = session",
            )
        with database.reading() as connection:
            revision = current_revision(connection)
    except DBAPIError as error:
        if is_unavailable(error) or not settings.production:
            return
        raise SettingsError(
            "DATABASE_URL",
            "has a schema version that its role may not read; grant SELECT on alembic_version",
        ) from None
    finally:
        database.dispose()
    if settings.production and revision != expected_revision():
        raise SettingsError(
            "DATABASE_URL",
            f"has schema {revision or 'none'}, this version needs {expected_revision()}:"
            " run `flask db upgrade`",
        )
