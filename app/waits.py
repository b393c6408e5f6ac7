"""Limits how many threads of a web process may wait at once, for clients and for the database."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import UnavailableError


class Waits:
    """Slots for threads that wait: for a client, or for the database.

    One thread has no slot, so that requests without a wait are always answered. Clients get at
    most as many slots as half of the threads, so that some are left for the database.

    Args:
        threads: the threads of this process.
    """

    def __init__(self, threads: int) -> None:
        self.limit = max(1, threads - 1)
        self.client_limit = max(1, threads // 2)
        self._lock = threading.Lock()
        self._held = self._held_for_clients = 0

    def enter(self, *, client: bool = False) -> bool:
        """Take a slot if one is free, without waiting; say whether it was taken.

        The taker calls :meth:`leave` at the end of its wait.
        """
        with self._lock:
            if self._held == self.limit:
                return False
            if client:
                if self._held_for_clients == self.client_limit:
                    return False
                self._held_for_clients += 1
            self._held += 1
            return True

    @property
    def is_full(self) -> bool:
        """Whether no slot is free at this moment."""
        return self._held == self.limit

    def leave(self, *, client: bool = False) -> None:
        """Give back a slot that :meth:`enter` took for the same kind of wait."""
        with self._lock:
            self._held -= 1
            self._held_for_clients -= client

    @contextmanager
    def slot(self) -> Iterator[None]:
        """A slot for a wait for the database.

        Raises:
            UnavailableError: no slot is free.
        """
        if not self.enter():
            raise UnavailableError("too many requests wait for the database; try again")
        try:
            yield
        finally:
            self.leave()
