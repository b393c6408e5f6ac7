"""The overview's days, beside the other reports of the same days, and what it leaves out."""

import random
from datetime import UTC, date, datetime, timedelta
from itertools import product
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from app.reports import hours, trend
from app.reports.days import Days, hour_of
from app.reports.finer import Kept, Span
from app.reports.overview import overview, year_first
from app.reports.usual_days import days_like
from app.storage.tables import daily_issuance, hourly_issuance, rollup_state
from tests.support.settings import NOW, TENANT

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
TODAY = NOW.date()
# Clocks that are changed by an hour, by half an hour, or in Ramadan.
ZONES = [None, "Europe/Berlin", "Europe/London", "America/Los_Angeles", "Asia/Kolkata"]
ZONES += ["Australia/Lord_Howe", "Africa/Casablanca"]
LONG_AGO = date(2024, 9, 1)
# Of what the database does, the other tests see all.
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
COUNTED = {"last_finished": NOW}


@pytest.fixture
def fill(database):
    """Fill the tables with hours of an organization, and say when they were counted."""

    def fill(counts, tenant=TENANT, **state):
        days = {}
        for hour, count in counts.items():
            days[hour.date()] = days.get(hour.date(), 0) + count
        by_hour = [
            {"tenant_id": tenant, "date": hour.date(), "hour": hour.hour, "issued": count}
            for hour, count in counts.items()
        ]
        by_day = [{"tenant_id": tenant, "date": day, "issued": sum_} for day, sum_ in days.items()]

        def work(connection):
            connection.execute(sa.insert(hourly_issuance), by_hour)
            connection.execute(sa.insert(daily_issuance), by_day)
            connection.execute(sa.update(rollup_state).values(**(COUNTED | state)))
            # The events of earlier days were deleted before an upgrade could count their hours.
            if first := state.get("hours_from"):
                early = sa.delete(hourly_issuance).where(hourly_issuance.c.date < first)
                connection.execute(early)

        database.write(work)

    return fill


@pytest.fixture
def read(database):
    def read(report, *arguments, **more):
        with database.reading_for(TENANT) as connection:
            return report(connection, TENANT, *arguments, **more)

    return read


def some_hours(first=date(2026, 1, 1), every=5, seed=7):
    """Counts of every few hours up to now."""
    dice = random.Random(seed)
    begin = datetime(first.year, first.month, first.day, tzinfo=UTC)
    count = int((NOW - begin) / HOUR) + 1
    return {begin + hour * HOUR: dice.randrange(1, 99) for hour in range(0, count, every)}


def span(zone, count=28, last=TODAY, kept=Kept()):  # noqa: B008 - it cannot be changed
    return Span(Days(last - (count - 1) * DAY, last, zone and ZoneInfo(zone)), kept)


def before(wanted, ago=None):
    shift = (ago or len(wanted.days)) * DAY
    return Days(wanted.days.first - shift, wanted.days.last - shift, wanted.days.zone)


def shown(read, wanted, compared=None, settled=NOW, today=TODAY):
    return read(overview, wanted, compared, today=today, settled=settled)


def test_days_are_those_of_the_trend_in_every_zone(read, fill):
    fill(some_hours(LONG_AGO, every=12))
    fill(some_hours(seed=8), tenant="org-b")
    lasts = [TODAY, date(2026, 3, 31), date(2025, 11, 3)]
    for zone, (count, last) in product(ZONES, zip((28, 7, 364), lasts, strict=True)):
        wanted = span(zone, count, last)
        found = shown(read, wanted, before(wanted))
        assert found.days == read(trend.daily_tokens, wanted).points, (zone, count)
        earlier = Span(before(wanted), Kept())
        if earlier.days.first > LONG_AGO:
            assert found.before == read(trend.daily_tokens, earlier).points
        year = Days(year_first(last), last, wanted.days.zone)
        assert found.year == read(trend.daily_tokens, Span(year, Kept())).points[: len(found.year)]
        assert len(found.year) > 360


def test_a_year_on_a_year_ago_is_read_at_once(read, fill):
    fill(some_hours(date(2024, 3, 1), every=36))
    wanted = span("Europe/Berlin", 364)
    found = shown(read, wanted, before(wanted))
    assert found.before is not None
    assert found.before[0].date == date(2024, 4, 18)
    assert found.change == (found.whole_total - found.before_total) / found.before_total


@ON_SQLITE
def test_only_whole_counted_days_are_compared(read, fill):
    fill(some_hours(), last_finished=NOW - DAY)
    wanted = span(None, 7)
    found = shown(read, wanted, before(wanted))
    assert (found.whole, found.counted) == (5, 6)
    assert found.before_total == sum(point.count for point in found.before[:5])
    assert found.year[-1].date == TODAY - DAY
    assert found.so_far is None


@ON_SQLITE
@pytest.mark.parametrize(("began_ago", "is_compared"), [(14, True), (13, False), (3, False)])
def test_nothing_is_compared_with_days_up_to_the_first(read, fill, began_ago, is_compared):
    """The first day with a token may not be whole."""
    began = TODAY - began_ago * DAY
    fill(some_hours(began))
    wanted = span(None, 7)
    found = shown(read, wanted, before(wanted))
    assert found.began == began
    assert (found.before is not None) == is_compared
    assert (found.change is not None) == is_compared
    assert found.year[0].date == began


@ON_SQLITE
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Los_Angeles"])
def test_days_that_are_not_kept_are_left_out(read, fill, zone):
    """In a zone; the days of UTC are kept for good."""
    fill(some_hours())
    kept = Kept(hours=date(2026, 4, 1))
    wanted = span(zone, 28, kept=kept)
    found = shown(read, wanted, before(wanted))
    assert found.days[0].date == wanted.days.first_from(date(2026, 4, 1))
    assert found.days[-1].date == TODAY
    assert found.before is None
    utc = shown(read, span(None, 28, kept=kept), before(wanted))
    assert len(utc.days) == 28
    long_ago = shown(read, span(zone, 7, date(2025, 1, 31), kept=kept))
    assert (long_ago.days, long_ago.year, long_ago.total) == ([], [], 0)


def test_days_that_are_being_filled_are_left_out(database, read, fill):
    fill(some_hours(), backfilled=1, backfill_end=2)
    missing = sa.delete(hourly_issuance).where(hourly_issuance.c.date == date(2026, 4, 4))
    database.write(lambda connection: connection.execute(missing))
    found = shown(read, span("Europe/Berlin"))
    assert found.days[0].date == date(2026, 4, 6)  # 5 April begins on the 4th, in UTC
    assert found.so_far is None
    assert len(shown(read, span(None)).days) == 28


@ON_SQLITE
def test_days_that_can_never_be_filled_are_left_out(read, fill):
    fill(some_hours(), hours_from=date(2026, 4, 4))
    found = shown(read, span("Asia/Kolkata"))
    assert found.days[0].date == date(2026, 4, 5)


@pytest.mark.parametrize("zone", [None, "Europe/Berlin", "Asia/Kolkata"])
def test_today_is_compared_with_the_same_hours(read, fill, zone):
    """Up to the hour that has ended, on the same weekday of 8 weeks; over a change of the clock."""
    fill(some_hours(date(2026, 2, 1), every=1))
    wanted = span(zone, 7)
    found = shown(read, wanted)
    begin = Days(TODAY, TODAY, wanted.days.zone).begin
    passed = hour_of(NOW) - begin

    def early(day):
        counts = read(hours.hours_of, Span(Days(day, day, wanted.days.zone), Kept())).counts
        return sum(counts[:passed])

    sums = sorted(early(day) for day in days_like(TODAY))
    assert found.so_far.usual == sums[3]
    assert found.so_far.tokens == early(TODAY)
    assert found.so_far.until == NOW.replace(minute=0)
    assert found.today == found.days[-1].count
    assert found.today_usual == found.usual[TODAY]


@ON_SQLITE
def test_the_first_hour_of_a_day_is_not_compared(read, fill):
    fill(some_hours(date(2026, 2, 1), every=1))
    found = shown(read, span(None), settled=NOW.replace(hour=0))
    assert found.so_far is None
    assert found.today_usual is not None


@ON_SQLITE
def test_a_range_without_today_has_no_today(read, fill):
    fill(some_hours())
    found = shown(read, span(None, 28, date(2026, 3, 1)))
    assert (found.today, found.so_far) == (None, None)
    assert found.whole == 28
    future = shown(read, span("Europe/Berlin", 7, date(2027, 3, 1)))
    assert (future.whole, future.counted, future.total) == (0, 0, 0)


@ON_SQLITE
@pytest.mark.parametrize("last", [date(1970, 1, 1), date(9999, 12, 31)])
@pytest.mark.parametrize("zone", [None, "Pacific/Auckland", "America/Los_Angeles"])
def test_the_ends_of_the_calendar_can_be_read(read, fill, zone, last):
    fill({NOW: 1})
    wanted = span(zone, 1, last)
    found = shown(read, wanted, before(wanted, 7))
    assert [point.count for point in found.days] == [0]


@ON_SQLITE
def test_silent_days_lack_nearly_all_of_the_usual(read, fill):
    counts = {NOW - ago * DAY: 30 for ago in range(90)}
    counts[NOW - 5 * DAY] = 3
    counts[NOW - 6 * DAY] = 4
    del counts[NOW - 9 * DAY]
    fill(counts)
    assert shown(read, span(None)).silent == {TODAY - 5 * DAY, TODAY - 9 * DAY}


@ON_SQLITE
def test_an_organization_without_tokens_has_nothing(read, fill):
    fill({NOW: 1}, tenant="org-b")
    found = shown(read, span(None), before(span(None)))
    assert (found.began, found.total, found.year, found.change) == (None, 0, [], None)
    assert (found.weekday, found.so_far, found.before) == (None, None, None)
