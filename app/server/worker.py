"""A threaded gunicorn worker that balances connections and does not wait for silent clients."""

import socket
import time
from contextlib import suppress
from typing import Any

from gunicorn.util import close_graceful
from gunicorn.workers.gthread import ThreadWorker

# How long a worker leaves a new connection to the others, for each connection that it has.
YIELD_SECONDS = 0.0001
YIELDS = 10
# How long the rest of a body may take to be read: it is in a buffer, or it is still on its way.
READ_SECONDS = 0.01


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn ships no types
    """gthread with two changes, both in its accepting thread.

    gthread accepts each connection that it sees first, and keeps it. Of 16 connections that stay
    open, as a proxy's do, one of two workers often had all: reads halved (docs/performance.md).

    gthread waits up to two seconds for each client that has its answer to hang up. A client that
    never does delays all the others: tests/system/test_silent_clients.py.
    """

    def accept(self, listener: Any) -> None:
        # The worker with fewer connections comes first. accept() does nothing once it is taken.
        time.sleep(min(self.nr_conns, YIELDS) * YIELD_SECONDS)
        super().accept(listener)

    def handle(self, conn: Any) -> Any:
        keep = super().handle(conn)
        if keep is False:
            with suppress(OSError, NotImplementedError):  # the client has gone, or uses TLS
                if not _is_read(conn.parser):
                    # A request that is still arriving would reset the connection and destroy
                    # the answer, so this thread waits for the client.
                    close_graceful(conn.sock.dup())
                # Nothing is left to read, so gthread closes the connection at once.
                conn.sock.shutdown(socket.SHUT_RD)
        return keep


def _is_read(parser: Any) -> bool:
    """Whether the whole request has been read."""
    return bool(parser.mesg and parser.finish_body(deadline=time.monotonic() + READ_SECONDS))
