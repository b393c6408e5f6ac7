"""A silent database: every wait ends, and the process goes on when it answers again."""

import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app import waits
from app.errors import UnavailableError
from app.factory import create_app
from app.storage import deadlines, engines
from app.storage.database import Database
from app.storage.deadlines import NoAnswerError
from app.storage.failures import is_unavailable
from app.waits import Place, Places, Waits, seconds_left
from tests.support.proxy import proxy_to
from tests.support.settings import NOW, make_settings
from tests.support.tokens import bearer

READ = "/api/v1/analytics/tokens"
EVENT = {"id": "e1", "agentId": "a", "issuedAt": "2026-04-01T09:00:00Z"}
PATIENCE_SECONDS = 30


@pytest.fixture
def proxy(postgresql_url):
    with proxy_to(postgresql_url) as proxy:
        yield proxy


@pytest.fixture
def brief(monkeypatch):
    """Limits of a second or less."""
    for name, seconds in {
        "REQUEST_SECONDS": 1,
        "PING_SECONDS": 0.5,
        "PROBE_SECONDS": 0.5,
        "PAUSE_SECONDS": 0.1,
    }.items():
        monkeypatch.setattr(deadlines, name, seconds)


@pytest.fixture
def database(proxy, brief, postgresql_url):
    """The database of a job, through the proxy."""
    database = Database(make_settings(proxy.url(postgresql_url)).database_url)
    yield database
    database.dispose()


@pytest.fixture
def web(proxy, brief, postgresql_url):
    """The database of the web, through the proxy."""
    url = make_settings(proxy.url(postgresql_url)).database_url
    database = Database(url, pool_size=4, overflow=0, waits=Waits(4))
    yield database
    database.dispose()


@pytest.fixture
def client(proxy, brief, postgresql_url):
    app = create_app(make_settings(proxy.url(postgresql_url)), clock=lambda: NOW)
    yield app.test_client()
    app.extensions["analytics"].database.dispose()


def one(database):
    with database.reading() as connection:
        return connection.scalar(text("SELECT 1"))


def eventually(attempt):
    """Its first result that is no 503 and no error of an unavailable database."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return attempt()
        except (OperationalError, UnavailableError):
            assert time.monotonic() < give_up
            time.sleep(0.05)


def test_a_request_ends_without_an_answer(web, proxy):
    """A statement of a request ends at its limit, and a later one is answered again."""
    assert one(web) == 1
    proxy.fall_silent()
    with web.reading() as connection, pytest.raises(OperationalError) as ended:
        connection.scalar(text("SELECT 1"))
    assert isinstance(ended.value.orig, NoAnswerError)
    assert is_unavailable(ended.value)
    proxy.speak()
    assert eventually(lambda: one(web)) == 1


def test_the_limit_of_a_request_is_for_all_of_it(web):
    """The limit of a request covers all of its statements together."""

    def sleep_often():
        with web.reading() as connection:
            for _ in range(20):
                connection.scalar(text("SELECT pg_sleep(0.3)"))

    with pytest.raises(OperationalError):
        sleep_often()


@pytest.fixture
def request_place(brief, monkeypatch):
    """The place of a request in this thread, which has two seconds."""
    monkeypatch.setattr(waits, "REQUEST_SECONDS", 2)
    monkeypatch.setattr(deadlines, "REQUEST_SECONDS", 100)
    place = Place(Places(1))
    yield place
    place.end()


def test_retries_end_with_their_request(request_place, web):
    """A transaction that is run again after a deadlock has the time that its request has left."""
    attempts = []

    def work(connection):
        attempts.append(connection)
        connection.scalar(text("SELECT pg_sleep(0.8)"))
        raise OperationalError("", None, psycopg.errors.DeadlockDetected())

    with pytest.raises((OperationalError, UnavailableError)):
        web.write(work)
    assert 1 <= len(attempts) <= 3
    assert seconds_left() == 0


def test_a_freeze_after_a_deadlock_ends_with_the_request(request_place, web, proxy):
    """A retry of a request does not wait for a silent server as if it were a new request."""
    attempts = []

    def work(connection):
        attempts.append(connection)
        if len(attempts) == 1:
            raise OperationalError("", None, psycopg.errors.DeadlockDetected())
        proxy.fall_silent()
        connection.scalar(text("SELECT 1"))

    began = time.monotonic()
    with pytest.raises(OperationalError) as ended:
        web.write(work)
    assert isinstance(ended.value.orig, NoAnswerError)
    assert time.monotonic() - began < PATIENCE_SECONDS
    proxy.speak()
    request_place.end()
    assert eventually(lambda: one(web)) == 1


def test_a_connection_outlasts_the_wait_for_a_client(request_place, web):
    """A connection that was opened before a request waited for its client has time afterwards."""
    with web.reading() as connection:
        connection.connection.driver_connection._until = time.monotonic()  # as if much later
        request_place.ends += 10
        assert connection.scalar(text("SELECT 1 FROM pg_sleep(0.5)")) == 1


def test_a_request_without_time_asks_nothing(request_place, web, proxy):
    """After its end a request is refused before it takes a connection."""
    request_place.ends = time.monotonic()
    with pytest.raises(UnavailableError, match="took too long"):
        one(web)
    assert proxy.connections == 0


def test_many_silent_hosts_end_with_the_request(brief, monkeypatch, proxy, postgresql_url):
    """Silent hosts in DATABASE_URL cost a request no more time than it has in all."""
    monkeypatch.setattr(waits, "REQUEST_SECONDS", 5)
    url = make_settings(proxy.url(postgresql_url)).database_url
    hosts = [f"127.0.0.1:{proxy.port}"] * 8
    web = Database(url.set(host=None, port=None, query={"host": hosts}), waits=Waits(4))
    assert one(web) == 1
    web.dispose()
    proxy.fall_silent()
    before = proxy.connections
    place = Place(Places(1))
    began = time.monotonic()
    with pytest.raises(OperationalError) as ended:
        one(web)
    place.end()
    assert isinstance(ended.value.orig, NoAnswerError)
    assert time.monotonic() - began < 12  # psycopg itself waits for two seconds for each host
    assert proxy.connections - before > 1
    proxy.speak()
    assert eventually(lambda: one(web)) == 1
    web.dispose()


def test_a_closed_gate_refuses_at_once(web, proxy):
    """Once a wait was in vain, requests are refused at once, until a probe is answered."""
    one(web)
    proxy.fall_silent()
    web._server.answered_at -= PATIENCE_SECONDS
    with pytest.raises(OperationalError):
        one(web)
    before = proxy.connections
    for _ in range(1_000):
        with pytest.raises(UnavailableError, match="does not answer"):
            one(web)
    assert proxy.connections - before <= 2  # the probe's
    proxy.speak()
    assert eventually(lambda: one(web)) == 1


def test_the_gate_opens_after_a_probe_that_fails(web, monkeypatch):
    """A probe that cannot be made, for want of a file descriptor, is made again."""
    probes = [OSError(24, "Too many open files"), False, True]

    def answers():
        result = probes.pop(0)
        if isinstance(result, OSError):
            raise result
        return result

    monkeypatch.setattr(web._server, "answers", answers)
    web._server.answered_at -= PATIENCE_SECONDS
    web._server.missed()
    assert eventually(lambda: one(web)) == 1
    assert probes == []


def test_one_silent_connection_closes_no_gate(web, proxy):
    """A connection that is silent alone does not keep requests from the others."""
    with web.reading() as silent:
        silent.scalar(text("SELECT 1"))
        proxy.forget()
        web._server.answered_at -= PATIENCE_SECONDS
        assert one(web) == 1  # another connection is answered meanwhile
        with pytest.raises(OperationalError):
            silent.scalar(text("SELECT 1"))
    assert one(web) == 1


def test_a_silent_pooled_connection_is_replaced(client, proxy, monkeypatch):
    """A pooled connection that a firewall has dropped costs a request no error."""
    monkeypatch.setattr(engines, "IDLE_SECONDS", 0)
    monkeypatch.setattr(deadlines, "REQUEST_SECONDS", 8)
    assert client.get(READ, headers=bearer()).status_code == 200
    proxy.forget()
    assert client.get(READ, headers=bearer()).status_code == 200


def test_a_silent_database_is_503_in_time(client, proxy):
    """Reads, batches and /ready are 503 with Retry-After; /health is not concerned."""
    headers = bearer(scope="events:write")
    assert client.get(READ, headers=headers).status_code == 200
    proxy.fall_silent()
    calls = [
        lambda: client.get(READ, headers=headers),
        lambda: client.post("/api/v1/events", json=EVENT, headers=headers),
        lambda: client.get("/ready"),
    ]
    for call in calls:
        answer = call()
        assert (answer.status_code, answer.json["code"]) == (503, "SERVICE_UNAVAILABLE")
        assert int(answer.headers["Retry-After"]) > 0
    assert client.get("/health").status_code == 200
    proxy.speak()

    def posted():
        answer = calls[1]()
        if answer.status_code == 503:
            raise UnavailableError(answer.json["message"])
        return answer

    assert eventually(posted).status_code == 202


def test_a_long_statement_of_a_job_is_not_ended(database):
    """A job's statement may take as long as it needs while its server answers probes."""
    with database.reading() as connection:
        assert connection.scalar(text("SELECT 1 FROM pg_sleep(2)")) == 1


@pytest.mark.parametrize(
    "statement", [pytest.param("SELECT 1", marks=pytest.mark.slow), "SELECT pg_sleep(1)"]
)
def test_a_job_ends_when_the_server_is_silent(database, proxy, monkeypatch, statement):
    """A job's statement ends when a second connection gets no answer either."""
    monkeypatch.setattr(deadlines, "CONNECT_SECONDS", 2)
    with database.reading() as connection:
        connection.scalar(text("SELECT 1"))
        proxy.fall_silent()
        with pytest.raises(OperationalError) as ended:
            connection.scalar(text(statement))
    assert isinstance(ended.value.orig, NoAnswerError)
    proxy.speak()
    assert one(database) == 1


def test_a_transaction_ends_without_an_answer(web, proxy):
    """A write ends at its limit, also when the commit gets no answer, and leaves no connection."""

    def work(connection):
        connection.execute(text("CREATE TEMPORARY TABLE kept (id int)"))
        proxy.fall_silent()

    with pytest.raises(OperationalError):
        web.write(work)
    proxy.speak()
    assert eventually(lambda: one(web)) == 1


def test_an_error_is_an_answer(postgresql_url):
    """A server that refuses a probe answers."""
    url = make_settings(postgresql_url).database_url.set(database="no-such-database")
    database = Database(url)
    with pytest.raises(OperationalError):
        one(database)
    assert database._server.answers()
    database.dispose()


def test_a_busy_statement_is_ended_by_the_server(postgresql_url, monkeypatch):
    """The server itself ends the statement of a request that takes too long."""
    monkeypatch.setattr(deadlines, "REQUEST_STATEMENT_SECONDS", 0.5)
    web = Database(make_settings(postgresql_url).database_url, waits=Waits(4))
    with web.reading() as connection, pytest.raises(OperationalError) as ended:
        connection.scalar(text("SELECT pg_sleep(60)"))
    assert isinstance(ended.value.orig, psycopg.errors.QueryCanceled)
    web.dispose()


@pytest.mark.slow
def test_many_requests_wait_no_longer_than_one(client, proxy):
    """Any number of requests is answered within the limit of one and the time to refuse."""
    headers = bearer()
    assert client.get(READ, headers=headers).status_code == 200
    proxy.fall_silent()

    def read(_number):
        began = time.monotonic()
        status = client.application.test_client().get(READ, headers=headers).status_code
        return status, time.monotonic() - began

    with ThreadPoolExecutor(4) as threads:  # as many as the service has
        answers = list(threads.map(read, range(200)))
    assert {status for status, _ in answers} == {503}
    proxy.speak()
