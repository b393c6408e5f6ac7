"""A load: clients that send HTTP requests at once."""

import http.client
import itertools
import threading
import time
from contextlib import nullcontext

CLIENTS = 8


class Load:
    """Sends requests from several threads until the end of the block, and keeps the failures.

    A subclass says what a client is, and how it sends the request with a number.
    """

    def __init__(self, port):
        self.port, self.failed = port, []
        self._numbers, self._stop = itertools.count(), threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(CLIENTS)]

    def client(self):
        """What a thread uses for all of its requests, as a context manager."""
        return nullcontext()

    def send(self, client, number):
        """Send a request; an answer that is a failure is appended to ``failed``."""
        raise NotImplementedError

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _work(self):
        with self.client() as client:
            while not self._stop.is_set():
                try:
                    self.send(client, next(self._numbers))
                except (OSError, http.client.HTTPException) as error:
                    self.failed.append(error)
                    time.sleep(0.05)
