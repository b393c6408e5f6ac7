"""The usage by agent: shares, ranks, searches and pages, all counted by the database."""

from dataclasses import replace
from datetime import date

import pytest
import sqlalchemy as sa

from app.intake.agent_names import set_names
from app.reports import usage
from app.reports.usage import AgentCount, NamedUsage
from app.storage.tables import daily_issuance, monthly_agent_issuance
from tests.support.settings import NOW, TENANT

APRIL, MARCH = date(2026, 4, 1), date(2026, 3, 1)
NAMES = {"id-b": "Zebra", "id-a": "apple"}


@pytest.fixture
def fill(database):
    """Store counts of agents, by id."""

    def fill(counts, tenant=TENANT, month=APRIL):
        rows = [
            {"tenant_id": tenant, "month": month, "agent_id": agent, "issued": count}
            for agent, count in counts.items()
        ]
        day = {"tenant_id": tenant, "date": month, "issued": sum(counts.values())}
        agents, days = sa.insert(monthly_agent_issuance), sa.insert(daily_issuance)
        database.write(lambda connection: connection.execute(agents, rows))
        database.write(lambda connection: connection.execute(days, [day]))

    return fill


@pytest.fixture
def three(database, fill):
    """Three agents, two of them with names, and others that do not belong to them."""
    fill({"id-b": 81, "id-c": 10, "id-a": 9, "id-gone": 0})
    fill({"id-b": 7, "id-of-march": 7}, month=MARCH)
    fill({"id-b": 1000, "theirs": 1000}, tenant="org-b")
    set_names(database, TENANT, NAMES | {"never issued": "x"}, NOW)
    set_names(database, "org-b", {"id-c": "of another"}, NOW)


@pytest.fixture
def ranking(database):
    def ranking(search=None, sort="count", limit=20, offset=0):
        with database.reading_for(TENANT) as connection:
            return usage.ranking(
                connection,
                TENANT,
                month=APRIL,
                search=search,
                sort=sort,
                limit=limit,
                offset=offset,
            )

    return ranking


@pytest.mark.usefixtures("three")
def test_a_share_is_a_part_of_all_the_months_tokens(ranking):
    found = ranking()
    assert [(one.agent_id, one.name, one.rank, one.share) for one in found.agents] == [
        ("id-b", "Zebra", 1, 0.81),
        ("id-c", None, 2, 0.10),
        ("id-a", "apple", 3, 0.09),
    ]
    assert (found.all_agents, found.has_more, found.total) == (3, False, 100)


def test_no_agents_have_no_shares(ranking):
    found = ranking()
    assert (found.agents, found.has_more, found.all_agents, found.total) == ([], False, 0, 0)
    assert (found.heavy, found.others, found.others_share) == (None, 0, 0)


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("ZEB", ["id-b"]),
        ("ID-C", ["id-c"]),
        ("id", ["id-b", "id-c", "id-a"]),
        ("%", []),
        ("_", []),
        ("\\", []),
        ("p", ["id-a"]),
    ],
)
def test_agents_are_found_by_name_or_id_in_any_case(ranking, text, ids):
    found = ranking(search=text)
    assert [one.agent_id for one in found.agents] == ids
    assert (found.all_agents, found.total) == (3, 100)
    for limit in (1, 2, 3):
        page = ranking(search=text, limit=limit)
        assert ([one.agent_id for one in page.agents], page.has_more) == (
            ids[:limit],
            len(ids) > limit,
        )


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize("search", [None, "id-"])
@pytest.mark.parametrize(
    ("sort", "ids"),
    [
        ("count", ["id-b", "id-c", "id-a"]),
        ("name", ["id-a", "id-b", "id-c"]),
        ("id", ["id-a", "id-b", "id-c"]),
    ],
)
def test_agents_keep_their_rank_however_they_are_sorted(ranking, search, sort, ids):
    agents = ranking(sort=sort, search=search).agents
    assert [one.agent_id for one in agents] == ids
    assert {one.agent_id: one.rank for one in agents} == {"id-b": 1, "id-c": 2, "id-a": 3}


@pytest.mark.parametrize("search", [None, "agent"])
@pytest.mark.parametrize("sort", usage.SORTS)
def test_pages_show_every_agent_once(ranking, fill, database, sort, search):
    """The pages of each order and search show every agent once, in one order."""
    counts = {f"agent-{number:02}": 1 + number % 3 for number in range(23)}
    fill(counts)
    set_names(database, TENANT, {f"agent-{n:02}": f"name-{n % 5}" for n in range(9)}, NOW)
    whole = ranking(search, sort, limit=100).agents
    pages = [ranking(search, sort, limit=5, offset=offset) for offset in range(0, 25, 5)]
    assert [one for page in pages for one in page.agents] == whole
    assert [page.has_more for page in pages] == [True] * 4 + [False]
    by_rank = sorted(whole, key=lambda one: one.rank)
    assert [one.rank for one in by_rank] == list(range(1, 24))
    assert [one.agent_id for one in by_rank] == sorted(counts, key=lambda a: (-counts[a], a))
    assert ranking(search, sort, limit=5, offset=25).agents == []


@pytest.mark.parametrize("search", [None, "id"])
@pytest.mark.parametrize("sort", usage.SORTS)
@pytest.mark.usefixtures("three")
def test_many_agents_are_listed_without_their_ranks(ranking, monkeypatch, sort, search):
    """Of many agents the same ones are listed, and neither counted nor ranked by another order."""
    few = ranking(search, sort, limit=2)
    assert few.is_counted
    monkeypatch.setattr(usage, "MOST", 2)
    many = ranking(search, sort, limit=2)
    is_position = (sort, search) == ("count", None)
    shown = [replace(one, rank=one.rank if is_position else None) for one in few.agents]
    assert many.agents == shown
    assert not many.is_counted
    assert (many.has_more, many.total, many.heavy) == (few.has_more, few.total, few.heavy)


def test_the_others_have_the_rest_of_the_tokens(ranking, fill):
    fill({"a": 6, "b": 3, "c": 1})
    found = ranking(limit=1)
    assert (found.others, found.others_share) == (4, 0.4)


@pytest.mark.parametrize(
    ("counts", "heavy"),
    [
        ({"a": 81, "b": 19}, "a"),
        ({"a": 80, "b": 20}, None),
        ({"a": 1000}, None),  # an only agent has all tokens by necessity
        ({"a": 98, "b": 1}, None),  # too few tokens to say anything
        ({"a": 99, "b": 1}, "a"),
        ({"a": 1000, "b": 0}, None),
    ],
)
def test_a_heavy_agent_needs_a_second_and_a_floor(ranking, fill, counts, heavy):
    """More than 80 percent of at least 100 tokens is heavy, if there is another agent."""
    fill(counts)
    for search, sort in ((None, "count"), (None, "id"), ("b", "count"), ("nothing", "name")):
        found = ranking(search, sort, limit=1).heavy
        assert (found and (found.agent_id, found.rank)) == (heavy and (heavy, 1))


@pytest.mark.usefixtures("three")
def test_the_whole_usage_comes_in_batches(database, monkeypatch):
    """The whole usage comes in batches, most first, and twice the same from one snapshot."""
    monkeypatch.setattr("app.reports.base.BATCH", 2)
    with database.snapshot_for(TENANT) as connection:
        batches = usage.whole_usage(connection, TENANT, month=APRIL)
        for _ in range(2):
            assert [[AgentCount(*row) for row in batch] for batch in batches] == [
                [AgentCount("id-b", 81)],  # beside the row of the state
                [AgentCount("id-c", 10), AgentCount("id-a", 9)],
            ]
            change = sa.update(monthly_agent_issuance).values(issued=5)
            database.write(lambda writer, change=change: writer.execute(change))
        named = usage.named_usage(connection, TENANT, month=APRIL)
        assert [NamedUsage(*row) for batch in named for row in batch] == [
            NamedUsage("id-b", "Zebra", 81),
            NamedUsage("id-c", None, 10),
            NamedUsage("id-a", "apple", 9),
        ]
