"""A service that fails as a test tells it to, and clients that do not wait long for it."""

import gzip
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from agentidp_analytics import client as client_module
from agentidp_analytics.client import Client, Limits

KEY = "agk_only_for_tests_4e1b4c83"


class FakeService:
    """A service on loopback; each request takes the next step of ``script``, then they succeed.

    Attributes:
        script: steps; each is a status, or a function of the handler that answers.
        refuses: the status for a batch of events, or 0 to store it.
        stored: the events by id, as often as they arrived.
        requests: the path, the headers and the events of each request.
    """

    def __init__(self) -> None:
        self.script: list[int | Callable[[Any], None]] = []
        self.refuses: Callable[[list[dict[str, Any]]], int] = lambda events: 0
        self.refuses_gzip = False
        self.rejects: Callable[[dict[str, Any]], bool] = lambda event: False
        self.stored: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, dict[str, str], list[dict[str, Any]]]] = []
        self.retry_after = ""
        self.released = threading.Event()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                fake.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, handler: Any) -> None:
        step = self.script.pop(0) if self.script else 0
        if callable(step):
            step(handler)
            return
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        if handler.headers.get("Content-Encoding") == "gzip":
            if self.refuses_gzip:
                reply(handler, 415, {"code": "X", "message": "no"})
                return
            body = gzip.decompress(body)
        if handler.headers["Content-Type"] == "application/x-ndjson":
            events = [json.loads(line) for line in body.split(b"\n")]
        else:
            events = json.loads(body)
        self.requests.append((handler.path, dict(handler.headers), events))
        status = step or self.refuses(events)
        if status:
            reply(handler, status, {"code": "X", "message": "no"}, self.retry_after)
            return
        wrong = [number for number, event in enumerate(events) if self.rejects(event)]
        right = [event for number, event in enumerate(events) if number not in wrong]
        new = {event["id"]: event for event in right if event["id"] not in self.stored}
        self.stored |= new
        receipt = {
            "received": len(events),
            "accepted": len(new),
            "duplicates": len(right) - len(new),
            "rejected": [
                {"index": number, "field": "agentId", "message": "is wrong"}
                for number in wrong[:100]
            ],
        }
        reply(handler, 202, receipt)

    def end(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def reply(handler: Any, status: int, body: object, retry_after: str = "") -> None:
    text = json.dumps(body).encode()
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(text)))
    if retry_after:
        handler.send_header("Retry-After", retry_after)
    handler.end_headers()
    handler.wfile.write(text)


def reset(handler: Any) -> None:
    """Close the connection by a reset, without an answer."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


@pytest.fixture
def fake() -> Iterator[FakeService]:
    fake = FakeService()
    yield fake
    fake.end()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are repeated soon."""
    monkeypatch.setattr(client_module, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(client_module, "LONGEST_PAUSE_SECONDS", 0.02)


@pytest.fixture
def make(fake: FakeService, pauses: None) -> Iterator[Callable[..., Client]]:
    """Makes clients of the fake service, and ends them with the test."""
    made = []

    def make(key: Any = KEY, on_rejected: Any = None, **limits: Any) -> Client:
        limits = {"interval_seconds": 0.01, "exit_seconds": 60.0} | limits
        client = Client(fake.url, key, on_rejected=on_rejected, limits=Limits(**limits))
        made.append(client)
        return client

    yield make
    fake.released.set()
    for client in made:
        client.close(5)


def until(condition: Callable[[], object]) -> None:
    give_up = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.005)
