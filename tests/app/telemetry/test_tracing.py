"""Spans for requests, runs and statements, in the caller's trace."""

import http.server
import subprocess
import sys
import threading

import pytest
import sqlalchemy as sa
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy.exc import DBAPIError

from app.config.settings import ROOT
from app.errors import SettingsError
from app.factory import create_app
from app.telemetry import tracing
from jobs.scheduler import tick
from tests.support.processes import call, free_port, poll, process
from tests.support.settings import NOW, child_environ, make_settings
from tests.support.tokens import bearer

TRACE = 0x4BF92F3577B34DA6A3CE929D0E0E4736
PARENT = f"00-{TRACE:032x}-00f067aa0ba902b7-01"
TOKENS = "/api/v1/analytics/tokens"


@pytest.fixture
def traced(database_url):
    """Settings with tracing on, and the spans so far once ``tracing.stop`` has sent them."""
    settings = make_settings(database_url, TRACING="1")
    exporter = InMemorySpanExporter()
    tracing.start(settings, "web", exporter)

    def spans():
        tracing.stop()
        return exporter.get_finished_spans()

    yield settings, spans
    tracing.stop()


@pytest.fixture
def traced_client(traced):
    app = create_app(traced[0], clock=lambda: NOW)
    yield app.test_client()
    app.extensions["analytics"].database.dispose()


def test_a_request_and_its_statements_are_spans(traced, traced_client):
    """A request and its statements are spans in the caller's trace."""
    headers = bearer() | {"traceparent": PARENT}
    answer = traced_client.get(TOKENS, headers=headers, buffered=True)
    *statements, request = traced[1]()
    assert request.name == f"GET {TOKENS}"
    assert request.kind.name == "SERVER"
    assert request.parent.span_id == 0x00F067AA0BA902B7
    assert dict(request.attributes) == {
        "http.request.method": "GET",
        "url.scheme": "http",
        "http.route": TOKENS,
        "http.response.status_code": 200,
    }
    assert {span.context.trace_id for span in (*statements, request)} == {TRACE}
    assert answer.headers["traceparent"] == f"00-{TRACE:032x}-{request.context.span_id:016x}-01"
    assert request.resource.attributes["service.name"] == "agentidp-analytics-web"
    last = statements[-1]
    assert last.name in {"SELECT", "WITH"}
    assert last.parent.span_id == request.context.span_id
    assert "daily_issuance" in last.attributes["db.query.text"]


def test_no_span_holds_a_tenant_a_token_or_an_address(traced, traced_client):
    headers = bearer("a-tenant-of-ours")
    traced_client.get(f"{TOKENS}?days=3&x=secret-query", headers=headers, buffered=True)
    traced_client.get("/secret-path", headers=headers, buffered=True)
    spans = traced[1]()
    assert [span.name for span in spans if span.kind.name == "SERVER"] == [f"GET {TOKENS}", "GET"]
    shown = "".join(span.to_json() for span in spans)
    assert "a-tenant-of-ours" not in shown
    assert "secret" not in shown
    assert headers["Authorization"].split(".")[1] not in shown


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_no_span_holds_the_text_of_an_error(traced, traced_client):
    """PostgreSQL repeats values in the texts of its errors."""
    database = traced_client.application.extensions["analytics"].database
    cast = sa.text("SELECT CAST(CAST(:value AS text) AS integer)")
    with pytest.raises(DBAPIError, match="a-value-of-ours"), database.reading() as connection:
        connection.execute(cast, {"value": "a-value-of-ours"})
    spans = traced[1]()
    assert [span.attributes["db.query.text"] for span in spans if not span.status.is_ok]
    assert "a-value-of-ours" not in "".join(span.to_json() for span in spans)


def test_a_failing_statement_ends_its_span_as_failed(traced, traced_client):
    database = traced_client.application.extensions["analytics"].database
    database.write(lambda c: c.exec_driver_sql("ALTER TABLE daily_issuance RENAME TO gone"))
    assert traced_client.get(TOKENS, headers=bearer(), buffered=True).status_code == 503
    failed = [span for span in traced[1]() if not span.status.is_ok]
    assert [span.name for span in failed if "daily" in span.attributes.get("db.query.text", "")]


def test_a_run_is_a_span(traced, issue, database):
    issue("2026-04-01T00:00:00Z")
    tick(database, traced[0], threading.Event())
    run = traced[1]()[-1]
    assert (run.name, run.parent) == ("rollup", None)


def test_without_the_setting_nothing_is_traced_nor_imported(sqlite_url):
    tracing.start(make_settings(sqlite_url), "web")
    assert tracing.traceparent({}) is None
    check = (
        "import sys, wsgi; sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    subprocess.run(
        [sys.executable, "-c", check], cwd=ROOT, env=child_environ(sqlite_url), check=True
    )


def test_without_the_libraries_the_setting_is_refused_by_name(sqlite_url, monkeypatch):
    monkeypatch.delitem(sys.modules, "app.telemetry.spans", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(SettingsError, match=r"^TRACING needs what requirements-tracing.txt pins"):
        tracing.start(make_settings(sqlite_url, TRACING="1"), "web")


def test_the_environment_names_the_service(sqlite_url, monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "ours")
    exporter = InMemorySpanExporter()
    tracing.start(make_settings(sqlite_url, TRACING="1"), "jobs", exporter)
    with tracing.span("work"):
        pass
    tracing.stop()
    (span,) = exporter.get_finished_spans()
    assert span.resource.attributes["service.name"] == "ours"


class Collector(http.server.BaseHTTPRequestHandler):
    """Takes what an exporter sends over OTLP/HTTP."""

    def do_POST(self):
        self.server.received.append(
            (self.path, self.rfile.read(int(self.headers["Content-Length"])))
        )
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        """Not on the test's output."""


@pytest.mark.slow
def test_both_processes_send_their_spans_before_they_end(sqlite_url):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        collector.received = []
        threading.Thread(target=collector.serve_forever, args=(0.02,), daemon=True).start()
        port = free_port()
        environ = child_environ(
            sqlite_url,
            PORT=str(port),
            TRACING="1",
            ROLLUP_INTERVAL_SECONDS="1",
            LOG_LEVEL="DEBUG",  # for runs without events
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{collector.server_port}",
        )
        with (
            process("gunicorn", "wsgi:app", environ=environ),
            process("jobs", environ=environ) as jobs,
        ):
            poll(lambda: call(f"http://127.0.0.1:{port}/ready"), lambda found: found[0] == 200)
            poll(jobs.log.read_text, lambda text: '"rollup"' in text)
        collector.shutdown()
    assert {path for path, _ in collector.received} == {"/v1/traces"}
    sent = b"".join(body for _, body in collector.received)
    for expected in (
        b"GET /ready",
        b"rollup",
        b"agentidp-analytics-web",
        b"agentidp-analytics-jobs",
    ):
        assert expected in sent
