"""gunicorn's worker of threads, but that it shares clients with the others and lets them go."""

import mmap
import socket
import time
from contextlib import suppress
from typing import Any

from gunicorn.util import close_graceful
from gunicorn.workers.gthread import ThreadWorker

# How many connections each worker has, for all of them to see: this memory is made before the
# first one is forked, and gunicorn numbers its workers.
_SLOTS = 512
_NOBODY = 2**31 - 1
_connections = memoryview(mmap.mmap(-1, 4 * _SLOTS)).cast("i")
for _slot in range(_SLOTS):
    _connections[_slot] = _NOBODY

# How long a worker with more connections than another leaves it the next one.
YIELD_SECONDS = 0.001
# A body that is read to its end is known to be at once.
READ_SECONDS = 0.01


class Worker(ThreadWorker):  # type: ignore[misc]  # it has no types
    """gthread, with two things mended.

    It accepts whatever comes as soon as it is awake, and then keeps it: of a few connections
    that stay, as a proxy's do, one worker may have all, while another one's processor rests.

    And for each client that has its answer it waits up to two seconds to hang up as well, in
    the one thread that accepts everybody else.
    """

    def run(self) -> None:
        try:
            super().run()
        finally:
            forget(self)

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        _connections[self.age % _SLOTS] = self.nr_conns if self.alive else _NOBODY
        super().wait_for_and_dispatch_events(timeout)

    def accept(self, listener: Any) -> None:
        if self.nr_conns > min(_connections):
            time.sleep(YIELD_SECONDS)  # then it is gone, or the other one is too busy
        super().accept(listener)

    def handle(self, conn: Any) -> Any:
        keep = super().handle(conn)
        if keep is False:
            with suppress(OSError, NotImplementedError):  # it has gone, or speaks TLS
                if not _is_read(conn.parser):
                    # Closing now would cut the answer off: wait, but in the client's own thread.
                    close_graceful(conn.sock.dup())
                conn.sock.shutdown(socket.SHUT_RD)  # so that nothing is left to wait for
        return keep


def forget(worker: Any) -> None:
    """Count a worker no longer that has ended, however it did."""
    _connections[worker.age % _SLOTS] = _NOBODY


def _is_read(parser: Any) -> bool:
    """Whether nothing of a request is still on its way."""
    return bool(parser.mesg and parser.finish_body(deadline=time.monotonic() + READ_SECONDS))
