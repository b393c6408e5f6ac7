"""Bodies and heads that are malformed, too large, or cut: each is answered, and none is logged."""

import http.client
import json
import socket
import threading
import time
from contextlib import closing, suppress

import pytest

from tests.support.processes import call, free_port, poll, process
from tests.support.settings import child_environ
from tests.support.tokens import bearer

SECRET = "text-of-a-client"
LIMIT = 8 * 1024 * 1024


@pytest.fixture(scope="module")
def server(shared_sqlite_url):
    port = free_port()
    environ = child_environ(shared_sqlite_url, PORT=str(port))
    with process("gunicorn", "--workers", "1", "wsgi:app", environ=environ) as server:
        poll(lambda: call(f"http://127.0.0.1:{port}/health"), lambda answer: answer[0] == 200)
        server.port = port
        yield server
        log = server.log.read_text()
        assert SECRET not in log
        assert '"status":5' not in log
        assert "Traceback" not in log


def exchange(port, sent, *, is_end=False):
    """The answer to some bytes: its status, headers and body."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=30)) as connection:
        connection.sendall(sent)
        if is_end:
            connection.shutdown(socket.SHUT_WR)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, answer.headers, answer.read()


def request(line, headers, rest=b""):
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{line} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode() + rest


CHUNKED = {"Transfer-Encoding": "chunked"}
# The tests may run long after this module is imported.
WRITER = bearer(scope="events:write agents:write", exp=4_102_444_800) | {
    "Content-Type": "application/json"
}
FORM = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "text/html"}
MALFORMED = [
    f"{SECRET}\r\n",
    f"zz;{SECRET}\r\n\r\n",
    f"5\r\n{SECRET}\r\n0\r\n\r\n",
    "-1\r\n",
    "\r\n\r\n",
    "fffffffffffffffffffff\r\nx",
    f"0\r\n{SECRET}\r\n\r\n",
    f"1\r\nx\r\n0\r\nbad name: {SECRET}\r\n\r\n",
]


@pytest.mark.parametrize("rest", MALFORMED)
@pytest.mark.parametrize("line", ["POST /api/v1/events", "PUT /api/v1/agents", "POST /signin"])
def test_a_malformed_chunk_is_a_400(server, line, rest):
    """A malformed chunk is 400 on each route, as JSON in the API and as a page elsewhere."""
    is_page = line == "POST /signin"
    headers = (FORM if is_page else WRITER) | CHUNKED
    status, found, body = exchange(server.port, request(line, headers, rest.encode()), is_end=True)
    assert status == 400
    assert SECRET.encode() not in body
    if is_page:
        assert found["Content-Type"].startswith("text/html")
    else:
        assert json.loads(body)["code"] == "VALIDATION_ERROR"


@pytest.mark.parametrize("line", ["POST /api/v1/events", "POST /nowhere", "POST /health"])
def test_a_malformed_body_that_is_not_read_is_no_second_answer(server, line):
    """The rest of an answered request causes no second answer and no line in the log."""
    sent = request(line, CHUNKED, f"zz{SECRET}\r\n".encode())
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=30)) as connection:
        connection.sendall(sent)
        answers = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answers.count(b"HTTP/1.1 ") == 1
    assert answers.startswith(b"HTTP/1.1 40")


@pytest.mark.parametrize("line", ["POST /api/v1/events", "PUT /api/v1/agents", "POST /signin"])
@pytest.mark.parametrize("framing", [{"Content-Length": "100"}, CHUNKED])
def test_a_body_that_ends_early_is_a_400(server, line, framing):
    headers = (FORM if line == "POST /signin" else WRITER) | framing
    rest = f"40\r\n{SECRET}" if framing is CHUNKED else SECRET
    assert exchange(server.port, request(line, headers, rest.encode()), is_end=True)[0] == 400


@pytest.mark.parametrize(
    "sent",
    [
        f"GET /{SECRET}\r\n\r\n",
        f"{SECRET}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: x\r\n{SECRET}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: x\r\nbad name: {SECRET}\r\n\r\n",
        f"GET / HTTP/9.9\r\nHost: x\r\nX: {SECRET}\r\n\r\n",
        f"GET /{SECRET * 1000} HTTP/1.1\r\nHost: x\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: x\r\nX: {SECRET * 1000}\r\n\r\n",
        f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {SECRET}\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        f"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: {SECRET}\r\n\r\n",
        f"POST / HTTP/1.1\r\nHost: x\r\nExpect: {SECRET}\r\n\r\n",
    ],
    ids=lambda sent: repr(sent[:60]),
)
def test_a_head_that_is_not_http_is_a_400(server, sent):
    """A malformed head is 400 in the form of the API's errors, and is not repeated."""
    status, headers, body = exchange(server.port, sent.encode())
    assert (status, headers["Content-Type"]) == (400, "application/json")
    assert headers["Connection"] == "close"
    assert json.loads(body)["code"] == "VALIDATION_ERROR"
    assert SECRET.encode() not in body


def post_large(port, size, chunked=False):
    """The answer to a large body, whose client sends all of it before it reads."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        body = (b"x" * 65536 for _ in range(size // 65536)) if chunked else b"x" * size
        connection.request("POST", "/api/v1/events", body, WRITER, encode_chunked=chunked)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [LIMIT + 65536, 12_000_000 // 65536 * 65536, 30 << 20])
def test_a_body_over_the_limit_is_answered_413(server, size, chunked):
    """A client that sends all of a large body before it reads gets the 413, not a reset."""
    status, body = post_large(server.port, size, chunked)
    assert status == 413
    assert body["details"] == {"maxBytes": LIMIT}


def test_large_bodies_at_once_are_all_answered_413(server):
    statuses = []
    clients = [
        threading.Thread(target=lambda: statuses.append(post_large(server.port, 12_000_000)[0]))
        for _ in range(3)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert statuses == [413] * 3


def test_a_body_without_end_is_cut(server):
    """A client that goes on sending is cut off, and delays no other request."""
    head = request("POST /api/v1/events", WRITER | {"Content-Length": str(10**12)})
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=30)) as connection:
        connection.sendall(head)
        sent = 0
        with suppress(ConnectionError):
            while sent < 1 << 30:
                sent += connection.send(b"x" * 65536)
    assert sent < 100 << 20
    began = time.monotonic()
    call(f"http://127.0.0.1:{server.port}/health")
    assert time.monotonic() - began < 5


def test_a_refused_request_keeps_its_connection(server):
    """After a refusal whose body has arrived, the client sends its next request on it."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        connection.connect()
        opened = connection.sock
        for _ in range(3):
            connection.request("POST", "/api/v1/events", b"[]", {"Content-Type": "text/plain"})
            response = connection.getresponse()
            assert (response.status, bool(response.read())) == (401, True)
        assert connection.sock is opened
