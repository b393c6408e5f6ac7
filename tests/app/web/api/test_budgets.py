"""/api/v1/budgets: budgets of the own organization, set, listed and deleted."""

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from app.alerts import budgets
from app.storage.audit import changes
from app.storage.tables import rollup_state
from tests.support.settings import NOW, TENANT
from tests.support.statements import statements
from tests.support.summaries import fill
from tests.support.tokens import bearer

BUDGETS = "/api/v1/budgets"
ADMIN = bearer(TENANT, "analytics:admin", sub="user-1", exp=4_102_444_800)
DAY = timedelta(days=1)


@pytest.fixture
def put(client):
    def put(headers=ADMIN, **members):
        body = {"agentId": None, "period": "month", "tokens": 1000} | members
        body = {name: value for name, value in body.items() if value is not ...}
        return client.put(BUDGETS, json=body, headers=headers)

    return put


@pytest.fixture
def busy(database):
    """Ten tokens in each hour of six weeks and a half, a third of them of agent-2."""
    begin = datetime(2026, 2, 25, tzinfo=UTC)
    hours = int((NOW.replace(minute=0) - begin) / timedelta(hours=1))
    fill(
        database,
        [
            (begin + hour * timedelta(hours=1), f"agent-{1 + (number % 3 == 0)}")
            for hour in range(hours)
            for number in range(10)
        ],
    )


@pytest.mark.usefixtures("busy")
def test_a_budget_is_set_listed_and_deleted(client, put, database):
    answer = put(tokens=5000)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    made = answer.json
    assert made == {
        "agentId": None,
        "period": "month",
        "tokens": 5000,
        "used": 240 * 14 + 120,
        "remaining": 1520,
        "projected": made["projected"],
        "crossesOn": "2026-04-21",
    }
    assert made["projected"] == pytest.approx(7200, rel=0.01)
    assert put(tokens=5900).json["crossesOn"] == "2026-04-25"
    agent = put(agentId="agent-2", period="day", tokens=50).json
    assert (agent["used"], agent["remaining"]) == (48, 2)
    assert agent["projected"] == pytest.approx(96, abs=3)
    assert agent["crossesOn"] == "2026-04-15"
    listed = client.get(BUDGETS, headers=ADMIN)
    assert listed.headers["ETag"]
    assert listed.json["tenantId"] == TENANT
    assert [(one["agentId"], one["tokens"]) for one in listed.json["data"]] == [
        (None, 5900),
        ("agent-2", 50),
    ]
    same = client.get(BUDGETS, headers=ADMIN | {"If-None-Match": listed.headers["ETag"]})
    assert same.status_code == 304
    gone = client.delete(f"{BUDGETS}?agentId=agent-2&period=day", headers=ADMIN)
    assert gone.json == {"agentId": "agent-2", "period": "day", "tokens": 50}
    again = client.delete(f"{BUDGETS}?agentId=agent-2&period=day", headers=ADMIN)
    assert (again.status_code, again.json["code"]) == (404, "NOT_FOUND")
    with database.snapshot() as connection:
        found = [(one.actor, one.action, one.subject) for one in changes(connection)]
    assert found == [
        ("user-1", "budget.deleted", "agent-2"),
        ("user-1", "budget.set", "agent-2"),
        ("user-1", "budget.set", TENANT),
        ("user-1", "budget.set", TENANT),
    ]


@pytest.mark.usefixtures("busy")
def test_a_budget_that_is_used_up_says_since_when(put):
    made = put(tokens=480).json
    assert (made["remaining"], made["crossesOn"]) == (0, "2026-04-02")


def test_an_agent_without_a_token_has_used_nothing(put):
    made = put(agentId="agent-of-tomorrow").json
    assert (made["used"], made["remaining"], made["projected"]) == (0, 1000, 0)
    assert made["crossesOn"] is None


@pytest.mark.usefixtures("busy")
def test_the_list_is_one_statement(client, put, app):
    for number in range(5):
        put(agentId=f"agent-{number}", period="day")
    with statements(app.extensions["analytics"].database) as sent:
        assert len(client.get(BUDGETS, headers=ADMIN).json["data"]) == 5
    assert len(sent) == 1


@pytest.mark.usefixtures("busy")
def test_while_tables_are_filled_an_agent_has_its_part_of_the_month(client, put, database):
    put(agentId="agent-2", tokens=2000)
    put(agentId="agent-2", period="day")
    exact = client.get(BUDGETS, headers=ADMIN).json["data"][1]
    filling = sa.update(rollup_state).values(backfilled=1, backfill_end=9)
    database.write(lambda connection: connection.execute(filling))
    day, month = client.get(BUDGETS, headers=ADMIN).json["data"]
    assert (day["used"], day["remaining"], day["projected"], day["crossesOn"]) == (None,) * 4
    assert month["used"] == exact["used"]
    assert month["projected"] == pytest.approx(exact["projected"], rel=0.01)
    assert month["crossesOn"] == exact["crossesOn"]


def test_budgets_of_another_organization_do_not_exist(client, put):
    put()
    theirs = bearer("org-of-somebody-else", "analytics:admin")
    assert client.get(BUDGETS, headers=theirs).json["data"] == []
    assert client.delete(f"{BUDGETS}?period=month", headers=theirs).status_code == 404
    put(theirs, tokens=7)
    assert client.get(BUDGETS, headers=ADMIN).json["data"][0]["tokens"] == 1000


@pytest.mark.parametrize("scope", ["", "analytics:read", "analytics:read:any agents:write"])
def test_budgets_need_the_scope_of_an_administrator(client, put, scope):
    headers = bearer(TENANT, scope)
    answers = (client.get(BUDGETS, headers=headers), put(headers))
    answers += (client.delete(f"{BUDGETS}?period=month", headers=headers),)
    for answer in answers:
        assert (answer.status_code, answer.json["code"]) == (403, "FORBIDDEN")


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"tokens": 0}, "tokens"),
        ({"tokens": -1}, "tokens"),
        ({"tokens": 10**15 + 1}, "tokens"),
        ({"tokens": 10**30}, "tokens"),
        ({"tokens": 1.5}, "tokens"),
        ({"tokens": "1000"}, "tokens"),
        ({"tokens": True}, "tokens"),
        ({"tokens": None}, "tokens"),
        ({"tokens": ...}, "tokens"),
        ({"period": "week"}, "period"),
        ({"period": "Day"}, "period"),
        ({"period": None}, "period"),
        ({"period": ...}, "period"),
        ({"agentId": ""}, "agentId"),
        ({"agentId": "x" * 256}, "agentId"),
        ({"agentId": "a\x00"}, "agentId"),
        ({"agentId": "a\x1f"}, "agentId"),
        ({"agentId": 7}, "agentId"),
        ({"organizationId": "org-b"}, "organizationId"),
        ({"tenant_id": "org-b"}, "tenant_id"),
    ],
)
def test_invalid_budgets_are_refused(client, put, members, words):
    answer = put(**members)
    assert (answer.status_code, answer.json["code"]) == (400, "VALIDATION_ERROR")
    assert words in answer.json["message"]
    assert client.get(BUDGETS, headers=ADMIN).json["data"] == []


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b'"x"', b"\xff", b"[" * 10_000])
def test_a_body_that_is_no_budget_is_refused(client, body):
    answer = client.put(BUDGETS, data=body, headers=ADMIN | {"Content-Type": "application/json"})
    assert (answer.status_code, answer.json["code"]) == (400, "VALIDATION_ERROR")


@pytest.mark.parametrize(
    "query",
    ["", "?period=week", "?period=", "?period=day&period=day", "?period=day&agentId="],
)
def test_a_deletion_names_its_budget(client, query):
    answer = client.delete(f"{BUDGETS}{query}", headers=ADMIN)
    assert (answer.status_code, answer.json["code"]) == (400, "VALIDATION_ERROR")


def test_an_organization_has_a_limited_number_of_budgets(client, put, monkeypatch):
    """One that is there already can be set again."""
    monkeypatch.setattr(budgets, "MAX_BUDGETS", 2)
    assert [put(agentId=agent).status_code for agent in ("a", "b")] == [200, 200]
    refused = put(agentId="c")
    assert (refused.status_code, refused.json["code"]) == (409, "CONFLICT")
    assert put(agentId="a", tokens=7).json["tokens"] == 7
    assert client.delete(f"{BUDGETS}?agentId=a&period=month", headers=ADMIN).status_code == 200
    assert put(agentId="c").status_code == 200
