"""Several scheduler processes share the ticks, and any of them may die at any moment."""

import random
import threading
import time
from contextlib import contextmanager

import psycopg
import pytest

from tests.faults.inserts import INSERT, columns
from tests.faults.jobs import count_the_rest
from tests.faults.ledger import Drift, Ledger, drift_at, make_events
from tests.faults.service import eventually
from tests.support.databases import conninfo

PROCESSES = 3
INTERVAL_SECONDS = 1
OBSERVED_SECONDS = 8
TICKS = "SELECT last_tick FROM rollup_state"
COUNTED = "SELECT coalesce(sum(issued), 0) FROM daily_issuance"


class Observer:
    """Notes every tick that some process took, by the start in the state row."""

    def __init__(self, url):
        self.ticks = set()
        self._url = url
        self._enough = threading.Event()

    @contextmanager
    def watching(self):
        thread = threading.Thread(target=self._watch)
        thread.start()
        try:
            yield self
        finally:
            self._enough.set()
            thread.join()

    def _watch(self):
        with psycopg.connect(conninfo(self._url), autocommit=True) as connection:
            while not self._enough.wait(0.03):
                self.ticks.add(connection.execute(TICKS).fetchone()[0])


@pytest.fixture
def ticks(cluster_url):
    """When ticks were taken, as far as they are over or under way by now."""
    with Observer(cluster_url).watching() as observer:
        yield observer.ticks


@pytest.fixture
def idp(cluster_url):
    with psycopg.connect(conninfo(cluster_url), autocommit=True) as connection:
        yield connection


def join(children, running):
    """One more process, once it handles signals."""

    def started():
        return children.output("jobs").count("scheduler started")

    before = started()
    running.append(children.start("jobs"))
    eventually(lambda: started() > before)


@pytest.fixture
def schedulers(cluster_url, workshop):
    children = workshop(cluster_url, ROLLUP_INTERVAL_SECONDS=str(INTERVAL_SECONDS))
    running = []
    for _ in range(PROCESSES):
        join(children, running)
    yield children, running
    assert [children.end(child) for child in running] == [0] * len(running)
    assert "Traceback" not in children.output()


def test_several_schedulers_take_one_run_per_tick(schedulers, ticks):
    ticks.clear()
    began = time.monotonic()
    time.sleep(OBSERVED_SECONDS)
    found, passed = len(ticks), (time.monotonic() - began) / INTERVAL_SECONDS
    # If each took every tick there would be three times as many; a slow machine misses some.
    assert 2 <= found < 1.5 * passed + 1


def test_a_killed_scheduler_costs_one_tick_at_most(schedulers, ticks, idp, cluster_url, seed):
    children, running = schedulers
    dice, ledger = random.Random(seed), Ledger()
    for number in range(2 * PROCESSES):
        time.sleep(dice.uniform(0, INTERVAL_SECONDS))
        events = make_events(dice, str(number), 50)
        idp.cursor().executemany(INSERT, columns(events))
        ledger.acknowledge(events)
        victim = running.pop(0)
        victim.kill()
        children.wait(victim)
        before = idp.execute(TICKS).fetchone()[0]
        ticks.clear()
        eventually(lambda: idp.execute(COUNTED).fetchone()[0] == len(ledger))
        # The one that died with it and the next; on a slow machine the count comes later.
        assert len(ticks - {before}) <= 4
        join(children, running)
    count_the_rest(children)
    assert drift_at(cluster_url, ledger) == Drift()
