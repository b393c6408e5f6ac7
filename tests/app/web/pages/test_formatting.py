"""Numbers and instants as pages say them."""

from datetime import UTC, date, datetime

import pytest

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


def test_an_instant_names_its_day_unless_that_is_today():
    at = datetime(2026, 4, 15, 12, 3, 15, 999, UTC)
    assert formatting.clock_time(at, TODAY) == "12:03:15 UTC"
    assert formatting.clock_time(at, date(2026, 4, 16)) == "Wed 15 Apr, 12:03:15 UTC"


@pytest.mark.parametrize(
    ("hours", "text"),
    [
        ((12,), "12-13"),
        ((23,), "23-24"),
        ((23, 2), "23-1"),
        ((5, 2), "5-7"),
        ((9, 1, 30), "9:30-10:30"),
        ((23, 1, 45), "23:45-0:45"),
    ],
)
def test_hours_have_their_end(hours, text):
    assert formatting.hours(*hours) == text.replace("-", "\N{EN DASH}")


def test_a_small_average_has_a_decimal():
    found = [formatting.average(value) for value in (0, 0.25, 3, 9.96, 478.4, 1e12)]
    assert found == ["0", "0.2", "3", "10", "478", "1,000,000,000,000"]
