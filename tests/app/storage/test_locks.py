"""Locks that another transaction holds: 503 for the requests that need them, and no others."""

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from sqlalchemy import text, update
from sqlalchemy.engine import make_url

from app.factory import create_app
from app.storage import locks
from app.storage.database import Database
from app.storage.locks import LockedError, lock_holders, with_patience
from app.storage.tables import metadata, rollup_state
from app.waits import Waits
from tests.faults.inserts import INSERT
from tests.support.databases import conninfo
from tests.support.settings import NOW, make_settings
from tests.support.tokens import bearer

READ = "/api/v1/analytics/tokens"
AT = "2026-04-01T09:00:00Z"
# A transaction of each kind that stands in the way of an event.
PREPARED = [INSERT, "PREPARE TRANSACTION 'forgotten'"]
BLOCKS = [
    pytest.param([INSERT], id="an insert"),
    pytest.param(PREPARED, id="a prepared transaction", marks=pytest.mark.slow),
    pytest.param(["LOCK TABLE issuance_events"], id="a lock of the table", marks=pytest.mark.slow),
    pytest.param(
        ["LOCK TABLE issuance_events IN SHARE MODE"],
        id="a lock that forbids to write",
        marks=pytest.mark.slow,
    ),
]


@pytest.fixture
def other(postgresql_url):
    """A session of another program."""
    with psycopg.connect(
        conninfo(postgresql_url), autocommit=True, application_name="forgotten-shell"
    ) as connection:
        yield connection
        if connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS:
            connection.execute("ROLLBACK")
        for (gid,) in connection.execute("SELECT gid FROM pg_prepared_xacts").fetchall():
            connection.execute(f"ROLLBACK PREPARED '{gid}'")


def block(other, statements):
    other.execute("BEGIN")
    for statement in statements:
        values = ("org-a", "e1", "a", AT) if statement == INSERT else None
        other.execute(statement, values)


@pytest.fixture
def service(postgresql_url):
    app = create_app(make_settings(postgresql_url), clock=lambda: NOW)
    yield app
    app.extensions["analytics"].database.dispose()


def post(service, event_id="e1", tenant="org-a"):
    event = {"id": event_id, "agentId": "a", "issuedAt": AT}
    headers = bearer(tenant, scope="events:write")
    return service.test_client().post("/api/v1/events", json=event, headers=headers)


def read(service, tenant="org-b"):
    return service.test_client().get(READ, headers=bearer(tenant))


@pytest.mark.parametrize("statements", BLOCKS)
def test_a_locked_event_is_503_and_reads_are_served(service, other, statements):
    """Posts that need a lock are 503, and say why. Reads are served meanwhile."""
    block(other, statements)
    with ThreadPoolExecutor(4) as threads:  # as many as the service has
        posts = [threads.submit(post, service) for _ in range(16)]
        reads = [threads.submit(read, service) for _ in range(16)]
        waiting = [one for one in posts if not one.done()]
        assert {one.result().status_code for one in reads} == {200}
        assert waiting
        assert any(not one.done() for one in waiting)  # the patient ones still wait
        answers = [one.result() for one in posts]
    assert {answer.status_code for answer in answers} == {503}
    assert all("holds a lock" in answer.json["message"] for answer in answers)
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in answers)


def test_posts_of_others_are_served_beside_a_locked_event(service, other):
    """While posts of one event wait for a lock, the posts of other organizations are stored."""
    block(other, [INSERT])
    with ThreadPoolExecutor(4) as threads:
        blocked = [threads.submit(post, service) for _ in range(16)]
        stored = [threads.submit(post, service, f"x{n}", "org-b") for n in range(16)]
        assert {one.result().status_code for one in stored} == {202}
        assert {one.result().status_code for one in blocked} == {503}


def test_a_lock_that_is_soon_released_costs_no_error(service, other):
    """A post waits for a lock longer than for the first, brief time, and is then stored."""
    block(other, [INSERT])
    release = threading.Timer(4 * locks.BRIEF_SECONDS, other.execute, ["ROLLBACK"])
    release.start()
    answer = post(service)
    release.join()
    assert (answer.status_code, answer.json["accepted"]) == (202, 1)


def test_a_read_waits_for_a_lock_that_is_soon_released(service, other):
    """A read of a locked summary table is answered after its release, or is 503."""
    other.execute("BEGIN")
    other.execute("LOCK TABLE daily_issuance")
    release = threading.Timer(4 * locks.BRIEF_SECONDS, other.execute, ["ROLLBACK"])
    release.start()
    assert read(service).status_code == 200
    release.join()
    database = service.extensions["analytics"].database
    with database.reading_for("org-b") as connection:
        driver = connection.connection.driver_connection
        limit = driver.execute("SHOW lock_timeout").fetchone()[0]
    assert limit == f"{locks.BRIEF_SECONDS * 1000:.0f}ms"


def test_a_read_of_a_locked_table_is_503(service, other, monkeypatch):
    """A read of a table that stays locked is 503, and the next read has its usual limits."""
    monkeypatch.setattr("app.storage.driver.PATIENT_SECONDS", 0.5)
    block(other, ["LOCK TABLE daily_issuance"])
    assert read(service).status_code == 503
    other.execute("ROLLBACK")
    assert read(service).status_code == 200


def test_without_a_slot_nothing_waits_patiently():
    """Without a free slot the first wait is shorter, and there is no second one."""
    waits, seconds = Waits(2), []

    def attempt(limit):
        seconds.append(limit)
        raise _locked()

    with pytest.raises(type(_locked())):
        with_patience(waits, attempt, one_lock=False)
    assert seconds == [locks.BRIEF_SECONDS, locks.PATIENT_SECONDS]
    assert waits.enter()
    with pytest.raises(type(_locked())):
        with_patience(waits, attempt, one_lock=False)
    assert seconds[2:] == [locks.HURRIED_SECONDS]
    assert not waits.enter()  # the slot of this test is still taken, and no other


def _locked():
    from sqlalchemy.exc import OperationalError  # noqa: PLC0415 - beside its only use

    return OperationalError("", None, psycopg.errors.LockNotAvailable())


def test_a_locked_sqlite_file_is_503_in_time(sqlite_url, tmp_path, monkeypatch):
    """A SQLite transaction that stays open: posts are 503, reads are served."""
    monkeypatch.setattr(locks, "PATIENT_SECONDS", 0.5)
    app = create_app(make_settings(sqlite_url), clock=lambda: NOW)
    with sqlite3.connect(tmp_path / "analytics.db", isolation_level=None) as shell:
        shell.execute("BEGIN IMMEDIATE")
        answer = post(app)
        assert answer.status_code == 503
        assert "holds a lock" in answer.json["message"]
        assert read(app).status_code == 200
        shell.execute("ROLLBACK")
    shell.close()
    assert post(app).status_code == 202
    app.extensions["analytics"].database.dispose()


def test_a_command_names_the_transaction_with_the_lock(postgresql_url, other):
    """A job or command that waits for a lock in vain names its holder, by pid and application."""
    block(other, ["SELECT 1 FROM rollup_state FOR UPDATE"])
    database = Database(make_settings(postgresql_url).database_url)
    work = text("UPDATE rollup_state SET counted_upto = counted_upto")
    began = time.monotonic()
    with pytest.raises(LockedError) as refused:
        database.write(lambda connection: connection.execute(work), lock_seconds=0.2)
    assert time.monotonic() - began < 20
    assert f"pid {other.info.backend_pid} (forgotten-shell), open for" in refused.value.message
    database.dispose()


def test_holders_are_named_without_those_that_wait(postgresql_url, other):
    """Holders are transactions with a lock; one that waits for a lock itself is left out."""
    block(other, PREPARED)
    database = Database(make_settings(postgresql_url).database_url)

    def holders(**options):
        with database.reading() as connection:
            return [str(one) for one in lock_holders(connection, metadata.tables, **options)]

    assert [name[:32] for name in holders()] == ["prepared transaction 'forgotten'"]
    other.execute("ROLLBACK PREPARED 'forgotten'")
    assert holders() == []
    block(other, ["SELECT 1 FROM issuance_events"])
    assert holders() == []
    assert len(holders(readers=True)) == 1
    other.execute("ROLLBACK")
    other.execute("SELECT pg_advisory_lock(6021977140051)")
    assert len(holders(advisory=6021977140051)) == 1
    other.execute("SELECT pg_advisory_unlock_all()")
    database.dispose()


def longest_share(database):
    """The longest wait of eight writers, as a share of the time in which all of them write."""
    waits, touch = [], update(rollup_state).values(corrections=rollup_state.c.corrections)

    def write(_number):
        for _ in range(25):
            asked = time.monotonic()

            def work(connection, asked=asked):
                waits.append(time.monotonic() - asked)
                connection.execute(touch)
                time.sleep(0.01)

            database.write(work)
            time.sleep(0.02)

    began = time.monotonic()
    with ThreadPoolExecutor(8) as writers:
        list(writers.map(write, range(8)))
    return max(waits) / (time.monotonic() - began)


def test_on_sqlite_writers_that_come_later_do_not_come_first(sqlite_url):
    """Otherwise a request would be refused, however briefly each other writer writes."""
    database = Database(make_url(sqlite_url), pool_size=8)
    try:
        # A busy machine may stop one of them for a while.
        assert min(longest_share(database) for _ in range(3)) < 0.25
    finally:
        database.dispose()
