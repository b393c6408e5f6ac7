"""The directory of agents: every agent once, in pages, whatever its months and its name."""

import random
from datetime import date, timedelta
from functools import partial

import pytest
import sqlalchemy as sa

from app.intake.agent_names import set_names
from app.reports.agents import FIRST_SEEN, SORTS, Agent, agents_page
from app.storage.tables import (
    daily_agent_issuance,
    daily_issuance,
    monthly_agent_issuance,
    rollup_state,
)
from tests.support.settings import NOW, TENANT

MONTHS = [date(2025, 11, 1), date(2025, 12, 1), date(2026, 2, 1), date(2026, 4, 1)]
IDS = ["", "-", "A", "a", "b%", "b_", "z", "\u00e9", "\uffff", "\U0001f511", "\U0010ffff"]


@pytest.fixture
def directory(database):
    """Read all pages of one size."""

    def directory(limit, text=None, **more):
        found, after = [], FIRST_SEEN
        while True:
            with database.reading_for(TENANT) as connection:
                page = agents_page(connection, TENANT, after=after, limit=limit, text=text, **more)
            assert len(page.points) == limit or page.next_after is None
            found += page.points
            if page.next_after is None:
                return found
            after = page.next_after

    return directory


def _store(connection, insert, rows):
    connection.execute(insert, rows)


@pytest.fixture
def expected(database):
    """Store agents with any months and names, and return what the directory has to show."""
    dice = random.Random(4711)
    agents, rows, names, days = {}, [], {}, []
    for number in range(60):
        agent = f"{dice.choice(IDS)}{number % 7}{dice.choice(IDS)}{number}"
        months = sorted(dice.sample(MONTHS, dice.randrange(len(MONTHS) + 1)))
        counts = [dice.choice((0, 1, 2**40)) for _ in months]
        name = dice.choice((None, f"Name-{number % 9}", "\u00c9mile"))
        rows += [
            {"tenant_id": TENANT, "month": month, "agent_id": agent, "issued": count}
            for month, count in zip(months, counts, strict=True)
        ]
        if name is not None or dice.random() < 0.5:
            names[agent] = name
        used = [f"{month:%Y-%m}" for month, count in zip(months, counts, strict=True) if count]
        own = [
            month + timedelta(days=day)
            for month, count in zip(months, counts, strict=True)
            if count
            for day in sorted(dice.sample(range(28), dice.randrange(1, 4)))
        ]
        row = {"tenant_id": TENANT, "agent_id": agent, "issued": 1, "hours": 1}
        days += [row | {"date": day} for day in own]
        if name or used:
            first, last = (used[0], used[-1]) if used else (None, None)
            first_day, last_day = (own[0], own[-1]) if own else (None, None)
            agents[agent] = Agent(
                agent, name, first, last, sum(counts), first_day, last_day, len(own), None
            )
    every = {row["date"] for row in days}
    tables = {
        monthly_agent_issuance: rows,
        daily_agent_issuance: days,
        daily_issuance: [{"tenant_id": TENANT, "date": day, "issued": 1} for day in every],
    }
    for table, ours in tables.items():
        others = [row | {"tenant_id": "org-b"} for row in ours]
        database.write(partial(_store, insert=sa.insert(table), rows=ours + others))
    set_names(database, TENANT, names, NOW, by="tester")
    set_names(database, "org-b", dict.fromkeys(names, "of another"), NOW, by="tester")
    return [agents[agent] for agent in sorted(agents)]


@pytest.mark.parametrize("limit", [1, 2, 7, 100])
def test_every_agent_is_on_one_page(directory, expected, limit):
    """Pages of each size list the same agents by code point, with months, total and name."""
    assert len(expected) > 40
    assert directory(limit) == expected


def by_last_day(agent):
    last = agent.last_day.toordinal() if agent.last_day else 0
    return -last, agent.agent_id


@pytest.mark.parametrize("limit", [1, 7, 100])
def test_the_latest_seen_agents_may_come_first(directory, expected, limit):
    """In the order of last days, each agent is on one page, and those never seen come last."""
    assert directory(limit, sort="lastSeen") == sorted(expected, key=by_last_day)


def test_a_search_in_the_order_of_last_days(directory, expected):
    found = [agent for agent in expected if "name-3" in (agent.name or "").lower()]
    assert 1 < len(found) < len(expected)
    assert directory(2, "name-3", sort="lastSeen") == sorted(found, key=by_last_day)


@pytest.mark.parametrize("sort", SORTS)
def test_days_that_are_not_kept_are_unknown(directory, expected, sort):
    """A first day is unknown if its month is not kept, and only the days kept are counted."""
    kept = {agent.agent_id: agent for agent in expected}
    for agent in directory(9, sort=sort, kept_from=date(2026, 2, 1)):
        before = kept[agent.agent_id]
        days = (before.first_day, before.last_day)
        known = [day if day and day >= date(2026, 2, 1) else None for day in days]
        assert [agent.first_day, agent.last_day] == known
        assert agent.active_days <= before.active_days


@pytest.mark.parametrize("sort", SORTS)
def test_days_are_known_although_hours_are_not_kept(database, directory, expected, sort):
    """Hours may be kept for less time than the days of agents."""
    state = sa.update(rollup_state).values(hours_from=date(2026, 4, 1))
    database.write(lambda connection: connection.execute(state))
    order = by_last_day if sort == "lastSeen" else None
    assert directory(100, sort=sort) == sorted(expected, key=order or (lambda one: one.agent_id))


def test_days_that_may_lack_events_are_unknown(database, directory, expected):
    """After an upgrade, as if they were not kept."""
    state = sa.update(rollup_state).values(agents_from=date(2026, 2, 1))
    database.write(lambda connection: connection.execute(state))
    assert directory(100) == directory(100, kept_from=date(2026, 2, 1))
    before = [agent for agent in directory(100) if agent.first_month in ("2025-11", "2025-12")]
    assert {agent.first_day for agent in before} == {None}


def test_days_are_unknown_while_tables_are_being_filled(database, directory, expected):
    state = sa.update(rollup_state).values(backfilled=1, backfill_end=2)
    database.write(lambda connection: connection.execute(state))
    found = directory(100)
    assert [agent.agent_id for agent in found] == [agent.agent_id for agent in expected]
    assert {(agent.first_day, agent.last_day, agent.active_days) for agent in found} == {
        (None, None, None)
    }


@pytest.mark.parametrize(
    "text", ["1", "A", "name-3", "NAME", "%", "_", "\u00c9", "\U0001f511", "no"]
)
@pytest.mark.parametrize("limit", [1, 3, 100])
def test_a_search_lists_the_agents_that_match(directory, expected, limit, text):
    """A search finds a part of the name or the id; the case of ASCII letters is ignored."""

    def folded(found: str | None) -> str:
        return (found or "").encode().lower().decode()

    matching = [
        agent
        for agent in expected
        if folded(text) in folded(agent.name) or folded(text) in folded(agent.agent_id)
    ]
    assert directory(limit, text) == matching


def test_a_directory_without_agents_is_empty(directory):
    assert directory(5) == directory(5, "x") == []
