"""OpenAPI 3.1 document of the API.

Paths come from the URL map, schemas from the types of request and response bodies, summaries from
the views' docstrings, and everything else from ``app.web.api.operations``.
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from flask import Flask
from werkzeug.routing import Rule

from app import __version__
from app.alerts.webhooks import EndpointBody, EndpointChange
from app.config.settings import Settings
from app.errors import CODES
from app.ids import ID_PATTERN, ID_SCHEMA_PATTERN
from app.intake.agent_names import AgentBody, NameBody
from app.intake.events import EventBody
from app.intake.finding_marks import MarkBody
from app.web.api.budgets import BudgetBody
from app.web.api.operations import (
    HEADERS,
    IF_NONE_MATCH,
    JSON,
    OPTIONAL_HEADERS,
    REF,
    Group,
    Operation,
    name_of,
    operations,
)
from app.web.api.schemas import Problem, Tabular
from app.web.api.share_links import LinkBody
from app.web.csv_export import MIMETYPE as CSV
from app.web.csv_export import csv_of

_VARIABLE = re.compile(r"<(?:\w+:)?(\w+)>")


def document(app: Flask, settings: Settings) -> dict[str, Any]:
    """The OpenAPI document as plain values for JSON, without the address of the service."""
    known = operations(settings)
    paths: dict[str, dict[str, Any]] = {}
    for rule, method in _routes(app, known):
        described = _described(app, rule, known[rule.endpoint])
        paths.setdefault(path_of(rule.rule), {})[method.lower()] = described
    types = [
        EventBody,
        NameBody,
        AgentBody,
        MarkBody,
        LinkBody,
        BudgetBody,
        EndpointBody,
        EndpointChange,
        Problem,
        *dict.fromkeys(type(body) for each in known.values() for body in each.bodies),
    ]
    _, components = msgspec.json.schema_components(types, ref_template=REF)
    schemas = {name: _with_schema_patterns(schema) for name, schema in components.items()}
    for schema in schemas.values():
        schema["description"] = _prose(schema["description"])
    bearer = {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "An OAuth 2 access token of the configured issuer (RFC 6750, RFC 9068), or"
        " an API key (agk_…). For reads a key needs the scope analytics:read, and a token none.",
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "AgentIdP Analytics",
            "version": __version__,
            "summary": "Token issuance per organization: by day, by hour of the week, by agent.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "tags": [{"name": group.title, "description": group.meaning} for group in Group],
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"bearer": bearer}},
    }


def path_of(rule: str) -> str:
    """The path of a URL rule in OpenAPI's notation, with variables in braces."""
    return _VARIABLE.sub(r"{\1}", rule)


def _routes(app: Flask, known: Mapping[str, Operation]) -> Iterator[tuple[Rule, str]]:
    for rule in app.url_map.iter_rules():
        if rule.endpoint in known:
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                yield rule, method


def _described(app: Flask, rule: Rule, operation: Operation) -> dict[str, Any]:
    text = inspect.getdoc(app.view_functions[rule.endpoint]) or ""
    summary, _, rest = text.partition("\n\n")
    secured, as_file = rule.rule.startswith("/api/"), rule.rule.endswith(".csv")
    described = {
        "operationId": name_of(rule.endpoint) + ("_csv" if as_file else ""),
        "summary": _prose(summary),
        "tags": [operation.group.title],
        "parameters": list(operation.parameters),
        "responses": dict(_responses(operation, as_file=as_file)),
        "security": [{"bearer": [operation.scope] if operation.scope else []}] if secured else [],
    }
    if rest:
        described["description"] = _prose(rest)
    if operation.request_body is not None:
        described["requestBody"] = operation.request_body
    return described


def _responses(operation: Operation, *, as_file: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    text = "\n".join(inspect.getdoc(type(body)) or "" for body in operation.bodies)
    response = _response(text, operation.example, operation.headers)
    if operation.other is not None:
        references = [_reference(body) for body in operation.bodies]
        response["content"][JSON]["schema"] = {"anyOf": references}
    if isinstance(operation.example, Tabular):
        described = {} if as_file else response["content"]
        response["content"] = described | _csv_content(operation.example)
    yield str(operation.status), response
    if IF_NONE_MATCH in operation.parameters:
        text = "The body with this ETag has not changed."
        yield "304", {"description": text, "headers": _headers(operation.headers)}
    for status in operation.errors:
        code, text = CODES[status]
        yield str(status), _response(text, Problem(code, text), HEADERS.get(status, {}))


def _response(text: str, example: msgspec.Struct, headers: Mapping[str, str]) -> dict[str, Any]:
    schema = _reference(example)
    response: dict[str, Any] = {
        "description": _prose(text),
        "content": {JSON: {"schema": schema, "example": msgspec.to_builtins(example)}},
    }
    if headers:
        response["headers"] = _headers(headers)
    return response


def _reference(body: msgspec.Struct) -> dict[str, str]:
    return {"$ref": REF.format(name=type(body).__name__)}


def _csv_content(example: Tabular) -> dict[str, Any]:
    rows = map(msgspec.structs.astuple, example.data)
    lines = b"".join(csv_of(example.point).pieces([rows])).decode()
    return {CSV: {"schema": {"type": "string"}, "example": lines}}


def _headers(headers: Mapping[str, str]) -> dict[str, Any]:
    return {
        name: {
            "description": meaning,
            "required": name not in OPTIONAL_HEADERS,
            "schema": {"type": "string"},
        }
        for name, meaning in headers.items()
    }


def _with_schema_patterns(schema: Any) -> Any:
    """The schema with patterns in JSON Schema's dialect; msgspec writes Python's."""
    if isinstance(schema, dict):
        return {name: _with_schema_patterns(value) for name, value in schema.items()}
    if isinstance(schema, list):
        return [_with_schema_patterns(part) for part in schema]
    return ID_SCHEMA_PATTERN if schema == ID_PATTERN else schema


def _prose(docstring: str) -> str:
    return " ".join(docstring.replace("``", "`").split())
