"""The clients of one phase, seen from outside: their process and its output."""

import os
import time
from pathlib import Path
from subprocess import PIPE

import msgspec

from tests.faults.processes import Workshop
from tests.faults.service import eventually
from tests.load.measures import Request, read_requests
from tests.load.traffic import Orders

# The variables of other tools that this process may have been given.
FOREIGN = ("COV", "LOCUST_", "PYTHONWARNINGS")


class Clients:
    """At work within a ``with``; at its end everything that was sent is seen through."""

    def __init__(self, workshop: Workshop, orders: Orders) -> None:
        self._workshop, self._orders = workshop, orders

    @property
    def number(self) -> int:
        return self._orders.clients

    @property
    def batches(self) -> Path:
        return Path(self._orders.batches)

    def requests(self) -> list[Request]:
        """What they were answered so far."""
        path = Path(self._orders.requests)
        return read_requests(path) if path.exists() else []

    def __enter__(self) -> "Clients":
        file = self._workshop.folder / f"{self._orders.name}.json"
        file.write_bytes(msgspec.json.encode(self._orders))
        plain = {n: value for n, value in os.environ.items() if not n.startswith(FOREIGN)}
        command = ("tests.load.users", str(file))
        self._child = self._workshop.start(*command, env=plain, stdin=PIPE)
        eventually(lambda: self._child.poll() is not None or self.requests())
        self.began = time.monotonic()
        return self

    def wait_until(self, seconds: float) -> None:
        """Until so long after the beginning; raises when they end before."""
        while time.monotonic() < self.began + seconds:
            assert self._child.poll() is None, self._workshop.output("tests.load")
            time.sleep(0.1)

    def __exit__(self, failed: type | None, *_: object) -> None:
        self._child.stdin.close()
        if not failed:
            assert self._workshop.wait(self._child) == 0, self._workshop.output("tests.load")
