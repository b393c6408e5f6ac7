"""``flask rollup``: runs, their status, and the backfill after an upgrade."""

import sys
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from typing import Any

import click

from app.cli.base import (
    EX_TEMPFAIL,
    Group,
    coloured,
    duration,
    json_option,
    open_database,
    progress,
    show,
    warn,
)
from app.config.settings import Settings
from jobs.counting.backfill import backfill as backfill_tables
from jobs.counting.history import Run
from jobs.counting.run import run_rollup
from jobs.counting.status import Status, behind, rollup_status

# The colours of the outcomes that need attention.
COLOURS = {"failed": "red", "held_up": "yellow", "running": "yellow"}


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
