"""Tracing with OpenTelemetry, when ``TRACING=1`` and the extra ``tracing`` is installed.

Without ``TRACING`` nothing of OpenTelemetry is imported, but a response still repeats the caller's
``traceparent``.
"""

import re
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from app.config.settings import Settings
from app.errors import SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

    from app.telemetry.spans import Tracing

HEADER = "traceparent"

# W3C Trace Context, version 00. A later version may add up to 200 characters after the flags.
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?P<trace>(?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
    r"((?<!^00.{53})-[!-~]{0,200})?"
)

_tracing: "Tracing | None" = None


def start(settings: Settings, process: str, exporter: "SpanExporter | None" = None) -> None:
    """Start tracing in this process.

    Call it after the last fork: a thread sends the spans, and a fork does not copy threads.

    Args:
        process: ``web`` or ``jobs``, a part of ``service.name``.
        exporter: where spans go; over OTLP/HTTP by default.

    Raises:
        SettingsError: the libraries are not installed.
    """
    global _tracing  # noqa: PLW0603 - one for each process
    if not settings.tracing or _tracing is not None:
        return
    try:
        from app.telemetry.spans import Tracing  # noqa: PLC0415 - its libraries are optional
    except ImportError:
        raise SettingsError(
            "TRACING", "needs what requirements-tracing.txt pins, or the extra `tracing`"
        ) from None
    _tracing = Tracing(process, exporter)


def stop() -> None:
    """Send the remaining spans, and stop tracing."""
    global _tracing  # noqa: PLW0603 - see start()
    if _tracing is not None:
        _tracing.provider.shutdown()
        _tracing = None


def span(name: str) -> AbstractContextManager[object]:
    """A span around a block; without tracing, it does nothing."""
    return nullcontext() if _tracing is None else _tracing.span(name)


def follow_requests(application: Any) -> Any:
    """The WSGI application, with a span for each request while tracing is on."""
    return application if _tracing is None else _tracing.around(application)


def follow_statements(engine: sa.Engine) -> None:
    """Make a span for each statement, without its values, while tracing is on."""
    if _tracing is not None:
        _tracing.follow(engine)


def set_route(route: str | None) -> None:
    """Set the route of the current request's span: the template of its path."""
    if _tracing is not None and route is not None:
        _tracing.set_route(route)


def traceparent(given: str | None) -> str | None:
    """The current request's ``traceparent``: that of its span, or else the caller's.

    ``None`` if there is neither, or if the caller's is malformed.
    """
    if _tracing is not None:
        return _tracing.traceparent()
    return given if given and _TRACEPARENT.fullmatch(given) else None


def trace_id(parent: str | None) -> str | None:
    """The id of the trace that a ``traceparent`` names."""
    return parent and parent.split("-")[1]
