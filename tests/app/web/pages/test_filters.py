"""Filters of the dashboard: what a query means, and the query that means it."""

from datetime import date
from itertools import pairwise

import pytest
from werkzeug.datastructures import MultiDict

from app.errors import ValidationError
from app.web.pages.filters import COMPARISONS, RANGES, parse_filters
from tests.support.settings import NOW


@pytest.fixture
def parse(app):
    def parse(cookie="", **query):
        headers = {"Cookie": f"analytics_zone={cookie}"} if cookie else {}
        with app.test_request_context(headers=headers):
            return parse_filters(MultiDict(query), NOW)

    return parse


def test_each_range_is_of_whole_weeks_up_to_today(parse):
    for name, days in RANGES.items():
        filters = parse(range=name)
        assert (len(filters.days), filters.days.last) == (days, NOW.date())
        assert days % 7 == 0
    assert parse() == parse(range="28d")


@pytest.mark.parametrize("comparison", COMPARISONS[:2])
@pytest.mark.parametrize("query", [{}, {"from": "2026-03-02", "to": "2026-03-04"}])
def test_compared_days_are_the_same_weekdays(parse, comparison, query):
    filters = parse(vs=comparison, **query)
    assert len(filters.compared) == len(filters.days)
    for day, before in zip(filters.days, filters.compared, strict=True):
        assert day.isoweekday() == before.isoweekday()
        assert before < filters.days.first


def test_nothing_is_compared_on_request(parse):
    assert parse(vs="none").compared is None


def test_dates_count_before_the_range_of_the_form(parse):
    filters = parse(range="7d", **{"from": "2026-03-02", "to": "2026-03-04"})
    assert (filters.range, list(filters.days)) == (
        "dates",
        [date(2026, 3, 2), date(2026, 3, 3), date(2026, 3, 4)],
    )


@pytest.mark.parametrize(
    "query",
    [
        {"range": "8d"},
        {"from": "2026-03-02"},
        {"from": "2026-03-02", "to": "2026-03-01"},
        {"from": "2025-03-01", "to": "2026-03-02"},
        {"from": "yesterday", "to": "2026-03-01"},
        {"zone": "Europe/Nowhere"},
        {"vs": "month"},
        {"organizationId": "a\nb"},
    ],
)
def test_invalid_filters_are_refused(parse, query):
    with pytest.raises(ValidationError):
        parse(**query)


def test_empty_fields_are_absent(parse):
    assert parse(**{"range": "", "from": "", "to": "", "vs": "", "zone": ""}) == parse()


def test_the_query_of_filters_means_the_same(parse):
    """A link built from filters gives the same filters, and has no default in it."""
    for query in (
        {},
        {"range": "13w", "vs": "year", "zone": "Asia/Kolkata"},
        {"from": "2026-03-02", "to": "2026-03-04", "organizationId": "org-b", "vs": "none"},
    ):
        filters = parse(**query)
        assert filters.query() == query
        assert parse(**filters.query()) == filters
    assert parse(range="13w").query(range="28d") == {}


def test_the_zone_of_the_query_counts_before_the_cookie(parse):
    assert parse(cookie="Europe/Berlin").zone == "Europe/Berlin"
    assert parse(cookie="Europe/Berlin", zone="UTC").zone == "UTC"
    assert parse(cookie="Nowhere").zone is None


def test_today_is_the_zones(parse):
    """At noon UTC the next day has begun in Auckland, east of the line of the date."""
    assert parse(zone="Pacific/Kiritimati").today > parse(zone="America/Los_Angeles").today


def test_half_hours_are_said(parse):
    assert parse(zone="Asia/Kolkata").half_hours
    assert not parse(zone="Europe/Berlin").half_hours
    begins = parse(zone="Asia/Kolkata").days.begins
    assert {end - begin for begin, end in pairwise(begins)} == {24}
