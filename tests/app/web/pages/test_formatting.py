"""Numbers and instants as pages say them."""

from datetime import UTC, date, datetime

import pytest

from app.reports.activity import Cell
from app.reports.trend import Day
from app.web.pages import formatting

TODAY = date(2026, 4, 15)


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ").replace("\N{MINUS SIGN}", "-")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.0 %"),
        (0.0004, "under 0.1 %"),
        (0.001, "0.1 %"),
        (0.5, "50.0 %"),
        (0.9999, "over 99.9 %"),
        (1, "100.0 %"),
    ],
)
def test_no_share_is_rounded_to_nothing_or_to_all(value, text):
    assert plain(formatting.share(value)) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.1234, "+12.3 %"), (-1, "-100.0 %"), (0, "+0.0 %"), (12.5, "+1,250.0 %")]
)
def test_a_change_has_its_sign(value, text):
    assert plain(formatting.change(value)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (4, "4 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (7200, "2 h"),
        (86_400, "1 d"),
    ],
)
def test_an_age_is_told_in_the_largest_unit_that_fits(seconds, text):
    assert formatting.age(seconds) == text


@pytest.mark.parametrize(
    ("minutes", "text"),
    [
        (0, "the same as"),
        (60, "1 hour ahead of"),
        (-180, "3 hours behind"),
        (330, "5:30 hours ahead of"),
        (-210, "3:30 hours behind"),
    ],
)
def test_a_zone_is_told_by_its_hours(minutes, text):
    assert formatting.utc_offset(minutes) == text


def test_an_instant_names_its_day_unless_that_is_today():
    at = datetime(2026, 4, 15, 12, 3, 15, 999, UTC)
    assert formatting.clock_time(at, TODAY) == "12:03:15 UTC"
    assert formatting.clock_time(at, date(2026, 4, 16)) == "Wed 15 Apr, 12:03:15 UTC"


def test_an_hour_of_the_week_is_told_with_its_end():
    assert formatting.hour_range(Cell(2, 12, 1, 1)) == "Tuesday 12\N{EN DASH}13"
    assert formatting.hour_range(Cell(0, 23, 1, 1)) == "Sunday 23\N{EN DASH}24"


@pytest.mark.parametrize(
    ("day", "text", "classes"),
    [
        (Day(TODAY, 1234, "whole"), "Wed 15 Apr: 1,234", ""),
        (Day(TODAY, 0, "partial"), "Wed 15 Apr: 0, so far", ' class="partial"'),
        (
            Day(TODAY, 0, "pending"),
            "Wed 15 Apr: \N{EN DASH}, not counted yet",
            ' class="pending"',
        ),
        (Day(date(2026, 4, 18), 0, "whole"), "Sat 18 Apr: 0", ' class="weekend"'),
    ],
)
def test_a_day_is_told_in_words_and_not_by_colour_alone(day, text, classes):
    assert formatting.day_summary(day) == text
    assert formatting.bar_class(day) == classes
