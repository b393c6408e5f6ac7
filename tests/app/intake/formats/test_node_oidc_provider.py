"""node-oidc-provider: what the listener in the documentation writes."""

from typing import Any

from tests.app.intake.formats.reading import events, lines, read, reasons


def record(event: str = "grant.success", **members: Any) -> dict[str, Any]:
    return {
        "event": event,
        "at": "2024-11-28T00:06:04.811Z",
        "clientId": "billing",
        "organizationId": "org-1",
        "jti": "Z78soTaJ",
    } | members


def test_a_grant_counts_once() -> None:
    """Several events are emitted for one token; only the grant's counts."""
    outcomes = read(
        "node-oidc-provider",
        lines(
            record("client_credentials.saved"),
            record("client_credentials.issued"),
            record(),
            record("grant.error", clientId=None),
        ),
        max_document_bytes=1024,
    )
    (event,) = events(outcomes)
    assert event[:3] == ("org-1", "Z78soTaJ", "billing")
    assert reasons(outcomes) == {"no issuance": 2, "failed": 1}
