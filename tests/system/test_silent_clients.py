"""Clients that stop in the middle of a request, or do not take its answer, hold no thread."""

import http.client
import json
import socket
import time
from contextlib import ExitStack, closing, contextmanager

import pytest

from tests.support.processes import call, free_port, poll, process
from tests.support.settings import child_environ
from tests.support.tokens import bearer

THREADS = 4
SECONDS = 1
HEAD_SECONDS = 5
# gunicorn waits so long for a client to hang up that it has answered.
LINGERING_SECONDS = 2
# As it is deployed, but less patient; and an answer that no buffer takes whole.
CONFIG = f"""
from app.server import clients
from app.server.gunicorn_config import *

clients.HEAD_SECONDS = {HEAD_SECONDS}
clients.BODY_SECONDS = clients.ANSWER_SECONDS = {SECONDS}
clients.ANSWER_BYTES_PER_SECOND = 1 << 30
"""
PROBE = """
from wsgi import app

app.add_url_rule("/large", view_func=lambda: b"x" * 50_000_000)


def pieces():
    yield b"x"
    raise TimeoutError("the client reads too slowly")


app.add_url_rule("/broken", view_func=pieces)
"""


@contextmanager
def served(url, folder, never_logged):
    """The port of a web whose log has some text nowhere at the end."""
    (folder / "config.py").write_text(CONFIG)
    (folder / "probed.py").write_text(PROBE)
    port = free_port()
    environ = child_environ(url, PORT=str(port), PYTHONPATH=str(folder))
    config = ("--config", str(folder / "config.py"))
    with process("gunicorn", "--workers", "1", *config, "probed:app", environ=environ) as server:
        poll(lambda: call(f"http://127.0.0.1:{port}/health"), lambda answer: answer[0] == 200)
        yield port
        assert never_logged not in server.log.read_text()


@pytest.fixture
def port(sqlite_url, tmp_path):
    with served(sqlite_url, tmp_path, '"status":5') as port:
        yield port


@pytest.fixture
def crowded_port(sqlite_url, tmp_path):
    """The port of a web that may refuse the bodies of a crowd, by 503."""
    with served(sqlite_url, tmp_path, '"status":500') as port:
        yield port


@contextmanager
def connections(port, sent, count=THREADS):
    """As many as there are threads, or more, on which so much was sent."""
    with ExitStack() as opened:
        found = []
        for _ in range(count):
            one = opened.enter_context(socket.socket())
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.settimeout(30)
            one.connect(("127.0.0.1", port))
            one.sendall(sent)
            found.append(one)
        yield found


def check_served(port):
    """Liveness and a report are served."""
    for path in ("/health", "/api/v1/analytics/tokens"):
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10 * SECONDS)) as other:
            other.request("GET", path, headers=bearer())
            assert other.getresponse().status == 200


def test_half_a_head_is_waited_for_a_while(port):
    with connections(port, b"GET /health HTTP/1.1\r\nHo") as silent:
        check_served(port)
        assert [one.recv(100) for one in silent] == [b""] * THREADS


@pytest.mark.parametrize(
    "length", ["Content-Length: 500\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n1f"]
)
def test_half_a_body_is_answered_as_one_that_may_be_sent_again(port, length):
    with connections(port, post_head(length)) as silent:
        check_served(port)
        for one in silent:
            status, body = answer_to(one)
            assert status == 408
            assert json.loads(body) == {
                "code": "VALIDATION_ERROR",
                "message": "the body did not arrive in time; send the request again",
            }


def post_head(rest):
    headers = bearer(scope="events:write") | {"Content-Type": "application/json"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST /api/v1/events HTTP/1.1\r\nHost: x\r\n{lines}{rest}".encode()


def answer_to(connection):
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer.status, answer.read()


def test_a_crowd_of_silent_bodies_holds_up_nobody(crowded_port):
    """Beyond the limit a missing body is refused at once, and other requests are served."""
    missing = post_head("Content-Length: 9\r\n\r\n")
    with connections(crowded_port, missing, 10 * THREADS) as silent:
        began = time.monotonic()
        check_served(crowded_port)
        whole = b'[{"id":"1","agentId":"a","issuedAt":"2026-04-01T09:00:00Z"}]'
        with connections(
            crowded_port, post_head(f"Content-Length: {len(whole)}\r\n\r\n") + whole, 1
        ) as (one,):
            assert answer_to(one)[0] == 202
        assert time.monotonic() - began < 5 * SECONDS
        statuses = [answer_to(one)[0] for one in silent]
    assert set(statuses) == {408, 503}


def test_clients_that_come_and_fall_silent_do_not_delay_health(crowded_port):
    """Bodies and heads that never come leave ``/health`` and reads as quick as before."""
    missing = post_head("Content-Length: 9\r\n\r\n")
    slowest = 0.0
    with ExitStack() as opened:
        for _ in range(50):
            opened.enter_context(connections(crowded_port, missing, 1))
            opened.enter_context(connections(crowded_port, b"GET /health HT", 1))
            began = time.monotonic()
            check_served(crowded_port)
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.1)
    assert slowest < 2 * SECONDS


def test_connections_that_send_nothing_hold_no_thread(port):
    with connections(port, b"", 10 * THREADS):
        began = time.monotonic()
        check_served(port)
        assert time.monotonic() - began < SECONDS


def test_clients_that_do_not_hang_up_are_left_behind_at_once(port):
    sent = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with connections(port, sent, 10 * THREADS):
        began = time.monotonic()
        check_served(port)
        assert time.monotonic() - began < LINGERING_SECONDS


def test_a_client_with_an_unread_body_holds_no_thread(port):
    """A client whose body is not read gets its answer and holds no thread."""
    sent = b"POST /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 9\r\n\r\n{"
    with connections(port, sent) as silent:
        began = time.monotonic()
        check_served(port)
        assert time.monotonic() - began < 2 * LINGERING_SECONDS
        assert [one.recv(12) for one in silent] == [b"HTTP/1.1 405"] * THREADS


def test_an_answer_that_is_not_taken_is_dropped(port):
    with connections(port, b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n"):
        check_served(port)


def test_an_answer_that_is_cut_off_is_logged_in_one_line(port):
    """The end of an answer whose client reads too slowly leaves no traceback in the log."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as client:
        client.request("GET", "/broken")
        with pytest.raises(http.client.IncompleteRead):
            client.getresponse().read()
    check_served(port)


def test_a_slow_client_that_goes_on_is_served(port):
    with connections(port, b"GET /health HTTP/1.1\r\n") as slow:
        for _ in range(4):
            for one in slow:
                assert not poll_closed(one, SECONDS / 2 / THREADS)
                one.sendall(b"X-Some: header\r\n")
        for one in slow:
            one.sendall(b"Host: x\r\n\r\n")
            assert one.recv(100).startswith(b"HTTP/1.1 200")


def poll_closed(one, seconds):
    """Whether the other side ends within some time."""
    one.settimeout(seconds)
    try:
        return one.recv(1) == b""
    except TimeoutError:
        return False
    finally:
        one.settimeout(30)
