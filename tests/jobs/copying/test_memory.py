"""Copying takes the same memory whatever the databases hold."""

import subprocess
import sys

import pytest
import sqlalchemy as sa

from app.config.settings import ROOT
from app.storage.tables import monthly_agent_issuance
from tests.jobs.copying.copies import execute, roll_up
from tests.support.settings import child_environ

MEASURE = """
import resource, sys
from pathlib import Path
from sqlalchemy.engine import make_url
from app.storage.database import Database
from jobs.copying import copy_database

def peak():  # KiB; what getrusage says on Linux includes the parent before exec
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0])
    unit = 1024 if sys.platform == "darwin" else 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit

for number in (1, 3):
    source, target = (Database(make_url(url)) for url in sys.argv[number : number + 2])
    # The second time checks what is there.
    copied = [copy_database(source, target, wait_seconds=5).copied for _ in range(2)]
    print(sum(copied), peak())
    source.dispose()
    target.dispose()
"""

INSERT = """
    WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count)
    INSERT INTO issuance_events (tenant_id, event_id, agent_id, issued_at)
    SELECT 'org-a', 'event of a service ' || n, 'agent ' || n, '2026-04-01 00:00:00'
    FROM numbers
"""


@pytest.mark.parametrize(("kind", "to"), [("sqlite", "postgresql"), ("postgresql", "sqlite")])
def test_memory_stays_flat(open_new, kind, to):
    urls = []
    for count in (25_000, 80_000):
        source, target = open_new(kind), open_new(to)
        execute(source, sa.text(INSERT).bindparams(count=count))
        # As many rows in a summary table as there are events.
        roll_up(source)
        with source.reading() as connection:
            buckets = sa.select(sa.func.count()).select_from(monthly_agent_issuance)
            assert connection.scalar(buckets) == count
        urls += [d.engine.url.render_as_string(hide_password=False) for d in (source, target)]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *urls],
        cwd=ROOT,
        env=child_environ(urls[0]),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (small, before), (large, after) = (map(int, row.split()) for row in done.stdout.splitlines())
    assert (small, large) == (25_000, 80_000)
    assert (after - before) / 1024 < 6, "MiB more for the larger copy"
