"""Metrics for Prometheus: requests, events and database connections.

Tenants, agents and paths are never labels: callers choose them, so their number has no limit. Every
name starts with ``analytics_``; docs/operate/monitoring.md lists them.

Import this module before any other that imports prometheus_client: see ``metrics_folder``.
"""

from http import HTTPMethod
from typing import Any

import sqlalchemy as sa

from app import __version__
from app.telemetry import metrics_folder

metrics_folder.keep_private()

from prometheus_client import (  # noqa: E402 - it looks for a folder when it is imported
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)

# Reading a summary table takes about a millisecond, and storing a large batch half a second.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_METHODS = frozenset(HTTPMethod)

disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's gap
_requests = Counter("analytics_http_requests", "HTTP requests", ["method", "route", "status"])
_durations = Histogram(
    "analytics_http_request_duration_seconds",
    "From the start of a request to its response",
    ["method", "route"],
    buckets=SECONDS,
)
_events = Counter("analytics_events", "Events posted, by outcome", ["outcome"])
_refused_tokens = Counter(
    "analytics_tokens_refused", "Access tokens and API keys that were refused, by cause", ["cause"]
)
_key_fetches = Counter(
    "analytics_key_fetches", "Fetches of the identity provider's key set, by outcome", ["outcome"]
)
_keys_fetched = Gauge(
    "analytics_keys_fetched_timestamp_seconds",
    "When the identity provider's key set was last fetched",
    multiprocess_mode="mostrecent",
)
_in_use = Gauge(
    "analytics_database_connections_in_use",
    "Connections that a request or a job has taken from the pool",
    multiprocess_mode="livesum",
)
_pool_size = Gauge(
    "analytics_database_connections_max",
    "Connections that may be taken at once",
    multiprocess_mode="livesum",
)
_introspections = Counter(
    "analytics_introspections",
    "Requests to the identity provider about opaque tokens, by outcome",
    ["outcome"],
)
_timeouts = Counter(
    "analytics_database_connection_timeouts", "Timeouts of the wait for a free connection"
)
_build = Gauge(
    "analytics_build_info",
    "1, with the version in a label",
    ["version", "process"],
    multiprocess_mode="livemax",
)
for _outcome in ("accepted", "duplicate", "refused"):
    _events.labels(_outcome)  # begins at 0, so that rate() includes the first event
_key_fetches.labels("fetched")
for _outcome in ("active", "inactive"):
    _introspections.labels(_outcome)
for _cause in ("malformed", "unknown kid", "signature", "claim exp", "claim aud", "claim iss"):
    _refused_tokens.labels(_cause)
for _cause in ("malformed key", "unknown key", "revoked key", "expired key"):
    _refused_tokens.labels(_cause)


def count_request(method: str, route: str | None, status: int, seconds: float) -> None:
    """Count a request; ``route`` is its path's template, ``None`` if none matched."""
    name = method if method in _METHODS else "other"
    _requests.labels(name, route or "none", status).inc()
    _durations.labels(name, route or "none").observe(seconds)


def count_events(*, accepted: int = 0, duplicates: int = 0, refused: int = 0) -> None:
    """Count the events of one batch."""
    for outcome, events in (
        ("accepted", accepted),
        ("duplicate", duplicates),
        ("refused", refused),
    ):
        if events:
            _events.labels(outcome).inc(events)


def count_refused_token(cause: str | None) -> None:
    """Count a refused access token; ``cause`` is one of few fixed texts, as ``claim aud``."""
    _refused_tokens.labels(cause or "other").inc()


def count_key_fetch(outcome: str) -> None:
    """Count a fetch of the key set; ``outcome`` is one of ``provider_http.OUTCOMES``."""
    _key_fetches.labels(outcome).inc()
    if outcome == "fetched":
        _keys_fetched.set_to_current_time()


def count_introspection(outcome: str) -> None:
    """Count a request about a token; ``outcome`` is ``active``, ``inactive`` or a failure.

    A failure is one of ``provider_http.OUTCOMES``.
    """
    _introspections.labels(outcome).inc()


def count_timeout() -> None:
    """Count a timeout: no database connection became free in time."""
    _timeouts.inc()


def watch_pool(engine: sa.Engine, size: int) -> None:
    """Measure how many connections of this process's pool are in use."""
    _pool_size.set(size)

    held: set[Any] = set()

    @sa.event.listens_for(engine, "checkout")
    def taken(_connection: Any, record: Any, _proxy: Any) -> None:
        held.add(record)
        _in_use.inc()

    @sa.event.listens_for(engine, "checkin")
    def returned(_connection: Any, record: Any) -> None:
        if record in held:  # a connection that could not be opened is also checked in
            held.discard(record)
            _in_use.dec()


def describe_process(process: str) -> None:
    """Show which version runs as ``process``: ``web`` or ``jobs``."""
    _build.labels(__version__, process).set(1)
