"""A threaded gunicorn worker that does not wait for silent clients in its accepting thread."""

import socket
import time
from contextlib import suppress
from typing import Any

from gunicorn.util import close_graceful
from gunicorn.workers.gthread import ThreadWorker

# How long the rest of a body may take to be read: it is in a buffer, or it is still on its way.
READ_SECONDS = 0.01


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn ships no types
    """gthread that waits for a client to hang up in the client's own thread.

    gthread waits up to two seconds for each client that has its answer. It waits in the one
    thread that accepts connections, so a client that never hangs up delays all the others:
    with plain gthread two tests of ``tests/system/test_silent_clients.py`` fail.
    """

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
