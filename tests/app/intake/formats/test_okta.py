"""Okta: the System Log's API, EventBridge and event hooks."""

import json
from typing import Any

from tests.app.intake.formats.reading import events, lines, read, reasons


def record(
    number: int, kind: str = "app.oauth2.as.token.grant.access_token", **members: Any
) -> Any:
    return {
        "actor": {"id": "0oa1", "type": "PublicClientApp", "displayName": "Invoice agent"},
        "eventType": kind,
        "outcome": {"result": "SUCCESS"},
        "published": "2024-05-31T23:59:59.999Z",
        "uuid": f"5e1d-{number}",
    } | members


def test_access_tokens_count_once_a_request() -> None:
    """One request writes several records; only that of the access token counts."""
    kinds = [
        "app.oauth2.token.grant.access_token",
        "app.oauth2.as.token.grant.access_token",
        "app.oauth2.authorize.implicit.access_token",
        "app.oauth2.as.authorize.implicit.access_token",
    ]
    others = ["id_token", "refresh_token", "id_jag", "device_secret"]
    noise = [f"app.oauth2.as.token.grant.{other}" for other in others]
    noise += ["app.oauth2.as.authorize.code", "app.oauth2.as.token.revoke", "user.session.start"]
    every = [record(number, kind) for number, kind in enumerate(kinds + noise)]
    outcomes = read("okta", json.dumps(every, indent=1), organization="acme")
    assert [event.event_id for event in events(outcomes)] == [f"5e1d-{n}" for n in range(4)]
    assert events(outcomes)[0].agent_name == "Invoice agent"
    assert reasons(outcomes) == {"no issuance": len(noise)}


def test_a_refused_grant_is_a_failure() -> None:
    failure = record(1, "app.oauth2.as.token.grant", outcome={"result": "FAILURE"})
    denied = record(2, outcome={"result": "DENY"})
    assert read("okta", lines(failure, denied), organization="acme") == ["failed"] * 2


def test_a_record_names_no_organization() -> None:
    assert read("okta", lines(record(1))) == ["no organization"]


def test_an_envelope_is_not_the_record() -> None:
    """EventBridge and event hooks have their own ids and times."""
    bridge = {"id": "aws-1", "time": "2024-06-02T00:00:00Z", "detail": record(1)}
    hook = {"eventId": "hook-1", "eventTime": "x", "data": {"events": [record(1), record(2)]}}
    outcomes = read("okta", lines(bridge, hook), organization="acme")
    assert [event.event_id for event in events(outcomes)] == ["5e1d-1", "5e1d-1", "5e1d-2"]
    whole_second = record(3, published="2024-06-01T00:00:00Z")
    assert len(events(read("okta", lines(whole_second), organization="acme"))) == 1
    assert {str(event.issued_at) for event in events(outcomes)} == {
        "2024-05-31 23:59:59.999000+00:00"
    }
