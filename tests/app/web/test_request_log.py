"""Request logging: a line, metrics and the request id."""

import io
import json
import logging
import re
from contextlib import ExitStack
from functools import partial

import psycopg
import pytest
from prometheus_client import REGISTRY

from app.factory import create_app
from app.storage import engines as pool
from app.telemetry import logs
from tests.support.settings import NOW, make_settings
from tests.support.tokens import bearer

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
TOKENS = "/api/v1/analytics/tokens"


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, "app.request")
    return lambda: [record.fields for record in caplog.records if record.name == "app.request"]


@pytest.fixture
def counted():
    """How much a counter has grown since the test began."""
    before = {}

    def counted(name, **labels):
        value = REGISTRY.get_sample_value(name, labels) or 0.0
        return value - before.get((name, *sorted(labels.items())), 0.0)

    for metric in REGISTRY.collect():
        for sample in metric.samples:
            before[(sample.name, *sorted(sample.labels.items()))] = sample.value
    return counted


def requests(counted, method, route, status):
    return counted("analytics_http_requests_total", method=method, route=route, status=str(status))


def test_each_request_is_one_line(client, lines):
    client.get(f"{TOKENS}?days=3", headers=bearer("org-a"))
    (line,) = lines()
    assert line.pop("seconds") >= 0
    assert line.pop("bytes") > 0
    assert line == {
        "method": "GET",
        "route": TOKENS,
        "status": 200,
        "client": "127.0.0.1",
        "tenant": "org-a",
        "client_id": "client-1",
        "subject": "client-1",  # the same, by the field's first name
    }


def test_a_batch_is_told_by_what_became_of_it(client, lines, counted):
    event = {"id": "1", "agentId": "a", "issuedAt": "2026-04-01T00:00:00Z"}
    writer = bearer(scope="events:write")
    client.post("/api/v1/events", json=[event, event], headers=writer)
    client.post("/api/v1/events", json=[event, {}], headers=writer)
    client.post("/api/v1/events?invalid=skip", json=[event | {"id": "2"}, {}], headers=writer)
    outcomes = ("accepted", "duplicates", "refused")
    shown = [tuple(line[name] for name in outcomes) for line in lines()]
    assert shown == [(1, 1, 0), (0, 0, 2), (1, 0, 1)]
    total = "analytics_events_total"
    assert counted(total, outcome="accepted") == 2
    assert counted(total, outcome="duplicate") == 1
    assert counted(total, outcome="refused") == 3


def test_the_line_has_the_organization_that_a_read_names(client, lines):
    """An operator's reads show whose numbers were read."""
    path = f"{TOKENS}?organizationId=org-b"
    wide = bearer("org-a", scope="analytics:read:any")
    assert client.get(path, headers=wide).status_code == 200
    assert client.get(path, headers=bearer("org-a")).status_code == 403
    named, refused = lines()
    assert (named["tenant"], named["organization"]) == ("org-a", "org-b")
    assert (refused["tenant"], "organization" in refused) == ("org-a", False)


def test_neither_path_nor_query_nor_token_is_in_the_line(client, caplog):
    caplog.set_level(logging.DEBUG)
    headers = bearer("org-a")
    client.get(f"/api/v1/secret-path?token={headers['Authorization']}", headers=headers)
    client.get(f"{TOKENS}?days=3&x=secret-query", headers=headers)
    shown = caplog.text + repr([vars(record) for record in caplog.records])
    assert "secret" not in shown
    assert headers["Authorization"].split()[1] not in shown


@pytest.mark.parametrize(
    ("method", "path", "labels"),
    [
        ("GET", TOKENS, ("GET", TOKENS, 401)),
        ("POST", TOKENS, ("POST", "none", 405)),
        ("GET", "/somewhere/else", ("GET", "none", 404)),
        ("BREW", "/coffee", ("other", "none", 404)),
        ("GET", "/health", ("GET", "/health", 200)),
    ],
)
def test_requests_are_counted_by_what_nobody_outside_can_choose(
    client, counted, method, path, labels
):
    assert client.open(path, method=method).status_code == labels[-1]
    assert requests(counted, *labels) == 1
    duration = "analytics_http_request_duration_seconds_count"
    assert counted(duration, method=labels[0], route=labels[1]) == 1


def test_no_label_holds_a_tenant_an_agent_or_a_path(client, counted):
    client.get(f"{TOKENS}?days=7", headers=bearer("this-tenant"))
    client.get("/this-path", headers=bearer("this-tenant"))
    labels = {
        value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        for value in sample.labels.values()
    }
    assert not [value for value in labels if "this-" in value]


def test_an_unexpected_error_is_logged_with_the_request_id(app, lines, counted):
    """An unexpected error is logged and counted, and its traceback carries the request id."""

    def broken():
        raise RuntimeError("something broke")

    app.view_functions["health.health"] = broken
    shown = io.StringIO()
    handler = logging.StreamHandler(shown)
    handler.setFormatter(logs.JsonLines())
    logging.getLogger("app").addHandler(handler)
    answer = app.test_client().get("/health", headers={"X-Request-Id": "of-the-caller"})
    logging.getLogger("app").removeHandler(handler)
    assert (answer.status_code, answer.headers["X-Request-Id"]) == (500, "of-the-caller")
    assert lines()[0]["status"] == 500
    error, request = map(json.loads, shown.getvalue().splitlines())
    assert "something broke" in error["exception"]
    assert error["request_id"] == request["request_id"] == "of-the-caller"
    assert error["level"] == request["level"] == "error"
    assert requests(counted, "GET", "/health", 500) == 1


def test_waiting_in_vain_for_a_connection_is_counted(app, client, counted, monkeypatch):
    services = app.extensions["analytics"]
    monkeypatch.setattr(services.database.engine.pool, "_timeout", 0.1)
    with ExitStack() as taken:
        for _ in range(services.settings.web_threads):
            taken.enter_context(services.database.reading())
        for path in (TOKENS, "/ready"):
            assert client.get(path, headers=bearer()).status_code == 503
    assert counted("analytics_database_connection_timeouts_total") == 2
    assert client.get("/ready").status_code == 200


def test_connections_in_use_are_given_back(app, client, counted):
    for _ in range(3):
        client.get(TOKENS, headers=bearer())
    assert counted("analytics_database_connections_in_use") == 0
    with app.extensions["analytics"].database.reading():
        assert counted("analytics_database_connections_in_use") == 1


def test_connections_that_could_not_be_had_are_not_given_back(postgresql_url, counted, monkeypatch):
    app = create_app(make_settings(postgresql_url), clock=lambda: NOW)
    engine = app.extensions["analytics"].database.engine
    read = partial(app.test_client().get, TOKENS, headers=bearer())
    assert read().status_code == 200

    def away(*_, **__):
        raise psycopg.OperationalError("the server is unavailable")

    monkeypatch.setattr(pool, "IDLE_SECONDS", 0)
    monkeypatch.setattr(engine.dialect, "do_ping", away)
    monkeypatch.setattr(engine.dialect, "connect", away)
    assert [read().status_code for _ in range(3)] == [503, 503, 503]
    assert counted("analytics_database_connections_in_use") == 0
    engine.dispose()


def test_every_answer_carries_the_requests_id(client):
    given = client.get("/health", headers={"X-Request-Id": "Root=1-67891233-abc/def:7"})
    assert given.headers["X-Request-Id"] == "Root=1-67891233-abc/def:7"
    ids = {client.get("/nowhere").headers["X-Request-Id"] for _ in range(3)}
    assert len(ids) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)


@pytest.mark.parametrize("hostile", ["", "a b", "a" * 129, "<script>", 'a"', "ä", "a\tb", "a;b"])
def test_an_id_that_could_do_harm_is_replaced(client, hostile):
    answer = client.get("/health", headers={"X-Request-Id": hostile})
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-Id"])


def test_a_callers_trace_is_passed_on(client):
    assert client.get("/health", headers={"traceparent": PARENT}).headers["traceparent"] == PARENT


@pytest.mark.parametrize(
    "malformed",
    [
        PARENT.upper(),
        PARENT[:-1],
        PARENT + "-more",
        PARENT.replace(TRACE, "0" * 32),
        PARENT.replace("00f067aa0ba902b7", "0" * 16),
        "ff" + PARENT[2:],
        "nonsense",
        PARENT + ", " + PARENT,
        "01" + PARENT[2:] + "-a b",
        "01" + PARENT[2:] + "-\x85",
        "01" + PARENT[2:] + "-" + "a" * 8000,
    ],
)
def test_a_malformed_trace_is_not(client, malformed):
    assert "traceparent" not in client.get("/health", headers={"traceparent": malformed}).headers


def test_a_trace_of_a_later_version_is_passed_on(client):
    later = "01" + PARENT[2:] + "-more"
    assert client.get("/health", headers={"traceparent": later}).headers["traceparent"] == later


def test_a_service_that_ends_is_not_ready_and_still_answers(app, client):
    assert client.get("/ready").status_code == 200
    app.extensions["analytics"].stopping = lambda: True
    answer = client.get("/ready")
    assert (answer.status_code, answer.json["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert "Retry-After" in answer.headers
    assert client.get("/health").status_code == 200
    assert client.get(TOKENS, headers=bearer()).status_code == 200
