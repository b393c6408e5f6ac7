"""The API's description: valid, complete, true of the answers, in step with docs/api.md."""

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from app.config.settings import ROOT
from app.ids import ID_SCHEMA_PATTERN
from app.web.api.openapi import path_of
from app.web.responses import PAGE_POLICY
from tests.support.findings import stored
from tests.support.organizations import add_row
from tests.support.services import service_of
from tests.support.settings import NOW, TENANT, make_settings
from tests.support.tokens import bearer

# What describes the API, what a page is made of, and the pages for people, are not the API.
UNDESCRIBED = {"docs.openapi", "docs.page", "static"}
PAGES = (
    "dashboard.",
    "operator.",
    "day.",
    "agent.",
    "finding.",
    "exports.",
    "signin.",
    "provider.",
    "files.",
    "shared.",
    "settings_",
)
API_PAGE = ROOT / "docs" / "api.md"


@pytest.fixture
def document(client: FlaskClient) -> dict[str, Any]:
    answer = client.get("/api/v1/openapi.json")
    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    described: dict[str, Any] = answer.json
    return described


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method.upper(), operation


def examples(document: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Any]]:
    """Each example in the description, with its schema."""
    for _, _, operation in operations(document):
        for parameter in operation["parameters"]:
            if "example" in parameter:
                yield parameter["schema"], parameter["example"]
        bodies = [*operation["responses"].values(), operation.get("requestBody", {})]
        for body in bodies:
            for media in body.get("content", {}).values():
                yield media["schema"], media["example"]


def check(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    whole = schema | {"components": document["components"]}
    Draft202012Validator(whole).validate(value)


def test_the_description_is_valid_openapi_3_1(document):
    assert document["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(document).validate()


def test_every_route_and_method_is_described_and_nothing_else(app: Flask, document):
    routes = {
        (path_of(rule.rule), method)
        for rule in app.url_map.iter_rules()
        if rule.endpoint not in UNDESCRIBED and not rule.endpoint.startswith(PAGES)
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    assert {(path, method) for path, method, _ in operations(document)} == routes


def test_every_operation_says_which_token_it_needs(document):
    for path, _, operation in operations(document):
        assert bool(operation["security"]) == path.startswith("/api/")


def test_patterns_are_of_json_schemas_dialect(document):
    event = document["components"]["schemas"]["EventBody"]
    assert event["properties"]["id"]["pattern"] == ID_SCHEMA_PATTERN
    # Python's own anchors are letters there, and no id would match.
    assert not re.findall(r"\\\\[AZ]", json.dumps(document))


def test_every_example_is_of_its_schema(document):
    found = list(examples(document))
    assert len(found) > 30
    for schema, value in found:
        check(document, schema, value)


def test_what_is_answered_is_of_the_described_schema(client, database, issue, roll_up, document):
    issue(NOW.isoformat(), times=3)
    roll_up()
    admin = bearer(scope="analytics:admin analytics:read:any")
    body = {"scopes": ["analytics:read"]}
    assert client.post("/api/v1/keys", json=body, headers=admin).status_code == 201
    (finding,) = stored(database, {})
    add_row(database, TENANT)
    days = {"daysOff": {"dates": ["2026-12-24"]}}
    assert client.put("/api/v1/settings", json=days, headers=admin).status_code == 200
    link = {"views": ["tokens"], "days": 1, "expires": (NOW + timedelta(days=1)).isoformat()}
    assert client.post("/api/v1/share-links", json=link, headers=admin).status_code == 201
    budget = {"period": "month", "tokens": 5}
    assert client.put("/api/v1/budgets", json=budget, headers=admin).status_code == 200
    hook = {"url": "https://example.com/", "quiet": None}
    webhook = client.post("/api/v1/webhooks", json=hook, headers=admin).json["id"]
    assert client.post(f"/api/v1/webhooks/{webhook}/test", headers=admin).status_code == 202
    for path, method, operation in operations(document):
        if method == "GET":
            for mimetype, media in operation["responses"]["200"]["content"].items():
                url = path.replace("{findingId}", finding.id).replace("{webhookId}", webhook)
                answer = client.get(url, headers=admin | {"Accept": mimetype})
                assert answer.mimetype == mimetype
                is_csv = mimetype == "text/csv"
                check(document, media["schema"], answer.text if is_csv else answer.json)
                # With an event in it, or it would prove little.
                assert answer.text.count("\r\n") > 1 if is_csv else "[]" not in answer.text


def test_the_example_events_are_accepted_as_they_stand(client, document):
    operation = document["paths"]["/api/v1/events"]["post"]
    for mimetype, media in operation["requestBody"]["content"].items():
        example = media["example"]
        body = example if isinstance(example, str) else json.dumps(example)
        headers = bearer("org-1", scope="events:write") | {"Content-Type": mimetype}
        answer = client.post("/api/v1/events", data=body, headers=headers)
        assert answer.status_code == 202
        check(
            document,
            operation["responses"]["202"]["content"]["application/json"]["schema"],
            answer.json,
        )


def test_the_limits_are_those_of_the_settings(database_url):
    from app.factory import create_app  # noqa: PLC0415 - one test of many needs it

    app = create_app(make_settings(database_url, MAX_BATCH_EVENTS="7", MAX_BODY_BYTES="2048"))
    body = app.test_client().get("/api/v1/openapi.json").json["paths"]["/api/v1/events"]["post"]
    app.extensions["analytics"].database.dispose()
    text = json.dumps(body["requestBody"])
    assert '"maxItems": 7' in text
    assert "2048 bytes" in text


def test_the_reference_names_every_part_of_the_api(document):
    """The reference page names every path, parameter, status and error code."""
    page = API_PAGE.read_text()
    for path, _, operation in operations(document):
        assert path in page
        for parameter in operation["parameters"]:
            assert parameter["name"] in page, (path, parameter["name"])
        for status, response in operation["responses"].items():
            assert status in page, (path, status)
            media = response.get("content", {}).get("application/json", {})
            code = media.get("example", {}).get("code")
            assert code is None or f"`{code}`" in page, code


def test_the_reference_shows_the_described_examples(document):
    page = API_PAGE.read_text()
    blocks = re.findall(r"```json\n(.*?)\n```", page, re.DOTALL)
    shown = [json.loads(text) for text in [*blocks, *re.findall(r"`(\{\"status\".*?\})`", page)]]
    for path, _, operation in operations(document):
        status = min(operation["responses"])
        content = operation["responses"][status]["content"]
        if "application/json" in content:
            assert content["application/json"]["example"] in shown, path
        for media in operation.get("requestBody", {}).get("content", {}).values():
            example = media["example"]
            example = json.loads(example) if isinstance(example, str) else example
            assert (example[0] if isinstance(example, list) else example) in shown


def test_the_description_is_built_once(client, monkeypatch):
    """The description is built at the first call, and later calls return the same."""
    first = client.get("/api/v1/openapi.json").data
    page = client.get("/docs").text
    monkeypatch.setattr("app.web.api.docs.document", None)
    assert client.get("/api/v1/openapi.json").data == first
    assert client.get("/docs").text == page


@pytest.mark.parametrize(
    ("root", "variables", "server"),
    [
        ("", {}, "/"),
        ("/below", {}, "/below"),
        ("", {"PUBLIC_URL": "https://example.com/a/"}, "https://example.com/a"),
    ],
)
def test_the_described_server_is_the_services_own(sqlite_url, root, variables, server):
    """The described server is the path below which the service is, or its public URL."""
    with service_of(make_settings(sqlite_url, **variables)) as app:
        answer = app.test_client().get(
            "/api/v1/openapi.json", environ_overrides={"SCRIPT_NAME": root}
        )
    assert answer.json["servers"] == [{"url": server}]


def test_the_docs_page_shows_every_operation(client, document):
    """The page /docs shows every operation, without inline scripts or other hosts."""
    answer = client.get("/docs")
    assert (answer.status_code, answer.mimetype) == (200, "text/html")
    assert answer.headers["Content-Security-Policy"] == PAGE_POLICY
    assert "'unsafe-" not in PAGE_POLICY
    for path, method, _ in operations(document):
        assert f"{method} {path}" in answer.text
    assert re.findall(r"<script(?! src=\"/static/)", answer.text) == []
    assert "style=" not in answer.text
    assert re.findall(r"(?:src|href)=\"(?!#|/)", answer.text) == []
    for asset in re.findall(r"(?:src|href)=\"(/static/[^\"]+)", answer.text):
        with client.get(asset) as loaded:
            assert loaded.status_code == 200
