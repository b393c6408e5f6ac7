"""``python -m tests.load.users ORDERS.json``: the clients, in a process of their own.

The end of standard input ends them. Nobody else may import this: locust replaces the
standard library's blocking calls.
"""

import itertools
import random
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, TextIO

import gevent
import gevent.select
import msgspec
from locust import FastHttpUser, constant, constant_throughput, events, task
from locust.env import Environment

from tests.faults.ledger import ndjson
from tests.load.traffic import Batch, Orders

PATIENCE_SECONDS, TIMEOUT_SECONDS = 60, 30
AWAY = (0, 503)  # 0: no answer at all
AGAIN = 0.5  # of the reads know what they got last time


class Client(FastHttpUser):
    """Mostly reads as a dashboard does, now and then writes as an identity provider."""

    network_timeout = connection_timeout = float(TIMEOUT_SECONDS)
    orders: ClassVar[Orders]
    requests: ClassVar[TextIO]
    batches: ClassVar[TextIO]
    numbers = itertools.count()
    etags: ClassVar[dict[tuple[str, str], str]] = {}

    def on_start(self) -> None:
        """Begin somewhere within one's own pace: all at the same instant would be a burst."""
        if self.orders.pace:
            gevent.sleep(random.uniform(0, 1 / self.orders.pace))

    @task(3)
    def trend(self) -> None:
        self._read("trend", f"tokens?days={random.choice((7, 30, 90))}")

    @task(3)
    def heatmap(self) -> None:
        self._read("heatmap", random.choice(("agents/activity", "agents/activity?months=1")))

    @task(3)
    def agents(self) -> None:
        self._read("agents", random.choice(("agents", "agents?limit=10")))

    @task(1)
    def ingest(self) -> None:
        """Send a batch, the same one again while the service is away, until it is acknowledged.

        The pause is shorter than ``Retry-After`` asks for, so that the service has somebody
        to answer while it recovers.
        """
        name = f"{self.orders.name}-{next(self.numbers)}"
        batch = Batch(name, self.orders.batch, datetime.now(UTC))
        body = ndjson(batch.events(self.orders.scale))
        give_up = time.monotonic() + PATIENCE_SECONDS
        while (status := self._post(body)) in AWAY and time.monotonic() < give_up:
            gevent.sleep(random.uniform(0, 1))
        if status == 202:
            self.batches.write(msgspec.json.encode(batch).decode() + "\n")

    def _read(self, kind: str, report: str) -> None:
        tenant = random.choice(list(self.orders.readers))
        headers = {"Authorization": f"Bearer {self.orders.readers[tenant]}"}
        known = self.etags.get((tenant, report))
        if known and random.random() < AGAIN:
            headers["If-None-Match"] = known
        answer = self.client.get(f"/api/v1/analytics/{report}", headers=headers, name=kind)
        if answer.status_code == 200:
            self.etags[tenant, report] = answer.headers["ETag"]

    def _post(self, body: bytes) -> int:
        headers = {
            "Authorization": f"Bearer {self.orders.writer}",
            "Content-Type": "application/x-ndjson",
        }
        answer = self.client.post("/api/v1/events", body, headers=headers, name="ingest")
        return answer.status_code


def note(start_time, name, response, response_time, exception, **_) -> None:
    """Write down one answer, and why there was none."""
    seconds = response_time / 1000
    Client.requests.write(f"{start_time:.6f} {name} {response.status_code} {seconds:.6f}\n")
    if response.status_code == 0:
        print(f"{start_time:.6f} {name} {exception!r}", file=sys.stderr, flush=True)


def main() -> None:
    orders = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Orders)
    Client.orders, Client.host = orders, orders.base
    Client.wait_time = constant_throughput(orders.pace) if orders.pace else constant(0)
    environment = Environment(
        user_classes=[Client],
        events=events,
        # A batch that was sent is seen through to its answer, also beyond the end.
        stop_timeout=PATIENCE_SECONDS + TIMEOUT_SECONDS,
        catch_exceptions=False,
    )
    events.request.add_listener(note)
    runner = environment.create_local_runner()
    with (
        open(orders.requests, "w", buffering=1) as Client.requests,
        open(orders.batches, "w", buffering=1) as Client.batches,
    ):
        runner.start(orders.clients, spawn_rate=orders.clients)
        gevent.select.select([sys.stdin], [], [])
        runner.quit()


if __name__ == "__main__":
    main()
