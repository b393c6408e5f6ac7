"""Bars of days: their texts, their labels, and weeks for long ranges."""

from datetime import date, timedelta

import pytest

from app.reports.trend import DayCount
from app.web.pages.day_bars import MOST_BARS, DayBars, Mark

LAST = date(2026, 4, 15)  # a Wednesday


def made(count, *, whole=None, counted=None, marks=None, before=True):
    days = [LAST - timedelta(days=ago) for ago in range(count - 1, -1, -1)]
    points = [DayCount(day, day.day) for day in days]
    earlier = [DayCount(day - timedelta(days=364), 2) for day in days]
    return DayBars(
        points,
        earlier if before else None,
        count if whole is None else whole,
        count if counted is None else counted,
        LAST,
        {LAST: 14},
        marks or {},
        lambda first, last: f"{first}/{last}",
    )


def test_a_bar_says_its_day_its_usual_and_the_day_before():
    bar = made(28, whole=27).bars()[-1]
    assert bar.lines == ("Wed 15 Apr", "15 tokens, so far", "usual 14", "Wed 16 Apr: 2")
    assert (bar.kind, bar.tick, bar.before) == ("part", "today", 2)
    assert bar.href == "2026-04-15/2026-04-15"


def test_a_day_that_is_not_counted_says_so():
    """Its zero means nothing."""
    assert "not counted yet" in made(7, whole=5, counted=6).bars()[-1].lines


def test_unusual_days_are_marked():
    marks = {LAST: Mark("spike", "3.6\N{MULTIPLICATION SIGN}")}
    bar = made(28, marks=marks).bars()[-1]
    assert (bar.kind, bar.mark) == ("spike", "3.6\N{MULTIPLICATION SIGN}")


@pytest.mark.parametrize(("count", "ticks"), [(7, 7), (28, 5), (91, 7)])
def test_labels_are_few_and_on_mondays(count, ticks):
    bars = made(count).bars()
    labelled = [bar for bar in bars if bar.tick]
    assert len(labelled) <= ticks
    if count > 10:
        assert all(bar.lines[0].startswith("Mon") for bar in labelled[:-1])


@pytest.mark.parametrize("count", [MOST_BARS + 1, 364, 366])
def test_long_ranges_are_shown_by_week(count):
    """The weeks hold every day once, and end with the last day."""
    days = made(count, marks={LAST: Mark("spike", "")})
    bars = days.bars()
    assert len(bars) == -(-count // 7)
    assert sum(bar.count for bar in bars) == sum(point.count for point in days.days)
    assert bars[-1].href == f"{LAST - timedelta(days=6)}/{LAST}"
    assert "a spike on Wed 15 Apr" in bars[-1].lines
    assert all(bar.before == 14 for bar in bars[1:])
