"""Traces for OpenTelemetry, when ``TRACING=1`` and the extra ``tracing`` is installed.

Spans of our own for each request, run and statement: the SDK is stable, the instrumentation
packages are not yet. Where spans go is said by OpenTelemetry's own variables (``OTEL_…``).
Without ``TRACING`` nothing of it is imported; a caller's trace is passed on either way.
"""

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from app import __version__
from app.config.settings import Settings
from app.errors import SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

HEADER = "traceparent"
HEADERS = (HEADER, "tracestate")
NAME = "agentidp-analytics"

# W3C Trace Context, version 00; a later one may go on after its flags, but not for ever.
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?P<trace>(?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
    r"((?<!^00.{53})-[!-~]{0,200})?"
)


class _Tracing:
    """What is there while tracing is on: the provider, and OpenTelemetry's modules."""

    def __init__(self, process: str, exporter: "SpanExporter | None") -> None:
        from opentelemetry import trace  # noqa: PLC0415 - here and below: optional
        from opentelemetry.exporter.otlp.proto.http import trace_exporter  # noqa: PLC0415
        from opentelemetry.sdk import resources  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider, export  # noqa: PLC0415
        from opentelemetry.trace.propagation import tracecontext  # noqa: PLC0415

        self.api = trace
        self.propagator = tracecontext.TraceContextTextMapPropagator()
        own = {"service.name": f"{NAME}-{process}", "service.version": __version__}
        # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say goes first.
        given = resources.OTELResourceDetector().detect()
        self.provider = TracerProvider(resource=resources.Resource.create(own).merge(given))
        self.provider.add_span_processor(
            export.BatchSpanProcessor(exporter or trace_exporter.OTLPSpanExporter())
        )
        self.tracer = self.provider.get_tracer(NAME, __version__)


_tracing: _Tracing | None = None


def start(settings: Settings, process: str, exporter: "SpanExporter | None" = None) -> None:
    """Begin to trace this process, after the last fork: spans are sent by a thread.

    Args:
        process: ``web`` or ``jobs``, a part of ``service.name``.
        exporter: where spans go; over OTLP/HTTP by default.

    Raises:
        SettingsError: the libraries are not there.
    """
    global _tracing  # noqa: PLW0603 - one for each process
    if not settings.tracing or _tracing is not None:
        return
    try:
        _tracing = _Tracing(process, exporter)
    except ImportError:
        raise SettingsError(
            "TRACING", "needs what requirements-tracing.txt pins, or the extra `tracing`"
        ) from None


def stop() -> None:
    """Send what is left."""
    global _tracing  # noqa: PLW0603 - see start()
    if _tracing is not None:
        _tracing.provider.shutdown()
        _tracing = None


def is_on() -> bool:
    """Whether spans are made, of each statement, too."""
    return _tracing is not None


def span(
    name: str, headers: Mapping[str, str] | None = None, **attributes: Any
) -> AbstractContextManager[Any]:
    """A span around a block; nothing, and ``None``, while there is no tracing.

    Args:
        headers: ``HEADERS`` of the request that the span answers, which name its parent.
    """
    if _tracing is None:
        return nullcontext()
    kind, parent = _tracing.api.SpanKind.INTERNAL, None
    if headers is not None:
        kind = _tracing.api.SpanKind.SERVER
        parent = _tracing.propagator.extract(headers)
    return _tracing.tracer.start_as_current_span(name, parent, kind, attributes)


def traceparent(headers: Mapping[str, str]) -> str | None:
    """The trace that is under way, as W3C writes it: our span's, else the caller's own.

    ``None`` without any, and for a malformed one.
    """
    if _tracing is not None:
        carrier: dict[str, str] = {}
        _tracing.propagator.inject(carrier)
        return carrier.get(HEADER)
    given = headers.get(HEADER)
    return given if given and _TRACEPARENT.fullmatch(given) else None


def trace_id(parent: str | None) -> str | None:
    """The trace's own id in a ``traceparent``."""
    return parent and parent.split("-")[1]


def follow_statements(engine: sa.Engine) -> None:
    """A span for each statement; its text holds no values, which travel beside it."""
    if _tracing is None:
        return
    tracing = _tracing

    @sa.event.listens_for(engine, "before_cursor_execute")
    def begin(_connection: Any, _cursor: Any, statement: str, *rest: Any) -> None:
        context = rest[-2]
        context.span = tracing.tracer.start_span(
            statement.split(maxsplit=1)[0].upper(),
            kind=tracing.api.SpanKind.CLIENT,
            attributes={"db.system.name": engine.dialect.name, "db.query.text": statement},
        )

    @sa.event.listens_for(engine, "after_cursor_execute")
    def end(*arguments: Any) -> None:
        arguments[-2].span.end()

    @sa.event.listens_for(engine, "handle_error")
    def fail(context: sa.ExceptionContext) -> None:
        if span := getattr(context.execution_context, "span", None):
            span.set_status(tracing.api.StatusCode.ERROR)
            span.end()
