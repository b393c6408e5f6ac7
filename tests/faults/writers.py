"""Writers that deliver until they are acknowledged, and now and then deliver again."""

import gzip
import http.client
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import TimeoutExpired

import psycopg

from app.intake.events import Event
from tests.faults.inserts import Direct
from tests.faults.ledger import Ledger, make_events, ndjson
from tests.faults.processes import PATIENCE_SECONDS, Workshop
from tests.support.databases import conninfo
from tests.support.tokens import bearer

REDELIVERED = 0.1
ROLLED_BACK = 0.1
WEIGHTS = {"http": 45, "direct": 53, "import": 2}
PAUSE_SECONDS = 0.1


class NotAcknowledged(Exception):  # noqa: N818 - not an error here: the delivery is repeated
    """Whether the events were stored is unknown."""


ABSENT = (
    NotAcknowledged,
    OSError,
    http.client.HTTPException,
    psycopg.OperationalError,
    psycopg.errors.InternalError_,  # of a cluster that has lost a node
)


class Http:
    """``POST /api/v1/events`` of a forwarder that may name any organization."""

    def __init__(
        self,
        port: int,
        dice: random.Random,
        on_answer: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        self._port, self._dice, self._on_answer = port, dice, on_answer

    def __call__(self, events: Sequence[Event]) -> None:
        headers = bearer(None, "events:write:any", drop="organization_id")
        headers["Content-Type"] = "application/x-ndjson"
        body = ndjson(events)
        if self._dice.random() < 0.3:
            body, headers["Content-Encoding"] = gzip.compress(body, 1), "gzip"
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_SECONDS)
        began = time.monotonic()
        try:
            connection.request("POST", "/api/v1/events", body, headers)
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
            self._on_answer(time.monotonic() - began)
        if response.status == 503 and response.getheader("Retry-After"):
            raise NotAcknowledged
        assert response.status == 202, (response.status, text)


class Import:
    """``flask events import``, which is now and then killed on its way."""

    def __init__(self, workshop: Workshop, dice: random.Random, name: str) -> None:
        self._workshop, self._dice = workshop, dice
        self._file: Path = workshop.folder / f"{name}.ndjson"

    def __call__(self, events: Sequence[Event]) -> None:
        self._file.write_bytes(ndjson(events))
        child = self._workshop.start("flask", "events", "import", str(self._file))
        if self._dice.random() < 0.2:
            try:
                self._workshop.wait(child, self._dice.uniform(0.3, 2))
            except TimeoutExpired:
                child.kill()
        if self._workshop.wait(child) != 0:
            raise NotAcknowledged


class Writer:
    """One writer; every batch is sent again, by whatever channel, until it is acknowledged."""

    def __init__(self, crew: "Crew", role: str, number: int) -> None:
        self.name, self.crew = f"{role}{number}", crew
        self.dice = random.Random(f"{crew.seed}-{self.name}")
        # Each begins with another channel, so that even a short run has all of them.
        self.planned = [list(WEIGHTS)[number % len(WEIGHTS)]]
        url = conninfo(crew.workshop.url)
        self.direct = Direct(url, self.dice, self.name, prepared=crew.prepared)
        self.channels: dict[str, Callable[[Sequence[Event]], None]] = {
            "http": Http(crew.port, self.dice, crew.note_answer),
            "direct": self.direct.commit,
            "import": Import(crew.workshop, self.dice, self.name),
        }

    def write(self) -> None:
        """New batches until the crew is told to stop."""
        number = 0
        while not self.crew.enough.is_set():
            size = 1 + int(self.crew.batch * self.dice.random() ** 2)
            self._write_batch(make_events(self.dice, f"{self.name}-{number}", size))
            number += 1
        self._close()

    def redeliver(self) -> None:
        """What the others hand over, until they hand over nothing more."""
        while (events := self.crew.again.get()) is not None:
            self._deliver(events)
            self.crew.done["redelivered"] += 1
        self._close()

    def _write_batch(self, events: list[Event]) -> None:
        if self.dice.random() < ROLLED_BACK:
            self._insist(lambda: self.direct.roll_back(events))
            if self.dice.random() < 0.5:
                return  # given up for good: must never be seen
        again = self.dice.random() < REDELIVERED
        beside = self.dice.random() < 0.7
        copy = self.dice.sample(events, len(events))
        if again and beside:
            self.crew.again.put(copy)
        self._deliver(events)
        if again and not beside:
            self.crew.again.put(copy)

    def _deliver(self, events: list[Event]) -> None:
        self._insist(lambda: self._attempt(events))
        self.crew.ledger.acknowledge(events)

    def _attempt(self, events: list[Event]) -> None:
        """Once, by any channel: after a failure perhaps by another one."""
        self.direct.settle()  # a forgotten prepared transaction would block all the others
        drawn = self.dice.choices(list(WEIGHTS), list(WEIGHTS.values()))
        channel = (self.planned or drawn).pop()
        self.channels[channel](events)
        self.crew.done[channel] += 1

    def _insist(self, attempt: Callable[[], None]) -> None:
        give_up = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return attempt()
            except ABSENT:
                self.crew.done["repeated"] += 1
                if time.monotonic() > give_up:
                    raise
                time.sleep(self.dice.uniform(0, PAUSE_SECONDS))

    def _close(self) -> None:
        self.direct.close()
        self.crew.done.update(self.direct.done)


class Crew:
    """What the writers share."""

    def __init__(
        self, workshop: Workshop, port: int, seed: int, batch: int, *, prepared: bool
    ) -> None:
        self.workshop, self.port, self.seed, self.batch = workshop, port, seed, batch
        self.prepared = prepared
        self.ledger = Ledger()
        self.enough = threading.Event()
        self.again: queue.Queue[list[Event] | None] = queue.Queue()
        self.done: Counter[str] = Counter()
        self.slowest = 0.0

    def note_answer(self, seconds: float) -> None:
        """Note how long an answer took; an error of the connection is one, too."""
        self.slowest = max(self.slowest, seconds)
