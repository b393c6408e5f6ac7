"""The dashboard's arithmetic: the week, and how old numbers are."""

from datetime import UTC, datetime, timedelta

import pytest

from app.reports import activity
from app.reports.base import freshness

NOON = datetime(2026, 4, 15, 12, tzinfo=UTC)


def week(counts, times=None):
    """The heatmap of tokens by day of the week and hour."""
    numbers = {24 * dow + hour: count for (dow, hour), count in counts.items()}
    return activity.week(numbers, times or [1] * 168)


def test_the_week_begins_on_monday_and_has_every_hour():
    found = week({(0, 23): 1, (1, 0): 2})
    assert [row[0].dow for row in found.rows] == [1, 2, 3, 4, 5, 6, 0]
    assert {len(row) for row in found.rows} == {24}
    assert (found.rows[0][0].count, found.rows[6][23].count) == (2, 1)
    assert found.totals == [2, 0, 0, 0, 0, 0, 1]
    assert (found.hour_totals[0], found.hour_totals[23]) == (2, 1)


@pytest.mark.parametrize(
    ("highest", "size"),
    [(0, 1), (1, 1), (6, 1), (7, 2), (1914, 350), (2100, 350), (2101, 400), (10**12, 2 * 10**11)],
)
def test_shades_have_round_steps(highest, size):
    found = week({(1, 0): highest, (1, 1): size, (1, 2): size + 1} if highest else {})
    assert found.size == size
    steps = [cell.step for cell in found.rows[0][:4]]
    assert steps == ([-(-highest // size), 1, 2, 0] if highest else [0] * 4)
    assert max(steps) <= activity.STEPS


def test_facts_compare_averages():
    """An hour that came twice as often is not busier, and one that is not counted is not quiet."""
    times = [2] * 24 + [1] * 144
    times[24 + 5] = 0
    counts = {(dow, hour): 10 for dow in range(7) for hour in range(24)}
    counts |= {(0, hour): 20 for hour in range(24)} | {(1, 5): 0, (0, 3): 24, (3, 9): 13}
    counts |= {(4, 14): 2, (6, 20): 1, (6, 21): 1}
    facts = week(counts, times).facts
    assert (facts.busiest.dow, facts.busiest.hour, facts.busiest.average) == (3, 9, 13)
    assert (facts.quietest.dow, facts.quietest.hour, facts.quietest.average) == (4, 14, 2)
    assert (facts.maintenance.dow, facts.maintenance.hour) == (6, 20)
    assert facts.maintenance_average == 2


def test_facts_are_of_all_tokens():
    found = week({(6, 1): 1, (0, 1): 1, (1, 8): 3, (5, 17): 1, (1, 18): 1, (2, 7): 1})
    assert (found.facts.weekend_share, found.facts.office_share) == (0.25, 0.5)
    assert week({}).facts is None
    assert week({(1, 1): 5}, [0] * 168).facts is None


def test_the_quietest_hours_are_in_the_middle_of_a_quiet_time():
    """Also where that is at the end of the week, which continues on Monday."""
    counts = {(dow, hour): 9 for dow in range(7) for hour in range(24)}
    quiet = {(0, hour): 0 for hour in (22, 23)} | {(1, hour): 0 for hour in (0, 1)}
    facts = week(counts | quiet | {(3, 4): 0, (3, 5): 0}).facts
    assert (facts.maintenance.dow, facts.maintenance.hour) == (0, 23)


def test_a_weekday_that_comes_more_often_is_noticed():
    assert week({}).is_even
    assert not week({}, [2] * 24 + [1] * 144).is_even
    assert week({}, [*[2] * 140, *[1] * 28]).is_even is False


@pytest.mark.parametrize(
    ("age", "seconds", "stale"), [(-5, 0, False), (45, 45, False), (46, 46, True)]
)
def test_numbers_are_stale_after_three_intervals(age, seconds, stale):
    counted_at = NOON - timedelta(seconds=age)
    assert freshness(counted_at, NOON, 15) == (counted_at, seconds, stale, 15)
    assert freshness(None, NOON, 15) == (None, 0, False, 15)
