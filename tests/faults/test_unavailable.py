"""While the database is unavailable or full: 503, no partial batch, and recovery by itself."""

import itertools
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.faults.jobs import Victims, count_the_rest
from tests.faults.ledger import Drift, Ledger, drift_at, make_events
from tests.faults.service import READS, Forwarder, Service, eventually
from tests.faults.writers import Http
from tests.support.databases import conninfo
from tests.support.postgresql import Server

WORKERS = 2  # as gunicorn.conf.py has it


@pytest.fixture(params=[Server.IMMEDIATE, signal.SIGINT], ids=["immediate", "fast"])
def mode(request):
    return request.param


def test_a_stopped_postgresql_is_503(cluster, cluster_url, workshop, mode):
    """A stopped PostgreSQL gives 503, and every process recovers without a restart."""
    forwarder = Forwarder()
    children = workshop(cluster_url, ROLLUP_INTERVAL_SECONDS="1")
    service, scheduler = Service(children), children.start("jobs")
    assert forwarder.post(service).status == 202
    eventually(lambda: forwarder.is_counted(service))
    cluster.stop(mode)
    try:
        for _ in range(2 * WORKERS):
            assert forwarder.post(service).is_unavailable
            assert all(service.read(report).is_unavailable for report in READS)
            assert service.get("/ready").is_unavailable
            assert service.get("/health").status == 200
        eventually(lambda: children.output("jobs").count("database unavailable") >= 2)
    finally:
        cluster.start()
    answers = {forwarder.post(service).status for _ in range(10 * WORKERS)}
    assert answers == {202}
    forwarder.redeliver(service)
    eventually(lambda: forwarder.is_counted(service))
    assert (scheduler.poll(), service.process.poll()) == (None, None)
    assert [children.end(child) for child in (scheduler, service.process)] == [0, 0]
    assert "Traceback" not in children.output()
    count_the_rest(children)
    assert drift_at(cluster_url, forwarder.ledger) == Drift()


def test_a_restart_between_two_requests_goes_unnoticed(cluster, cluster_url, workshop):
    forwarder, service = Forwarder(), Service(workshop(cluster_url))
    with ThreadPoolExecutor(8) as crowd:  # fills the pools with connections
        list(crowd.map(lambda _: service.read("tokens"), range(40)))
    cluster.stop(Server.IMMEDIATE)
    cluster.start()
    assert {forwarder.post(service).status for _ in range(10 * WORKERS)} == {202}
    assert {service.read("tokens").status for _ in range(10 * WORKERS)} == {200}


def test_a_batch_is_atomic_when_postgresql_dies(cluster, cluster_url, workshop, seed):
    """A batch is stored whole or not at all if PostgreSQL dies during it."""
    service, dice, sent = Service(workshop(cluster_url)), random.Random(seed), {}
    for number in range(4):
        sent |= post_until_it_dies(service, cluster, dice.uniform(0.2, 1), f"round-{number}")
    stored = stored_by_prefix(cluster_url)
    assert set(sent.values()) == {202, 503}
    assert set(stored.values()) == {2_000}
    assert {prefix for prefix, status in sent.items() if status == 202} <= set(stored)


def post_until_it_dies(service, cluster, seconds, name):
    """Four clients post large batches while PostgreSQL is stopped; the statuses by prefix."""
    died, sent = threading.Event(), {}

    def keep_posting(poster):
        for batch in itertools.count():
            if died.is_set():
                break
            prefix = f"{name}-{poster}-{batch}"
            events = make_events(random.Random(prefix), prefix, 2_000)
            sent[prefix] = service.post(events).status

    with ThreadPoolExecutor(4) as crowd:
        posters = [crowd.submit(keep_posting, poster) for poster in range(4)]
        time.sleep(seconds)
        cluster.stop(Server.IMMEDIATE)
        died.set()
    cluster.start()
    assert [poster.result() for poster in posters] == [None] * 4
    return sent


def stored_by_prefix(url):
    query = "SELECT regexp_replace(event_id, '-[0-9]+$', ''), count(*) FROM issuance_events"
    with psycopg.connect(conninfo(url)) as connection:
        return dict(connection.execute(f"{query} GROUP BY 1").fetchall())


def test_sqlite_under_four_writers_and_four_jobs_refuses_nobody(sqlite_url, workshop, seed):
    """Two of the jobs are schedulers, two run all the time and are killed at random."""
    ledger = Ledger()
    children = workshop(sqlite_url, ROLLUP_INTERVAL_SECONDS="1")
    service = Service(children, "--workers", "4")
    schedulers = [children.start("jobs") for _ in range(2)]
    arguments = ("--seed", str(seed), "--children=2", "--pause=0.3", "--window-ids=50")
    victims = Victims(children, *arguments)

    def write(number):
        dice = random.Random(f"{seed}-{number}")
        for batch in itertools.count():
            if batch >= 25 and victims.kills >= 5:
                break
            events = make_events(dice, f"{number}-{batch}", dice.randint(1, 100))
            Http(service.port, dice)(events)  # anything but 202 raises
            ledger.acknowledge(events)

    with ThreadPoolExecutor(9) as crowd:
        crowd.submit(victims.count)
        writers = [crowd.submit(write, number) for number in range(8)]
        try:
            assert [writer.result() for writer in writers] == [None] * 8
        finally:
            victims.stop()
    victims.end()
    assert [children.end(child) for child in (*schedulers, service.process)] == [0, 0, 0]
    count_the_rest(children)
    output = children.output()
    assert not any(word in output for word in ("Traceback", "unavailable", "locked"))
    assert drift_at(sqlite_url, ledger) == Drift()
