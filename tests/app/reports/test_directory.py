"""The directory of agents: every agent once, in pages, whatever its months and its name."""

import random
from datetime import date

import pytest
import sqlalchemy as sa

from app.intake.agent_names import set_names
from app.reports.agents import Agent, agents_page
from app.storage.tables import monthly_agent_issuance
from tests.support.settings import NOW, TENANT

MONTHS = [date(2025, 11, 1), date(2025, 12, 1), date(2026, 2, 1), date(2026, 4, 1)]
IDS = ["", "-", "A", "a", "b%", "b_", "z", "\u00e9", "\uffff", "\U0001f511", "\U0010ffff"]


@pytest.fixture
def directory(database):
    """Read all pages of one size."""

    def directory(limit, text=None):
        found, after = [], ""
        while True:
            with database.reading_for(TENANT) as connection:
                page = agents_page(connection, TENANT, after=after, limit=limit, text=text)
            assert len(page.points) == limit or page.next_after is None
            found += page.points
            if page.next_after is None:
                return found
            after = page.next_after

    return directory


@pytest.fixture
def expected(database):
    """Store agents with any months and names, and return what the directory has to show."""
    dice = random.Random(4711)
    agents, rows, names = {}, [], {}
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
        if name or used:
            first, last = (used[0], used[-1]) if used else (None, None)
            agents[agent] = Agent(agent, name, first, last, sum(counts))
    others = [row | {"tenant_id": "org-b"} for row in rows]
    insert = sa.insert(monthly_agent_issuance)
    database.write(lambda connection: connection.execute(insert, rows + others))
    set_names(database, TENANT, names, NOW)
    set_names(database, "org-b", dict.fromkeys(names, "of another"), NOW)
    return [agents[agent] for agent in sorted(agents)]


@pytest.mark.parametrize("limit", [1, 2, 7, 100])
def test_every_agent_is_on_one_page(directory, expected, limit):
    """Pages of each size list the same agents by code point, with months, total and name."""
    assert len(expected) > 40
    assert directory(limit) == expected


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
