"""The usage by agent: shares, ranks, searches and pages, all counted by the database."""

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
    set_names(database, TENANT, NAMES | {"never issued": "x"}, NOW, by="tester")
    set_names(database, "org-b", {"id-c": "of another"}, NOW, by="tester")


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
