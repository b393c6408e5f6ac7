"""/api/v1/settings: days off, price and lifetime of the own organization; agents' lifetimes."""

from datetime import date

import pytest
import sqlalchemy as sa

from app.intake.organization_settings import DaysOff, dates_off
from app.storage.tables import agents
from tests.support.settings import TENANT
from tests.support.tokens import bearer

SETTINGS = "/api/v1/settings"
ADMIN = bearer(TENANT, "analytics:admin", exp=4_102_444_800)
EMPTY = {"daysOff": None, "price": None, "tokenLifetime": None}
FULL = {
    "daysOff": {"country": "DE", "subdivision": "BY", "dates": ["2026-12-24", "2026-12-31"]},
    "price": {"perThousand": 0.5, "currency": "EUR"},
    "tokenLifetime": 900,
}


@pytest.fixture
def put(client):
    return lambda body: client.put(SETTINGS, json=body, headers=ADMIN)


def test_settings_are_empty_until_they_are_set(client, put):
    """A PUT replaces all: a member that is left out is taken back."""
    assert client.get(SETTINGS, headers=ADMIN).json == EMPTY
    answer = put(FULL)
    assert (answer.status_code, answer.json) == (200, FULL)
    assert client.get(SETTINGS, headers=ADMIN).json == FULL
    other = bearer("org-of-somebody-else", "analytics:admin")
    assert client.get(SETTINGS, headers=other).json == EMPTY
    assert put({"tokenLifetime": 60}).json == EMPTY | {"tokenLifetime": 60}
    assert client.get(SETTINGS, headers=ADMIN).json == EMPTY | {"tokenLifetime": 60}
    assert put({}).json == EMPTY


def test_dates_are_kept_once_and_in_order(put):
    dates = ["2026-12-31", "2026-01-01", "2026-12-31"]
    off = put({"daysOff": {"dates": dates}}).json["daysOff"]
    assert off == {"country": None, "subdivision": None, "dates": ["2026-01-01", "2026-12-31"]}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], ""),
        ({"daysOf": None}, ""),
        ({"daysOff": {"country": "XX"}}, "daysOff.country"),
        ({"daysOff": {"country": "de"}}, "daysOff.country"),
        ({"daysOff": {"country": "NYSE"}}, "daysOff.country"),
        ({"daysOff": {"country": "DE", "subdivision": "XX"}}, "daysOff.subdivision"),
        ({"daysOff": {"subdivision": "BY"}}, "daysOff.subdivision"),
        ({"daysOff": {"dates": ["2026-02-30"]}}, "daysOff.dates[0]"),
        ({"daysOff": {"dates": ["2026-02-03"] * 1001}}, "daysOff.dates"),
        ({"price": {"perThousand": -1, "currency": "EUR"}}, "price.perThousand"),
        ({"price": {"perThousand": 1, "currency": "eur"}}, "price.currency"),
        ({"price": {"perThousand": 1}}, "price"),
        ({"tokenLifetime": 0}, "tokenLifetime"),
        ({"tokenLifetime": 1.5}, "tokenLifetime"),
        ({"tokenLifetime": True}, "tokenLifetime"),
        ({"tokenLifetime": 31_622_401}, "tokenLifetime"),
    ],
)
def test_invalid_settings_are_400_and_name_the_member(client, put, body, field):
    put(FULL)
    answer = put(body)
    assert (answer.status_code, answer.json["code"]) == (400, "VALIDATION_ERROR")
    assert answer.json["details"]["field"] == field
    assert client.get(SETTINGS, headers=ADMIN).json == FULL


def test_settings_need_the_scope_of_an_administrator(client):
    for method in ("GET", "PUT"):
        answer = client.open(SETTINGS, method=method, json={}, headers=bearer(TENANT))
        assert answer.status_code == 403


def test_days_off_are_holidays_and_dates():
    """The holidays of a country or of its part, and dates, within the days that are asked for."""
    first, last = date(2026, 1, 1), date(2026, 12, 31)
    assert dates_off(None, first, last) == frozenset()
    bavaria = dates_off(DaysOff("DE", "BY", [date(2026, 12, 24), date(2027, 1, 2)]), first, last)
    assert {date(2026, 1, 6), date(2026, 10, 3), date(2026, 12, 24)} <= bavaria
    assert date(2027, 1, 2) not in bavaria
    assert date(2026, 1, 6) not in dates_off(DaysOff("DE"), first, last)
    assert date(9999, 12, 31) in dates_off(DaysOff(dates=[date.max]), date(9999, 1, 1), date.max)


def lifetimes(database):
    with database.reading() as connection:
        rows = connection.execute(sa.select(agents.c.agent_id, agents.c.token_lifetime))
        return {row.agent_id: row.token_lifetime for row in rows}


def test_an_agent_has_a_lifetime_of_its_own(client, database):
    """It is set and taken back with the name, and stays when a name comes without it."""
    headers = bearer(TENANT, "agents:write")
    path = "/api/v1/agents/agent-1"

    def put(**body):
        return client.put(path, json={"name": "billing"} | body, headers=headers)

    assert put(tokenLifetime=900).json == {
        "agentId": "agent-1",
        "name": "billing",
        "tokenLifetime": 900,
    }
    assert put().json == {"agentId": "agent-1", "name": "billing"}
    assert lifetimes(database) == {"agent-1": 900}
    for wrong in (0, -1, "900", 1.5, True, 31_622_401):
        assert put(tokenLifetime=wrong).status_code == 400
    assert lifetimes(database) == {"agent-1": 900}
    assert put(tokenLifetime=None).json["tokenLifetime"] is None
    assert lifetimes(database) == {"agent-1": None}


def test_the_directory_shows_an_agents_lifetime(client):
    """It is that of the agent alone, and in every order."""
    for agent, lifetime in (("short", 60), ("usual", None)):
        body = {"name": agent, "tokenLifetime": lifetime}
        headers = bearer(TENANT, "agents:write")
        assert client.put(f"/api/v1/agents/{agent}", json=body, headers=headers).status_code == 200
    for query in ("", "?sort=lastSeen", "?q=s"):
        listed = client.get(f"/api/v1/agents{query}", headers=bearer(TENANT)).json["data"]
        assert [each["tokenLifetime"] for each in listed] == [60, None]
