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
from sqlalchemy import Connection

from app.config import Settings
from app.db import Database, database_now, is_unavailable
from app.errors import ServiceError
from app.models import rollup_state
from app.periods import utc_now
from jobs.purge import purge_events
from jobs.rollup import run_rollup
from jobs.runs import Run
from jobs.state import no_state

log = logging.getLogger("jobs")

# Ticks of one process come a little early or late; a run that started almost a whole
# interval ago is not taken for this tick's.
EARLY = 0.1
FIRST_PURGE_SECONDS, PURGE_SECONDS = 60, 3600


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
        run = run_rollup(
            database,
            window_ids=settings.rollup_window_ids,
            wait_seconds=settings.rollup_wait_seconds,
            stop=stop,
        )
    except ServiceError as error:
        log.error("rollup outcome=refused reason=%r", error.message)
        return None
    except Exception as error:  # a scheduler that dies of one bad tick counts nothing at all
        reason = "database unavailable" if is_unavailable(error) else "unexpected error"
        log.error("rollup outcome=failed reason=%r", reason, exc_info=not is_unavailable(error))
        return None
    _log_run(run)
    return run


def purge_tick(database: Database, settings: Settings, stop: threading.Event) -> None:
    """Delete raw events past retention. Several processes at once take turns, batch by batch."""
    try:
        purged = purge_events(database, retention_days=settings.event_retention_days, stop=stop)
    except Exception as error:  # as above
        log.error("purge outcome=failed", exc_info=not is_unavailable(error))
        return
    if purged.events:
        outcome = "done" if purged.finished else "stopped"
        log.info("purge outcome=%s events=%d", outcome, purged.events)


def serve(settings: Settings) -> None:
    """Tick until SIGTERM or SIGINT, then let a transaction that is under way finish."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    database = Database(settings.database_url, pool_size=2)
    defaults = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
    scheduler = BackgroundScheduler(timezone="UTC", job_defaults=defaults)
    arguments = (database, settings, stop)
    scheduler.add_job(tick, "interval", arguments, seconds=settings.rollup_interval_seconds)
    soon = utc_now() + timedelta(seconds=FIRST_PURGE_SECONDS)
    scheduler.add_job(purge_tick, "interval", arguments, seconds=PURGE_SECONDS, next_run_time=soon)
    scheduler.start()
    log.info("scheduler started interval_seconds=%d", settings.rollup_interval_seconds)
    stop.wait()
    scheduler.shutdown(wait=True)
    database.dispose()
    log.info("scheduler stopped")


def _log_run(run: Run) -> None:
    level = logging.INFO if run.events or run.outcome != "done" else logging.DEBUG
    log.log(
        level,
        "rollup outcome=%s events=%d buckets=%d watermark=%d seconds=%.3f writers=%r",
        run.outcome,
        run.events,
        run.buckets,
        run.watermark,
        run.seconds,
        [str(writer) for writer in run.writers],
    )
