"""The whole way, as deployed: gunicorn, ``python -m jobs``, HTTP."""

import http.client
import json
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing
from datetime import UTC, datetime

import psutil
import pytest

from app.config.settings import ROOT
from tests.support.processes import PATIENCE_SECONDS, call, free_port, poll, process
from tests.support.settings import child_environ
from tests.support.tokens import bearer


@pytest.mark.quick
def test_a_posted_event_is_counted_and_read_back(database_url):
    """The scheduler counts an event that was posted, and a report shows it."""
    port = free_port()
    environ = child_environ(database_url, PORT=str(port), ROLLUP_INTERVAL_SECONDS="1")
    base = f"http://127.0.0.1:{port}"
    now = datetime.now(UTC)
    event = {"id": "e1", "agentId": "agent-1", "issuedAt": now.isoformat()}
    with (
        process("gunicorn", "wsgi:app", environ=environ),
        process("jobs", environ=environ),
        process("jobs", environ=environ),
    ):
        poll(lambda: call(f"{base}/ready"), lambda answer: answer[0] == 200)
        headers = bearer(scope="events:write") | {"Content-Type": "application/json"}
        posted = call(f"{base}/api/v1/events", headers, json.dumps([event, event]).encode())
        assert posted == (202, {"received": 2, "accepted": 1, "duplicates": 1})
        trend = poll(
            lambda: call(f"{base}/api/v1/analytics/tokens?days=2", bearer())[1]["data"],
            lambda data: sum(point["count"] for point in data) > 0,
        )
        assert sum(point["count"] for point in trend) == 1
        agents = call(f"{base}/api/v1/analytics/agents?month={now:%Y-%m}", bearer())[1]
        assert agents["data"] == [{"agentId": "agent-1", "tokenCount": 1}]


def test_a_connection_outlasts_a_pause_between_two_requests(sqlite_url):
    environ = child_environ(sqlite_url, PORT=str(free_port()))
    with process("gunicorn", "wsgi:app", environ=environ):
        base = f"http://127.0.0.1:{environ['PORT']}"
        poll(lambda: call(f"{base}/ready"), lambda answer: answer[0] == 200)
        connection = http.client.HTTPConnection("127.0.0.1", int(environ["PORT"]), timeout=60)
        with closing(connection):
            for pause in (0, 4):
                time.sleep(pause)
                connection.request("GET", "/health")
                assert connection.getresponse().read()


def test_gunicorn_binds_loopback_alone_unless_told_otherwise(database_url):
    environ = child_environ(database_url, PORT=str(free_port()))
    check = [sys.executable, "-m", "gunicorn", "wsgi:app", "--print-config"]
    shown = subprocess.run(
        check, cwd=ROOT, env=environ, capture_output=True, text=True, check=True, timeout=60
    )
    assert re.search(r"^bind\s+= \['127\.0\.0\.1:\d+'\]", shown.stdout, re.MULTILINE), shown.stdout


def test_gunicorn_has_no_control_socket_and_no_version(sqlite_url):
    """Gunicorn opens no control socket and does not send its version."""
    port = free_port()
    with process(
        "gunicorn", "wsgi:app", environ=child_environ(sqlite_url, PORT=str(port))
    ) as server:
        poll(lambda: call(f"http://127.0.0.1:{port}/ready"), lambda answer: answer[0] == 200)
        master = psutil.Process(server.pid)
        for one in (master, *master.children()):
            assert [c.laddr for c in one.net_connections("unix") if c.laddr] == []
        for path in ("/health", "/ready"):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
                assert answer.headers["Server"] == "gunicorn"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_the_development_server_starts_both_and_stops_both(database_url, number):
    port = free_port()
    environ = child_environ(database_url, PORT=str(port))
    with process("jobs.dev", environ=environ) as child:
        poll(lambda: call(f"http://127.0.0.1:{port}/health"), lambda answer: answer[0] == 200)
        poll(child.log.read_text, lambda text: "scheduler started" in text)
        child.send_signal(number)
        child.wait(PATIENCE_SECONDS)
        output = child.log.read_text()
    assert "scheduler stopped" in output
    assert "Shutting down: Master" in output
