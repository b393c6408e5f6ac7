"""Databases for the tests: migrated, emptied between tests, or made for one test alone."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from psycopg import sql
from sqlalchemy import Connection
from sqlalchemy.engine import make_url

from app.storage.database import Database
from app.storage.schema import MIGRATIONS

# Each change of the schema, of rights and of the database's defaults writes a catalog row, so
# that this differs after it. So do statistics, and tables that have grown large.
_STATE = """
WITH ours AS (SELECT oid, relname FROM pg_class WHERE relnamespace = 'public'::regnamespace)
SELECT
    (SELECT max(xmin::text::bigint) FROM pg_attribute),
    (SELECT max(xmin::text::bigint) FROM pg_class),
    (SELECT max(xmin::text::bigint) FROM pg_constraint),
    (SELECT max(xmin::text::bigint) FROM pg_sequence),
    (SELECT max(xmin::text::bigint) FROM pg_namespace),
    (SELECT count(*) FROM pg_class),
    (SELECT count(*) FROM pg_constraint),
    (SELECT count(*) FROM pg_policy),
    (SELECT count(*) FROM pg_trigger),
    (SELECT count(*) FROM pg_proc),
    (SELECT count(*) FROM pg_statistic WHERE starelid IN (SELECT oid FROM ours)),
    (SELECT sum(pg_relation_size(oid)) > 1024 * 1024 FROM ours),
    (SELECT datacl::text FROM pg_database WHERE datname = current_database()),
    (SELECT count(*) FROM pg_db_role_setting WHERE setdatabase =
        (SELECT oid FROM pg_database WHERE datname = current_database()))
"""
_END_OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
_PREPARED = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
_SEQUENCES = "SELECT sequencename, start_value FROM pg_sequences WHERE schemaname = 'public'"


@dataclass
class PostgreSQL:
    """Makes databases, cheaply, from a migrated template."""

    url: str
    template: str = ""

    def __post_init__(self) -> None:
        self.template = self.create("template0")
        migrate(self.at(self.template))

    def at(self, database: str) -> str:
        return make_url(self.url).set(database=database).render_as_string(hide_password=False)

    def create(self, template: str | None = None) -> str:
        name = f"test_{uuid.uuid4().hex[:12]}"
        self.administer(f'CREATE DATABASE "{name}" TEMPLATE "{template or self.template}"')
        return name

    def drop(self, name: str) -> None:
        self.administer(f'DROP DATABASE "{name}" WITH (FORCE)')

    def administer(self, statement: str) -> None:
        with psycopg.connect(conninfo(self.url), autocommit=True) as connection:
            connection.execute(statement)


class ReusedDatabase:
    """One PostgreSQL database that is emptied before each test.

    After a test that changed more than rows it is made anew: no test need declare that.
    """

    def __init__(self, postgresql: PostgreSQL) -> None:
        self._postgresql = postgresql
        self._name = ""
        self._pristine: tuple[object, ...] | None = None
        self._emptying: list[sql.Composed] = []

    def emptied(self) -> str:
        """Its URL, with every table as the migrations leave it."""
        if not self._name or not self._empty():
            self._renew()
        return self._postgresql.at(self._name)

    def drop(self) -> None:
        if self._name:
            self._postgresql.drop(self._name)

    def _renew(self) -> None:
        self.drop()
        self._name = self._postgresql.create()
        with self._connect() as connection:
            self._pristine = connection.execute(_STATE).fetchone()
            self._emptying = list(_emptying(connection))

    def _empty(self) -> bool:
        """Delete all rows; false where the database needs to be made anew."""
        with self._connect() as connection:
            # A session that an earlier test left open may hold locks, or be a writer that a
            # run waits for.
            connection.execute(_END_OTHERS)
            for (gid,) in connection.execute(_PREPARED).fetchall():
                connection.execute(sql.SQL("ROLLBACK PREPARED {}").format(gid))
            if connection.execute(_STATE).fetchone() != self._pristine:
                return False
            with connection.transaction():
                # A session that was told to end lives on for a moment.
                connection.execute("SET LOCAL lock_timeout = '20s'")
                for statement in self._emptying:
                    connection.execute(statement)
        return True

    def _connect(self) -> "closing[psycopg.Connection[Any]]":
        url = conninfo(self._postgresql.at(self._name))
        return closing(psycopg.connect(url, autocommit=True))


def _emptying(connection: psycopg.Connection[Any]) -> Iterator[sql.Composed]:
    """Statements that bring back what the migrations left: their rows, ids from the first on."""
    for (table,) in connection.execute(_TABLES).fetchall():
        name = sql.Identifier(table)
        yield sql.SQL("DELETE FROM {}").format(name)
        cursor = connection.execute(sql.SQL("SELECT * FROM {}").format(name))
        columns = sql.SQL(", ").join(sql.Identifier(one.name) for one in cursor.description or ())
        for row in cursor.fetchall():
            values = sql.SQL(", ").join(map(sql.Literal, row))
            yield sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(name, columns, values)
    for sequence, start in connection.execute(_SEQUENCES).fetchall():
        yield sql.SQL("SELECT setval({}, {}, false)").format(f"public.{sequence}", start)


def conninfo(url: str) -> str:
    """A SQLAlchemy URL as psycopg takes it."""
    plain = make_url(url).set(drivername="postgresql")
    return plain.render_as_string(hide_password=False)


def migrate(url: str, revision: str = "head") -> None:
    """Bring a database up to a schema version, or down to none."""
    _step(url, command.downgrade if revision == "base" else command.upgrade, revision)


def downgrade(url: str, revision: str) -> None:
    """Bring a database down to a schema version."""
    _step(url, command.downgrade, revision)


def _step(url: str, move: Callable[[Config, str], object], revision: str) -> None:
    database = Database(make_url(url))
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))

    def step(connection: Connection) -> None:
        config.attributes["connection"] = connection
        move(config, revision)

    database.write(step)
    database.dispose()
