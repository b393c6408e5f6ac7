"""Auth0: log streams and the Management API."""

import json
from typing import Any

import pytest

from tests.app.intake.formats.reading import events, lines, read, reasons

ID = "9002026043023595999900000000000000000000000000000000000"


def row(number: int, kind: str = "seccft", **members: Any) -> dict[str, Any]:
    """A row of the API."""
    return {
        "log_id": f"{ID}{number}",
        "_id": f"{ID}{number}",
        "date": "2024-04-30T23:59:59.999Z",
        "type": kind,
        "client_id": "61PIEqk9",
        "client_name": "Invoice agent",
        "tenant_name": "acme",
        "user_name": "user-1@example.com",
    } | members


def stream(number: int, kind: str = "seccft", **members: Any) -> dict[str, Any]:
    """A record of a log stream."""
    return {"log_id": f"{ID}{number}", "data": row(number, kind, **members)}


@pytest.mark.parametrize(
    "kind",
    [
        "seacft",
        "seccft",
        "secte",
        "sede",
        "sens",
        "seoobft",
        "seotpft",
        "sepft",
        "sepkoobft",
        "sepkotpft",
        "sepkrcft",
        "sercft",
        "sertft",
        "ciba_exchange_succeeded",
        "idjag_exchange_succeeded",
        "success_on_behalf_of_token_exchange",
        "sdeleacft",
    ],
)
def test_every_kind_of_token_counts(kind: str) -> None:
    """Each code of an issued token counts, in streams and in the API; the id stays text."""
    for record in (row(1, kind), stream(1, kind)):
        (event,) = events(read("auth0", lines(record)))
        assert event[:3] == ("acme", f"{ID}1", "61PIEqk9")
        assert event.agent_name == "Invoice agent"


def test_other_records_do_not_count() -> None:
    kinds = ["s", "ssa", "slo", "sapi", "seta", "gd_auth_succeed", "limit_wc"]
    outcomes = read("auth0", lines(*(stream(1, kind) for kind in kinds), stream(2, "feccft")))
    assert reasons(outcomes) == {"no issuance": 7, "failed": 1}
    assert (
        read("auth0", lines({"type": "seccft"}, {"data": "x"}))
        == ["not an event of this format"] * 2
    )


def test_the_organization_of_a_request_comes_first() -> None:
    """A token for an organization belongs to it, any other to the tenant."""
    named, unnamed = stream(1, organization_id="org_m"), stream(2)
    nameless = stream(3)
    del nameless["data"]["tenant_name"]
    outcomes = read("auth0", json.dumps([named, unnamed, nameless]))
    assert [event.tenant_id for event in events(outcomes)] == ["org_m", "acme"]
    assert reasons(outcomes) == {"no organization": 1}


def test_stream_and_api_have_one_id() -> None:
    both = read("auth0", lines(stream(1)) + json.dumps({"logs": [row(1)]}, indent=1))
    assert both[0] == both[1]
