"""Fixtures: a PostgreSQL cluster of its own, so that a test may stop it."""

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.harness import Harness, Plan, Report
from tests.faults.processes import Workshop
from tests.support.databases import PostgreSQL
from tests.support.postgresql import Server


@pytest.fixture(scope="package")
def cluster() -> Iterator[Server]:
    """A cluster of these tests' own, whatever TEST_DATABASE_URL names."""
    server = Server().start()
    yield server
    server.remove()


@pytest.fixture(scope="package")
def cluster_databases(cluster: Server) -> PostgreSQL:
    return PostgreSQL(cluster.url("postgres"))


@pytest.fixture
def cluster_url(cluster: Server, cluster_databases: PostgreSQL) -> str:
    """A fresh, migrated database on it."""
    return cluster_databases.at(cluster_databases.create())


@pytest.fixture
def seed() -> int:
    """Another one every time, unless FAULTS_SEED names one; shown when a test fails."""
    chosen = int(os.environ.get("FAULTS_SEED") or random.SystemRandom().randrange(10**6))
    print(f"FAULTS_SEED={chosen}")
    return chosen


@pytest.fixture
def rage(cluster: Server, cluster_url: str, seed: int, tmp_path: Path) -> Callable[..., Report]:
    """One fault run by the plan that the arguments make."""

    def rage(**plan) -> Report:
        report = Harness(Plan(seed=seed, **plan), cluster, cluster_url, tmp_path).run()
        print(report.explain())
        return report

    return rage


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Callable[..., Workshop]]:
    """Starts processes of the service on a database; none is left over."""
    opened = []

    def workshop(url: str, **variables: str) -> Workshop:
        opened.append(Workshop(tmp_path, url, variables))
        return opened[-1]

    yield workshop
    for one in opened:
        one.close()
