"""A token of one organization stores nothing for another, and its ids and names are its own."""

import json

import pytest
from sqlalchemy import select

from app.storage.tables import agents, issuance_events
from tests.support.tokens import bearer

OURS, THEIRS = "org-a", "org-of-somebody-else"
EVENTS = "/api/v1/events"
MORNING = "2026-04-14T09:00:00Z"


@pytest.fixture
def events_of(database):
    """A tenant's stored event ids; ``None``: everybody's."""

    def events_of(tenant=None):
        statement = select(issuance_events.c.event_id).order_by(issuance_events.c.id)
        if tenant is not None:
            statement = statement.where(issuance_events.c.tenant_id == tenant)
        with database.reading() as connection:
            return list(connection.scalars(statement))

    return events_of


GOOD = {"id": "good", "agentId": "a", "issuedAt": MORNING}
BAD = {"id": "bad", "agentId": "a", "issuedAt": "yesterday"}
FOREIGN = {"id": "foreign", "agentId": "a", "issuedAt": MORNING, "organizationId": THEIRS}
OWN = GOOD | {"id": "own", "organizationId": OURS}
BATCHES = {
    "alone": [FOREIGN],
    "first": [FOREIGN, GOOD, OWN],
    "in between": [GOOD, FOREIGN, OWN],
    "last": [*(GOOD | {"id": f"good-{number}"} for number in range(200)), FOREIGN],
    "after a bad one": [GOOD, BAD, FOREIGN],
    "before a bad one": [FOREIGN, BAD, GOOD],
    "with a bad time of its own": [GOOD, FOREIGN | {"issuedAt": "yesterday"}],
    "that differs in case": [GOOD, FOREIGN | {"organizationId": OURS.upper()}],
    "that differs by a space": [GOOD, FOREIGN | {"organizationId": f"{OURS} "}],
    "that only begins as ours": [GOOD, FOREIGN | {"organizationId": OURS[:-1]}],
}


@pytest.mark.parametrize("query", ["", "?invalid=skip"])
@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_an_event_for_another_organization_refuses_the_batch(client, events_of, batch, query):
    """An event for another organization refuses its whole batch."""
    bodies = {
        "application/json": json.dumps(batch if len(batch) > 1 else batch[0]),
        "application/x-ndjson": "\n".join(map(json.dumps, batch)),
    }
    for content_type, body in bodies.items():
        headers = bearer(OURS, "events:write") | {"Content-Type": content_type}
        answer = client.post(EVENTS + query, data=body, headers=headers)
        assert (answer.status_code, answer.json["code"]) == (403, "FORBIDDEN")
        assert THEIRS not in answer.text
    assert events_of() == []


@pytest.mark.parametrize("first", [OURS, THEIRS])
def test_an_organization_named_twice_writes_to_no_other(client, events_of, first):
    """An event that names its organization twice does not write to the other organization."""
    last = THEIRS if first == OURS else OURS
    event = json.dumps(GOOD)[:-1] + f', "organizationId": "{first}", "organizationId": "{last}"}}'
    headers = bearer(OURS, "events:write") | {"Content-Type": "application/json"}
    client.post(EVENTS, data=event, headers=headers)
    assert events_of(THEIRS) == []


LOOKALIKES = ["1", "01", "1.0", "1e0", "org", "ORG", "Org", "org ", " org", "org\xa0", "o%", "o_g"]
LOOKALIKES += ["%", "_", "*", "null", "None", "true", "org' OR '1'='1", "org;--", 'org"', "org\\"]
LOOKALIKES += ["\xe5", "a\u030a", "\u212b", "\xdf", "ss", "\u0131", "i", "\u0130", "org\u200b"]


def test_ids_that_look_alike_are_different_tenants(client, roll_up):
    for number, tenant in enumerate(LOOKALIKES, 1):
        events = [GOOD | {"id": f"{number}"} for number in range(number)]
        answer = client.post(EVENTS, json=events, headers=bearer(tenant, "events:write"))
        assert answer.json["accepted"] == number
    roll_up()
    for number, tenant in enumerate(LOOKALIKES, 1):
        answer = client.get("/api/v1/analytics/agents", headers=bearer(tenant))
        data = [{"agentId": "a", "tokenCount": number}]
        assert answer.json == {"tenantId": tenant, "month": "2026-04", "data": data}


AGENTS = "/api/v1/agents"
DISGUISES = {
    "organizationId": THEIRS, "organization_id": THEIRS, "tenantId": THEIRS, "tenant_id": THEIRS,
}  # fmt: skip


@pytest.fixture
def names_of(database):
    """A tenant's stored names."""

    def names_of(tenant):
        statement = select(agents.c.agent_id, agents.c.name).where(agents.c.tenant_id == tenant)
        with database.reading() as connection:
            return {row.agent_id: row.name for row in connection.execute(statement)}

    return names_of


@pytest.mark.parametrize("scope", ["agents:write", "agents:write events:write:any"])
@pytest.mark.quick
def test_a_name_is_set_only_in_the_tokens_organization(client, names_of, scope):
    """A name is set in the token's organization, even if body, header or query name another."""
    theirs = bearer(THEIRS, "agents:write")
    client.put(f"{AGENTS}/a", json={"name": "theirs"}, headers=theirs)
    headers = bearer(OURS, scope) | {f"X-{name}": THEIRS for name in DISGUISES}
    for name in ("ours", None):
        body = {"name": name} | DISGUISES
        answer = client.put(f"{AGENTS}/a", json=body, headers=headers, query_string=DISGUISES)
        assert answer.json == {"agentId": "a", "name": name}
        assert (names_of(OURS)["a"], names_of(THEIRS)) == (name, {"a": "theirs"})
        several = DISGUISES | {"data": [body | {"agentId": "a"}, body | {"agentId": THEIRS}]}
        client.put(AGENTS, json=several, headers=headers, query_string=DISGUISES)
        assert names_of(OURS) == {"a": name, THEIRS: name}
        assert names_of(THEIRS) == {"a": "theirs"}


@pytest.mark.parametrize("query", ["", "?invalid=skip"])
def test_a_refused_event_names_no_agents(client, names_of, query):
    """An event for another organization names no agents."""
    events = [each | {"agentName": "n"} for each in (GOOD, FOREIGN)]
    answer = client.post(EVENTS + query, json=events, headers=bearer(OURS, "events:write"))
    assert answer.status_code == 403
    assert (names_of(OURS), names_of(THEIRS)) == ({}, {})


def test_names_of_tenants_that_look_alike_are_kept_apart(client, names_of):
    for number, tenant in enumerate(LOOKALIKES):
        headers = bearer(tenant, "agents:write")
        assert client.put(f"{AGENTS}/a", json={"name": f"{number}"}, headers=headers).json
    for number, tenant in enumerate(LOOKALIKES):
        assert names_of(tenant) == {"a": f"{number}"}
        (agent,) = client.get(AGENTS, headers=bearer(tenant)).json["data"]
        assert agent["name"] == f"{number}"
