"""The list of agents: sums, kinds, orders and pages, beside other reports and a recount."""

import random
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from app.intake.agent_names import set_names
from app.reports import agent_periods, trend, usage
from app.reports.agent_kinds import SHOWN
from app.reports.agent_list import Wanted, agent_list
from app.reports.days import Days, hour_number, instant_of
from app.reports.finer import Span
from app.storage.tables import daily_agent_issuance
from tests.support.settings import NOW, TENANT
from tests.support.summaries import fill

# Half a year over both changes of a clock. Each agent is active at a few hours of its own.
BEGIN, DAYS = datetime(2025, 10, 1, tzinfo=UTC), 197
COUNTED = BEGIN + timedelta(days=DAYS - 1, hours=12)
AGENTS = 12
ZONES = ["UTC", "Europe/Berlin", "Asia/Kolkata", "America/New_York", "Pacific/Auckland"]
DAY = timedelta(days=1)


def events(seed):
    """Agents that begin, end and pause on some days, at one UTC hour each or at several."""
    dice = random.Random(seed)
    found = []
    for number in range(AGENTS):
        first, last = sorted(dice.sample(range(DAYS), 2))
        hours = dice.sample(range(24), dice.choice((1, 1, 2, 5)))
        first, last = (0, DAYS - 1) if number < 3 else (first, last)
        for day in range(first, last + 1):
            if dice.random() < dice.choice((0.2, 0.9)):
                times = [BEGIN + timedelta(days=day, hours=hour) for hour in hours]
                found += [
                    (when, f"agent-{number:02}") for when in times for _ in range(number % 4 + 1)
                ]
    return [one for one in found if one[0] <= COUNTED]


@pytest.fixture
def issued(database):
    ours = events(5)
    fill(database, ours, counted_at=COUNTED)
    fill(database, events(6), tenant="org-b", counted_at=COUNTED)
    names = {f"agent-{number:02}": f"name {number % 3}" for number in range(0, AGENTS, 2)}
    set_names(database, TENANT, names, NOW, by="tester")
    set_names(database, "org-b", {"agent-01": "of another"}, NOW, by="tester")
    return ours


@pytest.fixture
def read(database):
    def read(report, *arguments, **more):
        with database.reading_for(TENANT) as connection:
            return report(connection, TENANT, *arguments, **more)

    return read


def test_random_ranges_equal_the_other_reports(read, issued):
    """Sums and days are those of the other reports; kinds are those of a recount."""
    dice = random.Random(7)
    for _ in range(5):
        zone = dice.choice(ZONES)
        first = (BEGIN + dice.randrange(DAYS) * DAY).date()
        days = Days(first, first + dice.choice((0, 6, 27, 90, 120)) * DAY, ZoneInfo(zone))
        weeks = -(-len(days) // 7) * 7 * DAY
        other = Days(days.first - weeks, days.last - weeks, days.zone)
        check(read, issued, days, dice.choice((other, None)))


def check(read, issued, days, other):
    found = read(agent_list, Span(days), Wanted(100), compared=other, counted_at=COUNTED)
    counts = sums(read, days)
    assert {one.agent_id: one.count for one in found.agents} == counts
    assert [one.agent_id for one in found.agents] == list(counts)  # in the same order
    assert [one.rank for one in found.agents] == list(range(1, len(counts) + 1))
    assert (found.total, found.sizes.all, found.found) == (
        sum(counts.values()),
        len(counts),
        len(counts),
    )
    whole = days.whole(COUNTED)
    now = sums(read, days.leading(whole)) if whole else {}
    before = sums(read, other.leading(whole)) if whole and other else {}
    assert found.is_compared == bool(whole and other)
    for one in found.agents:
        points = read(trend.agent_tokens, one.agent_id, Span(days)).points
        assert one.days == [point.count for point in points]
        assert one.last == max(point.date for point in points if point.count)
        assert one.whole == now.get(one.agent_id, 0)
        assert one.before == (before.get(one.agent_id, 0) if found.is_compared else None)
        assert one.share == one.count / found.total
    check_kinds(read, issued, days, other, now=now, before=before)


def check_kinds(read, issued, days, other, *, now, before):
    whole = days.whole(COUNTED)
    began = {}
    for when, agent in issued:
        began[agent] = min(when, began.get(agent, when))
    counts = sums(read, days)
    recent = Days(max(days.first, days.last - 6 * DAY), days.last, days.zone)
    still = sums(read, recent)
    is_judged = whole and other and len(days) - whole < 7
    expected = {
        "all": set(counts),
        "new": {agent for agent in counts if began[agent] >= instant_of(days.begin)},
        "rising": {
            agent
            for agent, count in now.items()
            if before.get(agent, 0) > 0
            and count >= 4 / 3 * before[agent]
            and count - before[agent] >= 100
        },
        "quiet": {
            agent
            for agent, count in before.items()
            if is_judged and count >= whole and agent not in still
        },
        "unnamed": {agent for agent in counts if int(agent[-2:]) % 2},
    }
    for show in SHOWN:
        found = read(
            agent_list, Span(days), Wanted(100, show=show), compared=other, counted_at=COUNTED
        )
        assert {one.agent_id for one in found.agents} == expected[show], (show, days)
        assert getattr(found.sizes, show) == found.found == len(expected[show])


def sums(read, days):
    points = read(usage.usage_of_days, Span(days), limit=1000).points
    return {point.agent_id: point.token_count for point in points}


def test_orders_and_pages_are_those_of_the_numbers(read, issued):
    """In each order the pages show every agent once; the ranks stay those by tokens."""
    days = Days(date(2026, 1, 20), date(2026, 4, 10))
    other = Days(date(2025, 10, 28), date(2026, 1, 16), days.zone)

    def page(sort, limit=100, offset=0):
        wanted = Wanted(limit, offset, sort=sort)
        return read(agent_list, Span(days), wanted, compared=other, counted_at=COUNTED)

    every = page("tokens").agents
    keys = {
        "tokens": lambda one: (-one.count, one.agent_id),
        "name": lambda one: (one.name is None, (one.name or "").lower(), -one.count, one.agent_id),
        "change": lambda one: (one.change is None, -(one.change or 0), -one.count, one.agent_id),
        "seen": lambda one: (-one.last.month, -one.count),
    }
    for sort, key in keys.items():
        found = page(sort).agents
        if sort == "seen":
            assert [one.last.month for one in found] == sorted(
                (one.last.month for one in every), reverse=True
            )
        else:
            assert found == sorted(every, key=key)
        paged = [one for offset in range(0, AGENTS, 5) for one in page(sort, 5, offset).agents]
        assert paged == found
        assert page(sort, 5, 500).agents == []


def test_a_heavy_agent_needs_a_second_and_a_floor(read, database):
    """More than 80 percent of at least 100 tokens is heavy, if there is another agent."""
    span = Span(Days(NOW.date(), NOW.date()))

    def heavy():
        return [one.agent_id for one in read(agent_list, span, Wanted(9)).agents if one.is_heavy]

    fill(database, [(NOW, "a")] * 80 + [(NOW, "b")] * 19)
    assert heavy() == []
    more = sa.update(daily_agent_issuance).where(daily_agent_issuance.c.agent_id == "a")
    database.write(lambda connection: connection.execute(more.values(issued=81)))
    assert heavy() == ["a"]
    database.write(lambda connection: connection.execute(more.values(issued=76)))
    assert heavy() == []
    only = sa.delete(daily_agent_issuance).where(daily_agent_issuance.c.agent_id == "b")
    database.write(lambda connection: connection.execute(only))
    database.write(lambda connection: connection.execute(more.values(issued=1000)))
    assert heavy() == []


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize(
    ("first", "last"), [("1970-01-01", "1970-12-31"), ("9999-12-02", "9999-12-31")]
)
def test_the_ends_of_the_calendar_are_days(read, zone, first, last):
    days = Days(date.fromisoformat(first), date.fromisoformat(last), ZoneInfo(zone))
    found = read(agent_list, Span(days), Wanted(9), compared=days.before, counted_at=COUNTED)
    assert (found.agents, found.sizes.all, found.problem) == ([], 0, None)


def test_pieces_hold_each_hour_of_a_period_once():
    dice = random.Random(4)
    for _ in range(300):
        begin = hour_number(date(2024, 1, 1), dice.randrange(24 * 400))
        end = begin + dice.choice((0, 1, 23, 24, 25, 24 * 40, dice.randrange(24 * 400)))
        for most in (1, 2):
            months, spans, edges = agent_periods._pieces(begin, end, most=most)
            hours = [hour for part in (months, *spans) for hour in hours_of(part)]
            for day, early, late in edges:
                numbers = [hour for hour in range(24) if (late & ~early) >> hour & 1]
                hours += [hour_number(day, hour) for hour in numbers]
            assert sorted(hours) == list(range(begin, end))
            assert len(spans) == most
            assert months.first > months.last or months.first.day == 1
            assert months.first > months.last or (months.last + DAY).day == 1


def hours_of(span):
    days = range(span.first.toordinal(), span.last.toordinal() + 1)
    return [24 * day + hour for day in days for hour in range(24)]
