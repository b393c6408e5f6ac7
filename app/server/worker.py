"""A threaded gunicorn worker that balances connections and does not wait for silent clients."""

import select
import socket
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import msgspec
from gunicorn.http.errors import (
    InvalidResponseHeader,
    InvalidResponseHeaderName,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
)
from gunicorn.workers.gthread import _DEFER, STOP_KEEPALIVE_LINGER, ThreadWorker

from app.errors import CODES
from app.server.clients import ClientSocket
from app.waits import HEALTH

# A worker waits this long before it accepts a connection, for each connection that it has, up to
# YIELDS times. Another worker with fewer connections accepts it meanwhile.
YIELD_SECONDS = 0.0001
YIELDS = 10

_HEALTH = tuple(f"{method} {HEALTH} ".encode() for method in ("GET", "HEAD"))
_LONGEST_HEALTH_HEAD = 4096


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn ships no types
    """gthread with three changes.

    It balances connections. In gthread, the first worker that sees a connection accepts and keeps
    it. With 16 connections that stay open, as a proxy's do, one of two workers often had all of
    them. Then only half as many reads were served (docs/performance.md).

    It waits for clients only within limits (``app.server.clients``), and never in the thread that
    accepts connections (tests/system/test_silent_clients.py).

    When it stops, it closes its sockets, so that a proxy sends new connections to other hosts.
    """

    def get_thread_pool(self) -> "Pool":
        return Pool(self)

    def accept(self, listener: Any) -> None:
        # The worker with fewer connections waits less, so it accepts first. accept() does nothing
        # if another worker has accepted the connection already.
        time.sleep(max(0, min(self.nr_conns, YIELDS)) * YIELD_SECONDS)
        super().accept(listener)

    def set_accept_enabled(self, enabled: bool) -> None:
        super().set_accept_enabled(enabled)
        is_full = self.alive and self.nr_conns >= self.worker_connections
        if not enabled and not is_full:
            self._stop_listening()

    def finish_request(self, conn: Any, fs: Any) -> None:
        if isinstance(fs, Deferred) and not self.alive:
            # gunicorn would close it. Its request may be on its way, so a thread waits for it.
            self.enqueue_req(conn)
            return
        if conn.sock.fileno() < 0:
            # It was closed after a failed answer. gunicorn would count its end twice.
            self.nr_conns -= 1
            return
        super().finish_request(conn, fs)

    def handle(self, conn: Any) -> Any:
        if isinstance(conn.sock, ClientSocket):
            conn.sock.begin()
        elif not self.cfg.is_ssl:
            conn.sock = ClientSocket(conn.sock, self.waits.clients)
        keep = super().handle(conn)
        if keep is False and isinstance(conn.sock, ClientSocket):
            if conn.sock.has_rest and not conn.sock.gave_up:
                with suppress(OSError):  # the client has gone, or was too slow
                    conn.sock.discard_rest()
            # Nothing is left to read, so gthread closes the connection at once. Otherwise its
            # accepting thread would wait up to two seconds for the client to do so.
            with suppress(OSError):
                conn.sock.shutdown(socket.SHUT_RD)
        return keep

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Respond 400 to a request that gunicorn cannot read, without repeating any of it."""
        own_faults = InvalidResponseHeader | InvalidResponseHeaderName
        if not isinstance(exc, ParseException) or isinstance(exc, own_faults):
            super().handle_error(req, client, addr, exc)
            return
        self.log.warning("Invalid request from ip=%s (%s)", addr and addr[0], type(exc).__name__)
        if isinstance(client, ClientSocket):
            client.has_rest = True
        is_long = isinstance(exc, LimitRequestLine | LimitRequestHeaders)
        message = "the URL or a header is too long" if is_long else "the request is not valid HTTP"
        with suppress(OSError):
            client.sendall(_bad_request(f"{message}; correct the request"))

    def _stop_listening(self) -> None:
        """Accept the connections that are complete, then refuse further ones."""
        for listener in self.sockets:
            accepted = -1
            while accepted != self.nr_conns:
                accepted = self.nr_conns
                with suppress(OSError):  # it is closed already
                    super().accept(listener)
            listener.close()
        # gunicorn itself waits longer for the connections that have not sent anything yet.
        until = time.monotonic() + STOP_KEEPALIVE_LINGER
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, until)


class Deferred(Future[Any]):
    """The future of a connection that has sent nothing yet, so that gunicorn submits it later."""

    def __init__(self) -> None:
        super().__init__()
        self.set_result(_DEFER)


class Pool(ThreadPoolExecutor):
    """A worker's threads, and one more for ``/health``, which is never behind slow requests."""

    def __init__(self, worker: Worker) -> None:
        super().__init__(worker.cfg.threads)
        self._worker = worker
        self._for_health = ThreadPoolExecutor(1)

    def submit(self, handle: Any, /, *args: Any, **_options: Any) -> Future[Any]:
        """Handle a connection in a thread.

        A new connection that has sent nothing takes no thread, unless the worker stops.
        """
        (conn,) = args
        if self._worker.cfg.is_ssl:  # what arrives cannot be looked at
            return super().submit(handle, conn)
        if conn.parser is None or not conn.parser.unreader.buf.tell():
            try:
                if _peek(conn, 16).startswith(_HEALTH) and _is_quick(conn):
                    return self._for_health.submit(handle, conn)
            except BlockingIOError:
                if conn.parser is None and self._worker.alive:
                    return Deferred()
            except OSError:
                pass  # the connection is broken; handling it finds out
        return super().submit(handle, conn)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._for_health.shutdown(wait, cancel_futures=cancel_futures)
        super().shutdown(wait, cancel_futures=cancel_futures)


def _peek(conn: Any, size: int) -> bytes:
    """The first bytes that have arrived; they stay to be read."""
    data: bytes = conn.sock.recv(size, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    return data


def _is_quick(conn: Any) -> bool:
    """Whether a request has arrived whole, has no body, and its client can take the answer now."""
    head = _peek(conn, _LONGEST_HEALTH_HEAD).lower()
    if b"\r\n\r\n" not in head or b"content-length" in head or b"transfer-encoding" in head:
        return False
    writable = select.poll()
    writable.register(conn.sock, select.POLLOUT)
    return bool(writable.poll(0))


def _bad_request(message: str) -> bytes:
    """The response 400 as it is sent, with the API's form of an error."""
    from app.telemetry import metrics  # noqa: PLC0415 - not before metrics_folder.share()

    metrics.count_request("", None, 400, 0.0)
    body: bytes = msgspec.json.encode({"code": CODES[400][0], "message": message})
    head = (
        "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\n\r\n"
    )
    return head.encode() + body
