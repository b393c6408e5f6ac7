"""Clusters of Citus for the tests: databases on one that is there, or three nodes of a test's own.

``TEST_CITUS_URL`` names a coordinator, by a superuser's URL, that knows its workers in the
database of the URL. Tests that stop nodes make their own beside it, from the same programs.
"""

import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from sqlalchemy.engine import make_url

from app.config.parsing import database_url
from app.storage.citus import distribute
from app.storage.database import Database
from tests.support.databases import conninfo, migrate
from tests.support.postgresql import SETTINGS, Server

SHARDS = 4
NODES = "SELECT nodename, nodeport FROM pg_dist_node WHERE noderole = 'primary' ORDER BY groupid"
CITUS = SETTINGS | {
    "shared_preload_libraries": "citus",
    "max_prepared_transactions": "100",
    "citus.max_cached_conns_per_worker": "2",
    # A test recovers when it wants to.
    "citus.recover_2pc_interval": "-1",
    "citus.enable_statistics_collection": "off",
    "fsync": "on",  # as after a power cut
}


def required_url() -> str:
    url = os.environ.get("TEST_CITUS_URL")
    if not url:
        pytest.skip("TEST_CITUS_URL names no coordinator of a Citus cluster")
    return database_url(url).render_as_string(hide_password=False)


def spread(url: str) -> None:
    """Give a database of the cluster the schema, in few shards."""
    migrate(url)
    database = Database(make_url(url))
    database.write(lambda connection: distribute(connection, SHARDS))
    database.dispose()


@contextmanager
def citus_database(url: str) -> Iterator[str]:
    """A fresh database on every node of a cluster; the URL of it at the coordinator."""
    here, name = make_url(url), f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(conninfo(url), autocommit=True) as admin:
        nodes = admin.execute(NODES).fetchall()
    addresses = [_at(here, host, port) for host, port in nodes]
    for address in addresses:
        _execute(conninfo(address), f"CREATE DATABASE {name} TEMPLATE template0")
        _execute(_in(address, name), "CREATE EXTENSION citus")
    (first_host, first_port), *workers = nodes
    made = make_url(_at(here, first_host, first_port)).set(database=name)
    with psycopg.connect(_in(addresses[0], name), autocommit=True) as admin:
        admin.execute("SELECT citus_set_coordinator_host(%s, %s)", [first_host, first_port])
        for host, port in workers:
            admin.execute("SELECT citus_add_node(%s, %s)", [host, port])
    try:
        yield made.render_as_string(hide_password=False)
    finally:
        recover(made.render_as_string(hide_password=False))
        for address in addresses:
            _execute(conninfo(address), f"DROP DATABASE {name} WITH (FORCE)")


class Cluster:
    """A coordinator and its workers, each in a temporary folder, which is also its name.

    ``stop`` and ``start`` are of one node at a time, as a fault run calls them: of each worker in
    turn, then of the coordinator.
    """

    IMMEDIATE = Server.IMMEDIATE

    def __init__(self, workers: int = 2) -> None:
        self.coordinator, *nodes = (Server(CITUS) for _ in range(1 + workers))
        # In Citus' order: at the first one it keeps the locks of tables that are at every node.
        self.workers = sorted(nodes, key=lambda node: str(node.folder))
        self.url = self.coordinator.url("postgres")
        self._victims = [*self.workers, self.coordinator]

    def found(self) -> "Cluster":
        """Start all nodes and make them one cluster."""
        nodes = (self.coordinator, *self.workers)
        for node in nodes:
            node.start()
            _execute(node.conninfo("postgres"), "CREATE EXTENSION citus")
        with psycopg.connect(self.coordinator.conninfo("postgres"), autocommit=True) as admin:
            admin.execute("SELECT citus_set_coordinator_host(%s)", [str(self.coordinator.folder)])
            for worker in self.workers:
                admin.execute("SELECT citus_add_node(%s, 5432)", [str(worker.folder)])
        return self

    def conninfo(self, database: str) -> str:
        """Of the node that is stopped next."""
        return self._victims[0].conninfo(database)

    def stop(self, mode: signal.Signals = signal.SIGINT) -> None:
        """Stop a node, another one each time."""
        self._victims[0].stop(mode)

    def start(self) -> None:
        self._victims[0].start()
        self._victims.append(self._victims.pop(0))

    def remove(self) -> None:
        for node in (self.coordinator, *self.workers):
            node.remove()


def recover(url: str) -> int:
    """What Citus does by itself now and then: decide what is prepared at the workers."""
    with psycopg.connect(conninfo(url), autocommit=True) as admin:
        return int(admin.execute("SELECT recover_prepared_transactions()").fetchone()[0])


def _at(here, host: str, port: int) -> str:
    """The URL of another node; a folder is where its socket is."""
    if host.startswith("/"):
        url = here.set(host=None, port=None).update_query_dict({"host": host})
    else:
        url = here.set(host=host, port=port)
    return url.render_as_string(hide_password=False)


def _in(url: str, database: str) -> str:
    return conninfo(make_url(url).set(database=database).render_as_string(hide_password=False))


def _execute(address: str, statement: str) -> None:
    with psycopg.connect(address, autocommit=True) as admin:
        admin.execute(statement)
