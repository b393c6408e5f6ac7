"""CloudEvents: structured mode and batches."""

import json
from typing import Any

from tests.app.intake.formats.reading import events, lines, read, reasons


def record(number: int, **members: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "type": "com.example.idp.token.issued",
        "source": "/realms/acme",
        "id": f"A-{number}",
        "time": "2024-10-05T17:31:00Z",
        "subject": "invoice-agent",
        "organizationid": "acme",
    } | members


def test_only_source_and_id_are_unique() -> None:
    """Two sources may use one id, so both are the event's id."""
    outcomes = read("cloudevents", lines(record(1), record(1, source="/realms/globex")))
    assert [event.event_id for event in events(outcomes)] == [
        "/realms/acme A-1",
        "/realms/globex A-1",
    ]


def test_other_types_and_versions_do_not_count() -> None:
    outcomes = read(
        "cloudevents",
        lines(
            record(1, type="com.example.token.revoked"),
            record(2, specversion="0.3"),
            record(3, specversion=1.0),
        ),
    )
    assert reasons(outcomes) == {"no issuance": 1, "not an event of this format": 2}


def test_optional_attributes_may_be_null() -> None:
    """`null` is no value. Without time, agent or organization an event cannot count."""
    outcomes = read(
        "cloudevents",
        json.dumps(
            [
                record(1, time=None),
                record(2, subject=None),
                record(3, organizationid=None),
                record(4, subject=None, data={"client_id": "a"}, organizationid=None),
                record(5, data="text", datacontenttype="text/plain"),
                record(
                    6,
                    subject="user-1",
                    organizationid=None,
                    data={"agentId": "a6", "organizationId": "o6", "agentName": "Six"},
                ),
            ]
        ),
    )
    assert reasons(outcomes) == {"no time": 1, "no agent": 1, "no organization": 2}
    assert [(event.tenant_id, event.agent_id, event.agent_name) for event in events(outcomes)] == [
        ("acme", "invoice-agent", None),
        ("o6", "a6", "Six"),
    ]
