"""The audit log: a row for each administrative change, in the transaction of the change."""

from datetime import UTC, datetime, timedelta

import pytest

from app.auth.api_keys import new_key, store_key
from app.storage.audit import Change, changes, forget_old_changes, record_change
from tests.support.findings import stored
from tests.support.settings import NOW, TENANT
from tests.support.tokens import bearer

SCOPES = "analytics:admin analytics:read agents:write"
ADMIN = bearer(TENANT, SCOPES, sub="user-1", exp=4_102_444_800)


def recorded(database, **options):
    with database.snapshot() as connection:
        return list(changes(connection, **options))


def record(database, at, **values):
    change = {"tenant_id": TENANT, "actor": "u", "action": "a", "subject": "s"} | values
    database.write(lambda connection: record_change(connection, at=at, **change))


def test_a_change_is_read_as_it_was_recorded(database):
    details = {"scopes": ("x",), "expires": NOW}
    record(database, NOW, tenant_id=None, details=details)
    details = {"scopes": ["x"], "expires": "2026-04-15T12:30:00Z"}
    assert recorded(database) == [Change(NOW, "u", "a", None, "s", details)]


def test_changes_are_newest_first_and_of_the_period(database):
    """The end is not part of the period; of two changes at one instant the later comes first."""
    first = datetime(2026, 4, 1, tzinfo=UTC)
    for number, at in enumerate([first, first, first + timedelta(days=1)]):
        record(database, at, subject=str(number), tenant_id=f"org-{number % 2}")
    assert [one.subject for one in recorded(database)] == ["2", "1", "0"]
    assert [one.subject for one in recorded(database, tenant_id="org-0")] == ["2", "0"]
    later = recorded(database, begin=first + timedelta(microseconds=1))
    assert [one.subject for one in later] == ["2"]
    assert len(recorded(database, begin=first, end=first + timedelta(days=1))) == 2


def test_changes_are_kept_for_400_days(database):
    record(database, NOW - timedelta(days=400), subject="kept")
    record(database, NOW - timedelta(days=400, seconds=1), subject="forgotten")
    database.write(lambda connection: forget_old_changes(connection, NOW))
    assert [one.subject for one in recorded(database)] == ["kept"]


def test_a_change_that_fails_is_not_recorded(database):
    """A key whose id exists is not stored, and so not recorded."""
    key = new_key(TENANT, ["analytics:read"], NOW)
    store_key(database, key, by="first")
    with pytest.raises(Exception, match=r"(?i)unique|duplicate"):
        store_key(database, key, by="second")
    assert [one.actor for one in recorded(database)] == ["first"]


def test_each_route_of_administration_records_its_change(client, database):
    """Who is the subject of the token. What changed nothing is not recorded."""
    keys, agents = "/api/v1/keys", "/api/v1/agents"
    (finding,) = stored(database, {})
    marks = f"/api/v1/analytics/findings/{finding.id}"
    made = client.post(
        keys, json={"scopes": ["agents:write"], "note": "secret"}, headers=ADMIN
    ).json
    by_key = {"Authorization": f"Bearer {made['key']}"}
    requests = [
        ("PUT", agents + "/a", {"name": "n", "tokenLifetime": 60}, by_key),
        ("PUT", agents, [{"agentId": "b", "name": "n"}, {"agentId": "c", "name": None}], by_key),
        ("PATCH", marks, {"acknowledged": True, "note": "secret"}, ADMIN),
        ("PATCH", marks, {"acknowledged": True}, ADMIN),
        ("PUT", "/api/v1/settings", {"daysOff": {"dates": ["2026-05-01"]}}, ADMIN),
        ("DELETE", f"{keys}/{made['id']}", None, ADMIN),
        ("DELETE", f"{keys}/{made['id']}", None, ADMIN),
        ("PUT", agents + "/a", {"name": ""}, ADMIN),
    ]
    codes = [
        client.open(path, method=method, json=body, headers=headers).status_code
        for method, path, body, headers in requests
    ]
    assert codes == [200] * 7 + [400]
    found = recorded(database)[::-1]
    assert {(one.at, one.tenant_id) for one in found} == {(NOW, TENANT)}
    days_off = {"country": None, "subdivision": None, "dates": ["2026-05-01"]}
    machine = f"key:{made['id']}"
    assert [(one.actor, one.action, one.subject, one.details) for one in found] == [
        ("user-1", "key.created", made["id"], {"scopes": ["agents:write"], "expires": None}),
        (machine, "agent.changed", "a", {"name": "n", "tokenLifetime": 60}),
        (machine, "agents.named", TENANT, {"agents": 2}),
        ("user-1", "finding.marked", finding.id, {"acknowledged": True, "note": True}),
        (
            *("user-1", "settings.changed", TENANT),
            {"daysOff": days_off, "price": None, "tokenLifetime": None},
        ),
        ("user-1", "key.revoked", made["id"], None),
    ]
    assert made["key"] not in repr(found)
