"""Which bucket an event falls into, on both databases, against Python's own calendar."""

from collections import Counter
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import func, select

from app.storage.tables import daily_issuance, dow_hour_activity, monthly_agent_issuance

EDGES = [
    "1970-01-01T00:00:00Z",
    "2001-02-28T23:59:59.999999Z",
    "2004-02-29T00:00:00Z",
    "2000-02-29T23:59:59.999600Z",
    "2026-02-28T23:59:59.999999Z",
    "2026-03-01T00:00:00Z",
    "2026-03-08T07:00:00Z",  # New York's clocks jump ahead
    "2026-11-01T06:30:00Z",  # and fall back
    "2026-12-31T23:59:59.999999Z",
    "2027-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999Z",
]


def buckets(database, table):
    with database.reading() as connection:
        return {tuple(row[1:-1]): row.issued for row in connection.execute(select(table))}


def test_midnight_belongs_to_the_later_day(issue, roll_up, trend):
    issue("2026-03-31T23:59:59.999999Z", times=2)
    issue("2026-04-01T00:00:00Z")
    roll_up()
    assert trend(last="2026-04-01", days=3) == [0, 2, 1]


def test_a_microsecond_around_month_end_decides_the_month(issue, roll_up, database):
    issue("2026-04-30T23:59:59.999999Z", times=3)
    issue("2026-05-01T00:00:00.000001Z")
    roll_up()
    assert buckets(database, monthly_agent_issuance) == {
        (date(2026, 4, 1), "agent-1"): 3,
        (date(2026, 5, 1), "agent-1"): 1,
    }


def test_29_february_is_a_day_of_its_own(issue, roll_up, trend):
    issue("2024-02-29T12:00:00Z", times=4)
    issue("2024-03-01T12:00:00Z")
    roll_up()
    assert trend(last="2024-03-01", days=3) == [0, 4, 1]


@pytest.mark.parametrize("ahead", range(7))
def test_sunday_is_0(issue, roll_up, database, ahead):
    sunday = datetime(2026, 4, 5, 23, 59, 59, 999_999, UTC)
    issue(sunday + timedelta(days=ahead))
    roll_up()
    assert buckets(database, dow_hour_activity) == {(date(2026, 4, 1), ahead, 23): 1}


def test_an_offset_counts_in_utc(issue, roll_up, database):
    issue("2026-04-05T04:59:00+05:30")  # 23:29 on Saturday, UTC
    roll_up()
    assert buckets(database, daily_issuance) == {(date(2026, 4, 4),): 1}
    assert buckets(database, dow_hour_activity) == {(date(2026, 4, 1), 6, 23): 1}


def test_every_edge_of_the_calendar_agrees_with_python(issue, roll_up, database):
    instants = [datetime.fromisoformat(text) for text in EDGES]
    for instant in instants:
        issue(instant)
    roll_up()
    days = Counter((i.date(),) for i in instants)
    cells = Counter((i.date().replace(day=1), i.isoweekday() % 7, i.hour) for i in instants)
    months = Counter((i.date().replace(day=1), "agent-1") for i in instants)
    assert buckets(database, daily_issuance) == days
    assert buckets(database, dow_hour_activity) == cells
    assert buckets(database, monthly_agent_issuance) == months


def test_ids_that_differ_only_in_case_or_accents_are_different(issue, roll_up, database):
    for tenant in ("org", "ORG", "órg", "o\u0301rg"):
        issue("2026-04-01T00:00:00Z", tenant=tenant, event_id="same")
    roll_up()
    with database.reading() as connection:
        assert connection.scalar(select(func.count()).select_from(daily_issuance)) == 4
