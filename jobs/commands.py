"""``flask events purge``, ``flask db copy`` and ``flask webhooks deliver``."""

import sys
from dataclasses import asdict, replace

import click
from sqlalchemy.exc import SQLAlchemyError

from app.cli.base import (
    EX_TEMPFAIL,
    Command,
    database_problem,
    json_option,
    open_database,
    progress,
    show,
    warn,
)
from app.config import parsing
from app.config.settings import Settings
from app.errors import RefusedError
from app.storage.database import Database
from jobs.copy import Copied, copy_database
from jobs.delivery import deliver as deliver_messages
from jobs.metrics import DELIVERY_OUTCOMES
from jobs.retention import delete_old_months, purge_events


@click.command(
    cls=Command,
    examples=["flask events purge", "EVENT_RETENTION_DAYS=30 flask events purge"],
    interrupted="the events deleted so far stay deleted; run it again for the rest",
)
@json_option
def purge(as_json: bool) -> None:
    """Delete counted raw events received more than EVENT_RETENTION_DAYS ago, in batches.

    It also deletes the months that HOURLY_RETENTION_DAYS and AGENT_DAILY_RETENTION_DAYS do not
    keep.
    """
    settings = Settings.from_environ()
    database = open_database(settings)
    buckets = delete_old_months(database, retention=settings.table_retention_days)
    with progress() as on_progress:
        done = purge_events(
            database,
            retention_days=settings.event_retention_days,
            on_events=lambda deleted: on_progress("purging", deleted, None),
        )
    text = f"{done.events} events deleted, {buckets} buckets of old months"
    show(asdict(done) | {"buckets": buckets}, text, as_json=as_json)


@click.command(
    cls=Command,
    examples=[
        "flask db copy --to postgresql://analytics@db.internal/analytics",
        "flask db copy --to sqlite:////var/backups/analytics.db",
    ],
    exits={
        EX_TEMPFAIL: "the source changed during the copy, so nothing was copied: stop the writers,"
        " then run it again"
    },
)
@click.option("--to", "url", required=True, metavar="URL", help="As DATABASE_URL is written.")
@json_option
def copy(url: str, as_json: bool) -> None:
    """Copy everything in DATABASE_URL into another database, and compare the two.

    The other database is empty and migrated: run `flask db upgrade` there first. It gets
    everything or nothing. Stop the writers and the scheduler before the copy, and start them on the
    other database: changes of DATABASE_URL after the comparison are not in the copy.
    """
    settings = Settings.from_environ()
    source = open_database(settings)
    target = _open_target(settings, url)
    with progress() as on_rows:
        done = copy_database(
            source, target, wait_seconds=settings.rollup_wait_seconds, on_rows=on_rows
        )
    result = asdict(done) | {"writers": list(map(str, done.writers)), "verified": done.verified}
    show(result, _copy_text(done), as_json=as_json)
    if not done.verified:
        for writer in done.writers:
            warn(f"a transaction is open at the source: {writer}")
        warn("stop the writers and the scheduler, then run this again")
        sys.exit(EX_TEMPFAIL)


def _open_target(settings: Settings, url: str) -> Database:
    """The target database, after it answered; an error that names ``--to`` is about the target."""
    try:
        other = parsing.database_url(url)
    except ValueError as error:
        raise click.UsageError(f"--to {error}") from None
    target = open_database(replace(settings, database_url=other))
    try:
        with target.reading():
            return target
    except SQLAlchemyError as error:
        raise RefusedError(f"--to: {database_problem(error)}") from error


def _copy_text(done: Copied) -> str:
    if done.verified:
        return f"verified: {done.events} events and every other table; watermark {done.watermark}"
    changes = ", ".join([*done.changed, *(["open transactions"] if done.writers else [])])
    return f"nothing was copied: the source changed meanwhile ({changes})"


@click.command(
    cls=Command,
    examples=["flask webhooks deliver", "flask webhooks deliver --json"],
    interrupted="what was not sent waits; run it again, or let the jobs send it",
)
@json_option
def deliver(as_json: bool) -> None:
    """Send the messages of webhooks that are due, as the jobs do every five seconds."""
    settings = Settings.from_environ()
    done = deliver_messages(open_database(settings), settings)
    counts = {outcome: done.outcomes[outcome] for outcome in DELIVERY_OUTCOMES}
    text = ", ".join(f"{number} {outcome}" for outcome, number in counts.items())
    show(counts, text, as_json=as_json)
