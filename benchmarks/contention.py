"""S4 and S5: reads during ingest and a rollup run, and over growing numbers of raw events."""

import http.client
import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus

from sqlalchemy.engine import make_url

from benchmarks import data
from benchmarks.bench import Bench
from benchmarks.figures import BenchmarkError, Figure, Rival, at_most, interleaved, seconds
from benchmarks.ingest import BATCH, Poster
from benchmarks.programs import flask
from benchmarks.reads import API, TREND, reads, slowest, writable_service
from benchmarks.service import Load, Read, Service, service
from tests.support.tokens import bearer

POSTERS = 4
ROLLED_UP = 300_000
SIZES = (100_000, 1_000_000, 5_000_000)
LONGEST_SECONDS = 600


@dataclass
class Ingest:
    """Posts batches at a steady rate, on POSTERS connections.

    A batch that is answered 503 is sent again after a second, as clients do.
    """

    running: Service
    poster: Poster
    rate: float
    posted: int = 0
    repeated: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop, self._lock = threading.Event(), threading.Lock()

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Post batches during the ``with`` block."""
        self._stop.clear()
        threads = [threading.Thread(target=self._post, args=(n,)) for n in range(POSTERS)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
        self.seconds += time.monotonic() - began
        if self.problems:
            raise BenchmarkError(f"a batch was refused: {self.problems[0]}")

    def _post(self, number: int) -> None:
        pause = POSTERS * BATCH / self.rate
        due = time.monotonic() + pause * number / POSTERS
        connection = http.client.HTTPConnection("127.0.0.1", self.running.port)
        while not self._stop.wait(max(due - time.monotonic(), 0)):
            due += pause
            self._send(connection)
        connection.close()

    def _send(self, connection: http.client.HTTPConnection) -> None:
        body = "\n".join(
            f'{{"id":"{random.getrandbits(128):032x}"{rest}'
            for rest in random.choices(self.poster.rests, k=BATCH)
        )
        headers = {
            "Authorization": f"Bearer {self.poster.token}",
            "Content-Type": "application/x-ndjson",
        }
        while not self._stop.is_set():
            connection.request("POST", "/api/v1/events", body, headers)
            response = connection.getresponse()
            text = response.read().decode()
            if response.status != HTTPStatus.SERVICE_UNAVAILABLE:
                break
            with self._lock:
                self.repeated += 1
            self._stop.wait(1)
        else:
            return
        with self._lock:
            self.posted += BATCH
            if response.status != HTTPStatus.ACCEPTED:
                self.problems.append(text)


def under_load(bench: Bench) -> Iterator[Figure]:
    """S4: the trend during ingest, while events are rolled up."""
    poster = Poster(bench)
    with writable_service(bench) as running:
        most = poster.post(running, bench.seconds).rate * BATCH
        ingest = Ingest(running, poster, most / 2)
        turns = (
            lambda: running.load(reads(TREND), bench.seconds),
            lambda: _loaded(bench, ingest),
        )
        alone, beside = interleaved(bench.few, turns)
    rate, rolled_up = ingest.posted / ingest.seconds, bench.scaled(ROLLED_UP)
    work = (
        f"GET {TREND}: p99 beside {rate:,.0f} of {most:,.0f} events/s in"
        f" ({ingest.repeated} batches sent again), {rolled_up:,} rolled up"
    )
    yield at_most("S4", work, slowest(beside), Rival("alone", slowest(alone)), 5)


def _loaded(bench: Bench, ingest: Ingest) -> Load:
    """Read for as long as a rollup run takes, during ingest."""
    url = ingest.running.url
    # The run counts the last events again. This makes the numbers wrong, but they are not used.
    with bench.cluster.connect(make_url(url).database or "") as connection:
        connection.execute(f"""
            UPDATE rollup_state SET candidate = NULL, writers = NULL, counted_upto =
            (SELECT max(id) FROM issuance_events) - {bench.scaled(ROLLED_UP)}
        """)
        connection.execute("CHECKPOINT")
    with ingest.going_on():
        wrk = ingest.running.begin_load(reads(TREND), LONGEST_SECONDS)
        began = time.monotonic()
        flask(url, "rollup", "run")
        time.sleep(max(bench.seconds - (time.monotonic() - began), 0))
        return ingest.running.end_load(wrk, now=True)


def history(bench: Bench) -> Iterator[Figure]:
    """S5: the same reads over growing numbers of raw events."""
    sizes = [bench.scaled(size) for size in SIZES]
    wanted = reads(TREND) + [
        Read(f"{API}/agents?month={data.A_MONTH}", bearer(organization))
        for organization in data.organizations()
    ]
    with ExitStack() as stack:
        services = [
            stack.enter_context(service(bench.cluster.url(bench.readable(size)), bench.folder))
            for size in sizes
        ]
        for one in services:
            one.load(wanted, 1)
        turns = [lambda one=one: one.load(wanted, bench.seconds) for one in services]
        few, *more_and_more = [
            seconds([1 / load.rate for load in found], "ms")
            for found in interleaved(bench.repetitions, turns)
        ]
    for letter, size, found in zip("ab", sizes[1:], more_and_more, strict=True):
        work = f"reads over {size:,} raw events, each"
        yield at_most(f"S5{letter}", work, found, Rival(f"over {sizes[0]:,}", few), 1.15)
