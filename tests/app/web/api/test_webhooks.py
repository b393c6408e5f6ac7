"""/api/v1/webhooks: endpoints of the own organization, and what was delivered."""

import pytest
import sqlalchemy as sa

from app.alerts import webhooks
from app.storage.audit import changes
from app.storage.tables import metadata, webhook_endpoints
from tests.support.settings import TENANT
from tests.support.tokens import bearer

HOOKS = "/api/v1/webhooks"
ADMIN = bearer(TENANT, "analytics:admin", sub="user-1", exp=4_102_444_800)
SECRET_PATH = "/services/T000/B000/secret"
URL = f"https://hooks.example.com{SECRET_PATH}"
QUIET = {"from": "22:00", "to": "06:00", "zone": "Europe/Berlin"}


@pytest.fixture
def create(client):
    def create(headers=ADMIN, **members):
        return client.post(HOOKS, json={"url": URL} | members, headers=headers)

    return create


def test_an_endpoint_is_created_shown_changed_and_deleted(client, create):
    """Only the first answer has its secret."""
    answer = create(kinds=["silence", "spike"], minSeverity="warning", quiet=QUIET)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
    made = answer.json
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert made == {
        "id": made["id"],
        "url": URL,
        "format": "standard",
        "kinds": ["spike", "silence"],
        "minSeverity": "warning",
        "cooldownMinutes": 60,
        "quiet": QUIET,
        "created": "2026-04-15T12:30:00Z",
        "createdBy": "user-1",
        "disabled": None,
        "disabledReason": None,
        "failures": 0,
        "pausedUntil": None,
        "digest": None,
    }
    one = f"{HOOKS}/{made['id']}"
    assert client.get(HOOKS, headers=ADMIN).json == {"tenantId": TENANT, "data": [made]}
    assert client.get(one, headers=ADMIN).json == made
    change = {"kinds": None, "quiet": None, "cooldownMinutes": 0, "enabled": False}
    changed = client.patch(one, json=change, headers=ADMIN).json
    assert changed == made | {
        "kinds": None,
        "quiet": None,
        "cooldownMinutes": 0,
        "disabled": "2026-04-15T12:30:00Z",
        "disabledReason": "disabled by hand",
    }
    assert client.patch(one, json={}, headers=ADMIN).json == changed
    assert client.post(f"{one}/test", headers=ADMIN).status_code == 409
    enabled = client.patch(one, json={"enabled": True}, headers=ADMIN).json
    assert enabled["disabled"] is enabled["disabledReason"] is None
    rotated = client.post(f"{one}/rotate", headers=ADMIN).json
    assert rotated.pop("secret") not in {secret, None}
    assert rotated == enabled
    assert client.delete(one, headers=ADMIN).json == enabled
    assert client.get(one, headers=ADMIN).status_code == 404
    assert client.get(HOOKS, headers=ADMIN).json["data"] == []


def test_a_test_is_in_the_log(client, create):
    one = f"{HOOKS}/{create().json['id']}"
    answer = client.post(f"{one}/test", headers=ADMIN)
    assert answer.status_code == 202
    log = client.get(f"{one}/deliveries?limit=5", headers=ADMIN).json
    (message,) = log["data"]
    assert message["id"] == answer.json["id"]
    assert (message["event"], message["status"], message["attempts"]) == ("test", "waiting", 0)
    assert message["next"] == "2026-04-15T12:30:00Z"


def test_each_change_is_audited_without_secrets(client, create, database, capsys):
    """The path of a URL is a secret at Slack, so logs and the audit log have the host only."""
    one = f"{HOOKS}/{create().json['id']}"
    client.patch(one, json={"url": URL + "2", "minSeverity": "info"}, headers=ADMIN)
    client.post(f"{one}/rotate", headers=ADMIN)
    client.post(f"{one}/test", headers=ADMIN)
    client.delete(one, headers=ADMIN)
    with database.snapshot() as connection:
        found = list(changes(connection))
    assert [change.action for change in reversed(found)] == [
        *("webhook.created", "webhook.changed", "webhook.rotated", "webhook.tested"),
        "webhook.deleted",
    ]
    assert {change.actor for change in found} == {"user-1"}
    assert found[-1].details == {"format": "standard", "target": "hooks.example.com"}
    assert SECRET_PATH not in str(found)
    assert SECRET_PATH not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"url": "http://example.com/"}, "https"),
        ({"url": "https://127.0.0.1/"}, "private"),
        ({"url": "https://user:x@example.com/"}, "user"),
        ({"url": 5}, "url"),
        ({"url": None}, "url"),
        ({"format": "pager"}, "format"),
        ({"format": "email", "url": "mailto:a@example.com"}, "SMTP_URL"),
        ({"kinds": []}, "kinds"),
        ({"kinds": ["spike", "spike"]}, "kinds"),
        ({"kinds": ["spikes"]}, "kinds"),
        ({"minSeverity": "fatal"}, "minSeverity"),
        ({"cooldownMinutes": -1}, "cooldownMinutes"),
        ({"cooldownMinutes": 10_081}, "cooldownMinutes"),
        ({"cooldownMinutes": 1.5}, "cooldownMinutes"),
        ({"quiet": {"from": "22:00", "to": "06:00"}}, "zone"),
        ({"quiet": QUIET | {"from": "24:00"}}, "from"),
        ({"quiet": QUIET | {"zone": "Mars/Olympus"}}, "zone"),
        ({"quiet": QUIET | {"zone": "../etc/passwd"}}, "zone"),
        ({"quiet": QUIET | {"zone": "localtime"}}, "zone"),
        ({"quiet": QUIET | {"to": "22:00"}}, "differ"),
        ({"secret": "whsec_x"}, "secret"),
        ({"tenantId": "org-b"}, "tenantId"),
    ],
)
def test_an_invalid_endpoint_is_refused(create, members, problem):
    answer = create(**members)
    assert answer.status_code == 400
    assert problem in answer.json["message"]
    assert SECRET_PATH not in answer.text


def test_an_invalid_change_is_refused(client, create):
    one = f"{HOOKS}/{create().json['id']}"
    for change in ({"url": "https://10.0.0.1/"}, {"format": "slack"}, {"enabled": None}, []):
        assert client.patch(one, json=change, headers=ADMIN).status_code == 400
    assert client.get(one, headers=ADMIN).json["url"] == URL


def test_endpoints_of_another_organization_do_not_exist(client, create, database):
    """The answer is that for an unknown id, and nothing is changed."""
    one = f"{HOOKS}/{create().json['id']}"
    other = bearer("org-b", "analytics:admin")
    assert client.get(HOOKS, headers=other).json["data"] == []
    for method, path in (
        *(("GET", one), ("PATCH", one), ("DELETE", one), ("POST", f"{one}/rotate")),
        *(("POST", f"{one}/test"), ("GET", f"{one}/deliveries")),
    ):
        body = {"json": {"enabled": False}} if method == "PATCH" else {}
        answer = client.open(path, method=method, headers=other, **body)
        unknown = client.open(f"{HOOKS}/AAAAAAAAAAAA", method=method, headers=other, **body)
        assert answer.status_code == 404
        if path == one:
            assert answer.json == unknown.json
    assert client.get(one, headers=ADMIN).json["disabled"] is None


@pytest.mark.parametrize("name", ["x", "A" * 13, "%00AAAAAAAAAAA", "AAAAAAAAAAA%C3%A9"])
def test_an_unusual_id_is_unknown(client, name):
    assert client.get(f"{HOOKS}/{name}", headers=ADMIN).status_code == 404
    assert client.delete(f"{HOOKS}/{name}", headers=ADMIN).status_code == 404


def test_the_scope_is_needed(client, create):
    for headers in (bearer(TENANT), bearer(TENANT, "events:write agents:write")):
        assert create(headers=headers).status_code == 403
        assert client.get(HOOKS, headers=headers).status_code == 403
    assert client.get(HOOKS).status_code == 401


def test_an_organization_has_few_endpoints(create, monkeypatch):
    monkeypatch.setattr(webhooks, "MAX_ENDPOINTS", 2)
    assert [create().status_code for _ in range(3)] == [201, 201, 409]
    assert create(headers=bearer("org-b", "analytics:admin")).status_code == 201


def test_no_secret_is_stored(create, database):
    secret = create().json["secret"]
    with database.reading() as connection:
        stored = [connection.execute(sa.select(table)).all() for table in metadata.tables.values()]
        assert connection.execute(sa.select(webhook_endpoints)).one()
    assert secret not in str(stored)
    assert secret.removeprefix("whsec_") not in str(stored)
