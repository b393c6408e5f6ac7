"""Ending and recycling: requests under way finish, and acknowledged events stay."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from app.config.settings import ROOT
from app.storage.database import Database
from app.storage.tables import issuance_events
from tests.support.load import Load
from tests.support.processes import PATIENCE_SECONDS, call, free_port, poll, process
from tests.support.settings import child_environ
from tests.support.tokens import bearer


class Posts(Load):
    """Clients that post batches, each on a new connection."""

    def __init__(self, port):
        super().__init__(port)
        self.acknowledged = []
        self._headers = bearer(scope="events:write") | {"Content-Type": "application/json"}

    def send(self, _client, number):
        ids = [f"{number}-{part}" for part in range(3)]
        status = post(self.port, ids, self._headers)
        if status == 202:
            self.acknowledged.extend(ids)
        else:
            self.failed.append(status)


def body(ids):
    now = datetime.now(UTC).isoformat()
    return json.dumps([{"id": one, "agentId": "agent", "issuedAt": now} for one in ids]).encode()


def post(port, ids, headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    try:
        connection.request("POST", "/api/v1/events", body(ids), headers)
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def stored(url):
    database = Database(make_url(url))
    with database.reading() as connection:
        found = connection.scalars(sa.select(issuance_events.c.event_id)).all()
    database.dispose()
    return found


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def environ(database_url, port):
    return child_environ(database_url, PORT=str(port))


def wait_until_up(port):
    poll(lambda: call(f"http://127.0.0.1:{port}/ready"), lambda answer: answer[0] == 200)


def test_recycling_workers_fails_no_request_and_loses_no_event(database_url, environ, port):
    options = ("--max-requests", "40", "--max-requests-jitter", "20")
    with process("gunicorn", "wsgi:app", *options, environ=environ) as server:
        wait_until_up(port)
        with Posts(port) as clients:
            poll(lambda: len(clients.acknowledged), lambda events: events > 3 * 400)
        assert server.log.read_text().count("Autorestarting worker") >= 4
    assert clients.failed == []
    assert sorted(stored(database_url)) == sorted(clients.acknowledged)


def test_no_acknowledged_event_is_lost_at_the_end(database_url, environ, port):
    with process("gunicorn", "wsgi:app", environ=environ) as server:
        wait_until_up(port)
        with Posts(port) as clients:
            poll(lambda: len(clients.acknowledged), lambda events: events > 3 * 40)
            server.send_signal(signal.SIGTERM)
            server.wait(PATIENCE_SECONDS)
    found = stored(database_url)
    assert set(clients.acknowledged) <= set(found)
    assert len(found) == len(set(found))
    statuses = {failure for failure in clients.failed if isinstance(failure, int)}
    assert statuses == set()


def test_requests_under_way_finish_during_shutdown(database_url, environ, port):
    """A request under way finishes during shutdown, while the service is no longer ready."""
    whole = body(["late"])
    headers = bearer(scope="events:write") | {"Content-Type": "application/json"}
    with process("gunicorn", "wsgi:app", "--workers", "1", environ=environ) as server:
        wait_until_up(port)
        idle = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
        idle.request("GET", "/ready")
        assert idle.getresponse().read() == b'{"status":"ready"}'
        slow = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
        slow.putrequest("POST", "/api/v1/events")
        for name, value in (headers | {"Content-Length": str(len(whole))}).items():
            slow.putheader(name, value)
        slow.endheaders(whole[:10])
        time.sleep(0.5)  # until a thread waits for the rest
        server.send_signal(signal.SIGTERM)
        time.sleep(0.5)  # less than an idle connection is kept
        idle.request("GET", "/ready")
        answer = idle.getresponse()
        assert (answer.status, json.load(answer)["code"]) == (503, "SERVICE_UNAVAILABLE")
        slow.send(whole[10:])
        assert slow.getresponse().status == 202
        idle.close()
        slow.close()
    assert stored(database_url) == ["late"]


def is_refused(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_stopping_web_refuses_new_connections(sqlite_url, port):
    """A web that stops takes no connection that it would not serve, though a request goes on."""
    environ = child_environ(sqlite_url, PORT=str(port))
    headers = bearer(scope="events:write") | {"Content-Type": "application/json"}
    whole = body(["late"])
    with process("gunicorn", "wsgi:app", environ=environ) as server:
        wait_until_up(port)
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as slow:
            slow.putrequest("POST", "/api/v1/events")
            for name, value in (headers | {"Content-Length": str(len(whole))}).items():
                slow.putheader(name, value)
            slow.endheaders(whole[:10])
            time.sleep(0.5)  # until a thread waits for the rest
            server.send_signal(signal.SIGTERM)
            poll(lambda: is_refused(port), bool)
            slow.send(whole[10:])
            assert slow.getresponse().status == 202
    assert stored(sqlite_url) == ["late"]


def test_silent_connections_do_not_delay_the_end(sqlite_url, port):
    environ = child_environ(sqlite_url, PORT=str(port))
    with process("gunicorn", "wsgi:app", environ=environ) as server, ExitStack() as opened:
        wait_until_up(port)
        for _ in range(10):
            opened.enter_context(socket.create_connection(("127.0.0.1", port)))
        time.sleep(0.5)  # until they are accepted
        began = time.monotonic()
        server.send_signal(signal.SIGTERM)
        server.wait(PATIENCE_SECONDS)
        assert time.monotonic() - began < 15  # gunicorn's own limit is 30 s


def test_a_restart_behind_a_socket_of_systemd_refuses_nobody(database_url, environ, port):
    """With the listening socket held by systemd, a restart under load fails no request."""
    command = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3);"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1');"
        "os.execv(sys.executable, [sys.executable, '-m', 'gunicorn', 'wsgi:app'])"
    )
    with socket.create_server(("127.0.0.1", port), backlog=2048) as held:

        def start():
            return subprocess.Popen(
                [sys.executable, "-c", command, str(held.fileno())],
                cwd=ROOT,
                env=environ,
                pass_fds=[held.fileno()],
            )

        server = start()
        try:
            wait_until_up(port)
            with Posts(port) as clients:
                for restarts in range(1, 3):
                    poll(
                        lambda wanted=restarts * 200: len(clients.acknowledged) - wanted,
                        lambda more: more > 0,
                    )
                    server.send_signal(signal.SIGTERM)
                    assert server.wait(PATIENCE_SECONDS) == 0
                    server = start()
                before = len(clients.acknowledged)
                poll(lambda: len(clients.acknowledged) - before, lambda more: more > 100)
        finally:
            server.terminate()
            server.wait(PATIENCE_SECONDS)
    assert clients.failed == []
    assert sorted(stored(database_url)) == sorted(clients.acknowledged)
