"""The demonstration's spike day, silent day and dominant agent are found and named."""

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from app.cli.demo import _SILENT_DAY, _SPIKE_DAY, DAYS, ORGANIZATION, load_demo
from app.detection import Options
from app.reports.findings import FindingsFilter, findings_page
from app.storage.tables import rollup_state
from jobs.counting.run import run_rollup
from jobs.findings.task import judge_findings
from tests.support.settings import make_settings

pytestmark = pytest.mark.slow

# In the 90 days before each of them, the special days have weeks before them.
INSTANTS = [datetime(2026, 6, 20, 12, 30, tzinfo=UTC), datetime(2026, 11, 28, 7, tzinfo=UTC)]


@pytest.mark.parametrize("now", INSTANTS, ids=str)
def test_the_demonstrations_days_are_found_and_nothing_else(database, database_url, now):
    """A spike, a silence and the agent with most of the tokens, each with its name."""
    days = [now.date() - timedelta(days=back) for back in range(DAYS)]
    (spike,) = [day for day in days if day.toordinal() % DAYS == _SPIKE_DAY]
    (silent,) = [day for day in days if day.toordinal() % DAYS == _SILENT_DAY]
    assert min(spike, silent) > days[-1] + timedelta(days=28)
    load_demo(database, now)
    run_rollup(database, window_ids=10_000_000, wait_seconds=5)
    ended = sa.update(rollup_state).values(last_finished=now)
    database.write(lambda connection: connection.execute(ended))
    settings = make_settings(database_url)
    while judge_findings(database, settings).organizations:
        pass
    with database.reading() as connection:
        wanted = FindingsFilter(status="all")
        found = findings_page(
            connection, ORGANIZATION, wanted, lambda _tenant: Options(), limit=100
        ).findings
    kinds = {one.kind.value: one for one in found}
    assert sorted(one.kind.value for one in found) == ["concentration", "silence", "spike"]
    assert kinds["spike"].begins_at.date() == spike
    assert kinds["silence"].begins_at.date() == silent
    assert "billing-sync" in kinds["concentration"].summary
    assert "billing-sync" in kinds["spike"].summary
