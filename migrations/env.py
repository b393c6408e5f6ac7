"""Run migrations on the configured database, one at a time."""

from typing import Any

from alembic import context
from sqlalchemy import Connection, text

from app.cli.base import warn
from app.config.settings import Settings
from app.storage.database import Database
from app.storage.schema import change_schema
from app.storage.tables import metadata

ADVISORY_LOCK = 6_021_977_140_051


def include_object(item: Any, name: str | None, kind: str, reflected: bool, other: Any) -> bool:
    """Leave out of a comparison what differs on SQLite by design.

    SQLite's AUTOINCREMENT makes ``id`` the primary key. There the identity of an event is a UNIQUE
    constraint, and ``id`` needs no index. The tests compare both schemas with the tables in full.
    """
    if context.get_context().dialect.name != "sqlite":
        return True
    return name not in ("uq_issuance_events_tenant_id", "ix_issuance_events_id")


def migrate(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        # When two hosts deploy at the same time, the second one waits here, and then finds nothing
        # to do. Every role may take an advisory lock, but only the owner may lock this table. So
        # an advisory lock is used only before the table exists.
        if connection.scalar(text("SELECT to_regclass('alembic_version') IS NOT NULL")):
            connection.execute(text("LOCK TABLE alembic_version IN SHARE ROW EXCLUSIVE MODE"))
        else:
            connection.execute(text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))
    context.configure(
        connection=connection,
        target_metadata=metadata,
        include_object=include_object,
        compare_server_default=False,
        transactional_ddl=True,  # also on SQLite, where Database begins transactions itself
    )
    context.run_migrations()


def main() -> None:
    """Use the caller's connection when there is one, else the configured database."""
    given = context.config.attributes.get("connection")
    if given is not None:
        migrate(given)
        return
    database = Database(Settings.from_environ().database_url)
    try:
        change_schema(database, migrate, advisory=ADVISORY_LOCK, on_wait=warn)
    finally:
        database.dispose()


main()
