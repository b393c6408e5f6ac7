"""Limits on the requests of a web process: how many are under way, and how long each may wait.

A request holds a thread for as long as it waits: for the database, for a lock, for its client. If
all threads wait, nothing is answered. So the process has more threads than may wait: one thread is
always free to answer a request, or to refuse it.

A request has one end time. Each of its waits for a place, a lock or the database ends by then. The
time in which it waits for its client does not count.
"""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import UnavailableError

# A request answers within ten seconds. The last two are for work besides its waits.
REQUEST_SECONDS = 8.0
# A request waits for a place as long as places are given back. After this time without one, the
# requests that hold them are probably stuck, and a further request is refused at once.
PATIENCE_SECONDS = 2.0
# A request of this path takes no place.
HEALTH = "/health"

_thread = threading.local()


class Places:
    """A number of places: take one and give it back, or use ``with``.

    With all places taken, a request waits while others give theirs back, as under full load.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._changed = threading.Condition(threading.Lock())
        self._moved = time.monotonic()

    def take(self, *, until: float = math.inf) -> None:
        """Take a place.

        Args:
            until: the monotonic time at which the wait ends.

        Raises:
            UnavailableError: no place was free in time, or none was given back for two seconds.
        """
        with self._changed:
            while not self._free:
                left = min(self._moved + PATIENCE_SECONDS, until) - time.monotonic()
                if left <= 0:
                    raise UnavailableError("the service is busy; try again")
                self._changed.wait(left)
            self._free -= 1
            self._moved = time.monotonic()

    def give_back(self) -> None:
        """Give a place back, for the next request that waits."""
        with self._changed:
            self._free += 1
            self._moved = time.monotonic()
            self._changed.notify()

    def __enter__(self) -> None:
        self.take()

    def __exit__(self, *_error: object) -> None:
        self.give_back()


class Place:
    """The place that this thread's request has taken, from its beginning to its end.

    Raises:
        UnavailableError: see :meth:`Places.take`.
    """

    def __init__(self, places: Places) -> None:
        self._places = places
        self._is_held = False
        self.ends = time.monotonic() + REQUEST_SECONDS
        self.take()
        _thread.place = self

    def take(self) -> None:
        self._places.take(until=self.ends)
        self._is_held = True

    def leave(self) -> None:
        if self._is_held:
            self._is_held = False
            self._places.give_back()

    def keep(self) -> None:
        """Keep the place until :meth:`end`, while the client is awaited and without an end time."""
        _thread.place = None

    def end(self) -> None:
        """Give the place back at the end of the request."""
        if getattr(_thread, "place", None) is self:
            _thread.place = None
        self.leave()


@contextmanager
def place_left() -> Iterator[None]:
    """Leave the place of this thread's request, if it has one, while a block waits for a client."""
    place: Place | None = getattr(_thread, "place", None)
    if place is None:
        yield
        return
    place.leave()
    began = time.monotonic()
    try:
        yield
    finally:
        place.ends += time.monotonic() - began
        place.take()


def seconds_left() -> float:
    """How long this thread's request may still wait; outside of a request, for ever."""
    place: Place | None = getattr(_thread, "place", None)
    return math.inf if place is None else max(0.0, place.ends - time.monotonic())


class Waits:
    """The limits of one web process.

    Args:
        requests: how many requests may be under way, except those of ``HEALTH`` and those that
            wait for their client or for the identity provider.
        for_provider: how many may wait for the identity provider, beside these.
    """

    def __init__(self, requests: int, for_provider: int = 0) -> None:
        self.requests = Places(requests)
        self.threads = 2 * requests + for_provider + 1
        # Threads that wait for a client to send or to read more.
        self.clients = threading.BoundedSemaphore(requests)
        # Half of the places are for requests that need no lock which another transaction holds.
        self._free_for_locks = max(1, requests // 2)
        self._lock = threading.Lock()

    @property
    def is_full(self) -> bool:
        """Whether :meth:`enter` would refuse at this moment."""
        return not self._free_for_locks

    def enter(self) -> bool:
        """Whether this request may wait long for a lock in the database; never waits itself.

        After such a wait, call :meth:`leave`.
        """
        with self._lock:
            if self.is_full:
                return False
            self._free_for_locks -= 1
            return True

    def leave(self) -> None:
        """End a wait that :meth:`enter` allowed."""
        with self._lock:
            self._free_for_locks += 1
