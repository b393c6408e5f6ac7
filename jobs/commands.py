"""Commands of the jobs: ``flask rollup``, ``flask events purge`` and ``flask db copy``."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from datetime import date
from functools import partial
from typing import Any, TypeVar

import click
import msgspec
from sqlalchemy.exc import SQLAlchemyError

from app.cli.base import (
    EX_TEMPFAIL,
    Command,
    Group,
    check_organization,
    coloured,
    database_problem,
    day,
    duration,
    json_option,
    open_database,
    progress,
    say,
    show,
    warn,
)
from app.config import parsing
from app.config.settings import Settings
from app.dates import parse_month
from app.errors import RefusedError
from app.storage.database import Database
from jobs.copy import Copied, copy_database
from jobs.counting.backfill import backfill as backfill_tables
from jobs.counting.history import Run
from jobs.counting.run import run_rollup
from jobs.counting.status import Status, behind, rollup_status
from jobs.delivery import deliver as deliver_messages
from jobs.findings.recompute import recompute_findings
from jobs.metrics import DELIVERY_OUTCOMES
from jobs.recount.rebuild import rebuild as rebuild_months
from jobs.recount.resume import resume as resume_counting
from jobs.recount.verify import Verification, verification
from jobs.retention import delete_old_months, purge_events

# The colours of the outcomes that need attention.
COLOURS = {"failed": "red", "held_up": "yellow", "running": "yellow"}

F = TypeVar("F", bound=Callable[..., Any])


def _month(_ctx: click.Context, _param: click.Parameter, value: str | None) -> date | None:
    """A month on the command line, as its first day."""
    try:
        return None if value is None else parse_month(value)
    except ValueError:
        raise click.BadParameter(
            f"must be a month from 1970-01 to 9999-12, not {value!r}"
        ) from None


def month_option(flag: str, name: str, text: str, *, required: bool = False) -> Callable[[F], F]:
    """A decorator that adds an option for a month."""
    return click.option(
        flag, name, metavar="YYYY-MM", callback=_month, required=required, help=text
    )


@click.group(cls=Group)
def rollup() -> None:
    """Count events into the summary tables."""


@rollup.command(
    examples=["flask rollup run", "flask rollup run --json"],
    interrupted="the events counted so far stay counted; run it again for the rest",
    exits={
        EX_TEMPFAIL: "a writer's open transaction delays some events; nothing is lost, the next"
        " run counts them"
    },
)
@json_option
def run(as_json: bool) -> None:
    """Count every event that is committed by now."""
    settings = Settings.from_environ()
    with progress() as on_progress:
        done = run_rollup(
            open_database(settings),
            window_ids=settings.rollup_window_ids,
            wait_seconds=settings.rollup_wait_seconds,
            retention=settings.table_retention_days,
            on_ids=partial(on_progress, "counting"),
        )
    show(_run_result(done), _run_text(done), as_json=as_json)
    for writer in done.writers:
        warn(f"held up by {writer}")
    sys.exit(0 if done.outcome == "done" else EX_TEMPFAIL)


@rollup.command(
    examples=[
        "flask rollup status",
        "flask rollup status --json",
        "flask rollup status --max-lag 5m",
    ],
    exits={1: "an error; or, with --max-lag, counting is behind or refused"},
)
@click.option(
    "--max-lag",
    metavar="DURATION",
    callback=duration,
    help="Exit 1 if an event has waited for longer, if the last run finished longer ago, or if"
    " counting is refused. For example 5m; at least twice ROLLUP_INTERVAL_SECONDS.",
)
@json_option
def status(max_lag: float | None, as_json: bool) -> None:
    """Show how far events are counted, what is pending, and the last runs and corrections."""
    with open_database(Settings.from_environ()).reading() as connection:
        found = rollup_status(connection)
    late = None if max_lag is None else behind(found, max_lag)
    show(asdict(found), "\n".join(_status_lines(found)), as_json=as_json)
    if late is not None:
        warn(f"behind: {late}")
        sys.exit(1)


@rollup.command(
    examples=["flask rollup verify", "flask rollup verify --from 2026-01 --to 2026-03"],
    exits={1: "an error, or a number differs"},
)
@month_option("--from", "first", "The first month; by default all months.")
@month_option("--to", "last", "The last month.")
@json_option
def verify(first: date | None, last: date | None, as_json: bool) -> None:
    """Compare every summary table with a recount of the raw events.

    Ingest, runs and reads continue meanwhile. Months with purged raw events cannot be verified;
    they are listed.
    """
    _in_order(first, last)
    settings = Settings.from_environ()
    with (
        progress() as on_progress,
        verification(
            open_database(settings),
            first,
            last,
            retention=settings.table_retention_days,
            on_table=partial(on_progress, "verifying"),
        ) as found,
    ):
        drifts = _verify_json(found) if as_json else _verify_text(found)
    sys.exit(1 if drifts else 0)


@rollup.command(
    examples=["flask rollup rebuild --from 2026-01 --to 2026-03"],
    interrupted="the months were corrected completely or not at all; run it again",
)
@month_option("--from", "first", "The first month.", required=True)
@month_option("--to", "last", "The last month.", required=True)
@click.option("--force", is_flag=True, help="Rebuild even if raw events are lost.")
@json_option
def rebuild(first: date, last: date, force: bool, as_json: bool) -> None:
    """Make months equal to a recount of their raw events, while the service runs.

    The correction journal keeps each change; `flask rollup status` shows it. Months with purged
    raw events are refused. So are months with fewer raw events than every summary table counts,
    because raw events are lost there.
    """
    _in_order(first, last)
    settings = Settings.from_environ()
    with progress() as on_progress:
        done = rebuild_months(
            open_database(settings),
            first,
            last,
            force=force,
            retention=settings.table_retention_days,
            on_step=partial(on_progress, "rebuilding"),
        )
    show(asdict(done), _corrected(done.buckets, done.correction), as_json=as_json)


@rollup.command(
    examples=["flask rollup backfill", "flask rollup backfill --json"],
    interrupted="the events counted so far stay counted; run it again for the rest",
)
@json_option
def backfill(as_json: bool) -> None:
    """Count older events into the tables that an upgrade added, while the service runs.

    Run it once after such an upgrade. Until it has ended, raw events are not purged, and reports of
    hours and of agents' days begin later or are unavailable.
    """
    settings = Settings.from_environ()
    with progress() as on_progress:
        done = backfill_tables(
            open_database(settings),
            retention=settings.table_retention_days,
            on_ids=partial(on_progress, "counting"),
        )
    text = f"done: {done.events} events into {done.buckets} buckets"
    show(asdict(done), text, as_json=as_json)


@rollup.command(
    examples=["flask rollup resume", "flask rollup resume --json"],
    interrupted="counting is still refused; run it again",
    exits={1: "an error, an open writer, or numbers that cannot be proven: still refused"},
)
@click.option(
    "--accept-loss",
    is_flag=True,
    help="Where an organization's counted events are missing, keep the numbers of that month.",
)
@json_option
def resume(accept_loss: bool, as_json: bool) -> None:
    """End a refusal to count, after a recount of all events.

    It moves a sequence that was left behind, counts the events that were never counted, and
    verifies the rest. Events are stored and read meanwhile. Run it as the owner of the tables.
    """
    settings = Settings.from_environ()
    with progress() as on_progress:
        done = resume_counting(
            open_database(settings),
            accept_loss=accept_loss,
            retention=settings.table_retention_days,
            on_step=partial(on_progress, "recounting"),
        )
    ended = "counting was not refused" if done.refusal is None else "counting goes on"
    text = f"{ended}: {_corrected(done.buckets, done.correction)}"
    show(asdict(done), text, as_json=as_json)
    if done.lost is not None:
        warn(f"{done.lost}; these numbers stay as they are, and their months count as purged")
    if done.uncounted:
        warn(f"at least {done.uncounted} events of such months or of purged ones stay uncounted")


def _corrected(buckets: int, correction: int | None) -> str:
    number = "" if correction is None else f", correction {correction}"
    return f"{buckets} buckets corrected{number}"


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
    examples=["flask findings recompute --from 2026-01-01 --to 2026-03-31"],
    interrupted="the organizations that are done stay so; run it again for the others",
)
@click.option(
    "--from", "first", metavar="DAY", callback=day, required=True, help="The first day, YYYY-MM-DD."
)
@click.option("--to", "last", metavar="DAY", callback=day, required=True, help="The last day.")
@click.option("--organization", metavar="ORG", help="Only this organization; by default all.")
@json_option
def recompute(first: date, last: date, organization: str | None, as_json: bool) -> None:
    """Judge whole days anew, from the summary tables alone.

    A finding that no longer holds is resolved as corrected. People's marks stay. Schedulers judge
    nothing meanwhile, and counting goes on.
    """
    check_organization(organization)
    _in_order(first, last)
    settings = Settings.from_environ()
    with progress() as on_progress:
        done = recompute_findings(
            open_database(settings),
            settings,
            first,
            last,
            organization=organization,
            on_organizations=lambda number: on_progress("judging", number, None),
        )
    text = (
        f"{done.organizations} organizations judged: {done.opened} findings opened,"
        f" {done.changed} changed, {done.corrected} corrected"
    )
    show(asdict(done), text, as_json=as_json)


def _in_order(first: date | None, last: date | None) -> None:
    if first and last and first > last:
        raise click.UsageError("--from must not be after --to")


def _run_result(run: Run) -> dict[str, Any]:
    fields = ("outcome", "events", "buckets", "watermark", "seconds")
    result = {name: getattr(run, name) for name in fields}
    return result | {"writers": [str(writer) for writer in run.writers]}


def _run_text(run: Run) -> str:
    return (
        f"{run.outcome.replace('_', ' ')}: {run.events} events into {run.buckets} buckets,"
        f" watermark {run.watermark}, {run.seconds:.2f} s"
    )


def _status_lines(found: Status) -> Iterable[str]:
    yield f"watermark      {found.watermark}"
    yield f"pending        {found.pending} events"
    yield f"lag            {found.lag_seconds:.1f} s"
    yield f"last tick      {found.last_started or 'never'}"
    yield f"last finished  {found.last_finished or 'never'}"
    if found.backfill_ids:
        text = f"{found.backfill_ids} event ids to count; see `flask rollup backfill`"
        yield f"backfill       {coloured(text, 'yellow')}"
    if found.refusal is not None:
        text = f"{found.refusal}; see `flask rollup resume`"
        yield f"refused        {coloured(text, 'red')}"
    if found.candidate is not None:
        yield f"waiting        to count up to {found.candidate}"
    for writer in found.writers:
        yield f"  held up by {writer}"
    yield "runs" if found.runs else "runs           none"
    for run in found.runs:
        outcome = coloured(f"{run['outcome']:8}", COLOURS.get(run["outcome"]))
        yield (
            f"  {run['started_at']:%Y-%m-%d %H:%M:%S}  {outcome}"
            f"  {run['events']} events, {run['buckets']} buckets,"
            f" {run['watermark_from']} → {run['watermark_to']}"
            f"  {run['host']} {run['pid']}{'  ' + run['error'] if run['error'] else ''}"
        )
    yield "corrections" if found.corrections else "corrections    none"
    for row in found.corrections:
        month = "all months" if row["month"] is None else f"{row['month']:%Y-%m}"
        yield (
            f"  {row['corrected_at']:%Y-%m-%d %H:%M:%S}  {row['correction']}"
            f"  {row['table_name']}  {row['tenant_id']}  {month}"
            f"  {row['old_total']} → {row['new_total']}  {row['corrected_by']}"
        )


def _verify_text(found: Verification) -> int:
    drifts = 0
    for drift in found.drift:
        drifts += 1
        key = " ".join(f"{name}={value}" for name, value in drift.key.items())
        text = f"{drift.table} {key}: stored {drift.stored}, recounted {drift.recounted}"
        if drift.stored_hours != drift.recounted_hours:
            text += f"; hours stored {drift.stored_hours}, recounted {drift.recounted_hours}"
        say(coloured(text, "red"))
    for month in found.scope.purged:
        say(f"{month:%Y-%m} cannot be verified: raw events were purged")
    for tenant_id in found.scope.deleting:
        say(f"{tenant_id} is not verified: finish `flask organizations delete` first")
    say(f"{drifts} buckets differ, events up to {found.watermark}")
    return drifts


def _verify_json(found: Verification) -> int:
    drift = [
        {name: value for name, value in asdict(one).items() if value is not None}
        for one in found.drift
    ]
    purged = [f"{month:%Y-%m}" for month in found.scope.purged]
    result: dict[str, Any] = {"watermark": found.watermark, "not_verifiable": purged}
    if found.scope.deleting:
        result["being_deleted"] = found.scope.deleting
    result["drift"] = drift
    click.echo(msgspec.json.encode(result).decode())
    return len(drift)


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
