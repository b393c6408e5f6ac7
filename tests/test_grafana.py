"""docs/grafana.md: each address of the dashboard is answered, and each statement runs."""

import json
import re

import pytest
import sqlalchemy as sa

from app.config.settings import ROOT
from app.intake.agent_names import set_names
from tests.support.findings import stored
from tests.support.settings import NOW
from tests.support.tokens import bearer

PAGE = (ROOT / "docs" / "grafana.md").read_text()
DASHBOARD = json.loads((ROOT / "docs" / "grafana-infinity.json").read_text())
BLOCKS = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
QUERIES = [block for block in BLOCKS if block.startswith("SELECT")]
PLAIN = [query for query in QUERIES if "$" not in query]
MACROS = {"$__timeFrom()": "'2026-04-01T00:00:00Z'", "$__timeTo()": "'2026-04-30T23:59:59.9Z'"}
ORGANIZATION = "org-1"


@pytest.fixture
def counted(database, issue, roll_up):
    issue("2026-04-14T09:30:00Z", times=3, tenant=ORGANIZATION, agent="agent-1")
    issue("2026-04-15T09:30:00Z", times=2, tenant=ORGANIZATION, agent="agent-2")
    issue("2026-04-15T09:30:00Z", times=9, tenant="org-2")
    roll_up()
    set_names(database, ORGANIZATION, {"agent-2": "Batch"}, NOW, by="tester")


def address(text, first="2026-04-01", last="2026-04-15"):
    """An address as the data source sends it, with the days of the range."""
    text = text.replace("${__timeFrom:date:YYYY-MM-DD}", first)
    text = text.replace("${__timeTo:date:YYYY-MM-DD}", last)
    assert "$" not in text
    return text


def test_every_panel_reads_with_a_read_key(client, database, counted):
    """Each panel's address is answered to a key that can only read, with the panel's columns."""
    stored(database, {}, tenant=ORGANIZATION)
    admin = bearer(ORGANIZATION, scope="analytics:admin")
    body = {"scopes": ["analytics:read"]}
    key = client.post("/api/v1/keys", json=body, headers=admin).json["key"]
    assert len(DASHBOARD["panels"]) == 8
    for panel in DASHBOARD["panels"]:
        (target,) = panel["targets"]
        assert (target["source"], target["parser"]) == ("url", "backend")
        hourly = "2026-04-09" if panel.get("timeFrom") == "7d" else "2026-04-01"
        answer = client.get(
            address(target["url"], hourly), headers={"Authorization": f"Bearer {key}"}
        )
        assert answer.status_code == 200, answer.text
        root = target["root_selector"]
        rows = answer.json[root] if root else [answer.json]
        assert rows, panel["title"]
        for column in target["columns"]:
            assert column["selector"] in rows[0], panel["title"]


def test_the_statements_run_as_they_are(database, counted):
    """On both databases, with the numbers of the organization that they name."""
    assert len(PLAIN) == 4
    days, agents, week, organizations = (rows_of(database, query) for query in PLAIN)
    assert [row.tokens for row in days] == [3, 2]
    assert [tuple(row) for row in agents] == [("agent-1", None, 3), ("agent-2", "Batch", 2)]
    assert [tuple(row) for row in week] == [(2, 9, 3), (3, 9, 2)]
    assert [tuple(row) for row in organizations] == [("org-2", 9), (ORGANIZATION, 5)]


def rows_of(database, query):
    with database.engine.connect() as connection:
        return connection.execute(sa.text(query)).all()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_the_role_of_grafana_reads_and_no_more(database, counted):
    """With Grafana's macros replaced, in the role of the page, each statement finds rows."""
    role, policy = (block for block in BLOCKS if not block.startswith("SELECT"))
    with database.engine.connect() as connection:
        for statement in [*role.split(";\n"), policy, "SET ROLE analytics_grafana"]:
            connection.exec_driver_sql(statement or "SELECT 1")
        queries = ";".join(QUERIES)
        for macro, value in MACROS.items():
            queries = queries.replace(macro, value)
        for query in queries.split(";"):
            assert connection.exec_driver_sql(query).all(), query
        for forbidden in ("issuance_events", "api_keys", "agents"):
            with pytest.raises(sa.exc.ProgrammingError), connection.begin_nested():
                connection.exec_driver_sql(f"SELECT * FROM {forbidden}")
        connection.rollback()
