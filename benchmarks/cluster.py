"""A PostgreSQL server for the benchmarks, and databases in it, copied from prepared ones."""

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import psycopg
from sqlalchemy.engine import make_url

from app.storage.database import Database
from tests.support.databases import migrate
from tests.support.postgresql import Server

# All other settings are PostgreSQL's defaults. Commits stay durable. Memory and log are set as for
# a server of this size. Checkpoints and vacuuming would start at random moments, so they are turned
# off here and started between measurements, for both sides.
SETTINGS = {
    "listen_addresses": "",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "autovacuum": "off",
    "log_min_messages": "fatal",
}

Connection = psycopg.Connection[tuple[Any, ...]]


class Cluster:
    """One running server."""

    def __init__(self) -> None:
        self._server = Server(SETTINGS).start()
        self._names = (f"bench_{number}" for number in itertools.count(1))
        self._empty: str | None = None

    def close(self) -> None:
        """End the server and delete its data."""
        self._server.remove()

    @property
    def version(self) -> str:
        with self.connect("postgres") as connection:
            return str(connection.info.parameter_status("server_version")).split()[0]

    def processor_seconds(self) -> float:
        """The processor time so far, of this process and of the server with all its processes."""
        pid = (self._server.folder / "data" / "postmaster.pid").read_text().split()[0]
        server = psutil.Process(int(pid))
        # Those of processes that have ended are the children's times of their parent.
        ended = server.cpu_times()
        times = [ended, *(child.cpu_times() for child in server.children())]
        running = sum(one.user + one.system for one in times)
        return time.process_time() + running + ended.children_user + ended.children_system

    def url(self, name: str) -> str:
        """The database's URL, for ``DATABASE_URL``."""
        return self._server.url(name)

    def conninfo(self, name: str) -> str:
        """The database as libpq's programs name it."""
        return self._server.conninfo(name)

    @contextmanager
    def connect(self, name: str) -> Iterator[Connection]:
        """A connection of the driver, without SQLAlchemy, in autocommit."""
        with psycopg.connect(self._server.conninfo(name), autocommit=True) as connection:
            yield connection

    @contextmanager
    def database(self, name: str) -> Iterator[Database]:
        """A database as the service opens it."""
        database = Database(make_url(self.url(name)))
        try:
            yield database
        finally:
            database.dispose()

    def create(self) -> str:
        """An empty database with the service's schema."""
        if self._empty is None:
            self._empty = self.keep_copy("template0")
            migrate(self.url(self._empty))
        return self.keep_copy(self._empty)

    @contextmanager
    def copy(self, name: str) -> Iterator[str]:
        """A copy of a database that is not in use, dropped after the ``with`` block."""
        copied = self.keep_copy(name)
        yield copied
        self._administer(f"DROP DATABASE {copied} WITH (FORCE)")

    def keep_copy(self, name: str) -> str:
        """A copy of a database that is not in use, kept until the end."""
        copied = next(self._names)
        self._administer(f"CREATE DATABASE {copied} TEMPLATE {name} STRATEGY file_copy")
        return copied

    def _administer(self, statement: str) -> None:
        with self.connect("postgres") as connection:
            connection.execute(statement)
