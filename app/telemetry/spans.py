"""OpenTelemetry spans: one for each request, statement, run and purge.

Only ``app.telemetry.tracing`` imports this module, and only with ``TRACING=1``: the libraries come
with the extra ``tracing``. OpenTelemetry's own variables (``OTEL_…``) say where spans go.
"""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import sqlalchemy as sa
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation import dbapi
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app import __version__

NAME = "agentidp-analytics"
ROUTE = "http.route"
# Attributes that leave the process. The instrumentation also records paths, queries, clients and
# the texts of errors: these may hold a token, a sign-in's code or an event's values.
SENT = frozenset(
    {
        "http.request.method",
        "url.scheme",
        ROUTE,
        "http.response.status_code",
        "db.system.name",
        "db.query.text",
    }
)
# The instrumentation has to use the stable names, which SENT lists, not those of earlier drafts.
os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "http,database"


class Tracing:
    """The tracing of one process: its provider of spans.

    Args:
        process: ``web`` or ``jobs``, a part of ``service.name``.
        exporter: where spans go; over OTLP/HTTP by default.
    """

    def __init__(self, process: str, exporter: SpanExporter | None) -> None:
        own = {"service.name": f"{NAME}-{process}", "service.version": __version__}
        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES override our own attributes.
        resource = Resource.create(own).merge(OTELResourceDetector().detect())
        self.provider = TracerProvider(resource=resource)
        sender = Sender(exporter or OTLPSpanExporter())
        self.provider.add_span_processor(BatchSpanProcessor(sender))
        self._tracer = self.provider.get_tracer(NAME, __version__)

    def span(self, name: str) -> AbstractContextManager[object]:
        """A span around a block."""
        return self._tracer.start_as_current_span(name)

    def around(self, application: Any) -> Any:
        """A WSGI application with a span for each request, in the caller's trace if it has one."""
        return OpenTelemetryMiddleware(application, tracer_provider=self.provider)

    def follow(self, engine: sa.Engine) -> None:
        """Make a span for each statement on the engine's connections, without its values."""

        @sa.event.listens_for(engine, "do_connect")
        def connect(
            dialect: sa.Dialect, _record: Any, arguments: list[Any], options: dict[str, Any]
        ) -> Any:
            return dbapi.instrument_connection(
                NAME,
                dialect.connect(*arguments, **options),
                dialect.name,
                connection_attributes={},
                tracer_provider=self.provider,
            )

    def set_route(self, route: str) -> None:
        """Set the route of the current request's span."""
        trace.get_current_span().set_attribute(ROUTE, route)

    def traceparent(self) -> str | None:
        """The current span, as a W3C ``traceparent`` header."""
        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier)
        return carrier.get("traceparent")


class Sender(SpanExporter):
    """A span exporter that sends only the attributes in ``SENT``, no events and no error texts."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._exporter.export([_without_values(span) for span in spans])

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _without_values(span: ReadableSpan) -> ReadableSpan:
    attributes = {name: value for name, value in (span.attributes or {}).items() if name in SENT}
    name = span.name
    if span.kind is trace.SpanKind.SERVER:  # its name has the path, which may hold a token
        method = name.partition(" ")[0]
        name = f"{method} {attributes.get(ROUTE, '')}".strip()
    return ReadableSpan(
        name,
        span.context,
        span.parent,
        span.resource,
        attributes,
        kind=span.kind,
        status=trace.Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )
