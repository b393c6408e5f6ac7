"""Run migrations on the configured database, one at a time."""

from typing import Any

from alembic import context
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Date,
    MetaData,
    Table,
    insert,
    inspect,
    select,
    text,
)

from app.cli.base import warn
from app.config.settings import Settings
from app.storage.database import Database
from app.storage.schema import change_schema
from app.storage.tables import metadata

ADVISORY_LOCK = 6_021_977_140_051
# Where a schema without purged_months keeps its rows. Without them the next upgrade would lose the
# knowledge that these months cannot be recounted, and a rebuild would make their numbers zero.
KEPT_MONTHS = "purged_months_kept"


def include_object(item: Any, name: str | None, kind: str, reflected: bool, other: Any) -> bool:
    """Leave out of a comparison what differs on SQLite by design, and the kept months.

    SQLite's AUTOINCREMENT makes ``id`` the primary key. There the identity of an event is a UNIQUE
    constraint, and ``id`` needs no index. The tests compare both schemas with the tables in full.
    """
    if name == KEPT_MONTHS:
        return False
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
    months = purged_months(connection)
    context.run_migrations()
    keep_purged_months(connection, months)


def months_table(name: str) -> Table:
    return Table(name, MetaData(), Column("month", Date), Column("events", BigInteger))


def purged_months(connection: Connection) -> list[dict[str, Any]]:
    """The months with purged events, from the table that has them in this schema."""
    tables = inspect(connection).get_table_names()
    for name in ("purged_months", KEPT_MONTHS):
        if name in tables:
            rows = connection.execute(select(months_table(name)))
            return [dict(row) for row in rows.mappings()]
    return []


def keep_purged_months(connection: Connection, months: list[dict[str, Any]]) -> None:
    """Keep the purged months through a downgrade, and bring them back at an upgrade.

    Without the summary tables there is nothing to rebuild, and the months are forgotten.
    """
    tables = inspect(connection).get_table_names()
    kept = months_table(KEPT_MONTHS)
    if "purged_months" in tables:
        if kept.name in tables and months:
            connection.execute(insert(months_table("purged_months")), months)
            kept.drop(connection)
    elif "daily_issuance" not in tables:
        kept.drop(connection, checkfirst=True)
    elif months and kept.name not in tables:
        kept.create(connection)
        connection.execute(insert(kept), months)


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
