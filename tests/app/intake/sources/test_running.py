"""Running: a source that fails or hangs delays no other, and recovers."""

import threading

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.errors import ValidationError
from app.intake.sources.pages import PullError
from app.intake.sources.running import (
    MAX_REFUSED_SECONDS,
    MAX_WAIT_SECONDS,
    Runner,
    failure_reason,
    start,
)
from tests.support.processes import PATIENCE_SECONDS


class Source:
    def __init__(self, name="one", *outcomes):
        self.name = name
        self.outcomes = list(outcomes)
        self.failures = []
        self.closed = False
        self.turned = threading.Event()

    def turn(self):
        self.turned.set()
        outcome = self.outcomes.pop(0) if self.outcomes else False
        if isinstance(outcome, Exception):
            raise outcome
        if callable(outcome):
            outcome()
            return False
        return outcome

    def fail(self, reason):
        self.failures.append(reason)

    def close(self):
        self.closed = True


def test_a_turn_is_followed_by_its_wait():
    """At once if there is more, else after the interval."""
    runner = Runner(Source("one", True, False), every=60)
    stop = threading.Event()
    assert [runner.step(stop) for _ in range(2)] == [0, 60]


def test_failures_wait_longer_and_longer_and_are_logged_once(caplog):
    caplog.set_level("INFO")
    source = Source("one", *[OSError("gone")] * 20, False)
    runner = Runner(source, every=1)
    stop = threading.Event()
    waits = [runner.step(stop) for _ in range(20)]
    assert waits[0] <= 2 < max(waits) <= MAX_WAIT_SECONDS
    assert runner.step(stop) == 1
    assert [record.message for record in caplog.records] == ["source failed", "source recovered"]
    assert source.failures == ["gone"] * 20


def test_a_turn_that_does_nothing_is_no_recovery(caplog):
    """No pull is due, or another process pulls: that says nothing of the provider."""
    caplog.set_level("INFO")
    runner = Runner(Source("one", OSError("gone"), None, OSError("gone"), True), every=60)
    stop = threading.Event()
    waits = [runner.step(stop) for _ in range(4)]
    assert min(waits[:3]) >= 60
    assert [record.message for record in caplog.records] == ["source failed", "source recovered"]


def test_a_refused_client_tries_rarely():
    """Many attempts may lock it out."""
    runner = Runner(Source("one", *[PullError("status 403")] * 20), every=60)
    stop = threading.Event()
    assert max(runner.step(stop) for _ in range(20)) > MAX_REFUSED_SECONDS / 2


def test_a_wait_that_a_provider_asks_for_is_kept():
    source = Source("one", PullError("slow down", 600))
    assert Runner(source, every=1).step(threading.Event()) == 600


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PullError("status 403"), "status 403"),
        (ValidationError("the file is wrong"), "the file is wrong"),
        (KeyError("secret content"), "unexpected error: KeyError"),
        (
            OperationalError("INSERT secret content", None, Exception("secret content")),
            "the database is unavailable; try again",
        ),
    ],
)
def test_a_failure_is_named_without_content(error, reason):
    assert failure_reason(error)[0] == reason


@pytest.mark.parametrize("error", [OperationalError("", None, Exception()), PoolTimeout()])
def test_a_failure_that_cannot_be_noted_is_no_other_failure(error):
    source = Source("one", OSError("gone"))

    def fail(_reason):
        raise error

    source.fail = fail
    assert Runner(source, every=1).step(threading.Event()) > 0


def test_a_source_that_hangs_delays_no_other():
    """Each has its own thread, and all end when the process stops."""
    stop, hang = threading.Event(), threading.Event()
    dead = Source("dead", hang.wait)
    alive = Source("alive")
    threads = start([(dead, 0.01), (alive, 0.01)], stop)
    assert dead.turned.wait(PATIENCE_SECONDS)
    for _ in range(3):
        alive.turned.clear()
        assert alive.turned.wait(PATIENCE_SECONDS)
    stop.set()
    hang.set()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()
    assert dead.closed
    assert alive.closed
