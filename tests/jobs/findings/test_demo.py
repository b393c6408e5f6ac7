"""What the demonstration's story hides is found and named, and nothing else."""

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from app.cli import demo_story
from app.cli.demo import load_demo
from app.detection import Options
from app.reports.findings import FindingsFilter, findings_page
from app.storage.tables import rollup_state
from jobs.counting.run import run_rollup
from jobs.findings.task import judge_findings
from tests.support.settings import make_settings

pytestmark = pytest.mark.slow

INSTANTS = [datetime(2026, 6, 20, 12, 30, tzinfo=UTC), datetime(2026, 11, 26, 0, 7, tzinfo=UTC)]


@pytest.mark.parametrize("now", INSTANTS, ids=str)
def test_the_demonstrations_story_is_found_and_nothing_else(database, database_url, now):
    """Each finding names its agent and begins on its day; what still goes on is open."""
    load_demo(database, now)
    run_rollup(database, window_ids=10_000_000, wait_seconds=5)
    ended = sa.update(rollup_state).values(last_finished=now)
    database.write(lambda connection: connection.execute(ended))
    settings = make_settings(database_url)
    while judge_findings(database, settings).organizations:
        pass
    first = now.date() - timedelta(days=demo_story.DAYS - 1)
    told = demo_story.telling(first, now.date())
    assert told.now == now.date()
    expected = [
        ("new_agent", demo_story.first_seen(first), demo_story.NEW, True),
        ("retry_loop", told.loop_from, demo_story.LOOPING, True),
        ("silence", told.quiet_from, demo_story.QUIET, True),
        ("silence", told.silent, "No token", False),
        ("spike", told.spike, demo_story.SPIKING, False),
        ("unusual_hour", told.leaked_from, demo_story.LEAKED, True),
    ]
    found = _found(database, demo_story.ORGANIZATION)
    assert sorted(one[:2] for one in found) == [one[:2] for one in expected]
    for kind, day, name, is_open in expected:
        (one,) = [one for one in found if one[:2] == (kind, day)]
        assert name in one[2]
        assert one[3] is is_open
    others = {one.tenant_id: _found(database, one.tenant_id) for one in demo_story.OTHERS}
    ((kind, _, summary, is_open),) = others.pop(demo_story.DOMINATED)
    assert (kind, is_open) == ("concentration", True)
    assert demo_story.DOMINANT in summary
    assert not any(others.values())


def _found(database, tenant_id):
    """The kind, the first day and the sentence of each finding, and whether it is open."""
    wanted = FindingsFilter(status="all")
    with database.reading() as connection:
        page = findings_page(connection, tenant_id, wanted, lambda _tenant: Options(), limit=100)
    return [
        (one.kind.value, one.begins_at.date(), one.summary, one.status == "open")
        for one in page.findings
    ]
