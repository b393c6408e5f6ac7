"""A client's connection and body: limits on the wait, and faults that become answers."""

import socket
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from types import SimpleNamespace

import pytest
from gunicorn.config import Config
from gunicorn.http.parser import RequestParser

from app.errors import RequestTimeoutError, UnavailableError, ValidationError
from app.server import clients
from app.server.clients import ClientSocket, CrowdedError, RequestBody, SilentClientError
from app.server.worker import Worker, _is_quick

HEAD = b"POST /events HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(autouse=True)
def short_times(monkeypatch):
    for name in ("HEAD_SECONDS", "BODY_SECONDS", "ANSWER_SECONDS", "REST_SECONDS"):
        monkeypatch.setattr(clients, name, 0.2)


@pytest.fixture
def waiting():
    return threading.BoundedSemaphore(1)


@pytest.fixture
def ends(waiting):
    """The client's end of a connection, and the server's."""
    client, accepted = socket.socketpair()
    server = ClientSocket(accepted, waiting)
    with client, server:
        yield client, server


@pytest.fixture
def body(ends):
    """A request's body, after its client has sent some bytes."""
    client, server = ends

    def send(sent, *, is_end=True):
        client.sendall(sent)
        if is_end:
            client.shutdown(socket.SHUT_WR)
        request = next(RequestParser(Config(), server, ("127.0.0.1", 1)))
        lengths = [int(value) for name, value in request.headers if name == "CONTENT-LENGTH"]
        return RequestBody(request.body, *(lengths or [None]), server)

    return send


def test_a_silent_client_is_given_up(ends):
    client, server = ends
    with pytest.raises(SilentClientError):
        server.recv(1)
    server.begin()
    client.sendall(b"x")
    assert server.recv(1) == b"x"


def test_a_client_that_sends_slowly_has_a_deadline(ends):
    """Bytes that trickle in do not prolong the time for a part of a request."""
    client, server = ends
    stop = threading.Event()

    def trickle():
        while not stop.wait(0.01):
            client.sendall(b"x")

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        with pytest.raises(SilentClientError):
            list(iter(lambda: server.recv(1), b""))
    finally:
        stop.set()
        thread.join()


def test_only_so_many_threads_wait_for_clients(ends, waiting):
    client, server = ends
    with waiting:
        with pytest.raises(CrowdedError):
            server.recv(1)
        server.begin()
        client.sendall(b"x")
        assert server.recv(1) == b"x"  # nothing has to be waited for
    assert waiting.acquire(blocking=False)


def test_an_answer_that_is_not_read_is_given_up(ends):
    _client, server = ends
    with pytest.raises(SilentClientError):
        server.sendall(b"x" * 10_000_000)


def test_a_large_answer_is_sent_whole(ends):
    client, server = ends
    sent, received = bytes(range(256)) * 20_000, bytearray()

    def read():
        while data := client.recv(65536):
            received.extend(data)

    thread = threading.Thread(target=read)
    thread.start()
    server.sendall(sent)
    server.shutdown(socket.SHUT_WR)
    thread.join()
    assert received == sent


@pytest.mark.parametrize(
    "rest",
    [
        b"zz\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"\r\n",
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"5;\x00=\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhel",
        b"5\r\nhello\r\n",
        b"5\r\nhello\r\n0\r\n",
        b"5\r\nhello\r\n0\r\nbad header\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX: y\n\r\n\r\n",
        b"5" * 20_000,
    ],
    ids=lambda rest: repr(rest[:30]),
)
def test_a_malformed_chunked_body_is_a_400(body, rest):
    found = body(CHUNKED + rest)
    with pytest.raises(ValidationError) as refusal:
        list(iter(lambda: found.read(10), b""))
    assert found.failed
    assert "hel" not in refusal.value.message


def test_a_body_that_ends_before_its_length_is_a_400(body):
    found = body(HEAD + b"Content-Length: 10\r\n\r\nhello")
    with pytest.raises(ValidationError):
        list(iter(lambda: found.read(4), b""))


def test_a_body_that_does_not_arrive_is_a_408(body):
    found = body(HEAD + b"Content-Length: 10\r\n\r\nhel", is_end=False)
    with pytest.raises(RequestTimeoutError):
        found.read()
    assert found.failed


def test_a_body_beyond_the_number_of_waits_is_a_503(body, waiting):
    found = body(CHUNKED, is_end=False)
    with waiting, pytest.raises(UnavailableError):
        found.read()


@pytest.mark.parametrize(
    "sent",
    [HEAD + b"\r\n", HEAD + b"Content-Length: 5\r\n\r\nhello", CHUNKED + b"1\r\nx\r\n0\r\n\r\n"],
)
@pytest.mark.parametrize("is_used", [True, False])
def test_a_body_that_has_arrived_leaves_no_rest(body, ends, sent, is_used):
    """The connection can be used again, whether or not the application reads a body."""
    found = body(sent, is_end=False)
    if is_used:
        assert b"".join(found) in (b"", b"hello", b"x")
    found.finish()
    assert not found.failed
    assert not ends[1].has_rest
    assert found.read(1024) == b""  # as gunicorn asks before it uses the connection again


@pytest.mark.parametrize(
    "sent",
    [HEAD + b"Content-Length: 5\r\n\r\nhel", CHUNKED + b"5\r\nhel", CHUNKED + b"zz\r\n"],
)
def test_an_unread_rest_ends_the_connection(body, ends, sent, monkeypatch):
    """After the answer, a missing or malformed rest ends the connection, after a short wait."""
    monkeypatch.setattr(clients, "UNREAD_SECONDS", 0.01)
    found = body(sent, is_end=False)
    began = time.monotonic()
    found.finish()
    assert time.monotonic() - began < clients.BODY_SECONDS
    assert found.failed
    assert ends[1].has_rest
    assert not ends[1].gave_up


def test_a_small_body_may_arrive_after_its_answer(body, ends):
    """A body that follows an answer which did not need it leaves the connection usable."""
    client, server = ends
    found = body(HEAD + b"Content-Length: 5\r\n\r\n", is_end=False)
    later = threading.Timer(0.02, client.sendall, [b"hello"])
    later.start()
    found.finish()
    later.join()
    assert not found.failed
    assert not server.has_rest


def test_the_rest_is_read_until_the_client_ends(ends):
    client, server = ends
    sent = threading.Thread(target=lambda: (client.sendall(b"x" * 5_000_000), client.close()))
    sent.start()
    server.discard_rest()
    sent.join()
    assert server.recv(1) == b""


def test_the_rest_is_read_within_limits(ends, monkeypatch):
    client, server = ends
    monkeypatch.setattr(clients, "REST_BYTES", 100_000)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
    client.sendall(b"x" * 200_000)
    server.discard_rest()
    assert server.recv(1)  # some of it is still there


def test_a_rest_that_does_not_arrive_is_given_up(ends):
    _client, server = ends
    with pytest.raises(TimeoutError):
        server.discard_rest()


def test_an_answer_that_failed_is_counted_once():
    """gunicorn closes a connection whose answer failed; its end is counted once, not twice."""
    worker, ended = Worker.__new__(Worker), Future()
    ended.set_result(False)
    worker.nr_conns, worker.alive = 1, True
    with socket.socket() as closed:
        pass
    worker.finish_request(SimpleNamespace(sock=closed), ended)
    assert worker.nr_conns == 0


def test_a_client_that_reads_no_answer_gets_no_thread_of_health(ends):
    """The thread for /health takes only requests that it can answer without waiting."""
    client, server = ends
    connection = SimpleNamespace(sock=server)
    client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert _is_quick(connection)
    server.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            server.send(b"x" * 65536)
    assert not _is_quick(connection)
