"""The job's commands: ``flask rollup`` and ``flask events purge``."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import date
from typing import Any, TypeVar

import click
import msgspec

from app.cli import Group, json_option, open_database, show, warn
from app.config import Settings
from app.errors import ValidationError
from app.periods import parse_month
from jobs.purge import purge_events
from jobs.rebuild import rebuild as rebuild_months
from jobs.rollup import run_rollup
from jobs.runs import Run
from jobs.status import Status, rollup_status
from jobs.verify import Verification, verification

EX_TEMPFAIL = 75

F = TypeVar("F", bound=Callable[..., Any])


def _month(_ctx: click.Context, _param: click.Parameter, value: str | None) -> date | None:
    """A month on the command line, as its first day."""
    try:
        return None if value is None else parse_month(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a month from 1970-01 to 9999-12") from None


def month_option(flag: str, name: str, text: str, *, required: bool = False) -> Callable[[F], F]:
    """A decorator: an option that takes a month."""
    return click.option(
        flag, name, metavar="YYYY-MM", callback=_month, required=required, help=text
    )


@click.group(cls=Group)
def rollup() -> None:
    """Counting events into the summary tables."""


@rollup.command()
@json_option
def run(as_json: bool) -> None:
    """Count every event committed before now.

    Exit code 75: a writer's transaction stayed open, so some are not counted yet. Nothing
    is lost, the next run resumes.
    """
    settings = Settings.from_environ()
    done = run_rollup(
        open_database(settings),
        window_ids=settings.rollup_window_ids,
        wait_seconds=settings.rollup_wait_seconds,
    )
    show(_run_result(done), _run_text(done), as_json=as_json)
    for writer in done.writers:
        warn(f"held up by {writer}")
    sys.exit(0 if done.outcome == "done" else EX_TEMPFAIL)


@rollup.command()
@json_option
def status(as_json: bool) -> None:
    """Show how far events are counted, what is still to come, and what happened lately."""
    with open_database(Settings.from_environ()).reading() as connection:
        found = rollup_status(connection)
    show(asdict(found), "\n".join(_status_lines(found)), as_json=as_json)


@rollup.command()
@month_option("--from", "first", "The first month; all by default.")
@month_option("--to", "last", "The last month.")
@json_option
def verify(first: date | None, last: date | None, as_json: bool) -> None:
    """Recount the raw events against every summary table; exit 1 when a number differs.

    Ingest, runs and reads go on meanwhile. Months whose raw events were purged are named as
    not verifiable.
    """
    _in_order(first, last)
    with verification(open_database(Settings.from_environ()), first, last) as found:
        drifts = _verify_json(found) if as_json else _verify_text(found)
    sys.exit(1 if drifts else 0)


@rollup.command()
@month_option("--from", "first", "The first month.", required=True)
@month_option("--to", "last", "The last month.", required=True)
@json_option
def rebuild(first: date, last: date, as_json: bool) -> None:
    """Make months equal to a recount of their raw events, while everything goes on.

    What changes is kept in the correction journal, which `flask rollup status` shows. Months
    whose raw events were purged are refused.
    """
    _in_order(first, last)
    done = rebuild_months(open_database(Settings.from_environ()), first, last)
    text = f"{done.buckets} buckets corrected"
    if done.correction is not None:
        text += f", correction {done.correction}"
    show(asdict(done), text, as_json=as_json)


@click.command()
@json_option
def purge(as_json: bool) -> None:
    """Delete counted raw events received more than EVENT_RETENTION_DAYS ago, in batches."""
    settings = Settings.from_environ()
    done = purge_events(open_database(settings), retention_days=settings.event_retention_days)
    show(asdict(done), f"{done.events} events deleted", as_json=as_json)


def _in_order(first: date | None, last: date | None) -> None:
    if first and last and first > last:
        raise ValidationError("--from is after --to")


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
    yield f"last started   {found.last_started or 'never'}"
    yield f"last finished  {found.last_finished or 'never'}"
    if found.candidate is not None:
        yield f"waiting        to count up to {found.candidate}"
    for writer in found.writers:
        yield f"  held up by {writer}"
    yield "runs" if found.runs else "runs           none"
    for run in found.runs:
        yield (
            f"  {run['started_at']:%Y-%m-%d %H:%M:%S}  {run['outcome']:8}"
            f"  {run['events']} events, {run['buckets']} buckets,"
            f" {run['watermark_from']} → {run['watermark_to']}"
            f"  {run['host']} {run['pid']}{'  ' + run['error'] if run['error'] else ''}"
        )
    yield "corrections" if found.corrections else "corrections    none"
    for row in found.corrections:
        yield (
            f"  {row['corrected_at']:%Y-%m-%d %H:%M:%S}  {row['correction']}"
            f"  {row['table_name']}  {row['tenant_id']}  {row['month']:%Y-%m}"
            f"  {row['old_total']} → {row['new_total']}  {row['corrected_by']}"
        )


def _verify_text(found: Verification) -> int:
    drifts = 0
    for drift in found.drift:
        drifts += 1
        key = " ".join(f"{name}={value}" for name, value in drift.key.items())
        click.echo(f"{drift.table} {key}: stored {drift.stored}, recounted {drift.recounted}")
    for month in found.scope.purged:
        click.echo(f"{month:%Y-%m} is not verifiable: raw events were purged")
    click.echo(f"{drifts} buckets differ, events up to {found.watermark}")
    return drifts


def _verify_json(found: Verification) -> int:
    drift = [asdict(one) for one in found.drift]
    purged = [f"{month:%Y-%m}" for month in found.scope.purged]
    result = {"watermark": found.watermark, "not_verifiable": purged, "drift": drift}
    click.echo(msgspec.json.encode(result).decode())
    return len(drift)
