"""The load run in small: same service, same clients, same faults, a few seconds."""

import sys

import pytest

from tests.load.report import KINDS
from tests.load.run import Plan, measure
from tests.load.traffic import Scale

pytestmark = pytest.mark.slow

SMALL = Plan(
    seconds=10,
    maximum_seconds=2,
    clients=3,
    rate=40,
    batch=7,
    interval=1,
    absence=0.5,
    scale=Scale(tenants=3, agents=4, days=10),
)


def test_a_small_load_survives_kill_and_crash():
    """A small load stays exact through a killed scheduler and a crash of PostgreSQL."""
    report = measure(SMALL, print)
    assert report.exact, report.explain()
    assert report.acknowledged > 0
    table = report.table()
    rows = ("machine", "at most", "held", "PostgreSQL away", "restart window", "503 in it", "lag")
    for name in (*KINDS, *rows, "events lost, doubled | 0, 0 |", "memory"):
        assert f"| {name}" in table, table
    assert {r.kind for r in report.held} == set(KINDS)
    assert report.samples.lags
    assert min(report.samples.worker_bytes, report.samples.scheduler_bytes) > 0
    assert "locust" not in sys.modules  # it would replace this process's blocking calls
