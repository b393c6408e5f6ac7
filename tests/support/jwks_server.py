"""An identity provider on loopback that serves a key set, or fails in the ways that one can."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATH = "/.well-known/jwks.json"


class Exchange(BaseHTTPRequestHandler):
    """One request, answered as the provider is told to at the time."""

    server: "Listener"

    def do_GET(self) -> None:
        with self.server.provider.counting:
            self.server.provider.fetches += 1
            self.server.provider.agents.append(self.headers["User-Agent"])
        self.server.provider.answer(self)

    def log_message(self, *_: Any) -> None:
        pass  # pytest shows what went wrong

    def reply(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", headers.pop("content_type", "application/json"))
        for name, value in ({"content-length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def pause(self, seconds: float | None = None) -> bool:
        """Whether the provider is closed before the time is over."""
        return self.server.provider.closing.wait(seconds)


class Listener(ThreadingHTTPServer):
    """A server whose clients may hang up whenever they like."""

    daemon_threads = True
    provider: "Provider"

    def handle_error(self, *_: Any) -> None:
        pass  # a broken pipe: the client gave up, as it should


class Provider:
    """Serves ``keys`` until ``answer`` is something else; counts the ``fetches``."""

    def __init__(self, *keys: Any, tls: ssl.SSLContext | None = None) -> None:
        self.keys = list(keys)
        self.agents: list[str] = []
        self._tls = tls
        self.answer: Callable[[Exchange], None] = self.publish
        self.fetches = 0
        self.counting, self.closing = threading.Lock(), threading.Event()
        self._listen(0)

    def _listen(self, port: int) -> None:
        self._listener = Listener(("127.0.0.1", port), Exchange)
        self._listener.provider = self
        if self._tls is not None:
            self._listener.socket = self._tls.wrap_socket(self._listener.socket, server_side=True)
        self.port = self._listener.server_port
        threading.Thread(target=self._listener.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}{PATH}"

    def publish(self, exchange: Exchange) -> None:
        exchange.reply(json.dumps({"keys": self.keys}).encode())

    def leave(self) -> None:
        """Go away: connections are refused."""
        self._listener.shutdown()
        self._listener.server_close()

    def come_back(self) -> None:
        """Listen again where it was, and publish."""
        self.answer = self.publish
        self._listen(self.port)

    def close(self) -> None:
        self.closing.set()
        self.leave()


@contextmanager
def serving(*keys: Any, tls: ssl.SSLContext | None = None) -> Iterator[Provider]:
    """A provider with these keys."""
    provider = Provider(*keys, tls=tls)
    try:
        yield provider
    finally:
        provider.close()


# How it fails


def silent(exchange: Exchange) -> None:
    exchange.pause()


def trickle_headers(exchange: Exchange) -> None:
    """A byte now and then, so that no single wait for one is long."""
    exchange.wfile.write(b"HTTP/1.1 200 OK\r\nX-Patience: ")
    while not exchange.pause(0.2):
        exchange.wfile.write(b"x")


def trickle_body(exchange: Exchange) -> None:
    exchange.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{"keys":[')
    while not exchange.pause(0.2):
        exchange.wfile.write(b" ")


def body(text: str, status: int = 200, **headers: str) -> Callable[[Exchange], None]:
    """One that always answers the same."""
    return lambda exchange: exchange.reply(text.encode(), status, **headers)


def cut(exchange: Exchange) -> None:
    """Half an answer."""
    exchange.reply(b'{"keys":[', **{"content-length": "5000"})


def no_http(exchange: Exchange) -> None:
    exchange.wfile.write(b"220 mail.example ESMTP\r\n")


def hang_up(exchange: Exchange) -> None:
    """Nothing at all, at once."""


HANGING = {
    "silent": silent,
    "trickling headers": trickle_headers,
    "trickling a body": trickle_body,
}
FAILING = {
    "500": body('{"keys":[]}', 500),
    "404": body("not here", 404),
    "HTML": body("<!doctype html><title>Sign in</title>", content_type="text/html"),
    "empty": body(""),
    "keys missing": body("{}"),
    "keys null": body('{"keys":null}'),
    "keys an object": body('{"keys":{"kid":"rsa"}}'),
    "list": body("[]"),
    "null": body("null"),
    "number": body("1"),
    "deep": body("[" * 100_000 + "]" * 100_000),
    "not UTF-8": lambda exchange: exchange.reply(b'{"keys":["\xff\xfe"]}'),
    "cut": cut,
    "no HTTP": no_http,
    "hanging up": hang_up,
    "too large": body('{"keys":[' + " " * 2**20 + "]}"),
}
