"""Connections in any state of the role, the database or the server."""

from datetime import UTC, datetime

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from app.errors import RefusedError
from app.factory import create_app
from app.intake.events import Event
from app.intake.store import store_events
from app.storage import engines as pool
from app.storage.database import Database
from app.storage.failures import is_unavailable
from jobs.counting.run import run_rollup
from tests.support.databases import conninfo
from tests.support.recount import assert_exact
from tests.support.settings import NOW, make_settings
from tests.support.tokens import bearer

READS = "/api/v1/analytics/tokens"


@pytest.fixture
def administer(postgresql_url):
    """Changes the test's own database."""

    def administer(statement):
        with psycopg.connect(conninfo(postgresql_url), autocommit=True) as connection:
            connection.execute(statement.format(connection.info.dbname))

    return administer


@pytest.fixture
def client(postgresql_url):
    app = create_app(make_settings(postgresql_url), clock=lambda: NOW)
    yield app.test_client()
    app.extensions["analytics"].database.dispose()


def post(client, **members):
    event = {"id": "e1", "agentId": "a", "issuedAt": "2026-04-01T09:00:00Z"} | members
    headers = bearer(scope="events:write")
    return client.post("/api/v1/events", json=event, headers=headers).status_code


@pytest.mark.parametrize(
    "setting",
    [
        "datestyle = 'German'",
        "datestyle = 'SQL, DMY'",
        "client_encoding = 'LATIN1'",
        "client_encoding = 'SQL_ASCII'",
        "timezone = 'Pacific/Kiritimati'",
        "default_transaction_isolation = 'serializable'",
        "synchronous_commit = 'off'",
        "bytea_output = 'escape'",
    ],
)
def test_no_default_of_the_database_changes_a_number(postgresql_url, administer, setting):
    administer(f'ALTER DATABASE "{{}}" SET {setting}')
    database = Database(make_settings(postgresql_url).database_url)
    at = datetime(2026, 4, 1, 23, 59, 59, 999_999, UTC)
    store_events(database, [Event("órg\U0001f600", f"e{n}", "agent", at) for n in range(3)])
    assert run_rollup(database, window_ids=10, wait_seconds=5).events == 3
    assert assert_exact(database) == 3
    with database.reading() as connection:
        assert connection.scalar(text("SHOW synchronous_commit")) == "on"
    database.dispose()


@pytest.mark.parametrize("idle_seconds", [0, 3600], ids=["rested", "in use just now"])
def test_connections_that_died_are_replaced_without_an_error(
    client, administer, monkeypatch, idle_seconds
):
    assert client.get(READS, headers=bearer()).status_code == 200
    assert post(client) == 202
    monkeypatch.setattr(pool, "IDLE_SECONDS", idle_seconds)
    # With a time limit the server waits until they are gone; else the next call may be sooner.
    administer(
        "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
        " WHERE datname = '{}' AND pid <> pg_backend_pid()"
    )
    assert client.get(READS, headers=bearer()).status_code == 200
    assert post(client, id="e2") == 202


def test_a_connection_in_use_is_not_asked_whether_it_lives(client, monkeypatch):
    asked = []
    engine = client.application.extensions["analytics"].database.engine
    monkeypatch.setattr(engine.dialect, "do_ping", lambda _: asked.append(1) or True)
    monkeypatch.setattr(pool, "IDLE_SECONDS", 3600)
    for _ in range(3):
        assert client.get(READS, headers=bearer()).status_code == 200
    assert asked == []
    monkeypatch.setattr(pool, "IDLE_SECONDS", 0)
    assert client.get(READS, headers=bearer()).status_code == 200
    assert asked == [1]


@pytest.mark.parametrize(
    "statement",
    [
        'ALTER DATABASE "{}" SET default_transaction_read_only = on',
        "ALTER TABLE issuance_events RENAME TO gone",
    ],
    ids=["read only, as a standby", "not migrated"],
)
def test_a_database_that_cannot_take_events_yet_is_503(client, administer, statement):
    administer(statement)
    assert post(client) == 503


def test_a_closed_port_is_503_with_retry_after_and_no_password():
    url = "postgresql://user:secret-word@127.0.0.1:9/analytics"
    client = create_app(make_settings(url), clock=lambda: NOW).test_client()
    for path in (READS, "/ready"):
        answer = client.get(path, headers=bearer())
        assert (answer.status_code, answer.json["code"]) == (503, "SERVICE_UNAVAILABLE")
        assert int(answer.headers["Retry-After"]) > 0
        assert "secret-word" not in answer.text
    assert post(client) == 503
    assert client.get("/health").status_code == 200


def test_a_frozen_process_loses_its_locks(postgresql_url):
    """A process that freezes in a transaction loses its locks after the idle timeout."""
    database = Database(make_settings(postgresql_url).database_url)

    def freeze(connection):
        assert connection.scalar(text("SHOW idle_in_transaction_session_timeout")) == "1min"
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = '1s'"))
        connection.execute(text("SELECT 1 FROM rollup_state FOR UPDATE"))
        # Another run waits for the row, and gets it when the server gives up on this one.
        other = Database(make_settings(postgresql_url).database_url)
        assert run_rollup(other, window_ids=10, wait_seconds=5).outcome == "done"
        other.dispose()
        connection.execute(text("SELECT 1"))

    with pytest.raises(DBAPIError) as lost:
        database.write(freeze)
    assert is_unavailable(lost.value)
    with database.snapshot() as connection:
        assert connection.scalar(text("SHOW idle_in_transaction_session_timeout")) == "0"
    database.dispose()


def test_work_for_one_session_is_refused_on_two(postgresql_url, monkeypatch):
    """Work that needs one session is refused if a pooler gives it two."""
    database = Database(make_settings(postgresql_url).database_url)
    sessions = iter([1, 2])
    monkeypatch.setattr(database, "_session", lambda _connection: next(sessions))
    written = []
    with pytest.raises(RefusedError, match="session changed between two transactions"):
        database.read_then_write(lambda _: None, lambda *_: written.append(1))
    assert written == []
    database.dispose()


def test_a_reader_without_a_tenant_keeps_no_others(postgresql_url):
    """With row security, a reader without a tenant does not keep the tenant of the last reader."""
    url = make_settings(postgresql_url).database_url
    database = Database(url, pool_size=1, overflow=0, row_security=True)

    def named(tenant):
        with database.reading_for(tenant) as reader:
            session = reader.connection.driver_connection  # the guard refuses text
            return session.execute("SELECT current_setting('analytics.tenant_id')").fetchone()[0]

    assert [named("org-a"), named(None)] == ["org-a", ""]
    database.dispose()


def test_a_short_wait_for_a_lock_ends_with_its_write(sqlite_url):
    """On SQLite, a job's later statements wait for locks as long as before."""
    database = Database(make_url(sqlite_url))
    wait = text("PRAGMA busy_timeout")
    with database.reading() as connection:
        before = connection.scalar(wait)
    database.write(lambda connection: None, lock_seconds=1)
    with database.reading() as connection:
        assert connection.scalar(wait) == before
    database.dispose()
