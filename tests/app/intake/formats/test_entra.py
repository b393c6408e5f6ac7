"""Microsoft Entra ID: diagnostic settings and Microsoft Graph."""

import json
from typing import Any

from tests.app.intake.formats.reading import events, lines, read, reasons

TENANT = "4d3b0000-0000-4000-8000-000000000001"


def blob(number: int, category: str = "ServicePrincipalSignInLogs", error: int = 0) -> Any:
    """A record of diagnostic settings."""
    return {
        "time": "2024-05-01T09:59:59.0000000Z",
        "category": category,
        "tenantId": TENANT,
        "resultType": str(error),
        "properties": graph(number, error=error),
    }


def graph(number: int, kinds: tuple[str, ...] = (), error: int = 0) -> Any:
    """A row of ``auditLogs/signIns``, which the properties of a blob resemble."""
    return {
        "id": f"00000000-0000-4000-8000-{number:012}",
        "createdDateTime": "2024-04-30T23:59:59.9999999+00:00",
        "appId": "a97b95a1-0000-4000-8000-000000000001",
        "servicePrincipalName": "Invoice agent",
        "signInEventTypes": list(kinds),
        "status": {"errorCode": error},
    }


def test_service_principals_and_managed_identities_count() -> None:
    """The time is that of the sign-in, cut to microseconds, and not that of the envelope."""
    data = lines(blob(1), blob(2, "ManagedIdentitySignInLogs")).replace("\n", "\r\n")
    first, second = events(read("entra", data.rstrip("\r\n")))
    assert first[:3] == (TENANT, "00000000-0000-4000-8000-000000000001", graph(1)["appId"])
    assert first.agent_name == "Invoice agent"
    assert str(second.issued_at) == "2024-04-30 23:59:59.999999+00:00"


def test_people_and_microsofts_own_sign_ins_do_not_count() -> None:
    kinds = ("SignInLogs", "NonInteractiveUserSignInLogs", "MicrosoftServicePrincipalSignInLogs")
    outcomes = read("entra", lines(*(blob(1, kind) for kind in kinds), blob(2, error=7000232)))
    assert outcomes == ["no issuance"] * 3 + ["failed"]


def test_batches_of_event_hubs_and_graph() -> None:
    """Event Hubs wraps records in `records`, also one batch a line; Graph in `value`."""
    batch = {"records": [blob(1), blob(2, "SignInLogs"), blob(3, error=1)]}
    assert reasons(read("entra", lines(batch, batch))) == {"no issuance": 2, "failed": 2}
    assert len(events(read("entra", lines(batch, batch, blob(4))))) == 3
    rows = [
        graph(5, ("servicePrincipal",)),
        graph(6, ("interactiveUser",)),
        graph(7, ("managedIdentity",), error=1),
    ]
    page = json.dumps({"@odata.context": "x", "value": rows}, indent=2)
    outcomes = read("entra", page, organization="acme")
    assert [event[:2] for event in events(outcomes)] == [("acme", rows[0]["id"])]
    assert reasons(outcomes) == {"no issuance": 1, "failed": 1}
    assert reasons(read("entra", page))["no organization"] == 1


def test_a_redelivered_record_has_its_old_id() -> None:
    """A redelivery has a fresh envelope's time, and the same id."""
    again = blob(1) | {"time": "2024-05-01T10:30:00.0000000Z"}
    first, second = events(read("entra", lines(blob(1), again)))
    assert first == second
