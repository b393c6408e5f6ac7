"""Metrics for Prometheus: the tasks, how far each has come, and the sources."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from app.detection import Kind
from app.errors import ServiceError
from app.storage.database import Database
from app.storage.tables import (
    detection_state,
    organization_summary_state,
    rollup_state,
    source_positions,
    usual,
    webhook_endpoints,
    webhook_messages,
)
from app.storage.types import as_utc, database_now
from jobs.counting.history import Run
from jobs.counting.status import Standing, standing

OUTCOMES = ("done", "held_up", "failed", "refused")
JUDGING_OUTCOMES = ("done", "stopped", "taken", "waiting", "failed")
SUMMARIZING_OUTCOMES = ("done", "stopped", "taken", "failed")
DELIVERY_OUTCOMES = ("delivered", "failed", "parked", "dropped")
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
# Prometheus waits ten seconds for a scrape; a connection may take five of them.
ANSWER_SECONDS = 4
EVENTS = (0, 1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)

_runs = Counter("analytics_rollup_runs", "Runs of this process, by outcome", ["outcome"])
_run_seconds = Histogram("analytics_rollup_run_duration_seconds", "Run time", buckets=SECONDS)
_run_events = Histogram("analytics_rollup_run_events", "Events counted by a run", buckets=EVENTS)
_purges = Counter("analytics_purge_runs", "Purges, by outcome", ["outcome"])
_purged = Counter("analytics_purge_events", "Raw events deleted past retention")
_judgings = Counter("analytics_findings_runs", "Passes over findings, by outcome", ["outcome"])
_judging_seconds = Histogram(
    "analytics_findings_run_duration_seconds", "Time of a pass over findings", buckets=SECONDS
)
_judged = Counter("analytics_findings_organizations", "Judgements of organizations")
_found = Counter("analytics_findings_opened", "Findings that were opened, by kind", ["kind"])
_suspect = Gauge(
    "analytics_findings_suspect_silences",
    "Silences that the last pass did not store, because too many began at once",
)
_summarizings = Counter(
    "analytics_organizations_runs", "Ticks of the list of organizations, by outcome", ["outcome"]
)
_summarizing_seconds = Histogram(
    "analytics_organizations_run_duration_seconds",
    "Time of a tick of the list of organizations",
    buckets=SECONDS,
)
_summarized = Counter("analytics_organizations_summarized", "Organizations that were summed up")
_deliveries = Counter(
    "analytics_webhook_messages", "Messages of webhooks, by outcome of an attempt", ["outcome"]
)
_delivery_failures = Counter(
    "analytics_webhook_delivery_failures", "Ticks of delivery that failed as a whole"
)
for _outcome in DELIVERY_OUTCOMES:
    _deliveries.labels(_outcome)
for _outcome in JUDGING_OUTCOMES:
    _judgings.labels(_outcome)
for _outcome in SUMMARIZING_OUTCOMES:
    _summarizings.labels(_outcome)
for _kind in Kind:
    _found.labels(_kind.value)
for _outcome in OUTCOMES:
    _runs.labels(_outcome)  # begins at 0, so that rate() includes the first run
for _outcome in ("done", "stopped", "failed"):
    _purges.labels(_outcome)


def count_run(run: Run) -> None:
    """Count a run that ended without an error."""
    _runs.labels(run.outcome).inc()
    _run_seconds.observe(run.seconds)
    _run_events.observe(run.events)


def count_failure(outcome: str) -> None:
    """Count a run that was ``failed`` or ``refused``."""
    _runs.labels(outcome).inc()


def count_purge(outcome: str, events: int = 0) -> None:
    """Count a purge, and the events that it deleted."""
    _purges.labels(outcome).inc()
    _purged.inc(events)


def count_judging(
    outcome: str,
    organizations: int = 0,
    found: Mapping[str, int] | None = None,
    suspect: int = 0,
    seconds: float | None = None,
) -> None:
    """Count a pass over findings, and the findings that it opened."""
    _judgings.labels(outcome).inc()
    _judged.inc(organizations)
    for kind, count in (found or {}).items():
        _found.labels(kind).inc(count)
    if outcome in {"done", "stopped"}:
        _suspect.set(suspect)
    if seconds is not None and outcome in {"done", "stopped"}:
        _judging_seconds.observe(seconds)


def count_summarizing(outcome: str, organizations: int = 0, seconds: float | None = None) -> None:
    """Count a tick that went on with the list of organizations."""
    _summarizings.labels(outcome).inc()
    _summarized.inc(organizations)
    if seconds is not None:
        _summarizing_seconds.observe(seconds)


def count_deliveries(outcomes: Mapping[str, int]) -> None:
    """Count the attempts of a tick of delivery, and the messages that it gave up."""
    for outcome, number in outcomes.items():
        _deliveries.labels(outcome).inc(number)


def count_delivery_failure() -> None:
    """Count a tick of delivery that failed as a whole."""
    _delivery_failures.inc()


class StandingCollector(Collector):
    """How far the rollup has counted, read from the database at each scrape.

    So the numbers are right even if another process runs the rollup.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turn = threading.Lock()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        # One scrape at a time. If the query takes longer than Prometheus waits, several scrapes
        # would run at once and take the connection that a run needs.
        with self._turn:
            found = self._standing()
        up = found is not None
        yield _gauge("database_up", "Whether this scrape could read the database", up)
        if found is not None:
            yield from _gauges(found)

    def describe(self) -> list[GaugeMetricFamily]:
        """Describe nothing: registering must not query the database."""
        return []

    def _standing(self) -> Standing | None:
        try:
            with self._database.reading(seconds=ANSWER_SECONDS) as connection:
                return standing(connection)
        except (SQLAlchemyError, ServiceError):
            return None


def register_standing(database: Database) -> None:
    """Serve how far the rollup has counted, beside this process's own metrics."""
    REGISTRY.register(StandingCollector(database))


class FindingsCollector(Collector):
    """How far findings are judged, from the database at each scrape.

    So the numbers are right even if another process judges, and after a restart.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turn = threading.Lock()

    def describe(self) -> list[GaugeMetricFamily]:
        """Describe nothing: registering must not query the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        with self._turn:  # as above
            found = self._found()
        if found is not None:
            finished, due = found
            yield _gauge(
                "findings_last_finished_timestamp_seconds",
                "When all organizations that were due were judged",
                0.0 if finished is None else finished.timestamp(),
            )
            yield _gauge("findings_due_organizations", "Organizations that are due", due)

    def _found(self) -> tuple[datetime | None, int] | None:
        """When detection last finished, and the number of organizations that are due."""
        try:
            with self._database.reading(seconds=ANSWER_SECONDS) as connection:
                finished = connection.scalar(sa.select(detection_state.c.last_finished))
                counted_at = connection.scalar(sa.select(rollup_state.c.last_finished))
                due = sa.select(sa.func.count()).where(usual.c.due_at <= counted_at)
                return finished, connection.scalar(due) or 0
        except (SQLAlchemyError, ServiceError):
            return None


def register_findings(database: Database) -> None:
    """Serve how far findings are judged, beside this process's own metrics."""
    REGISTRY.register(FindingsCollector(database))


class OrganizationsCollector(Collector):
    """How old the list of organizations is, from the database at each scrape.

    So the number is right even if another process keeps the list, and after a restart.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turn = threading.Lock()

    def describe(self) -> list[GaugeMetricFamily]:
        """Describe nothing: registering must not query the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        with self._turn:  # as above
            found = self._last_finished()
        if found is not None:
            yield _gauge(
                "organizations_last_finished_timestamp_seconds",
                "When all organizations were last summed up",
                found,
            )

    def _last_finished(self) -> float | None:
        """When the last pass ended, 0 before; ``None`` if the database is unavailable."""
        try:
            with self._database.reading(seconds=ANSWER_SECONDS) as connection:
                finished = connection.scalar(sa.select(organization_summary_state.c.last_finished))
        except (SQLAlchemyError, ServiceError):
            return None
        return 0.0 if finished is None else finished.timestamp()


def register_organizations(database: Database) -> None:
    """Serve how old the list of organizations is, beside this process's own metrics."""
    REGISTRY.register(OrganizationsCollector(database))


class OutboxCollector(Collector):
    """What waits in the outbox, from the database at each scrape."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turn = threading.Lock()

    def describe(self) -> list[GaugeMetricFamily]:
        """Describe nothing: registering must not query the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        with self._turn:  # as above
            found = self._waiting()
        if found is not None:
            waiting, oldest, resting = found
            yield _gauge("webhook_waiting_messages", "Messages that wait to be sent", waiting)
            yield _gauge(
                "webhook_oldest_waiting_seconds",
                "Age of the oldest message that is due and not sent",
                oldest,
            )
            yield _gauge("webhook_resting_endpoints", "Endpoints that rest after failures", resting)

    def _waiting(self) -> tuple[int, float, int] | None:
        message, endpoint, now = webhook_messages.c, webhook_endpoints.c, database_now()
        due = sa.case((message.next_at <= now, message.created_at))
        waiting = sa.select(sa.func.count(), sa.func.min(due), now.label("now")).where(
            message.next_at.is_not(None)
        )
        resting = sa.select(sa.func.count()).where(
            endpoint.disabled_at.is_(None), endpoint.paused_until > now
        )
        try:
            with self._database.reading(seconds=ANSWER_SECONDS) as connection:
                number, oldest, at = connection.execute(waiting).one()
                age = 0.0 if oldest is None else max(0.0, (at - as_utc(oldest)).total_seconds())
                return number, age, connection.scalar(resting) or 0
        except (SQLAlchemyError, ServiceError):
            return None


def register_outbox(database: Database) -> None:
    """Serve what waits in the outbox."""
    REGISTRY.register(OutboxCollector(database))


class SourcesCollector(Collector):
    """How far sources are read, from the database at each scrape.

    So the numbers are right even if another process reads the sources, and after a restart.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turn = threading.Lock()

    def describe(self) -> list[GaugeMetricFamily]:
        """Describe nothing: registering must not query the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        with self._turn:  # as above
            rows = self._rows()
        labels = ["source", "host"]
        records = CounterMetricFamily(
            "analytics_source_records",
            "Records of a source, by outcome",
            labels=[*labels, "outcome"],
        )
        gauges = {
            name: GaugeMetricFamily(f"analytics_source_{name}", text, labels=labels)
            for name, text in _SOURCE_GAUGES.items()
        }
        for row in rows:
            where = [row.source, row.place]
            for outcome in SOURCE_OUTCOMES:
                records.add_metric([*where, outcome], getattr(row, outcome))
            gauges["failed"].add_metric(where, row.error is not None)
            if row.newest_at is not None:
                lag = max(0, (row.now - row.newest_at).total_seconds())
                gauges["lag_seconds"].add_metric(where, lag)
            if row.read_at is not None:
                gauges["read_timestamp_seconds"].add_metric(where, row.read_at.timestamp())
        yield records
        yield from gauges.values()

    def _rows(self) -> Sequence[Any]:
        columns = [one for one in source_positions.c if one.name != "position"]
        try:
            with self._database.reading(seconds=ANSWER_SECONDS) as connection:
                return connection.execute(sa.select(*columns, database_now().label("now"))).all()
        except (SQLAlchemyError, ServiceError):
            return []


SOURCE_OUTCOMES = ("accepted", "duplicates", "skipped", "refused")
_SOURCE_GAUGES = {
    "lag_seconds": "Age of the newest event of a source",
    "read_timestamp_seconds": "When a source was last read",
    "failed": "1 while the last turn of a source has failed",
}


def register_sources(database: Database) -> None:
    """Serve how far sources are read."""
    REGISTRY.register(SourcesCollector(database))


def _gauges(found: Standing) -> Iterator[GaugeMetricFamily]:
    yield _gauge("rollup_watermark", "Id up to which events are counted", found.watermark)
    yield _gauge("rollup_pending_events", "Events not counted yet", found.pending)
    yield _gauge("rollup_lag_seconds", "Age of the oldest event not counted", found.lag_seconds)
    yield _gauge("rollup_refused", "1 while counting is refused, until a resume", found.refused)
    yield _gauge(
        "rollup_backfill_ids", "Event ids that a backfill has yet to count", found.backfill_ids
    )
    yield _gauge(
        "rollup_oldest_writer_seconds",
        "Age of the oldest open transaction that has inserted events",
        found.oldest_writer_seconds,
    )
    if found.last_finished is not None:
        yield _gauge(
            "rollup_last_finished_timestamp_seconds",
            "When events were last counted up to the newest",
            found.last_finished.timestamp(),
        )


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"analytics_{name}", text, value=value)
