"""The rollup on a schedule, in a process of its own.

Several such processes may run: each asks at every tick whether a run is due, by the
database's clock, and the state row's lock lets one of them have it. There is no lease
that could expire, so when one process dies the others simply find the next run due.
"""

import logging
import signal
import threading
from datetime import timedelta

import sqlalchemy as sa
from apscheduler.schedulers.background import BackgroundScheduler
from prometheus_client import REGISTRY
from sqlalchemy import Connection
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app import __version__
from app.config.settings import Settings
from app.dates import utc_now
from app.errors import ServiceError
from app.storage.database import Database
from app.storage.failures import is_unavailable
from app.storage.tables import rollup_state
from app.storage.types import database_now
from app.telemetry import logs, tracing
from app.telemetry import metrics as app_metrics
from app.telemetry import metrics_server as exporter
from jobs import metrics
from jobs.counting.history import Run
from jobs.counting.run import run_rollup
from jobs.counting.state import no_state
from jobs.retention import purge_events

log = logging.getLogger("jobs")

# Ticks of one process come a little early or late; a run that started almost a whole
# interval ago is not taken for this tick's.
EARLY = 0.1
# A run, a purge and a scrape.
POOL_SIZE = 3
FIRST_PURGE_SECONDS, PURGE_SECONDS = 60, 3600
STOPPING = (signal.SIGTERM, signal.SIGINT)


def claim_tick(connection: Connection, interval_seconds: float) -> bool:
    """Whether a run is due now; if so, this tick is the caller's. Call it in a write.

    A row that is locked belongs to a run or to another process's claim: not due.
    """
    now = database_now().label("now")
    row = connection.execute(
        sa.select(rollup_state.c.last_started, now).with_for_update(skip_locked=True)
    ).one_or_none()
    if row is None:
        if connection.execute(sa.select(rollup_state.c.id)).first() is None:
            raise no_state()
        return False
    # A start in the future means that the clock was set back: due.
    recent = timedelta(seconds=interval_seconds * (1 - EARLY))
    if row.last_started is not None and timedelta(0) <= row.now - row.last_started < recent:
        return False
    connection.execute(sa.update(rollup_state).values(last_started=row.now))
    return True


def tick(database: Database, settings: Settings, stop: threading.Event) -> Run | None:
    """Run the rollup if this tick is ours. A failure is logged; the next tick tries again."""
    try:
        if not database.write(lambda c: claim_tick(c, settings.rollup_interval_seconds)):
            return None
        with tracing.span("rollup"):
            run = run_rollup(
                database,
                window_ids=settings.rollup_window_ids,
                wait_seconds=settings.rollup_wait_seconds,
                stop=stop,
            )
    except ServiceError as error:
        metrics.count_failure("refused")
        logs.write(log, logging.ERROR, "rollup", outcome="refused", reason=error.message)
        return None
    except Exception as error:  # a scheduler that dies of one bad tick counts nothing at all
        metrics.count_failure("failed")
        _log_failure("rollup", error)
        return None
    metrics.count_run(run)
    _log_run(run)
    return run


def purge_tick(database: Database, settings: Settings, stop: threading.Event) -> None:
    """Delete raw events past retention. Several processes at once take turns, batch by batch."""
    try:
        with tracing.span("purge"):
            purged = purge_events(database, retention_days=settings.event_retention_days, stop=stop)
    except Exception as error:  # as above
        metrics.count_purge("failed")
        _log_failure("purge", error)
        return
    outcome = "done" if purged.finished else "stopped"
    metrics.count_purge(outcome, purged.events)
    logs.write(log, logging.INFO, "purge", outcome=outcome, events=purged.events)


def serve(settings: Settings) -> None:
    """Tick until SIGTERM or SIGINT, then let a transaction that is under way finish."""
    stop = threading.Event()
    # Waited for, below, and not handled: a handler might find the lock of `stop` taken by the
    # code that it interrupts.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    tracing.start(settings, "jobs")
    database = Database(settings.database_url, pool_size=POOL_SIZE, overflow=0)
    _observe(database, settings, stop)
    scheduler = _scheduled(database, settings, stop)
    scheduler.start()
    interval = settings.rollup_interval_seconds
    logs.write(
        log, logging.INFO, "scheduler started", version=__version__, interval_seconds=interval
    )
    signal.sigwait(STOPPING)
    stop.set()
    scheduler.shutdown(wait=True)
    database.dispose()
    tracing.stop()
    logs.write(log, logging.INFO, "scheduler stopped")


def _scheduled(
    database: Database, settings: Settings, stop: threading.Event
) -> BackgroundScheduler:
    defaults = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
    scheduler = BackgroundScheduler(timezone="UTC", job_defaults=defaults)
    # The first at once: events may have waited for this process, and claim_tick knows if not.
    for work, seconds, first in (
        (tick, settings.rollup_interval_seconds, 0),
        (purge_tick, PURGE_SECONDS, FIRST_PURGE_SECONDS),
    ):
        scheduler.add_job(
            work,
            "interval",
            (database, settings, stop),
            seconds=seconds,
            next_run_time=utc_now() + timedelta(seconds=first),
        )
    return scheduler


def _observe(database: Database, settings: Settings, stop: threading.Event) -> None:
    app_metrics.describe_process("jobs")
    app_metrics.watch_pool(database.engine, POOL_SIZE)
    tracing.follow_statements(database.engine)
    bind = settings.jobs_metrics_bind or settings.metrics_bind
    if bind is not None:
        REGISTRY.register(metrics.StandingCollector(database))
        # By the way: while somebody else has the address, events are counted all the same.
        threading.Thread(target=exporter.serve, args=(bind, stop.wait), daemon=True).start()


def _log_run(run: Run) -> None:
    logs.write(
        log,
        logging.INFO if run.outcome == "done" else logging.WARNING,
        "rollup",
        outcome=run.outcome,
        events=run.events,
        buckets=run.buckets,
        watermark=run.watermark,
        seconds=round(run.seconds, 6),
        held_up_by="; ".join(map(str, run.writers)) or None,
    )


def _log_failure(work: str, error: Exception) -> None:
    if isinstance(error, PoolTimeoutError):
        app_metrics.count_timeout()
    away = is_unavailable(error)
    reason = "database unavailable" if away else "unexpected error"
    fields = {"outcome": "failed", "reason": reason}
    log.error(work, exc_info=None if away else error, extra={"fields": fields})
