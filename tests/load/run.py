"""A load run: the service as deployed, clients, a killed scheduler, a crash of PostgreSQL."""

import secrets
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url

from app.storage.database import Database
from tests.faults.harness import tracebacks
from tests.faults.jobs import count_the_rest
from tests.faults.ledger import drift
from tests.faults.processes import Workshop
from tests.faults.service import Service, eventually
from tests.load.clients import Clients
from tests.load.history import add_history, server_version, tidy
from tests.load.measures import Window, rate, window_of
from tests.load.report import Report
from tests.load.samples import Sampler, Samples
from tests.load.traffic import Orders, Promised, Scale
from tests.support.databases import PostgreSQL
from tests.support.postgresql import SETTINGS, Server
from tests.support.tokens import token

# A worker of gunicorn takes 1,000 connections.
MOST_CLIENTS = 500
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}


@dataclass(frozen=True)
class Plan:
    """How long and how much.

    ``share`` of the maximum is held, or ``rate`` requests per second where that is given.
    ``pace``: requests per second of one client then, so that a slow answer holds up few.
    ``absence``: seconds until somebody starts the killed scheduler again.
    """

    seconds: float = 300.0
    maximum_seconds: float = 30.0
    clients: int = 16
    share: float = 0.7
    rate: float = 0.0
    pace: float = 2.0
    batch: int = 100
    interval: int = 15
    absence: float = 5.0
    scale: Scale = field(default_factory=Scale)


class Load:
    """One run on ``server``, against a fresh migrated database at ``url``."""

    def __init__(
        self, plan: Plan, server: Server, url: str, folder: Path, say: Callable[[str], object]
    ) -> None:
        self.plan, self.server, self.say = plan, server, say
        self.key = secrets.token_urlsafe(48)
        self.workshop = Workshop(
            folder,
            url,
            {
                "APP_ENV": "production",
                "SECRET_KEY": secrets.token_urlsafe(48),
                "JWT_SECRET_KEY": self.key,
                "ROLLUP_INTERVAL_SECONDS": str(plan.interval),
            },
        )
        self.database = Database(make_url(url), pool_size=1)

    def run(self) -> Report:
        """The maximum, then what is held; count the rest and compare."""
        try:
            self._prepare()
            crowd = self._at_most()
            asked = self.plan.rate or self.plan.share * rate(crowd.requests())
            number = min(max(round(asked / self.plan.pace), 1), MOST_CLIENTS)
            paced = Clients(self.workshop, self._orders("held", number, asked / number))
            self.say(f"holding {asked:.1f} requests/s for {self.plan.seconds:.0f} s")
            window, samples = self._hold(paced)
            self._finish()
            return self._report(crowd, paced, asked=asked, window=window, samples=samples)
        finally:
            self.workshop.close()
            self.database.dispose()

    def _prepare(self) -> None:
        self.say("adding the history")
        self.promised = Promised(self.plan.scale, add_history(self.database, self.plan.scale))
        count_the_rest(self.workshop)
        tidy(self.database)
        self.service = Service(self.workshop)
        self.scheduler = self.workshop.start("jobs")

    def _at_most(self) -> Clients:
        self.say(f"measuring the maximum for {self.plan.maximum_seconds:.0f} s")
        with Clients(self.workshop, self._orders("maximum", self.plan.clients, 0)) as clients:
            clients.wait_until(self.plan.maximum_seconds)
        return clients

    def _hold(self, paced: Clients) -> tuple[Window, Samples]:
        """Clients at work and somebody who looks on, through all that goes wrong."""
        sampler = Sampler(self.database, self.service.process.pid, lambda: self.scheduler.pid)
        enough = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            looking = pool.submit(sampler.run_until, enough)
            try:
                with paced:
                    window = self._disturb(paced)
            finally:
                enough.set()
        looking.result()
        return window, sampler.samples

    def _disturb(self, clients: Clients) -> Window:
        """Kill the scheduler at one third, crash PostgreSQL half-way, and see the rest through."""
        seconds = self.plan.seconds
        clients.wait_until(seconds / 3)
        self.say("killing the scheduler")
        self.scheduler.kill()
        self.workshop.wait(self.scheduler)
        time.sleep(self.plan.absence)
        self.scheduler = self.workshop.start("jobs")
        clients.wait_until(seconds / 2)
        self.say("restarting PostgreSQL")
        stopped = time.time()
        self.server.stop(self.server.IMMEDIATE)
        self.server.start()
        back = time.time()
        clients.wait_until(seconds)
        # On a slow machine the restart may outlast the time that was given.
        return eventually(lambda: window_of(clients.requests(), stopped, back))

    def _orders(self, name: str, clients: int, pace: float) -> Orders:
        scale = self.plan.scale
        return Orders(
            name=name,
            base=f"http://127.0.0.1:{self.service.port}",
            scale=scale,
            readers={tenant: self._token(tenant) for tenant in scale.tenant_ids()},
            writer=self._token(None, "events:write:any", drop="organization_id"),
            clients=clients,
            pace=pace,
            batch=self.plan.batch,
            requests=str(self.workshop.folder / f"{name}.requests"),
            batches=str(self.workshop.folder / f"{name}.batches"),
        )

    def _token(self, *arguments: str | None, **claims: str) -> str:
        """One that outlasts the run."""
        seconds = self.plan.maximum_seconds + self.plan.seconds + 600
        expires = int(datetime.now(UTC).timestamp() + seconds)
        return token(*arguments, key=self.key, exp=expires, **claims)

    def _finish(self) -> None:
        """Count what is left, and end the service as an operator does."""
        self.say("counting and comparing")
        count_the_rest(self.workshop)
        codes = [self.workshop.end(child) for child in (self.scheduler, self.service.process)]
        assert codes == [0, 0], self.workshop.output()

    def _report(self, crowd: Clients, paced: Clients, **measured: Any) -> Report:
        for clients in (crowd, paced):
            self.promised.acknowledge(clients.batches)
        return Report(
            postgresql=server_version(self.database),
            at_most=crowd.requests(),
            held=paced.requests(),
            clients=(crowd.number, paced.number),
            acknowledged=self.promised.acknowledged,
            drift=drift(self.database, self.promised),
            verified=self.workshop.run("flask", "rollup", "verify"),
            tracebacks=tracebacks(self.workshop.output()),
            said=self.workshop.output("tests.load"),
            **measured,
        )


def measure(plan: Plan, say: Callable[[str], object]) -> Report:
    """One run on a cluster of its own, as durable as a real one."""
    server = Server(SETTINGS | DURABLE)
    try:
        databases = PostgreSQL(server.start().url("postgres"))
        with tempfile.TemporaryDirectory(prefix="load-") as folder:
            return Load(plan, server, databases.at(databases.create()), Path(folder), say).run()
    finally:
        server.remove()
