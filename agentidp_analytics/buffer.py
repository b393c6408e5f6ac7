"""Buffer of events: a bounded queue, with the count of what became of each event."""

import threading
import time
from collections import deque
from typing import NamedTuple

from agentidp_analytics.events import Rejected

# Many proxies take bodies of 1 MiB at most.
MAX_BATCH_BYTES = 1024 * 1024
# A client that closes has little time left for further attempts.
CLOSING_PAUSE_SECONDS = 1.0


class Limits(NamedTuple):
    """Limits of a client.

    Attributes:
        queued: the events that may wait; further ones are dropped and counted.
        batch: the events of one request; the service takes 10,000.
        interval_seconds: how long an event waits for others before its batch is sent.
        request_seconds: how long the service may be silent.
        exit_seconds: how long the client may delay the end of the program.
    """

    queued: int = 10_000
    batch: int = 500
    interval_seconds: float = 1.0
    request_seconds: float = 30.0
    exit_seconds: float = 5.0


class Counts(NamedTuple):
    """The events of a client since its start.

    Attributes:
        recorded: all of them; the sum of the others.
        accepted: stored by the service.
        duplicates: known to the service already, by their id.
        rejected: refused by the service, or not JSON.
        dropped: lost, because the queue was full or the program ended.
        waiting: in the queue, or in a request without an answer yet.
    """

    recorded: int = 0
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    dropped: int = 0
    waiting: int = 0


class Buffer:
    """The queue between the threads that record tokens and the one that sends them."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        # Reentrant, because a signal handler may record a token while its thread holds the lock.
        self._changed = threading.Condition(threading.RLock())
        self._queue: deque[bytes | Rejected] = deque()
        self._counts = Counts()
        self._settled = 0
        self._hurried = False
        self._deadline: float | None = None
        self.closed = False

    @property
    def counts(self) -> Counts:
        with self._changed:
            return self._counts

    def put(self, item: bytes | Rejected) -> bool:
        """Add an event. False if it is dropped."""
        with self._changed:
            if self.closed or len(self._queue) >= self._limits.queued:
                self._count(recorded=1, dropped=1)
                return False
            self._queue.append(item)
            self._count(recorded=1, waiting=1)
            if len(self._queue) in (1, self._limits.batch):
                self._changed.notify_all()
            return True

    def take(self) -> list[bytes | Rejected]:
        """The oldest events, once there are enough or they are old enough; none at the end."""
        batch = self._limits.batch
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            self._changed.wait_for(
                lambda: self._hurried or self._closing or len(self._queue) >= batch,
                self._limits.interval_seconds,
            )
            items: list[bytes | Rejected] = []
            size = 0
            while self._queue and len(items) < batch and size < MAX_BATCH_BYTES:
                items.append(self._queue.popleft())
                size += len(items[-1])
            self._hurried = self._hurried and bool(self._queue)
        return items

    def settle(self, **numbers: int) -> None:
        """Count events that no longer wait, unless :meth:`close` has counted them as dropped."""
        with self._changed:
            if self.closed:
                return
            settled = sum(numbers.values())
            self._settled += settled
            self._count(**numbers, waiting=-settled)
            self._changed.notify_all()

    def flush(self, timeout: float) -> bool:
        """Wait until the events recorded so far are settled. False after the timeout."""
        with self._changed:
            wanted = self._settled + self._counts.waiting
            self._hurried = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._settled >= wanted or self.closed, timeout)
            return self._settled >= wanted

    def begin_to_close(self, timeout: float) -> None:
        """Let the sender end once the queue is empty, and after the timeout in any case."""
        with self._changed:
            self._deadline = time.monotonic() + timeout
            self._changed.notify_all()

    def close(self) -> int:
        """Drop the events that wait, and all later ones. The number of the former."""
        with self._changed:
            self.closed = True
            lost = self._counts.waiting
            self._queue.clear()
            self._count(dropped=lost, waiting=-lost)
            self._changed.notify_all()
        return lost

    @property
    def expired(self) -> bool:
        """Whether the sender's time is over."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    def patience(self) -> float:
        """The seconds that a request may take."""
        deadline, usual = self._deadline, self._limits.request_seconds
        return usual if deadline is None else max(0.1, min(deadline - time.monotonic(), usual))

    def pause(self, seconds: float, least: float) -> bool:
        """Wait before a request is repeated. False if the sender's time is over before that.

        Args:
            least: what the service demands. A buffer that begins to close waits no longer.
        """
        began = time.monotonic()
        with self._changed:
            if self._closing:
                seconds = min(seconds, least + CLOSING_PAUSE_SECONDS)
            elif self._changed.wait_for(lambda: self._closing, seconds):
                seconds = least
            if self._deadline is None:
                return True
            if began + seconds >= self._deadline:
                return False
        time.sleep(max(began + seconds - time.monotonic(), 0))
        return True

    @property
    def _closing(self) -> bool:
        return self._deadline is not None

    def _count(self, **numbers: int) -> None:
        """Add to the counts. The caller holds the lock."""
        now = self._counts
        added = {name: getattr(now, name) + number for name, number in numbers.items()}
        self._counts = now._replace(**added)
