"""What the rules of detection read of the summary tables."""

from collections.abc import Iterable
from dataclasses import replace
from random import Random

import pytest

from app.detection import (
    HISTORY_DAYS,
    OTHERS,
    Kind,
    Options,
    Series,
    judge_day,
    merge_smallest,
    usual,
)
from app.detection.calendar import earlier_days, earlier_hours
from jobs.findings import counts, history
from tests.insight import watching
from tests.insight.organizations import organizations
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
    monkeypatch.setattr(history, "LARGEST_AGENTS", 2)
    small = history.history(life.database, TENANT, last, last, FIRST).until(last)
    monkeypatch.setattr(history, "MOST_AGENTS", 3)
    large = history.history(life.database, TENANT, last, last, FIRST)
    assert isinstance(large, history.LargeHistory)
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
    agents = history.history(life.database, TENANT, judged, judged, FIRST).until(judged).agents
    assert agents["old"].earlier_days == (start - FIRST).days
    assert agents["back"].first == FIRST.replace(day=1)
    assert agents["new"].first == judged - 10 * DAY


def habits(days: int) -> dict[str, list[int]]:
    """Agents with different gaps before the end of some days: each one's tokens of each hour."""
    dice = Random(7)
    active: dict[str, Iterable[int]] = {
        "daily": range(days),
        "weekly": range(3, days, 7),
        "monthly": [day for day in range(days) if (FIRST + day * DAY).day in {1, 15, 30}],
        "rare": [day for day in range(days) if dice.random() < 0.04],
        "new": range(days - 9, days),
        "today": [days - 1],
        "returned": [*range(20), *range(days - 3, days)],
        "once": [days - 60],
    }
    for gap in (30, 31, 45, 57, 80, 100, 112, 113, 120):
        active[f"left {gap} days ago"] = range(days - gap - 40, days - gap)
        active[f"left {gap} days ago, seldom"] = range((days - gap) % 5, days - gap, 5)
    return {
        agent: [
            # An hour of the day that it never uses stays empty.
            dice.randint(1, 4) if hour % 24 in {9, 15} and hour // 24 in {*on} else 0
            for hour in range(24 * days)
        ]
        for agent, on in active.items()
    }


@pytest.mark.parametrize("judged_days", [1, 2, 25])
def test_days_that_are_not_read_decide_nothing(life, judged_days):
    """What is usual, and what is unusual, is the same as from all counts of all days."""
    days = 190
    agents = habits(days)
    for agent, hours in agents.items():
        for hour, times in enumerate(hours):
            if times:
                life.issue(at(FIRST + hour // 24 * DAY, hour % 24), times, agent=agent)
    life.run(at(FIRST + days * DAY))
    whole = watching.History(FIRST, agents)
    last = FIRST + (days - 1) * DAY
    first = last - (judged_days - 1) * DAY
    read = history.history(life.database, TENANT, first, last, FIRST)
    dormant = set()
    for day in range(days - judged_days, days):
        known, found = whole.series(day), read.until(FIRST + day * DAY)
        assert found.agents.keys() == known.agents.keys()
        bounds = usual(known, Options())
        assert usual(found, Options()) == bounds
        judgement = judge_day(known, bounds, Options())
        assert judge_day(found, bounds, Options()) == judgement
        dormant |= {one.agent for one in judgement.candidates if one.kind is Kind.DORMANT_AGENT}
    assert "left 100 days ago" in dormant
    if judged_days < 3:
        assert read.until(last).agents["daily"].issued.count(0) > 30


def test_hours_that_are_not_read_decide_nothing():
    """The same of generated organizations, on days with different earlier months."""
    for organization in organizations(3, 4):
        whole = watching.History(organization.first, organization.agents)
        for day in (*range(150, 164), 200):
            known = whole.series(day)
            thin = thinned(known)
            bounds = usual(known, Options())
            assert usual(thin, Options()) == bounds
            assert judge_day(thin, bounds, Options()) == judge_day(known, bounds, Options())


def thinned(series: Series) -> Series:
    """A series without the counts that decide nothing."""
    early = range(len(series.days) - 57)
    days, hours = (
        {(day - series.start).days for day in deciding(series.last)}
        for deciding in (earlier_days, earlier_hours)
    )
    agents = {}
    for agent, one in series.agents.items():
        agents[agent] = replace(one, issued=[*one.issued], hours=[*one.hours])
        for day in early if any(one.issued[-30:]) else ():
            if day not in days:
                agents[agent].issued[day] = agents[agent].hours[day] = 0
    thin = replace(series, days=[*series.days], hours=[*series.hours], agents=agents)
    for day in early:
        if day not in hours:
            thin.days[day] = 0
            thin.hours[24 * day : 24 * day + 24] = [0] * 24
    return thin
