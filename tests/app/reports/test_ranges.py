"""Reports of days, in UTC and in zones, beside a recount of the same events in Python."""

import random
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from itertools import product
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from app.errors import UnavailableError, ValidationError
from app.reports import activity, hours, summary, trend, usage
from app.reports.days import Days
from app.reports.finer import Kept, Span
from app.storage.tables import daily_agent_issuance, hourly_issuance, rollup_state
from tests.support.settings import NOW, TENANT
from tests.support.summaries import fill

# Over the change of Berlin's clock on 29 March. Each agent is active at one hour of Kolkata's day,
# so that days of zones divide no agent's day.
BEGIN, DAYS = datetime(2026, 3, 20, tzinfo=UTC), 20
ZONES = [None, "UTC", "Europe/Berlin", "Asia/Kolkata", "America/Los_Angeles", "Pacific/Auckland"]
RANGES = [("2026-03-28", "2026-03-30"), ("2026-03-25", "2026-04-05"), ("2026-03-29", "2026-03-29")]


def events(seed=3):
    dice = random.Random(seed)
    found = []
    for agent in range(6):
        for day in range(DAYS):
            if dice.random() < 0.8:
                when = BEGIN + timedelta(days=day, hours=4 * agent, minutes=dice.randrange(60))
                found += [(when, f"agent-{agent}")] * dice.randrange(1, 5)
    return found


def local(when, zone):
    """The beginning of the event's UTC hour on the zone's clock."""
    hour = when.replace(minute=0)
    return hour.astimezone(ZoneInfo(zone)) if zone else hour


def span(zone, first, last, kept=Kept()):  # noqa: B008 - it cannot be changed
    days = Days(date.fromisoformat(first), date.fromisoformat(last), zone and ZoneInfo(zone))
    return Span(days, kept)


@pytest.fixture
def issued(database):
    """Events of a tenant, and others of another, all counted."""
    ours = events()
    fill(database, ours)
    fill(database, events(4), tenant="org-b")
    return ours


@pytest.fixture
def read(database):
    def read(report, *arguments, **more):
        with database.reading_for(TENANT) as connection:
            return report(connection, TENANT, *arguments, **more)

    return read


def test_every_report_of_days_equals_a_recount(read, issued):
    for zone, (first, last) in product(ZONES, RANGES):
        check_reports(read, issued, zone, first, last)


def check_reports(read, issued, zone, first, last):
    wanted = span(zone, first, last)
    within = [
        (begin, agent)
        for when, agent in issued
        if first <= f"{(begin := local(when, zone)).date()}" <= last
    ]
    by_day = Counter(begin.date() for begin, _ in within)
    days = read(trend.daily_tokens, wanted).points
    assert {point.date: point.count for point in days if point.count} == by_day
    assert [point.date for point in days] == list(wanted.days)

    # In UTC, because two hours of a zone may have one name.
    by_hour = Counter(begin.astimezone(UTC) for begin, _ in within)
    points = read(hours.hourly_tokens, wanted).points
    begins = [datetime.fromisoformat(point.hour).astimezone(UTC) for point in points]
    assert begins == [hour.begin.astimezone(UTC) for hour in wanted.days.hours()]
    found = {begin: point.count for begin, point in zip(begins, points, strict=True)}
    assert {begin: count for begin, count in found.items() if count} == by_hour

    cells = Counter((begin.isoweekday() % 7, begin.hour) for begin, _ in within)
    week = read(activity.activity_of_days, wanted).points
    assert [(cell.dow, cell.hour, cell.count) for cell in week] == [
        (*cell, count) for cell, count in sorted(cells.items())
    ]

    by_agent = sorted(Counter(agent for _, agent in within).items(), key=lambda one: (-one[1], one))
    agents = read(usage.usage_of_days, wanted, limit=100).points
    assert [(point.agent_id, point.token_count) for point in agents] == by_agent
    top = read(usage.usage_of_days, wanted, limit=2).points
    assert top == agents[:2]

    one = Counter(begin.date() for begin, agent in within if agent == "agent-2")
    own = read(trend.agent_tokens, "agent-2", wanted).points
    assert {point.date: point.count for point in own if point.count} == one

    found = read(summary.summary, wanted)
    assert (found.total, found.active_agents) == (len(within), len(by_agent))
    assert found.largest == summary.LargestAgent(by_agent[0][0], by_agent[0][1] / len(within))
    before = sum(
        wanted.days.before.first <= local(when, zone).date() <= wanted.days.before.last
        for when, _ in issued
    )
    assert found.before_total == before
    assert found.change == (len(within) - before) / before


def test_the_whole_usage_of_days_is_that_of_its_top(database, read, issued):
    for zone in (None, "Europe/Berlin"):
        wanted = span(zone, *RANGES[1])
        with database.snapshot_for(TENANT) as connection:
            (rows,) = usage.whole_usage_of_days(connection, TENANT, wanted.days)
        top = read(usage.usage_of_days, wanted, limit=100).points
        assert [usage.AgentCount(*row) for row in (row[:2] for row in rows)] == top


def test_an_unknown_agent_has_zeros(read, issued):
    for zone in ZONES:
        points = read(trend.agent_tokens, "nobody", span(zone, *RANGES[0])).points
        assert [point.count for point in points] == [0, 0, 0]


def test_an_agent_active_on_both_sides_is_divided(database, read):
    """The days of a zone add up to the agent's tokens, also where its hours do not tell."""
    fill(database, [(BEGIN + timedelta(hours=hour), "a") for hour in range(240)] * 3)
    wanted = span("Asia/Kolkata", "2026-03-21", "2026-03-28")
    assert [point.count for point in read(trend.agent_tokens, "a", wanted).points] == [72] * 8
    (agent,) = read(usage.usage_of_days, wanted, limit=9).points
    assert agent.token_count == 8 * 72


def test_a_summary_has_whole_counted_days_only(database, read):
    """Today is left out, in UTC and in a zone, and so are as many days of the period before."""
    fill(database, [(NOW - timedelta(days=day, hours=1), "a") for day in range(30)])
    for zone, last in ((None, 14), ("Asia/Tokyo", 14), ("Pacific/Fiji", 15)):
        found = read(summary.summary, span(zone, "2026-04-09", "2026-04-16"))
        assert (found.days.first, found.days.last) == (date(2026, 4, 9), date(2026, 4, last))
        assert (found.before.first, found.before.last) == (
            date(2026, 4, 1),
            date(2026, 4, last - 8),
        )
        assert found.total == found.before_total == last - 8
        assert found.change == 0


def test_a_summary_without_a_whole_counted_day_is_zero(database, read):
    fill(database, [(NOW - timedelta(hours=1), "a")])
    found = read(summary.summary, span(None, "2026-04-15", "2026-04-15"))
    assert (found.days, found.total, found.change) == (Days(NOW.date(), NOW.date()), 0, None)
    assert (found.active_agents, found.largest) == (0, None)


def test_nothing_is_whole_before_the_first_run(read):
    assert read(summary.summary, span(None, *RANGES[0])).total == 0


def test_a_change_from_nothing_is_unknown(database, read):
    fill(database, [(BEGIN, "a")])
    found = read(summary.summary, span(None, "2026-03-20", "2026-03-21"))
    assert (found.total, found.before_total, found.change) == (1, 0, None)


REPORTS = {
    "hours": lambda read, wanted: read(hours.hourly_tokens, wanted),
    "days": lambda read, wanted: read(trend.daily_tokens, wanted),
    "activity": lambda read, wanted: read(activity.activity_of_days, wanted),
    "agent": lambda read, wanted: read(trend.agent_tokens, "agent-1", wanted),
    "agents": lambda read, wanted: read(usage.usage_of_days, wanted, limit=5),
    "summary": lambda read, wanted: read(summary.summary, wanted),
}


def test_days_that_are_not_kept_are_refused(read, issued):
    """The refusal names the first day of the zone that can be read, and that day can be read."""
    kept = Kept(date(2026, 4, 1), date(2026, 4, 1))
    starts = (("America/Lima", "2026-04-01"), ("Europe/Berlin", "2026-04-02"))
    for report, (zone, first) in product(REPORTS.values(), starts):
        day_before = f"{date.fromisoformat(first) - timedelta(days=1)}"
        with pytest.raises(ValidationError, match=f"must be {first} or later") as refused:
            report(read, span(zone, day_before, "2026-04-05", kept))
        assert refused.value.details == {"parameter": "from", "firstDay": first}
        assert report(read, span(zone, first, "2026-04-05", kept))


def test_a_summary_does_not_compare_with_days_that_are_gone(read, issued):
    kept = Kept(date(2026, 4, 1), date(2026, 4, 1))
    found = read(summary.summary, span("America/Lima", "2026-04-01", "2026-04-04", kept))
    assert found.total > 0
    assert (found.before_total, found.change) == (None, None)


def test_tokens_of_utc_days_are_kept_permanently(read, issued):
    kept = Kept(date(2026, 4, 1), date(2026, 4, 1))
    wanted = span("UTC", *RANGES[1], kept)
    assert sum(point.count for point in read(trend.daily_tokens, wanted).points) > 0


@pytest.fixture
def upgraded(database, issued):
    """After an upgrade: the finer tables lack the events of 26 March and before."""

    def upgraded(**state):
        def write(connection):
            for table in (hourly_issuance, daily_agent_issuance):
                connection.execute(sa.delete(table).where(table.c.date <= date(2026, 3, 26)))
            connection.execute(sa.update(rollup_state).values(**state))

        database.write(write)

    return upgraded


INCOMPLETE = {"hours_from": date(2026, 4, 1), "agents_from": date(2026, 4, 1)}


@pytest.mark.parametrize(
    ("state", "error"),
    [
        ({"backfilled": 3, "backfill_end": 9}, UnavailableError),
        ({"backfilled": 9, "backfill_end": 9, **INCOMPLETE}, ValidationError),
    ],
    ids=["while filling", "events are gone"],
)
def test_incomplete_days_are_refused(read, upgraded, state, error):
    """Numbers that may be too low are refused, and what is complete can be read."""
    upgraded(**state)
    wanted = span("America/Lima", "2026-03-25", "2026-03-31")
    for report in REPORTS.values():
        with pytest.raises(error, match="2026-03-27") as refused:
            report(read, wanted)
        assert refused.value.details["firstDay"] == "2026-03-27"
        assert report(read, span("America/Lima", "2026-03-27", "2026-03-31"))


def test_one_tenant_may_be_complete_before_another(database, upgraded):
    """While tables are being filled, each tenant's days are judged by its own numbers."""
    upgraded(backfilled=3, backfill_end=9)
    fill(database, [(BEGIN, "a")], tenant="org-c")
    wanted = span(None, "2026-03-20", "2026-03-31")
    with database.reading_for("org-c") as connection:
        assert sum(p.count for p in hours.hourly_tokens(connection, "org-c", wanted).points) == 1
    with database.reading_for("org-b") as connection, pytest.raises(UnavailableError):
        hours.hourly_tokens(connection, "org-b", wanted)


def test_a_day_without_tokens_is_complete(database, read):
    fill(database, [(BEGIN, "a")])
    state = {"backfilled": 0, "backfill_end": 5}
    database.write(lambda connection: connection.execute(sa.update(rollup_state).values(**state)))
    assert read(hours.hourly_tokens, span(None, "2026-03-25", "2026-03-26")).points
