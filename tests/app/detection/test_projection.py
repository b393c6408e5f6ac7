"""Projection: what the rest of a month brings, and on which day a budget is reached."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.detection.projection import (
    USUAL_DAYS,
    course,
    expected_days,
    like_days,
    part_of_day,
    project,
    rest_of_today,
)
from tests.insight.projecting import medians
from tests.insight.scoring import quantiles

TODAY = date(2026, 4, 15)  # a Wednesday
DAY = timedelta(days=1)
COUNTS = st.lists(st.integers(0, 10**12), max_size=60)
DAYS = st.lists(st.floats(0, 1e12), min_size=1, max_size=31)


def weeks(weekday, weekend, number=6):
    """Days with tokens by weekday, up to the day before TODAY."""
    days = (TODAY - ago * DAY for ago in range(7 * number, 0, -1))
    return [weekend if day.weekday() >= 5 else weekday for day in days]


@given(budget=st.integers(1, 10**15), days=DAYS)
def test_a_budget_is_crossed_exactly_if_the_projection_reaches_it(budget, days):
    found = project(budget, TODAY, days)
    assert found.projected == round(sum(days, 0.0)) or found.projected >= 0
    assert (found.crosses_on is not None) == (found.projected >= budget)
    if found.crosses_on is not None:
        through = (found.crosses_on - TODAY).days
        assert project(budget, TODAY, days[: through + 1]).projected >= budget
        assert through == 0 or project(budget, TODAY, days[:through]).projected < budget


@given(budget=st.integers(1, 10**12), more=st.integers(1, 10**12), days=DAYS)
def test_a_larger_budget_is_crossed_later_or_never(budget, more, days):
    first, second = (project(one, TODAY, days) for one in (budget, budget + more))
    assert first.projected == second.projected
    assert (second.crosses_on or date.max) >= (first.crosses_on or date.max)


@given(history=COUNTS, number=st.integers(0, 31))
def test_more_tokens_in_the_past_are_never_fewer_in_the_future(history, number):
    """Twice the tokens on each day are twice as many later."""
    once = expected_days(history, TODAY, number)
    assert len(once) == number
    assert all(tokens >= 0 for tokens in once)
    twice = expected_days([2 * tokens for tokens in history], TODAY, number)
    assert twice == pytest.approx([2 * tokens for tokens in once])


@given(history=COUNTS, so_far=st.integers(0, 10**12), part=st.floats(0, 1))
def test_a_month_has_at_least_what_is_used(history, so_far, part):
    counts = {TODAY - (len(history) - place) * DAY: n for place, n in enumerate(history)}
    found = course(counts | {TODAY: so_far}, TODAY, part)
    assert len(found.month) == 30
    assert sum(found.month) >= found.used >= so_far


@given(expected=st.floats(0, 1e9), so_far=st.integers(0, 10**9), part=st.floats(0, 1))
def test_the_rest_of_today_follows_its_pace_within_limits(expected, so_far, part):
    rest = rest_of_today(expected, so_far, part)
    usual = expected * (1 - part)
    billionth = 1e-9  # of a token: numbers near the smallest a float holds are rounded
    assert 0.49 * usual - billionth <= rest <= 2.01 * usual + billionth
    assert rest_of_today(expected, so_far + 1, part) >= rest
    assert rest_of_today(expected, so_far, 1.0) == 0


def test_weekends_are_weekends():
    expected = expected_days(weeks(100, 10), TODAY, 16)
    assert expected == pytest.approx([100, 100, 100, 10, 10, 100, 100] * 2 + [100, 100])


def test_a_day_off_is_a_sunday():
    expected = expected_days(weeks(100, 10), TODAY, 3, {TODAY + DAY})
    assert expected == pytest.approx([100, 10, 100])
    history = weeks(100, 10)
    history[-2] = 10  # Monday, 13 April
    assert expected_days(history, TODAY, 1, {TODAY - 2 * DAY}) == pytest.approx([100])


def test_a_new_level_is_followed_and_one_wild_day_is_not():
    shifted = [*weeks(100, 100, 4), *([200] * 14)]
    assert expected_days(shifted, TODAY, 1)[0] == pytest.approx(200, rel=0.15)
    wild = weeks(100, 100)
    wild[-3] = 100_000
    assert expected_days(wild, TODAY, 1)[0] == pytest.approx(100, rel=0.2)


def test_without_a_past_nothing_is_expected():
    assert expected_days([], TODAY, 3) == [0, 0, 0]
    assert course({}, TODAY, 0.5).used == 0
    assert expected_days([7], TODAY, 2) == [7, 7]


def test_only_the_last_weeks_count():
    assert expected_days([10**9] * 5 + [3] * USUAL_DAYS, TODAY, 1) == pytest.approx([3])


@pytest.mark.parametrize(
    ("profiles", "hours", "part"),
    [
        ([], 6.0, 0.25),
        ([[0] * 24], 12.0, 0.5),
        ([[1] * 24], 6.5, 6.5 / 24),
        ([[0] * 8 + [10] * 8 + [0] * 8], 12.0, 0.5),
        ([[0] * 8 + [10] * 8 + [0] * 8], 25.0, 1.0),
        ([[24] + [0] * 23, [24] + [0] * 23, [0] * 23 + [24]], 3.0, 1.0),
        ([[1] * 24], -1.0, 0.0),
    ],
)
def test_the_part_of_a_day_is_that_of_days_like_it(profiles, hours, part):
    assert part_of_day(profiles, hours) == pytest.approx(part)


def test_days_like_today_have_its_weekday():
    assert like_days(TODAY) == [TODAY - weeks * 7 * DAY for weeks in (1, 2, 3, 4)]
    sunday = TODAY - 3 * DAY
    assert like_days(TODAY, {TODAY}, 2) == [sunday, sunday - 7 * DAY]
    assert like_days(TODAY, {TODAY - 7 * DAY}, 1) == [TODAY - 14 * DAY]


def test_the_month_is_projected_well():
    """At mid-month, of generated organizations; docs/budgets.md has the figures of more."""
    organizations, agents = medians([404], 25)
    assert len(organizations) > 25
    assert quantiles(organizations)[0] < 0.08
    assert quantiles(agents)[0] < 0.12
