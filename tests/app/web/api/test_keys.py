"""/api/v1/keys: keys of the own organization, created, listed and revoked."""

import pytest

from app.auth import api_keys
from tests.support.api_keys import created, with_key
from tests.support.settings import TENANT
from tests.support.tokens import bearer

KEYS = "/api/v1/keys"
TOKENS = "/api/v1/analytics/tokens?days=1"
ADMIN = "analytics:admin events:write"
THEIRS = "org-of-somebody-else"


@pytest.fixture
def create(client):
    def create(*scopes, headers=None, **members):
        body = {"scopes": list(scopes)} | members
        return client.post(KEYS, json=body, headers=headers or bearer(TENANT, ADMIN))

    return create


def test_a_key_is_shown_once(client, create):
    """The answer to its creation has the key; the list and later answers have its prefix."""
    answer = create("events:write", note="log stream", expires="2026-07-01T02:00:00+02:00")
    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
    made = answer.json
    text = made.pop("key")
    assert text.startswith(made["prefix"])
    assert made == {
        "id": made["prefix"].removeprefix("agk_"),
        "prefix": made["prefix"],
        "scopes": ["events:write"],
        "note": "log stream",
        "created": "2026-04-15T12:30:00Z",
        "expires": "2026-07-01T00:00:00Z",
        "revoked": None,
        "lastUsed": None,
    }
    listed = client.get(KEYS, headers=bearer(TENANT, ADMIN))
    assert listed.json == {"tenantId": TENANT, "data": [made]}
    assert text not in listed.text
    event = {"id": "e", "agentId": "a", "issuedAt": "2026-04-14T09:00:00Z"}
    used = client.post("/api/v1/events", json=event, headers=with_key(text))
    assert used.json["accepted"] == 1
    (again,) = client.get(KEYS, headers=bearer(TENANT, ADMIN)).json["data"]
    assert again["lastUsed"] == "2026-04-15"


def test_a_key_is_revoked_and_stays_in_the_list(client, create):
    """A second time changes nothing."""
    made = create("analytics:read").json
    for _ in range(2):
        answer = client.delete(f"{KEYS}/{made['id']}", headers=bearer(TENANT, ADMIN))
        assert (answer.status_code, answer.json["revoked"]) == (200, "2026-04-15T12:30:00Z")
    assert client.get(TOKENS, headers=with_key(made["key"])).status_code == 401
    (listed,) = client.get(KEYS, headers=bearer(TENANT, ADMIN)).json["data"]
    assert listed == answer.json


def test_keys_of_another_organization_do_not_exist(client, create, database):
    """They are not listed, and cannot be revoked; the answer is that for an unknown id."""
    theirs, text = created(database, tenant=THEIRS)
    shared, _ = created(database, "events:write:any", tenant=None)
    assert client.get(KEYS, headers=bearer(TENANT, ADMIN)).json["data"] == []
    answers = [
        client.delete(f"{KEYS}/{key_id}", headers=bearer(TENANT, ADMIN))
        for key_id in (theirs.id, shared.id, "AAAAAAAAAAAA", "x", text, "%00", "%FF", "a" * 3000)
    ]
    assert {(answer.status_code, answer.json["code"]) for answer in answers} == {(404, "NOT_FOUND")}
    assert len({answer.data for answer in answers}) == 1
    assert client.get(TOKENS, headers=with_key(text)).json["tenantId"] == THEIRS


@pytest.mark.parametrize("scope", ["", "events:write", "events:write:any agents:write"])
def test_keys_need_the_scope_of_an_administrator(client, scope):
    for method, path in (("GET", KEYS), ("POST", KEYS), ("DELETE", f"{KEYS}/AAAAAAAAAAAA")):
        body = {"scopes": ["analytics:read"]}
        answer = client.open(path, method=method, json=body, headers=bearer(TENANT, scope))
        assert (answer.status_code, answer.json["code"]) == (403, "FORBIDDEN")


def test_a_key_has_no_scope_that_its_creator_lacks(create):
    """Reads need no scope with a token, so its owner may create a key that reads."""
    assert create("analytics:read", "analytics:admin", "events:write").status_code == 201
    refused = create("events:write", "agents:write")
    assert (refused.status_code, refused.json["code"]) == (403, "FORBIDDEN")
    assert "agents:write" in refused.json["message"]
    wide = bearer(TENANT, "analytics:admin events:write:any")
    assert create("events:write", headers=wide).status_code == 201
    refused = create("events:write:any", headers=wide)
    assert refused.status_code == 403
    assert "flask keys create --any" in refused.json["message"]


def test_a_key_creates_keys_with_its_own_scopes_only(create, database):
    """Unlike a token, a key has analytics:read only if it says so."""
    headers = with_key(created(database, "analytics:admin")[1])
    assert create("analytics:admin", headers=headers).status_code == 201
    assert create("analytics:read", headers=headers).status_code == 403


BAD = {
    "no scopes": {},
    "scopes null": {"scopes": None},
    "no scope in it": {"scopes": []},
    "scopes as text": {"scopes": "events:write"},
    "an unknown scope": {"scopes": ["root"]},
    "a scope that is a number": {"scopes": [1]},
    "many scopes": {"scopes": ["events:write"] * 100},
    "a past end": {"scopes": ["events:write"], "expires": "2026-04-15T12:30:00Z"},
    "an end without zone": {"scopes": ["events:write"], "expires": "2026-07-01T00:00:00"},
    "an end that is no time": {"scopes": ["events:write"], "expires": "90d"},
    "an end that is a number": {"scopes": ["events:write"], "expires": 1782864000},
    "an empty note": {"scopes": ["events:write"], "note": ""},
    "a long note": {"scopes": ["events:write"], "note": "n" * 256},
    "a note of two lines": {"scopes": ["events:write"], "note": "a\nb"},
    "a note with a NUL": {"scopes": ["events:write"], "note": "a\0"},
    "a note that is a list": {"scopes": ["events:write"], "note": []},
    "a list": [{"scopes": ["events:write"]}],
    "text": "events:write",
    "a misspelt end": {"scopes": ["events:write"], "expiresAt": "2026-07-01T00:00:00Z"},
    "much": {"scopes": ["events:write"], "more": "x" * 70_000},
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
def test_an_invalid_body_creates_nothing(client, database, body):
    answer = client.post(KEYS, json=body, headers=bearer(TENANT, ADMIN))
    assert (answer.status_code, answer.json["code"]) == (400, "VALIDATION_ERROR")
    assert client.get(KEYS, headers=bearer(TENANT, ADMIN)).json["data"] == []


@pytest.mark.parametrize(
    "text", [b"", b"{", b"\xff", b'{"scopes":["events:write"],"note":"\\ud800"}']
)
def test_a_broken_body_creates_nothing(client, text):
    headers = bearer(TENANT, ADMIN) | {"Content-Type": "application/json"}
    assert client.post(KEYS, data=text, headers=headers).status_code == 400


def test_an_organization_has_a_limited_number_of_keys(client, create, monkeypatch):
    """Revoked keys do not count, and neither do those of others."""
    monkeypatch.setattr(api_keys, "MAX_KEYS", 2)
    assert create("events:write", headers=bearer(THEIRS, ADMIN)).status_code == 201
    ids = [create("events:write").json["id"] for _ in range(2)]
    refused = create("events:write")
    assert (refused.status_code, refused.json["code"]) == (409, "CONFLICT")
    assert client.delete(f"{KEYS}/{ids[0]}", headers=bearer(TENANT, ADMIN)).status_code == 200
    assert create("events:write").status_code == 201
