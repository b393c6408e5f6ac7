"""Days of a zone as ranges of UTC hours: clock changes, half hours, skipped days, the last day."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from app.reports.days import Days, hour_of, instant_of, offsets

HOUR = timedelta(hours=1)


def days(zone, first, last):
    return Days(date.fromisoformat(first), date.fromisoformat(last), zone and ZoneInfo(zone))


def lengths(found):
    return [end - begin for begin, end in pairwise(found.begins)]


@pytest.mark.parametrize(
    ("zone", "first", "last", "hours"),
    [
        (None, "2026-03-28", "2026-03-30", [24, 24, 24]),
        ("Europe/Berlin", "2026-03-28", "2026-03-30", [24, 23, 24]),
        ("Europe/Berlin", "2026-10-24", "2026-10-26", [24, 25, 24]),
        ("America/New_York", "2026-03-07", "2026-03-09", [24, 23, 24]),
        # Their clocks are changed at midnight.
        ("America/Sao_Paulo", "2018-11-03", "2018-11-05", [24, 23, 24]),
        ("America/Sao_Paulo", "2018-02-16", "2018-02-18", [24, 25, 24]),
        ("America/Havana", "2022-11-05", "2022-11-07", [24, 25, 24]),
        ("Asia/Beirut", "2022-03-26", "2022-03-28", [24, 23, 24]),
        # By half an hour, between +10:30 and +11.
        ("Australia/Lord_Howe", "2026-04-03", "2026-04-06", [24, 24, 25, 24]),
        # It skipped 30 December.
        ("Pacific/Apia", "2011-12-28", "2011-12-31", [24, 24, 0, 24]),
        # The instants after the calendar's end have no hours.
        ("America/Los_Angeles", "9999-12-30", "9999-12-31", [24, 16]),
        (None, "9999-12-30", "9999-12-31", [24, 24]),
    ],
)
def test_a_day_has_the_hours_of_its_clock(zone, first, last, hours):
    assert lengths(days(zone, first, last)) == hours


@pytest.mark.parametrize(
    ("zone", "begin"),
    [
        ("UTC", "2026-04-01T00:00"),
        ("Europe/Berlin", "2026-03-31T22:00"),
        ("Asia/Kolkata", "2026-03-31T19:00"),
        ("Asia/Kathmandu", "2026-03-31T19:00"),
        ("Pacific/Kiritimati", "2026-03-31T10:00"),
        ("America/St_Johns", "2026-04-01T03:00"),
        ("Pacific/Marquesas", "2026-04-01T10:00"),
    ],
)
def test_a_day_begins_at_the_next_utc_hour(zone, begin):
    """A day begins at its midnight, or at the first whole UTC hour after it."""
    found = days(zone, "2026-04-01", "2026-04-01")
    assert instant_of(found.begin) == datetime.fromisoformat(begin).replace(tzinfo=UTC)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Kolkata", "Pacific/Apia", None])
def test_each_hour_is_of_the_day_that_it_begins_in(zone):
    found = days(zone, "2011-12-20", "2012-01-05")
    ends = iter(zip(found, found.begins[1:], strict=True))
    day, end = next(ends)
    for number, begin in found.hours():
        while number >= end:
            day, end = next(ends)
        assert begin.date() == day
        assert begin == instant_of(number)


def test_days_of_zones_without_offset_are_utc_days():
    for zone in (None, "UTC", "Etc/GMT", "Africa/Abidjan"):
        assert days(zone, "2026-01-01", "2026-12-31").are_utc
    assert days("Europe/London", "2026-01-01", "2026-03-28").are_utc
    assert not days("Europe/London", "2026-01-01", "2026-03-29").are_utc


def test_days_know_the_utc_days_that_they_touch():
    found = days("Asia/Tokyo", "2026-04-01", "2026-04-02")
    assert (found.utc_first, found.utc_last) == (date(2026, 3, 31), date(2026, 4, 2))
    found = days("America/Denver", "2026-04-01", "2026-04-02")
    assert (found.utc_first, found.utc_last) == (date(2026, 4, 1), date(2026, 4, 3))
    found = days("Etc/GMT-12", "2026-04-01", "2026-04-01")
    assert (found.utc_first, found.utc_last) == (date(2026, 3, 31), date(2026, 4, 1))


def test_the_days_before_are_as_many():
    assert days(None, "2026-03-01", "2026-03-07").before == days(None, "2026-02-22", "2026-02-28")


@pytest.mark.parametrize(
    ("zone", "first"),
    [(None, 1), ("America/Lima", 1), ("Europe/Berlin", 2), ("Asia/Kolkata", 2)],
)
def test_the_first_whole_day_from_a_utc_day_on(zone, first):
    """East of Greenwich a day begins before the UTC day of the same date."""
    found = days(zone, "2026-04-01", "2026-04-01").first_from(date(2026, 4, 1))
    assert found == date(2026, 4, first)


def test_an_hour_has_one_number():
    instant = datetime(2026, 4, 1, 5, 59, 59, tzinfo=ZoneInfo("Asia/Tokyo"))
    assert instant_of(hour_of(instant)) == datetime(2026, 3, 31, 20, tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "first", "last"),
    [
        ("UTC", "2026-01-01", "2026-12-31"),
        ("Europe/Berlin", "2025-10-01", "2026-09-30"),
        ("Asia/Kolkata", "2026-01-01", "2026-01-09"),
        ("Australia/Lord_Howe", "2026-01-01", "2026-12-31"),
        ("Africa/Casablanca", "2024-01-01", "2025-12-31"),
        ("America/St_Johns", "2026-01-01", "2026-12-31"),
        ("Pacific/Apia", "2011-12-25", "2012-01-05"),
    ],
)
def test_offsets_give_each_hour_its_place_in_the_week(zone, first, last):
    """The place follows from the hour's number and the offset, as the week's SQL has it."""
    days = Days(date.fromisoformat(first), date.fromisoformat(last), ZoneInfo(zone))
    found = offsets(days.begin, days.end, days.zone)
    assert found[0].number == days.begin
    for number, begin in days.hours():
        hours = max(one for one in found if one.number <= number).hours
        assert (number + hours) % 168 == begin.isoweekday() % 7 * 24 + begin.hour


def test_whole_days_are_those_counted_to_their_end():
    days = Days(date(2026, 3, 28), date(2026, 3, 30), ZoneInfo("Europe/Berlin"))
    assert days.whole(None) == 0
    for hour, whole in ((22, 0), (23, 1)):
        assert days.whole(datetime(2026, 3, 28, hour, 59, tzinfo=UTC)) == whole
    assert [days.whole(datetime(2026, 3, 29, hour, tzinfo=UTC)) for hour in (21, 22)] == [1, 2]
    assert days.whole(datetime(2026, 4, 9, tzinfo=UTC)) == 3
