"""Fixtures: the same tests run on SQLite and on a real PostgreSQL."""

import itertools
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.config.settings import Settings
from app.intake.events import Event
from app.intake.store import store_events
from app.reports.trend import token_trend
from app.storage.database import Database
from jobs.counting.run import Run, run_rollup
from tests.support.command_line import Runner
from tests.support.databases import PostgreSQL, ReusedDatabase, migrate
from tests.support.postgresql import Server
from tests.support.services import remember_routes, service_of
from tests.support.settings import TENANT, child_environ, environment, make_settings

TESTS = Path(__file__).parent
# Processes, a browser, faults and fuzzing take minutes.
SLOW = [TESTS / name for name in ("browser", "faults", "fuzz", "providers", "system")]
# Here the database is a detail: tests/app/test_on_postgresql.py has a test for each route.
SLOW_ON_POSTGRESQL = [TESTS / "app" / name for name in ("auth", "cli", "reports", "web")]
SLOW_ON_POSTGRESQL += [TESTS / "test_isolation.py", TESTS / "jobs" / "erasure"]
# Here it matters, and of each file `make test` runs some on both: those that are marked quick.
SLOW_ON_POSTGRESQL += [TESTS / "jobs" / name for name in ("recount", "test_organizations.py")]
SLOW_ON_POSTGRESQL += [TESTS / "jobs" / "counting" / "test_backfill.py"]
SLOW_ON_POSTGRESQL += [TESTS / "jobs" / "findings" / "test_task.py", TESTS / "test_migrations.py"]
SLOW_ON_POSTGRESQL += [TESTS / "test_isolation_of_writes.py"]
SLOW_ON_POSTGRESQL += [TESTS / "jobs" / "test_delivery.py"]


def pytest_configure() -> None:
    """Hear Ctrl-C, here and in child processes: a shell starts background jobs deaf to it."""
    remember_routes()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# First, since pytest's own hook then leaves out what `-m` does not choose.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow by its folder or its database."""
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        folders = list(SLOW)
        if parameters.get("database_url") == "postgresql":
            folders += SLOW_ON_POSTGRESQL
        if any(folder in (item.path, *item.path.parents) for folder in folders):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Server]:
    """A cluster for the session; not started when TEST_DATABASE_URL names one."""
    server = Server().start()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def postgresql(request: pytest.FixtureRequest) -> Iterator[PostgreSQL]:
    url = os.environ.get("TEST_DATABASE_URL")
    if not url:
        url = request.getfixturevalue("postgresql_server").url("postgres")
    factory = PostgreSQL(url)
    yield factory
    factory.drop(factory.template)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    migrate(f"sqlite:///{path}")
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return path


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    path = tmp_path / "analytics.db"
    shutil.copy(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture(scope="session")
def reused_database(postgresql: PostgreSQL) -> Iterator[ReusedDatabase]:
    reused = ReusedDatabase(postgresql)
    yield reused
    reused.drop()


@pytest.fixture
def postgresql_url(reused_database: ReusedDatabase) -> str:
    """An empty, migrated database: the worker's own, whose rows were deleted."""
    return reused_database.emptied()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """An empty, migrated database; a test that uses it runs on both."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(scope="module")
def shared_sqlite_url(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for a whole file whose tests store nothing."""
    path = tmp_path_factory.mktemp("shared") / "analytics.db"
    shutil.copy(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture
def settings(database_url: str) -> Settings:
    return make_settings(database_url)


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(settings.database_url, pool_size=20)
    yield database
    database.dispose()


@pytest.fixture
def app(settings: Settings) -> Iterator[Flask]:
    with service_of(settings) as app:
        yield app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def issue(database: Database) -> Callable[..., list[Event]]:
    """Store events issued at an instant, by default each with an id of its own."""
    numbers = itertools.count()

    def issue(
        instant: str | datetime,
        times: int = 1,
        *,
        tenant: str = TENANT,
        agent: str = "agent-1",
        event_id: str | None = None,
    ) -> list[Event]:
        when = datetime.fromisoformat(instant) if isinstance(instant, str) else instant
        events = [
            Event(tenant, event_id or f"event-{next(numbers)}", agent, when) for _ in range(times)
        ]
        store_events(database, events)
        return events

    return issue


@pytest.fixture
def roll_up(database: Database) -> Callable[..., Run]:
    def roll_up(**options: Any) -> Run:
        return run_rollup(database, **({"window_ids": 1_000_000, "wait_seconds": 5} | options))

    return roll_up


@pytest.fixture
def trend(database: Database) -> Callable[..., list[int]]:
    """The counts of the days up to ``last``."""

    def trend(last: str, days: int, tenant: str = TENANT) -> list[int]:
        with database.reading() as connection:
            report = token_trend(connection, tenant, last=date.fromisoformat(last), days=days)
        return [point.count for point in report.points]

    return trend


@pytest.fixture
def flask(database_url: str) -> Runner:
    """Runs commands on the database."""
    return Runner(child_environ(database_url))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    """The composed application, with the commands of service and jobs."""
    url = f"sqlite:///{tmp_path_factory.mktemp('service') / 'analytics.db'}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(url, APP_ENV="development").items():
            patch.setenv(name, value)
        from wsgi import app  # noqa: PLC0415 - reads the environment on import
    yield app
    app.extensions["analytics"].database.dispose()
