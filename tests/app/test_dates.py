"""Calendar arithmetic at its edges."""

from datetime import date

import pytest

from app.dates import months_back, months_without


def month(text):
    return date.fromisoformat(f"{text}-01")


@pytest.mark.parametrize(
    ("start", "back", "expected"),
    [
        ("2026-01", 1, "2025-12"),
        ("2026-12", 24, "2024-12"),
        ("2025-12", -1, "2026-01"),
        ("9999-12", -1, "9999-12"),
        ("0001-01", 1, "0001-01"),
    ],
)
def test_months_back_crosses_years_and_stops_with_the_calendar(start, back, expected):
    assert months_back(month(start), back) == month(expected)


@pytest.mark.parametrize(
    ("left_out", "expected"),
    [
        ([], [("2026-01", "2026-06")]),
        (["2026-01"], [("2026-02", "2026-06")]),
        (["2026-03"], [("2026-01", "2026-02"), ("2026-04", "2026-06")]),
        (["2026-03", "2026-04"], [("2026-01", "2026-02"), ("2026-05", "2026-06")]),
        (["2026-06"], [("2026-01", "2026-05")]),
        (["2025-12", "2026-07"], [("2026-01", "2026-06")]),
    ],
    ids=str,
)
def test_months_left_out_split_the_rest_into_ranges(left_out, expected):
    found = months_without(month("2026-01"), month("2026-06"), {month(text) for text in left_out})
    assert found == [(month(first), month(last)) for first, last in expected]


def test_the_last_month_of_all_can_be_left_out():
    last = month("9999-12")
    assert months_without(month("9999-11"), last, {last}) == [(month("9999-11"),) * 2]
    assert months_without(last, last, {last}) == []
