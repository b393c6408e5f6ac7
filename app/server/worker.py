"""A threaded gunicorn worker that balances connections and does not wait for silent clients."""

import socket
import time
from contextlib import suppress
from typing import Any

from gunicorn.util import close_graceful
from gunicorn.workers.gthread import ThreadWorker

# A worker waits this long before it accepts a connection, for each connection that it has, up to
# YIELDS times. Another worker with fewer connections accepts it meanwhile.
YIELD_SECONDS = 0.0001
YIELDS = 10
# How long to read the rest of a body. That is enough for a body in a buffer; any other body is
# still arriving.
READ_SECONDS = 0.01


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn ships no types
    """gthread with two changes: it balances connections, and closes them without waiting.

    In gthread, the first worker that sees a connection accepts and keeps it. With 16 connections
    that stay open, as a proxy's do, one of two workers often had all of them. Then only half as
    many reads were served (docs/performance.md).

    After a response, gthread's accepting thread waits up to two seconds for the client to close
    the connection. A client that does not close it delays all other clients
    (tests/system/test_silent_clients.py).
    """

    def accept(self, listener: Any) -> None:
        # The worker with fewer connections waits less, so it accepts first. accept() does nothing
        # if another worker has accepted the connection already.
        time.sleep(min(self.nr_conns, YIELDS) * YIELD_SECONDS)
        super().accept(listener)

    def handle(self, conn: Any) -> Any:
        keep = super().handle(conn)
        if keep is False:
            with suppress(OSError, NotImplementedError):  # the client has gone, or uses TLS
                if not _is_read(conn.parser):
                    # Closing the connection while a request is still arriving would reset it and
                    # destroy the response. So this thread waits for the client.
                    close_graceful(conn.sock.dup())
                # Nothing is left to read, so gthread closes the connection at once.
                conn.sock.shutdown(socket.SHUT_RD)
        return keep


def _is_read(parser: Any) -> bool:
    """Whether the whole request has been read."""
    return bool(parser.mesg and parser.finish_body(deadline=time.monotonic() + READ_SECONDS))
