"""The scheduler process: runs TASKS at their intervals, as counting and delivery.

Several schedulers may run at the same time. At every tick, each one checks by the database's clock
whether a run is due. The lock of the state row gives the run to one of them. There is no lease that
could expire: when one process dies, another one does the next run that is due.
"""

import logging
import signal
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

import sqlalchemy as sa
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.base import BaseScheduler
from sqlalchemy import Connection
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app import __version__
from app.config.settings import Settings
from app.dates import utc_now
from app.errors import ServiceError
from app.intake.sources import running
from app.intake.sources.building import build
from app.intake.sources.entries import Sources, load_sources
from app.storage.database import Database
from app.storage.failures import is_unavailable, unavailable_message
from app.storage.locks import LockedError
from app.storage.outbox import PARKED
from app.storage.tables import rollup_state
from app.storage.types import database_now
from app.telemetry import logs, metrics, metrics_server, tracing
from jobs import metrics as job_metrics
from jobs.counting.history import Run
from jobs.counting.run import run_rollup
from jobs.counting.state import no_state
from jobs.delivery import Delivered, deliver
from jobs.digests import add_digests
from jobs.findings.task import Pass, judge_findings
from jobs.organizations import summarize_organizations
from jobs.retention import delete_old_months, purge_events

log = logging.getLogger("jobs")

# Ticks are a little early or late, so a run is already due this share of its interval earlier.
EARLY = 0.1
# One connection each for a run, for findings, for a purge, for organizations, for digests, for
# delivery and for a scrape.
POOL_SIZE = 7
SOURCES_POOL_SIZE = 4
STOPPING = (signal.SIGTERM, signal.SIGINT)
# After so many intervals without a start, a lock on the state row is not one of a run.
OVERDUE = 2
# How long a stop waits for sources.
STOP_SECONDS = 10.0
# How often the two clocks are compared, and the difference that means that one was set.
CLOCK_SECONDS = 1.0


def claim_tick(connection: Connection, interval_seconds: float) -> bool:
    """Whether a run is due now; if so, the caller has to run it. Call this in a write transaction.

    If the state row is locked, a run or another process's claim is active, so no run is due.
    """
    now = database_now().label("now")
    row = connection.execute(
        sa.select(rollup_state.c.last_tick, now).with_for_update(skip_locked=True)
    ).one_or_none()
    if row is None:
        if connection.execute(sa.select(rollup_state.c.id)).first() is None:
            raise no_state()
        return False
    # A start in the future means that the clock was set back: a run is due.
    recent = timedelta(seconds=interval_seconds * (1 - EARLY))
    if row.last_tick is not None and timedelta(0) <= row.now - row.last_tick < recent:
        return False
    connection.execute(sa.update(rollup_state).values(last_tick=row.now))
    return True


def is_overdue(connection: Connection, interval_seconds: float) -> bool:
    """Whether no run has started for ``OVERDUE`` intervals, although schedulers tick."""
    state = sa.select(rollup_state.c.last_tick, database_now().label("now"))
    row = connection.execute(state).one()
    overdue = timedelta(seconds=interval_seconds * OVERDUE)
    return row.last_tick is None or row.now - row.last_tick > overdue


def tick(database: Database, settings: Settings, stop: threading.Event) -> Run | None:
    """Run the rollup if a run is due. A failure is logged, and the next tick tries again.

    A run without a claim is started when all are overdue. It either gets the lock of the state row,
    or ends as held up, so that a session that has forgotten the lock is logged and counted.
    """
    interval = settings.rollup_interval_seconds
    try:
        if not database.write(lambda connection: claim_tick(connection, interval)):
            with database.reading() as connection:
                if not is_overdue(connection, interval):
                    return None
        with tracing.span("rollup"):
            run = run_rollup(
                database,
                window_ids=settings.rollup_window_ids,
                wait_seconds=settings.rollup_wait_seconds,
                retention=settings.table_retention_days,
                stop=stop,
            )
    except LockedError as error:
        job_metrics.count_failure("held_up")
        holders = "; ".join(map(str, error.holders)) or None
        logs.write(log, logging.WARNING, "rollup", outcome="held_up", held_up_by=holders)
        return None
    except ServiceError as error:
        job_metrics.count_failure("refused")
        logs.write(log, logging.ERROR, "rollup", outcome="refused", reason=error.message)
        return None
    except Exception as error:  # a failed tick must not end the counting of later events
        job_metrics.count_failure("failed")
        _log_failure("rollup", error)
        return None
    job_metrics.count_run(run)
    _log_run(run)
    return run


def findings_tick(database: Database, settings: Settings, stop: threading.Event) -> None:
    """Judge the organizations that changed or are due. Of several processes one judges at a time.

    Its transactions are its own, so a run neither waits for it nor fails with it.
    """
    try:
        with tracing.span("findings"):
            done = judge_findings(database, settings, stop)
    except Exception as error:  # as above
        job_metrics.count_judging("failed")
        if isinstance(error, ServiceError | LockedError):
            reason = getattr(error, "message", None) or "a lock was not free"
            logs.write(log, logging.ERROR, "findings", outcome="failed", reason=reason)
        else:
            _log_failure("findings", error)
        return
    job_metrics.count_judging(
        done.outcome, done.organizations, done.found, done.suspect, done.seconds
    )
    _log_findings(done)


def purge_tick(database: Database, settings: Settings, stop: threading.Event) -> None:
    """Delete what is past retention. Several processes take turns, batch by batch."""
    try:
        with tracing.span("purge"):
            buckets = delete_old_months(
                database, retention=settings.table_retention_days, stop=stop
            )
            purged = purge_events(database, retention_days=settings.event_retention_days, stop=stop)
    except ServiceError as error:
        job_metrics.count_purge("failed")
        logs.write(log, logging.ERROR, "purge", outcome="failed", reason=error.message)
        return
    except Exception as error:  # as above
        job_metrics.count_purge("failed")
        _log_failure("purge", error)
        return
    outcome = "done" if purged.finished else "stopped"
    job_metrics.count_purge(outcome, purged.events)
    logs.write(log, logging.INFO, "purge", outcome=outcome, events=purged.events, buckets=buckets)


def organizations_tick(database: Database, settings: Settings, stop: threading.Event) -> None:
    """Go on with the list of all organizations. Several processes take turns, batch by batch."""
    try:
        with tracing.span("organizations"):
            done = summarize_organizations(
                database, agent_days=settings.agent_daily_retention_days, stop=stop
            )
    except Exception as error:  # as above
        job_metrics.count_summarizing("failed")
        if isinstance(error, ServiceError | LockedError):
            reason = getattr(error, "message", None) or "a lock was not free"
            logs.write(log, logging.ERROR, "organizations", outcome="failed", reason=reason)
        else:
            _log_failure("organizations", error)
        return
    if done is None:
        return
    job_metrics.count_summarizing(done.outcome, done.organizations, done.seconds)
    logs.write(
        log,
        logging.INFO,
        "organizations",
        outcome=done.outcome,
        organizations=done.organizations,
        seconds=round(done.seconds, 6),
    )


def digests_tick(database: Database, settings: Settings, stop: threading.Event) -> None:
    """Add the digests that are due to the outbox. Several processes may do so at once."""
    try:
        with tracing.span("digests"):
            added = add_digests(database, settings, stop, utc_now())
    except Exception as error:  # as above
        if isinstance(error, ServiceError | LockedError):
            reason = getattr(error, "message", None) or "a lock was not free"
            logs.write(log, logging.ERROR, "digests", outcome="failed", reason=reason)
        else:
            _log_failure("digests", error)
        return
    if added.messages:
        fields = {"messages": added.messages, "organizations": added.organizations}
        logs.write(log, logging.INFO, "digests", outcome="done", **fields)


def delivery_tick(database: Database, settings: Settings, stop: threading.Event) -> None:
    """Send what the outbox holds. Several processes send to different endpoints."""
    try:
        with tracing.span("delivery"):
            done = deliver(database, settings, stop)
    except Exception as error:  # as above
        job_metrics.count_delivery_failure()
        if isinstance(error, ServiceError | LockedError):
            reason = getattr(error, "message", None) or "a lock was not free"
            logs.write(log, logging.ERROR, "delivery", outcome="failed", reason=reason)
        else:
            _log_failure("delivery", error)
        return
    job_metrics.count_deliveries(done.outcomes)
    _log_delivery(done)


class Task(NamedTuple):
    """A task: what runs, and when."""

    name: str
    run: Callable[[Database, Settings, threading.Event], object]
    every: Callable[[Settings], float]  # seconds
    first: float  # seconds after the start


TASKS = (
    # The first tick is at the start, because events may be waiting. claim_tick() decides whether a
    # run is due.
    Task("rollup", tick, lambda settings: settings.rollup_interval_seconds, first=0),
    # A little later, so that it finds what the run has counted.
    Task("findings", findings_tick, lambda settings: settings.rollup_interval_seconds, first=2),
    Task("purge", purge_tick, lambda _settings: 3600, first=60),
    # It looks often whether a pass is due or under way. A pass begins every hour.
    Task("organizations", organizations_tick, lambda _settings: 60, first=10),
    # A digest is due some hours after its week or month.
    Task("digests", digests_tick, lambda _settings: 600, first=90),
    Task("delivery", delivery_tick, lambda _settings: 5, first=3),
)


def run_scheduler(settings: Settings) -> None:
    """Run TASKS and the sources until SIGTERM or SIGINT, then let the current transaction finish.

    Raises:
        SettingsError: the file of sources is invalid.
    """
    path = settings.sources_file
    sources = Sources() if path is None else load_sources(path, settings)
    stop = threading.Event()
    # The signals are blocked here and awaited below. A signal handler could deadlock: it would need
    # the lock of `stop`, which the interrupted code may hold.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    tracing.start(settings, "jobs")
    database = Database(settings.database_url, pool_size=POOL_SIZE, overflow=0)
    _measure(database, settings, stop)
    scheduler = _scheduled(database, settings, stop)
    scheduler.start()
    # They have their own connections, so that a run never waits for one of theirs.
    for_sources = Database(settings.database_url, pool_size=SOURCES_POOL_SIZE, overflow=0)
    reading = _start_sources(for_sources, settings, sources, stop)
    interval = settings.rollup_interval_seconds
    logs.write(
        log, logging.INFO, "scheduler started", version=__version__, interval_seconds=interval
    )
    await_signal(scheduler)
    stop.set()
    scheduler.shutdown(wait=True)
    # A request to a provider may be under way. Nothing is lost if it is not awaited.
    give_up = time.monotonic() + STOP_SECONDS
    for thread in reading:
        thread.join(max(0, give_up - time.monotonic()))
    for_sources.dispose()
    database.dispose()
    tracing.stop()
    logs.write(log, logging.INFO, "scheduler stopped")


def _start_sources(
    database: Database, settings: Settings, sources: Sources, stop: threading.Event
) -> list[threading.Thread]:
    """Follow and pull the sources, each in its own thread.

    Several schedulers may name the same ones. A pull is claimed by one of them, and a batch of a
    followed file is stored by one of them.
    """
    if not sources.sources:
        return []
    tracing.follow_statements(database.engine)
    logs.write(log, logging.INFO, "sources started", sources=len(sources.sources))
    built = [(build(database, settings, one, stop, utc_now), one.every) for one in sources.sources]
    return running.start(built, stop)


def _scheduled(
    database: Database, settings: Settings, stop: threading.Event
) -> BackgroundScheduler:
    defaults = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
    scheduler = BackgroundScheduler(timezone="UTC", job_defaults=defaults)
    for task in TASKS:
        scheduler.add_job(
            task.run,
            "interval",
            (database, settings, stop),
            name=task.name,
            seconds=task.every(settings),
            next_run_time=utc_now() + timedelta(seconds=task.first),
        )
    return scheduler


def await_signal(scheduler: BackgroundScheduler) -> None:
    """Wait for a signal to stop. Meanwhile, keep the scheduler's times right.

    APScheduler compares its times with the host's clock. If that clock is set back by an hour, it
    would run nothing for an hour. The monotonic clock shows the change, and the times follow it.
    """
    offset = time.time() - time.monotonic()
    while signal.sigtimedwait(STOPPING, CLOCK_SECONDS) is None:
        now = time.time() - time.monotonic()
        if abs(now - offset) >= CLOCK_SECONDS:
            follow_clock(scheduler, now - offset)
            offset = now


def follow_clock(scheduler: BaseScheduler, change: float) -> None:
    """Move the next time of each task by the ``change`` of the host's clock, in seconds.

    A task that has run since then has its next time by the new clock already. So no time is moved
    beyond one interval.
    """
    logs.write(log, logging.WARNING, "the clock was set", seconds=round(change, 3))
    for job in scheduler.get_jobs():
        moved = job.next_run_time + timedelta(seconds=change)
        job.modify(next_run_time=min(moved, utc_now() + job.trigger.interval))


def _measure(database: Database, settings: Settings, stop: threading.Event) -> None:
    """Measure and trace this process, and serve its metrics if an address is set."""
    metrics.describe_process("jobs")
    metrics.watch_pool(database.engine, POOL_SIZE)
    tracing.follow_statements(database.engine)
    bind = settings.jobs_metrics_bind or settings.metrics_bind
    if bind is not None:
        job_metrics.register_standing(database)
        job_metrics.register_findings(database)
        job_metrics.register_organizations(database)
        job_metrics.register_sources(database)
        job_metrics.register_outbox(database)
        # In a thread, so that events are counted even while another process uses the address.
        threading.Thread(target=metrics_server.serve, args=(bind, stop.wait), daemon=True).start()


def _log_run(run: Run) -> None:
    level = logging.INFO if run.events else logging.DEBUG  # by default four runs a minute
    logs.write(
        log,
        level if run.outcome == "done" else logging.WARNING,
        "rollup",
        outcome=run.outcome,
        events=run.events,
        buckets=run.buckets,
        watermark=run.watermark,
        seconds=round(run.seconds, 6),
        held_up_by="; ".join(map(str, run.writers)) or None,
    )


def _log_findings(done: Pass) -> None:
    logs.write(
        log,
        logging.INFO if done.found else logging.DEBUG,
        "findings",
        outcome=done.outcome,
        organizations=done.organizations,
        opened=done.found.total(),
        seconds=round(done.seconds, 6),
    )
    if done.suspect:
        logs.write(
            log,
            logging.ERROR,
            "many organizations are silent at once",
            organizations=done.suspect,
        )


def _log_delivery(done: Delivered) -> None:
    if not done.outcomes.total():
        return
    logs.write(
        log,
        logging.WARNING if done.outcomes[PARKED] else logging.INFO,
        "delivery",
        **{outcome: number for outcome, number in done.outcomes.items() if number},
        seconds=round(done.seconds, 6),
    )


def _log_failure(task: str, error: Exception) -> None:
    if isinstance(error, PoolTimeoutError):
        metrics.count_timeout()
    unavailable = is_unavailable(error)
    reason = "database unavailable" if unavailable else "unexpected error"
    fields = {"outcome": "failed", "reason": reason}
    if unavailable:
        fields["cause"] = unavailable_message(error)
    log.error(task, exc_info=None if unavailable else error, extra={"fields": fields})
