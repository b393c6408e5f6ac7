"""The rows of the summary tables, as the rules of detection read them."""

import pytest

from app.detection import HISTORY_DAYS, OTHERS, merge_smallest
from jobs.findings import counts
from tests.jobs.findings.conftest import DAY, FIRST, at
from tests.support.settings import TENANT


@pytest.fixture
def last(life, weeks):
    """Three weeks of two agents and some small ones; returns the last day."""
    last = weeks(3) - DAY
    for number in range(3, 6):
        life.issue(at(last - number * DAY, number), number, agent=f"agent-{number}")
        life.issue(at(last, 20), 2, agent=f"agent-{number}")
    life.issue(at(last, 21), 1, agent="new")
    life.run(at(last + DAY))
    return last


def test_a_large_organization_is_read_as_any_other(life, last, monkeypatch):
    """The largest agents and the sum of the others are the same, day by day or all at once."""
    monkeypatch.setattr(counts, "LARGEST_AGENTS", 2)
    small = counts.history(life.database, TENANT, last, last, FIRST).until(last)
    monkeypatch.setattr(counts, "MOST_AGENTS", 3)
    large = counts.history(life.database, TENANT, last, last, FIRST)
    assert isinstance(large, counts.LargeHistory)
    merged = merge_smallest(small, 2)
    assert large.until(last) == merged
    assert merged.new_others == 1
    assert merged.agents.keys() == {"agent-1", "agent-2", OTHERS}


def test_only_the_largest_agents_of_a_day_are_read(life, last, monkeypatch):
    """They are the same, whether the database or this process chooses them."""
    monkeypatch.setattr(counts, "LARGEST_AGENTS", 4)
    with life.database.reading() as connection:
        some = counts.open_days(connection, [TENANT], last - DAY, last)
        monkeypatch.setattr(counts, "FEW_ROWS", 1)
        assert counts.open_days(connection, [TENANT], last - DAY, last) == some
    day = some[TENANT][last]
    assert day.agents.keys() == {"agent-1", "agent-2", "agent-3", "agent-4"}
    assert day.hours[20:22] == [6, 1]


def test_days_before_the_series_are_known(life):
    """An agent that was active long ago is not new, and is dormant by its earlier days, too."""
    judged = FIRST + 148 * DAY
    start = judged - HISTORY_DAYS * DAY
    for number in range(40):
        life.issue(at(FIRST + number * DAY, 9), agent="old")
    life.issue(at(judged - 40 * DAY), agent="old")
    life.issue(at(FIRST), agent="back")
    for agent in ("back", "new"):
        life.issue(at(judged - 10 * DAY), agent=agent)
    life.run(at(judged + DAY))
    agents = counts.history(life.database, TENANT, judged, judged, FIRST).until(judged).agents
    assert agents["old"].earlier_days == (start - FIRST).days
    assert agents["back"].first == FIRST.replace(day=1)
    assert agents["new"].first == judged - 10 * DAY
