"""Run migrations on the configured database, one at a time, without long waits for locks."""

from typing import Any

from alembic import context
from sqlalchemy import Connection, text

from app.config.settings import Settings
from app.storage.database import Database
from app.storage.tables import metadata

# A migration that waits longer for a lock gives up, because other statements queue behind it.
LOCK_TIMEOUT = "5s"
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
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
        # When two hosts deploy at the same time, the second one waits here, at most LOCK_TIMEOUT,
        # and then finds nothing to do.
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
        database.write(migrate)
    finally:
        database.dispose()


main()
