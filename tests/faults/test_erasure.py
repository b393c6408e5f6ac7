"""A deletion or an erasure is killed again and again, beside ingest, runs, findings and purges."""

import random
import threading
import time
from datetime import UTC, datetime, timedelta
from subprocess import DEVNULL, TimeoutExpired

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from app.intake.events import Event
from app.intake.store import store_events
from app.storage.database import Database
from app.storage.tables import erasures, issuance_events, monthly_agent_issuance
from jobs.counting.run import run_rollup
from jobs.erasure.organization import rows_of
from jobs.recount.resume import resume
from jobs.recount.verify import verification
from tests.faults.processes import PATIENCE_SECONDS
from tests.support.recount import assert_exact

KILLS = 12
EVENTS, MONTHS = 2_000, 12


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request):
    """A database of this test's own; PostgreSQL's on the cluster of these tests."""
    name = "sqlite_url" if request.param == "sqlite" else "cluster_url"
    return request.getfixturevalue(name)


class Arrivals:
    """Events of both organizations that arrive all the time, of all months."""

    def __init__(self, url, seed):
        self._database, self._dice = Database(make_url(url)), random.Random(seed)
        self._over, self.both = threading.Event(), threading.Event()
        self.both.set()
        self._number = 0
        self._thread = threading.Thread(target=self._arrive)

    def store(self, number, tenants=("t", "other")):
        now = datetime.now(UTC)
        events = []
        for _ in range(number):
            self._number += 1
            at = now - timedelta(days=self._dice.randrange(30 * MONTHS), hours=self._number % 24)
            agent = self._dice.choice(["a", "b", "c"])
            events += [Event(tenant, f"{self._number}", agent, at) for tenant in tenants]
        store_events(self._database, events)

    def start(self):
        self._thread.start()

    def _arrive(self):
        while not self._over.wait(0.05):
            self.store(5, ("t", "other") if self.both.is_set() else ("other",))

    def end(self):
        self._over.set()
        self._thread.join(PATIENCE_SECONDS)
        self._database.dispose()


def survive(workshop, url, seed, *arguments):
    """Kill the same work KILLS times, then let it end; returns the database."""
    dice, database = random.Random(seed), Database(make_url(url))
    arrivals = Arrivals(url, seed)
    arrivals.store(EVENTS)
    run_rollup(database, window_ids=100_000, wait_seconds=60)
    shop = workshop(url, ROLLUP_INTERVAL_SECONDS="1", ROLLUP_WINDOW_IDS="50")
    scheduler = shop.start("jobs", stdin=DEVNULL)
    arrivals.start()
    try:
        kills = 0
        while kills < KILLS:
            child = shop.start("tests.faults.erasure_victims", url, *arguments)
            try:
                code = shop.wait(child, dice.uniform(0.7, 2.5))
                assert code == 0, shop.output("tests.faults.erasure")
            except TimeoutExpired:
                child.kill()
                shop.wait(child)
                kills += 1
                with verification(database) as found:
                    assert list(found.drift) == []
        arrivals.both.clear()
        time.sleep(0.5)
        assert shop.run("tests.faults.erasure_victims", url, *arguments) == 0, shop.output()
    finally:
        arrivals.end()
    assert shop.end(scheduler) == 0, shop.output("jobs")
    assert "Traceback" not in shop.output("jobs"), shop.output("jobs")
    assert run_rollup(database, window_ids=100_000, wait_seconds=60).outcome == "done"
    assert assert_exact(database) > 0
    assert resume(database).buckets == 0
    return database


def test_a_deletion_survives_kills(workshop, url, seed):
    """Nothing of the organization is left, and all of the other one is there, counted once."""
    database = survive(workshop, url, seed, "t")
    assert rows_of(database, "t") == {}
    with database.reading() as connection:
        event = issuance_events.c
        left = sa.select(sa.func.count()).where(event.tenant_id == "other")
        assert connection.scalar(left) >= EVENTS
    database.dispose()


def test_an_erasure_survives_kills(workshop, url, seed):
    """The old id is nowhere, and every event has one of the other ids."""
    database = survive(workshop, url, seed, "t", "a")
    with database.reading() as connection:
        for table in (issuance_events, monthly_agent_issuance):
            ours = sa.select(table.c.agent_id).where(table.c.tenant_id == "t").distinct()
            ids = set(connection.scalars(ours))
            assert "a" not in ids
            assert {"b", "c"} < ids
        assert connection.scalar(sa.select(sa.func.count()).select_from(erasures)) == 0
    database.dispose()
