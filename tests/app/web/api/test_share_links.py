"""/api/v1/share-links: links of the own organization, created, listed and revoked."""

import pytest

from app.auth import share_links
from app.storage.audit import changes
from tests.support.settings import TENANT
from tests.support.tokens import bearer

LINKS = "/api/v1/share-links"
ADMIN = bearer(TENANT, "analytics:admin", sub="user-1", exp=4_102_444_800)
BODY = {"views": ["tokens", "agents"], "days": 28, "expires": "2026-07-01T02:00:00+02:00"}


@pytest.fixture
def create(client):
    def create(headers=ADMIN, **members):
        body = {name: value for name, value in (BODY | members).items() if value is not ...}
        return client.post(LINKS, json=body, headers=headers)

    return create


def test_a_link_is_created_listed_and_revoked(client, create, database):
    """A second revocation changes nothing. Each change is in the audit log."""
    answer = create()
    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
    made = answer.json
    assert made["url"].startswith(f"http://localhost/shared/{made['id']}.")
    assert made == {
        "id": made["id"],
        "url": made["url"],
        "views": ["tokens", "agents"],
        "days": 28,
        "created": "2026-04-15T12:30:00Z",
        "createdBy": "user-1",
        "expires": "2026-07-01T00:00:00Z",
        "revoked": None,
        "opened": 0,
        "lastOpened": None,
    }
    assert client.get(LINKS, headers=ADMIN).json == {"tenantId": TENANT, "data": [made]}
    for _ in range(2):
        gone = client.delete(f"{LINKS}/{made['id']}", headers=ADMIN)
        assert gone.json == made | {"revoked": "2026-04-15T12:30:00Z"}
    assert client.get(LINKS, headers=ADMIN).json["data"] == [gone.json]
    with database.snapshot() as connection:
        found = [(one.actor, one.action, one.subject) for one in changes(connection)]
    assert found == [
        ("user-1", "share_link.revoked", made["id"]),
        ("user-1", "share_link.created", made["id"]),
    ]


def test_views_are_in_the_order_of_the_page(create):
    assert create(views=["findings", "summary"]).json["views"] == ["summary", "findings"]


def test_links_of_another_organization_do_not_exist(client, create):
    """They are not listed, and cannot be revoked; the answer is that for an unknown id."""
    made = create().json
    theirs = bearer("org-of-somebody-else", "analytics:admin")
    assert client.get(LINKS, headers=theirs).json["data"] == []
    ids = (made["id"], "A" * 16, "x", "%00", "%FF", "a" * 3000)
    answers = [client.delete(f"{LINKS}/{link}", headers=theirs) for link in ids]
    assert {(answer.status_code, answer.json["code"]) for answer in answers} == {(404, "NOT_FOUND")}
    assert len({answer.data for answer in answers}) == 1
    assert client.get(LINKS, headers=ADMIN).json["data"] == [made]


@pytest.mark.parametrize("scope", ["", "analytics:read", "analytics:read:any agents:write"])
def test_links_need_the_scope_of_an_administrator(client, scope):
    for method, path in (("GET", LINKS), ("POST", LINKS), ("DELETE", f"{LINKS}/{'A' * 16}")):
        answer = client.open(path, method=method, json=BODY, headers=bearer(TENANT, scope))
        assert (answer.status_code, answer.json["code"]) == (403, "FORBIDDEN")


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"views": []}, "views"),
        ({"views": ["tokens", "tokens"]}, "named twice"),
        ({"views": ["Tokens"]}, "summary, tokens, activity, agents, findings"),
        ({"views": "tokens"}, "views"),
        ({"views": ...}, "views"),
        ({"days": 0}, "days"),
        ({"days": 367}, "days"),
        ({"days": "7"}, "days"),
        ({"days": 7.5}, "days"),
        ({"days": True}, "days"),
        ({"days": ...}, "days"),
        ({"expires": ...}, "expires"),
        ({"expires": None}, "expires"),
        ({"expires": "2026-07-01"}, "expires"),
        ({"expires": "2026-07-01T00:00:00"}, "expires"),
        ({"expires": "2026-04-15T12:30:00Z"}, "in the future"),
        ({"expires": "2027-04-17T12:30:00Z"}, "within 366 days"),
        ({"note": "x"}, "note"),
    ],
)
def test_invalid_links_are_refused(client, create, members, words):
    answer = create(**members)
    assert (answer.status_code, answer.json["code"]) == (400, "VALIDATION_ERROR")
    assert words in answer.json["message"]
    assert client.get(LINKS, headers=ADMIN).json["data"] == []


def test_an_organization_has_a_limited_number_of_links(create, client, monkeypatch):
    """Revoked ones do not count."""
    monkeypatch.setattr(share_links, "MAX_LINKS", 2)
    made = [create().json["id"] for _ in range(2)]
    answer = create()
    assert (answer.status_code, answer.json["code"]) == (409, "CONFLICT")
    assert client.delete(f"{LINKS}/{made[0]}", headers=ADMIN).status_code == 200
    assert create().status_code == 201
