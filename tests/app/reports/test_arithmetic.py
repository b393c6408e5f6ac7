"""The dashboard's arithmetic: comparisons, states of days, peaks."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from app.reports import activity
from app.reports import trend as insights
from app.reports.activity import HourCount
from app.reports.base import freshness
from app.reports.trend import DayCount, History

TODAY = date(2026, 4, 15)  # a Wednesday
NOON = datetime(2026, 4, 15, 12, tzinfo=UTC)


def counts(*values: int) -> list[DayCount]:
    """Days up to today, oldest first."""
    first = TODAY - timedelta(days=len(values) - 1)
    return [DayCount(first + timedelta(days=index), value) for index, value in enumerate(values)]


def trend(
    *values: int,
    days: int = 7,
    counted_at: datetime | None = NOON,
    began: date | None = date(2020, 1, 1),
) -> insights.Trend:
    missing = max(2 * days - len(values), 0)
    history = History(counts(*[0] * missing, *values), counted_at, began)
    return insights.trend(history, days)


def steady(*last: int, usual: int = 100) -> list[int]:
    """Six weeks of the same, then ``last``."""
    return [usual] * (42 - len(last)) + list(last)


@pytest.mark.parametrize(
    ("before", "now", "change"),
    [(100, 150, 0.5), (100, 50, -0.5), (100, 0, -1.0), (0, 5, None), (0, 0, None)],
)
def test_a_period_is_compared_with_the_one_before(before, now, change):
    found = trend(*[before] + [0] * 6, *[now] + [0] * 6)
    assert (found.total, found.before, found.change) == (now, before, change)


def test_only_whole_counted_days_are_compared():
    """Days that are not over or not counted are left out, on both sides."""
    values = [10] * 6 + [1000] + [15] * 6 + [1]  # today and its counterpart differ most
    found = trend(*values)
    assert (found.whole, found.whole_total, found.before, found.change) == (6, 90, 60, 0.5)
    assert found.total == 91
    late = trend(*values, counted_at=NOON - timedelta(days=2))
    assert (late.whole, late.whole_total, late.before) == (4, 60, 40)
    for none in (trend(*values, days=1), trend(*values, counted_at=None)):
        assert (none.whole, none.change) == (0, None)


def test_a_period_before_the_first_day_is_not_compared():
    """The period before must begin after the first day with a token, which is not whole."""
    values = [10] * 7 + [20] * 7
    first = TODAY - timedelta(days=13)
    assert trend(*values, began=first - timedelta(days=1)).change == 1.0
    for began in (first, first + timedelta(days=1), TODAY, None):
        assert trend(*values, began=began).change is None


def test_the_trend_shows_the_requested_days_up_to_today():
    """The trend shows as many days as requested, and the last is today."""
    for days in (7, 30, 90):
        shown = trend(*range(1, 200), days=days).days
        assert len(shown) == days
        assert shown[-1].date == TODAY
        assert [day.count for day in shown] == list(range(200 - days, 200))


def test_today_is_partial_before_it_is_over():
    assert trend(*steady(0)).days[-1].state == "partial"


def test_what_is_not_counted_yet_is_no_zero():
    yesterday = NOON - timedelta(days=1)
    states = [day.state for day in trend(*steady(0, 0), counted_at=yesterday).days]
    assert states[-3:] == ["whole", "partial", "pending"]
    assert {day.state for day in trend(*steady(), counted_at=None).days} == {"pending"}


def cell(dow: int, hour: int, count: int) -> HourCount:
    return HourCount(dow, hour, count)


def test_the_week_begins_on_monday_and_has_every_hour():
    rows = activity.week([cell(0, 23, 1), cell(1, 0, 2)]).rows
    assert [row[0].dow for row in rows] == [1, 2, 3, 4, 5, 6, 0]
    assert {len(row) for row in rows} == {24}
    assert (rows[0][0].count, rows[6][23].count) == (2, 1)


def test_heat_is_nothing_for_none_and_the_most_for_the_highest():
    rows = activity.week([cell(1, 0, 900), cell(1, 1, 1), cell(1, 2, 500)]).rows
    assert [one.heat for one in rows[0][:4]] == [9, 1, 5, 0]
    assert {one.heat for row in activity.week([]).rows for one in row} == {0}


@pytest.mark.parametrize(
    ("offset", "dow", "hour"), [(0, 6, 23), (1, 0, 0), (-24, 5, 23), (14, 0, 13), (-12, 6, 11)]
)
def test_whole_hours_move_cells_around_the_week_and_lose_none(offset, dow, hour):
    week = activity.week([cell(6, 23, 7), cell(3, 12, 2)], offset)
    assert (week.peaks[0].dow, week.peaks[0].hour, week.peaks[0].count) == (dow, hour, 7)
    assert week.total == 9


def test_peaks_are_the_five_busiest_hours():
    """Peaks are the five busiest hours, and equal hours come in the order of the week."""
    points = [cell(dow, 9, 10 + (dow == 3)) for dow in range(7)]
    peaks = activity.week(points).peaks
    assert [(one.dow, one.count) for one in peaks] == [(3, 11), (0, 10), (1, 10), (2, 10), (4, 10)]
    assert activity.week([]).peaks == []


def test_the_weekends_share_is_of_all():
    assert activity.week([cell(6, 1, 1), cell(0, 1, 1), cell(1, 1, 6)]).weekend_share == 0.25
    assert activity.week([]).weekend_share == 0


@pytest.mark.parametrize(
    ("zone", "at", "minutes"),
    [
        ("Europe/Berlin", datetime(2026, 1, 1, tzinfo=UTC), 60),
        ("Europe/Berlin", datetime(2026, 7, 1, tzinfo=UTC), 120),
        ("America/St_Johns", datetime(2026, 1, 1, tzinfo=UTC), -210),
        ("Asia/Kathmandu", NOON, 345),
        ("UTC", NOON, 0),
    ],
)
def test_a_zone_is_as_far_ahead_as_it_is_then(zone, at, minutes):
    assert activity.zone_minutes(ZoneInfo(zone), at) == minutes


@pytest.mark.parametrize(("minutes", "hours"), [(120, 2), (-180, -3), (0, 0), (330, 0), (-210, 0)])
def test_only_whole_hours_move_the_week(minutes, hours):
    assert activity.whole_hours(minutes) == hours


@pytest.mark.parametrize(
    ("age", "seconds", "stale"), [(-5, 0, False), (45, 45, False), (46, 46, True)]
)
def test_numbers_are_stale_after_three_intervals(age, seconds, stale):
    counted_at = NOON - timedelta(seconds=age)
    assert freshness(counted_at, NOON, 15) == (counted_at, seconds, stale, 15)
    assert freshness(None, NOON, 15) == (None, 0, False, 15)
