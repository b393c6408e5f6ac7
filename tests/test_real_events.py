"""Real events, imported as an operator does. The expected figures were counted with
``sed | sort | uniq -c`` and ``date +%w`` over the file."""

from collections import Counter
from datetime import date
from pathlib import Path

import pytest

from app.storage.tables import daily_issuance, dow_hour_activity, monthly_agent_issuance
from tests.support.recount import assert_exact, stored

SAMPLE = Path(__file__).parent / "data" / "sample.ndjson"


@pytest.fixture
def counted(flask, database):
    for command in (["events", "import", str(SAMPLE)], ["rollup", "run"]):
        done = flask(*command)
        assert done.returncode == 0, done.stderr
    return database


def test_every_table_has_the_buckets_counted_by_other_means(counted):
    days, cells, agents = (
        stored(counted, table)
        for table in (daily_issuance, dow_hour_activity, monthly_agent_issuance)
    )
    assert [len(days), len(cells), len(agents)] == [322, 689, 358]
    assert [sum(t.values()) for t in (days, cells, agents)] == [787] * 3
    assert days["ci", date(2018, 2, 4)] == 17
    assert days["nn", date(2018, 2, 5)] == 14
    assert cells["ORD", date(2001, 5, 1), 1, 21] == 4
    assert cells["nn", date(2018, 2, 1), 0, 9] == 3
    assert agents["nc", date(2018, 2, 1), "nc-md"] == 60
    per_tenant = Counter()
    for (tenant, _), issued in days.items():
        per_tenant[tenant] += issued
    assert per_tenant.most_common(2) == [("ORD", 272), ("PHX", 174)]


def test_importing_again_changes_nothing(counted, flask):
    again = flask("events", "import", str(SAMPLE), "--json")
    assert again.stdout == '{"received":787,"accepted":0,"duplicates":787,"refused":0}\n'
    assert flask("rollup", "run").returncode == 0
    assert assert_exact(counted) == 787
