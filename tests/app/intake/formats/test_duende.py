"""Duende IdentityServer: its events as JSON, on one line or indented."""

import json
from typing import Any

from tests.app.intake.formats.reading import events, lines, read, reasons


def record(number: int, *tokens: str, **members: Any) -> dict[str, Any]:
    return {
        "ClientId": "invoice.agent",
        "ClientName": "Invoice agent",
        "Tokens": [{"TokenType": token, "TokenValue": "****"} for token in tokens],
        "EventType": "Success",
        "Id": 2000,
        "ActivityId": f"0HN:{number}",
        "TimeStamp": "2024-05-31T23:59:59.9999999Z",
    } | members


def test_only_access_tokens_count() -> None:
    """The kind 2000 is also raised for codes and id tokens."""
    outcomes = read(
        "duende",
        lines(
            record(1, "access_token", "refresh_token"),
            record(2, "code"),
            record(3, "id_token", "access_token"),
            record(4, "access_token", Id=2001, EventType="Failure"),
            record(5, "access_token", Id=1011, EventType="Failure"),
            record(6, Tokens=None),
            record(7, "access_token", Id="2000"),
        ),
        organization="acme",
    )
    assert [event.event_id for event in events(outcomes)] == [
        f"0HN:{number} 2024-05-31T23:59:59.9999999Z" for number in (1, 3)
    ]
    assert str(events(outcomes)[0].issued_at) == "2024-05-31 23:59:59.999999+00:00"
    assert reasons(outcomes) == {"no issuance": 4, "failed": 1}


def test_indented_records_are_read() -> None:
    """The default sink writes each event on several lines."""
    written = [json.dumps(record(n, "access_token", Tenant="t"), indent=2) for n in range(3)]
    for text in ("\n".join(written), "\n\n".join(written) + "\n", "".join(written)):
        found = events(read("duende", text))
        assert len({event.event_id for event in found}) == len(found) == 3
