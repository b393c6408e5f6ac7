"""authentik: the events of its API."""

import json
from typing import Any

from tests.app.intake.formats.reading import events, lines, read, reasons


def record(number: int, method: str = "oauth_client_secret", **members: Any) -> dict[str, Any]:
    return {
        "pk": f"5f0c-{number}",
        "user": {"pk": 1, "email": "", "username": "ak-invoice"},
        "action": "login",
        "app": "authentik.events.signals",
        "context": {
            "auth_method": method,
            "http_request": {"path": "/application/o/token/", "method": "POST"},
            "application": {"name": "Invoice"},
        },
        "created": "2024-01-31T23:59:59.999999Z",
        "brand": {"pk": "fcba"},
    } | members


def test_only_machines_at_the_token_endpoint_count() -> None:
    """A login counts if its method is a machine's and its path is the token endpoint's."""
    elsewhere = record(5)
    elsewhere["context"]["http_request"]["path"] = "/api/v3/flows/executor/x/"
    outcomes = read(
        "authentik",
        json.dumps(
            {
                "pagination": {"next": 0},
                "results": [
                    *(
                        record(n, kind)
                        for n, kind in enumerate(("oauth_client_secret", "jwt", "token"))
                    ),
                    record(4, "password"),
                    elsewhere,
                    record(6, action="authorize_application"),
                    record(7, action="login_failed"),
                ],
            },
            indent=2,
        ),
    )
    assert [event[:3] for event in events(outcomes)] == [
        ("fcba", f"5f0c-{number}", "ak-invoice") for number in range(3)
    ]
    assert events(outcomes)[0].agent_name == "Invoice"
    assert reasons(outcomes) == {"no issuance": 3, "failed": 1}


def test_a_log_line_has_no_id() -> None:
    """The server's own log line of an event has no pk, so it cannot count."""
    line = record(1)
    del line["pk"]
    assert read("authentik", lines(line)) == ["no id"]
