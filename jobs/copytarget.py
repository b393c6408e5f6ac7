"""Whether one database may be copied into another at all."""

import os
import secrets
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Connection

from app.errors import RefusedError
from app.storage.citus import is_citus
from app.storage.database import Database
from app.storage.schema import current_revision, expected_revision, install_schema


def require_schema(database: Database, name: str) -> None:
    """Refuse a database, called ``name``, whose schema is not this version's."""
    with database.reading() as connection:
        revision = current_revision(connection)
    if revision != expected_revision():
        raise RefusedError(
            f"the schema of {name} is {revision or 'another'}, this version needs"
            f" {expected_revision()}: run `flask db upgrade` there"
        )


def refuse_cluster(source: Database) -> None:
    """Refuse a source of which there is no one snapshot."""
    with source.reading() as connection:
        if is_citus(connection):
            raise RefusedError(
                "the source is a cluster, whose nodes have no snapshot in common: use the backup"
                " of its nodes"
            )


def prepare_target(target: Database) -> None:
    """Give a database without any tables the schema; refuse one with another."""
    with target.reading() as connection:
        bare = not sa.inspect(connection).get_table_names()
    if bare:
        install_schema(target)
    require_schema(target, "the target")


def refuse_same(origin: Connection, target: Database) -> None:
    """Refuse a copy of a database onto itself, by whatever names it goes.

    Args:
        origin: a transaction at the source.
    """
    with target.reading() as connection:
        if origin.dialect.name != connection.dialect.name:
            return
        postgresql = origin.dialect.name == "postgresql"
        if (_share_locks if postgresql else _share_file)(origin, connection):
            raise RefusedError("the target is the source")


def _share_locks(one: Connection, other: Connection) -> bool:
    """An advisory lock is known in one database of one cluster, and nowhere else."""
    key = secrets.randbits(63)
    one.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))
    return not other.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(key)))


def _share_file(one: Connection, other: Connection) -> bool:
    name = sa.text("SELECT file FROM pragma_database_list WHERE name = 'main'")
    files = [Path(str(connection.scalar(name))) for connection in (one, other)]
    return os.path.samefile(*files)
