"""The API's description, OpenAPI 3.1: paths from the URL map, schemas from the types that
bodies are read into and encoded from. Only parameters, examples and statuses are said here."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import msgspec
from flask import Flask
from werkzeug.routing import Rule

from app import __version__, params
from app.auth import WRITE
from app.config import Settings
from app.errors import CODES
from app.events import ID_PATTERN, ID_SCHEMA_PATTERN, EventBody
from app.queries import AgentCount, DayCount, HourCount
from app.views.answers import (
    AgentActivity,
    AgentUsage,
    Answer,
    Health,
    Problem,
    Receipt,
    TokenTrend,
)

JSON, NDJSON = "application/json", "application/x-ndjson"
REF = "#/components/schemas/{name}"

READ_ERRORS = (400, 401, 403, 429, 500, 503)
WRITE_ERRORS = (400, 401, 403, 413, 415, 429, 500, 503)
# Sent along with a status, and what they are.
HEADERS = {
    401: {"WWW-Authenticate": "The challenge, RFC 6750."},
    403: {"WWW-Authenticate": "The challenge, RFC 6750."},
    429: {"Retry-After": "Seconds until the next request is let through."},
    503: {"Retry-After": "Seconds after which to try again."},
}
READ_HEADERS = {
    "ETag": "For If-None-Match.",
    "Last-Modified": "When events were last counted, for information.",
}
# Only once events were counted; the others always come with their status.
OPTIONAL_HEADERS = {"Last-Modified"}


@dataclass(frozen=True)
class Operation:
    """What the URL map and the types do not say about a route."""

    answer: type[Answer]
    example: Answer
    status: int = 200
    parameters: Sequence[Mapping[str, Any]] = ()
    errors: Sequence[int] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None


def _query(name: str, text: str, schema: Mapping[str, Any], example: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": text, "schema": schema, "example": example}


def _header(name: str, text: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": text, "schema": schema}


def _number(largest: int, **more: Any) -> dict[str, Any]:
    return {"type": "integer", "minimum": 1, "maximum": largest, **more}


DAYS = _query(
    "days",
    "How many days, the last one today (UTC).",
    _number(params.MAX_DAYS, default=params.DEFAULT_DAYS),
    7,
)
MONTHS = _query(
    "months",
    "The current calendar month and those before it; all recorded activity when left out.",
    _number(params.MAX_MONTHS),
    3,
)
MONTH = _query(
    "month",
    "The month, YYYY-MM from 1970 on; the current one when left out.",
    {"type": "string", "pattern": "^(19[7-9][0-9]|[2-9][0-9]{3})-(0[1-9]|1[0-2])$"},
    "2026-04",
)
LIMIT = _query(
    "limit", "At most so many agents; all when left out.", _number(params.MAX_AGENTS), 20
)
INVALID = _query(
    "invalid",
    "Store the good events of a batch that has bad ones, and list the others.",
    {"type": "string", "enum": ["skip"]},
    "skip",
)
IF_NONE_MATCH = _header(
    "If-None-Match", "The ETag of an earlier answer: 304 while it is the same.", {"type": "string"}
)
ENCODING = _header(
    "Content-Encoding",
    "How the body is compressed.",
    {"type": "string", "enum": ["identity", "gzip"]},
)

EVENT = {
    "id": "event-1",
    "organizationId": "org-1",
    "agentId": "agent-1",
    "issuedAt": "2026-04-01T09:00:00Z",
}


def _event_body(settings: Settings) -> dict[str, Any]:
    event = {"$ref": REF.format(name=EventBody.__name__)}
    several = {"type": "array", "items": event, "maxItems": settings.max_batch_events}
    line = msgspec.json.encode(EVENT).decode()
    return {
        "required": True,
        "description": f"At most {settings.max_batch_events} events and"
        f" {settings.max_body_bytes} bytes, also once decompressed; no NUL in any string, also"
        " of members that are ignored.",
        "content": {
            JSON: {"schema": {"anyOf": [event, several]}, "example": [EVENT]},
            NDJSON: {"schema": {"type": "string"}, "example": f"{line}\n"},
        },
    }


def _operations(settings: Settings) -> dict[str, Operation]:
    """By endpoint, as Flask names it."""
    reads: dict[str, Any] = {"errors": READ_ERRORS, "headers": READ_HEADERS}
    days = [DayCount(date(2026, 4, 1), 142), DayCount(date(2026, 4, 2), 0)]
    return {
        "analytics.token_trend": Operation(
            TokenTrend, TokenTrend("org-1", 2, days), parameters=(DAYS, IF_NONE_MATCH), **reads
        ),
        "analytics.agent_activity": Operation(
            AgentActivity,
            AgentActivity("org-1", [HourCount(1, 9, 54)]),
            parameters=(MONTHS, IF_NONE_MATCH),
            **reads,
        ),
        "analytics.agent_usage": Operation(
            AgentUsage,
            AgentUsage("org-1", "2026-04", [AgentCount("agent-1", 312)]),
            parameters=(MONTH, LIMIT, IF_NONE_MATCH),
            **reads,
        ),
        "events.post_events": Operation(
            Receipt,
            Receipt(2, 1, 1),
            status=202,
            parameters=(INVALID, ENCODING),
            errors=WRITE_ERRORS,
            body=_event_body(settings),
        ),
        "health.health": Operation(Health, Health("ok"), errors=(500,)),
        "health.ready": Operation(Health, Health("ready"), errors=(500, 503)),
    }


def document(app: Flask, settings: Settings) -> dict[str, Any]:
    """The whole description, as plain values for JSON."""
    operations = _operations(settings)
    paths: dict[str, dict[str, Any]] = {}
    for rule, method in _routes(app, operations):
        described = _described(app, rule, operations[rule.endpoint])
        paths.setdefault(rule.rule, {})[method.lower()] = described
    types = [EventBody, Problem, *dict.fromkeys(each.answer for each in operations.values())]
    _, components = msgspec.json.schema_components(types, ref_template=REF)
    schemas = {name: _with_own_patterns(schema) for name, schema in components.items()}
    for schema in schemas.values():
        schema["description"] = _prose(schema["description"])
    bearer = {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "An OAuth 2 access token of the configured issuer (RFC 6750, RFC 9068).",
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "AgentIdP Analytics",
            "version": __version__,
            "summary": "Token issuance per organization: by day, by hour of the week, by agent.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"bearer": bearer}},
    }


def _routes(app: Flask, operations: Mapping[str, Operation]) -> Iterator[tuple[Rule, str]]:
    for rule in app.url_map.iter_rules():
        if rule.endpoint in operations:
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                yield rule, method


def _described(app: Flask, rule: Rule, operation: Operation) -> dict[str, Any]:
    text = inspect.getdoc(app.view_functions[rule.endpoint]) or ""
    summary, _, rest = text.partition("\n\n")
    secured = rule.rule.startswith("/api/")
    described = {
        "operationId": rule.endpoint.replace(".", "_"),
        "summary": _prose(summary),
        "tags": [rule.endpoint.partition(".")[0]],
        "parameters": list(operation.parameters),
        "responses": dict(_responses(operation)),
        "security": [{"bearer": [WRITE] if operation.body else []}] if secured else [],
    }
    if rest:
        described["description"] = _prose(rest)
    if operation.body is not None:
        described["requestBody"] = operation.body
    return described


def _responses(operation: Operation) -> Iterator[tuple[str, dict[str, Any]]]:
    answer = inspect.getdoc(operation.answer) or ""
    yield str(operation.status), _response(answer, operation.example, operation.headers)
    if IF_NONE_MATCH in operation.parameters:
        text = "The answer is still the one with that ETag."
        yield "304", {"description": text, "headers": _headers(operation.headers)}
    for status in operation.errors:
        code, text = CODES[status]
        yield str(status), _response(text, Problem(code, text), HEADERS.get(status, {}))


def _response(text: str, example: Answer, headers: Mapping[str, str]) -> dict[str, Any]:
    schema = {"$ref": REF.format(name=type(example).__name__)}
    response: dict[str, Any] = {
        "description": _prose(text),
        "content": {JSON: {"schema": schema, "example": msgspec.to_builtins(example)}},
    }
    if headers:
        response["headers"] = _headers(headers)
    return response


def _headers(headers: Mapping[str, str]) -> dict[str, Any]:
    return {
        name: {
            "description": meaning,
            "required": name not in OPTIONAL_HEADERS,
            "schema": {"type": "string"},
        }
        for name, meaning in headers.items()
    }


def _with_own_patterns(schema: Any) -> Any:
    """The schema with patterns in its own dialect; msgspec writes the ones it matches with."""
    if isinstance(schema, dict):
        return {name: _with_own_patterns(value) for name, value in schema.items()}
    return ID_SCHEMA_PATTERN if schema == ID_PATTERN else schema


def _prose(docstring: str) -> str:
    return " ".join(docstring.replace("``", "`").split())
