"""Fixtures: the same tests run on SQLite and on a real PostgreSQL."""

import itertools
import os
import shutil
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import jwt
import psycopg
import pytest
from alembic import command
from alembic.config import Config
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Connection
from sqlalchemy.engine import make_url

from app.config.settings import KEY_SOURCES, ROOT, Settings
from app.factory import create_app
from app.intake.events import Event
from app.intake.store import record_events
from app.reports.trend import token_trend
from app.storage.database import Database
from app.storage.schema import MIGRATIONS
from jobs.counting.run import Run, run_rollup
from tests.support.postgresql import Server

NOW = datetime(2026, 4, 15, 12, 30, tzinfo=UTC)
TENANT = "org-a"
KEY = "a key for the tests, longer than 32 bytes"


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Server]:
    """A cluster for the session; not started when TEST_DATABASE_URL names one."""
    server = Server().start()
    yield server
    server.remove()


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
        self._administer(f'CREATE DATABASE "{name}" TEMPLATE "{template or self.template}"')
        return name

    def drop(self, name: str) -> None:
        self._administer(f'DROP DATABASE "{name}" WITH (FORCE)')

    def _administer(self, statement: str) -> None:
        with psycopg.connect(conninfo(self.url), autocommit=True) as connection:
            connection.execute(statement)


def conninfo(url: str) -> str:
    """A SQLAlchemy URL as psycopg takes it."""
    plain = make_url(url).set(drivername="postgresql")
    return plain.render_as_string(hide_password=False)


def migrate(url: str, revision: str = "head") -> None:
    """Bring a database to a schema version, up or down."""
    database = Database(make_url(url))
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))

    def step(connection: Connection) -> None:
        config.attributes["connection"] = connection
        (command.downgrade if revision == "base" else command.upgrade)(config, revision)

    database.write(step)
    database.dispose()


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


@pytest.fixture
def postgresql_url(postgresql: PostgreSQL) -> Iterator[str]:
    name = postgresql.create()
    yield postgresql.at(name)
    postgresql.drop(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A fresh, migrated database; a test that uses it runs on both."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared_database_url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """One database of each kind for a whole file whose tests leave it as it was."""
    if request.param == "sqlite":
        path = tmp_path_factory.mktemp("shared") / "analytics.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    postgresql: PostgreSQL = request.getfixturevalue("postgresql")
    name = postgresql.create()
    yield postgresql.at(name)
    postgresql.drop(name)


@pytest.fixture
def settings(database_url: str) -> Settings:
    return make_settings(database_url)


def make_settings(url: str, **variables: str) -> Settings:
    return Settings.from_environ(environment(url, **variables))


def environment(url: str, **variables: str) -> dict[str, str]:
    """The variables of a service on ``url``; another source of keys replaces the secret."""
    keys = {} if variables.keys() & set(KEY_SOURCES) else {"JWT_SECRET_KEY": KEY}
    return {"DATABASE_URL": url, "SECRET_KEY": KEY, **keys, **variables}


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(settings.database_url, pool_size=20)
    yield database
    database.dispose()


@pytest.fixture
def app(settings: Settings) -> Iterator[Flask]:
    app = create_app(settings, clock=lambda: NOW)
    app.testing = True
    app.config["PROPAGATE_EXCEPTIONS"] = False
    yield app
    app.extensions["analytics"].database.dispose()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def payload(
    organization: Any = TENANT, /, scope: str = "", *, drop: str = "", **claims: Any
) -> dict[str, Any]:
    """The claims of an access token as an identity provider issues it; ``drop`` leaves one out."""
    present = int(datetime.now(UTC).timestamp())
    whole = {
        "sub": "client-1",
        "client_id": "client-1",
        "jti": uuid.uuid4().hex,
        "iat": present,
        "exp": present + 600,
        "organization_id": organization,
        "scope": scope,
    } | claims
    whole.pop(drop, None)
    return whole


def token(*arguments: Any, key: str = KEY, **claims: Any) -> str:
    """An access token; arguments as for :func:`payload`."""
    return jwt.encode(payload(*arguments, **claims), key, algorithm="HS256")


def bearer(*arguments: Any, **claims: Any) -> dict[str, str]:
    """The header with a token; arguments as for :func:`token`."""
    return {"Authorization": f"Bearer {token(*arguments, **claims)}"}


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
        record_events(database, events)
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


@dataclass
class Flasks:
    """Runs ``flask …`` as an operator does."""

    environ: dict[str, str]

    def __call__(
        self, *arguments: str, stdin: bytes = b"", **variables: str
    ) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [sys.executable, "-m", "flask", *arguments],
            cwd=ROOT,
            env=self.environ | variables,
            input=stdin,
            capture_output=True,
            timeout=120,
            check=False,
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )


@pytest.fixture
def flask(database_url: str) -> Flasks:
    return Flasks(child_environ(database_url))


def child_environ(url: str, **variables: str) -> dict[str, str]:
    """The environment of a child process that serves ``url``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FLASK_")}
    return kept | {"PYTHONWARNINGS": "error"} | environment(url, **variables)


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
