"""Reports that are too long for the memory: the same answers, sent in pieces."""

import tracemalloc

import pytest
import sqlalchemy as sa

from app.intake.agent_names import set_names
from app.reports import base, usage
from app.storage.tables import daily_issuance, monthly_agent_issuance
from app.web import responses
from tests.support.pages import DASHBOARD, Browser
from tests.support.settings import NOW, TENANT
from tests.support.statements import statements
from tests.support.tokens import bearer

AGENTS = "/api/v1/analytics/agents"
FORMS = [AGENTS, f"{AGENTS}.csv", f"{AGENTS}.csv?bom=1"]
MILLION = 1_000_000


@pytest.fixture
def some(database, issue, roll_up):
    """Agents with ids that need an escape, in JSON or in CSV."""
    for number, agent in enumerate(('"', "a,b", "=1", "\u00e9;+1", "\U0001f511", "plain", "z")):
        issue(NOW, times=1 + number % 3, agent=agent)
    roll_up()
    set_names(database, TENANT, {"plain": "@name"}, NOW, by="tester")


@pytest.fixture
def long(monkeypatch):
    """Have three agents be too many to be read at once."""
    monkeypatch.setattr(usage, "MOST", 3)
    monkeypatch.setattr(base, "BATCH", 2)


def headers_of(answer):
    return {name: text for name, text in answer.headers if name != "X-Request-Id"}


@pytest.mark.usefixtures("some")
@pytest.mark.parametrize("path", FORMS)
def test_a_long_report_is_the_same_as_a_short_one(client, request, monkeypatch, path):
    """Body, ETag, length and all other headers do not tell whether a report came in pieces."""
    short = client.get(path, headers=bearer())
    request.getfixturevalue("long")
    read = usage.whole_usage
    reads = []
    monkeypatch.setattr(usage, "whole_usage", lambda *a, **b: reads.append(1) or read(*a, **b))
    long = client.get(path, headers=bearer())
    assert reads == [1]
    assert (long.status_code, long.data) == (200, short.data)
    assert headers_of(long) == headers_of(short)
    assert int(long.headers["Content-Length"]) == len(long.data)


@pytest.mark.usefixtures("some", "long")
@pytest.mark.parametrize("path", FORMS)
def test_a_long_report_that_is_unchanged_is_304(client, path):
    answer = client.get(path, headers=bearer())
    known = bearer() | {"If-None-Match": answer.headers["ETag"]}
    again = client.get(path, headers=known, buffered=True)
    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["Vary"] == answer.headers["Vary"]
    head = client.head(path, headers=bearer(), buffered=True)
    assert (head.data, head.headers["Content-Length"]) == (b"", answer.headers["Content-Length"])
    assert head.headers["ETag"] == answer.headers["ETag"]


@pytest.mark.usefixtures("some", "long")
def test_a_long_report_gives_its_connection_back(client, monkeypatch):
    """Its connection is closed after the answer, after 304, after HEAD and after an error."""
    pool = client.application.extensions["analytics"].database.engine.pool
    answer = client.get(AGENTS, headers=bearer())
    assert (len(answer.json["data"]), pool.checkedout()) == (7, 0)
    known = bearer() | {"If-None-Match": answer.headers["ETag"]}
    client.get(AGENTS, headers=known, buffered=True)
    assert pool.checkedout() == 0
    client.head(AGENTS, headers=bearer(), buffered=True)
    assert pool.checkedout() == 0
    opened = client.get(AGENTS, headers=bearer())
    assert pool.checkedout() == 1
    opened.close()  # the client has gone
    assert pool.checkedout() == 0
    assert client.get(f"{AGENTS}.csv?bom=2", headers=bearer()).status_code == 400
    assert pool.checkedout() == 0
    monkeypatch.setattr(responses, "_json_pieces", lambda _body, _batches: iter([None]))
    assert client.get(AGENTS, headers=bearer()).status_code == 500
    assert pool.checkedout() == 0


@pytest.mark.usefixtures("some", "long")
def test_long_reports_leave_connections_to_others(client):
    """While half of the connections are used by long reports, another one is refused."""
    opened = [client.get(AGENTS, headers=bearer()) for _ in range(2)]
    refused = client.get(AGENTS, headers=bearer())
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    assert client.get(f"{AGENTS}?limit=5", headers=bearer()).status_code == 200
    opened[0].close()
    assert client.get(AGENTS, headers=bearer(), buffered=True).status_code == 200
    opened[1].close()


@pytest.mark.usefixtures("some", "long")
def test_a_client_that_reads_too_slowly_is_cut_off(client, monkeypatch):
    """The snapshot of a client that does not finish in time is given back."""
    monkeypatch.setattr(responses, "SENDING_SECONDS", -1)
    with pytest.raises(TimeoutError):
        client.get(AGENTS, headers=bearer(), buffered=True)
    pool = client.application.extensions["analytics"].database.engine.pool
    assert pool.checkedout() == 0


@pytest.mark.usefixtures("some", "long")
def test_a_limit_keeps_a_report_short(client):
    with statements(client.application.extensions["analytics"].database) as sent:
        answer = client.get(f"{AGENTS}?limit=5", headers=bearer())
    assert (len(answer.json["data"]), len(sent)) == (5, 1)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_million_agents_fit_into_the_memory(app, database, roll_up):
    """With a million agents, pages show the largest, and whole answers are sent in pieces."""
    roll_up()
    database.write(fill)
    client = app.test_client()
    browser = Browser(client)
    browser.sign_in()
    tracemalloc.start()
    try:
        page = browser.get(DASHBOARD)
        assert page.status_code == 200
        assert "There are more than 10,000 agents a month." in page.text
        for path in (DASHBOARD + "?size=all&page=50", DASHBOARD + "?q=agent-77&sort=name"):
            assert browser.get(path).status_code == 200
        directory = client.get("/api/v1/agents?limit=1000", headers=bearer()).json
        assert (len(directory["data"]), directory["data"][0]["tokenCount"]) == (1000, 2)
        for path in (AGENTS, f"{AGENTS}.csv"):
            received = 0
            with client.get(path, headers=bearer()) as answer:
                for piece in answer.iter_encoded():
                    received += len(piece)
            assert received == answer.content_length > 15 * MILLION
        assert tracemalloc.get_traced_memory()[1] < 30 * 1024**2
    finally:
        tracemalloc.stop()


def fill(connection):
    """A million agents in each of two months, written by the database itself."""
    numbers = sa.text(
        "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :n)"
        f" INSERT INTO {monthly_agent_issuance.name} (tenant_id, month, agent_id, issued)"
        " SELECT :tenant, month, 'agent-' || n, 1 FROM numbers,"
        " (SELECT CAST(:april AS DATE) AS month UNION ALL SELECT CAST(:march AS DATE)) AS months"
    )
    if connection.dialect.name == "sqlite":  # where a date is text
        numbers = sa.text(numbers.text.replace("AS DATE", "AS TEXT"))
    months = {"april": NOW.date().replace(day=1), "march": NOW.date().replace(month=3, day=1)}
    if connection.dialect.name == "sqlite":
        months = {name: month.isoformat() for name, month in months.items()}
    connection.execute(numbers, {"n": MILLION, "tenant": TENANT, **months})
    day = {"tenant_id": TENANT, "date": NOW.date(), "issued": MILLION}
    connection.execute(sa.insert(daily_issuance), [day])
