"""gunicorn's workers share connections that stay open."""

import http.client
from contextlib import ExitStack, closing

import psutil
import pytest

from tests.conftest import child_environ
from tests.system.test_end_to_end import call, free_port, poll, process

CONNECTIONS = 20


@pytest.fixture
def server(sqlite_url):
    port = free_port()
    environ = child_environ(sqlite_url, PORT=str(port))
    with process("gunicorn", "--workers", "2", "wsgi:app", environ=environ) as server:
        poll(lambda: call(f"http://127.0.0.1:{port}/health"), lambda answer: answer[0] == 200)
        server.port = port
        yield server


def burst(server):
    """How many of twenty connections each worker has."""
    with ExitStack() as opened:
        for _ in range(CONNECTIONS):
            connection = http.client.HTTPConnection("127.0.0.1", server.port)
            opened.enter_context(closing(connection)).request("GET", "/health")
            assert connection.getresponse().read()
        return [
            sum(one.status == psutil.CONN_ESTABLISHED for one in child.net_connections("tcp"))
            for child in psutil.Process(server.pid).children()
        ]


def assert_shared(server):
    poll(lambda: burst(server), lambda counts: len(counts) == 2 and all(counts))  # both are up
    for _ in range(5):
        assert min(burst(server)) >= CONNECTIONS // 4


def test_connections_that_stay_are_shared(server):
    assert_shared(server)


def test_a_worker_that_replaces_a_killed_one_gets_its_share(server):
    assert_shared(server)
    killed, kept = psutil.Process(server.pid).children()
    killed.kill()
    poll(
        lambda: {child.pid for child in psutil.Process(server.pid).children()},
        lambda pids: len(pids - {killed.pid, kept.pid}) == 1 and killed.pid not in pids,
    )
    assert_shared(server)
