"""Run migrations on the configured database, one at a time, without long waits for locks."""

from typing import Any

from alembic import context
from sqlalchemy import Connection, text

from app.config.settings import Settings
from app.storage.database import Database
from app.storage.tables import metadata

# A migration that cannot have its lock soon gives up; a queue behind it would stop the service.
LOCK_TIMEOUT = "5s"
ADVISORY_LOCK = 6_021_977_140_051


def include_object(item: Any, name: str | None, kind: str, reflected: bool, other: Any) -> bool:
    """Leave out what the two databases spell differently: SQLite's AUTOINCREMENT makes ``id``
    the primary key, so the events' identity is a UNIQUE constraint there and ``id`` needs no
    index. The tests compare both schemas with the models in full."""
    if context.get_context().dialect.name != "sqlite":
        return True
    return name not in ("uq_issuance_events_tenant_id", "ix_issuance_events_id")


def migrate(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
        # Two hosts that deploy at once: the second waits here, as long as for any lock, and
        # then finds nothing to do.
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
