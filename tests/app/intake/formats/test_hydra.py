"""Ory Hydra: OpenTelemetry's traces as OTLP/JSON."""

import json
from typing import Any

from tests.app.intake.formats.reading import events, lines, read, reasons


def event(name: str = "OAuth2AccessTokenIssued", **attributes: str) -> dict[str, Any]:
    attributes = {"OAuth2ClientID": "invoice-agent", "ProjectID": "project-1"} | attributes
    return {
        "timeUnixNano": "1700000001001234567",
        "name": name,
        "attributes": [
            {"key": key, "value": {"stringValue": value}} for key, value in attributes.items()
        ],
    }


def export(*spans: list[dict[str, Any]], first: int = 1) -> dict[str, Any]:
    """An export of spans, each with its events."""
    written = [
        {"traceId": "t1", "spanId": f"s{number}", "name": "oauth2.token", "events": one}
        for number, one in enumerate(spans, first)
    ]
    return {"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {}, "spans": written}]}]}


def test_each_access_token_of_a_span_counts() -> None:
    """The record is a span's event; its id is made of trace, span and name."""
    tokens = [event(), event("OAuth2RefreshTokenIssued"), event("OAuth2IdentityTokenIssued")]
    outcomes = read("hydra", lines(export(tokens, [event("OAuth2TokenExchangeError")], [])))
    (found,) = events(outcomes)
    assert found[:3] == ("project-1", "t1 s1 OAuth2AccessTokenIssued", "invoice-agent")
    assert str(found.issued_at) == "2023-11-14 22:13:21.001234+00:00"
    assert reasons(outcomes) == {"no issuance": 2, "failed": 1}


def test_exports_on_lines_and_in_one_document() -> None:
    """A file has one export a line, or one on many lines; spans without events have no record."""
    many = export(*([event()] for _ in range(500)))
    text = lines(many, export([event()], first=501)) + json.dumps(
        export([event()], first=502), indent=2
    )
    found = events(read("hydra", text))
    assert len({one.event_id for one in found}) == len(found) == 502
    assert read("hydra", lines({"resourceSpans": []}, {"resourceLogs": []})) == [
        "not an event of this format"
    ]


def test_a_refused_event_alone_can_be_read_again() -> None:
    """The text of a refused record is its span with this event alone."""
    from app.intake.formats import FORMATS  # noqa: PLC0415
    from app.intake.formats.base import Options  # noqa: PLC0415

    export_line = lines(export([event(), event(OAuth2ClientID="")])).encode()
    records = list(FORMATS["hydra"](iter([export_line]), Options(None, 65536)))
    (text,) = [text for _, outcome, text in records if isinstance(outcome, Exception)]
    mended = text.replace(b'""', b'"agent-2"')
    assert [one.agent_id for one in events(read("hydra", mended))] == ["agent-2"]
