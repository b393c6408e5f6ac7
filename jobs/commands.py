"""The job's commands: ``flask rollup``."""

import sys
from dataclasses import asdict

import click

from app.cli import Group, fail, json_option, open_database, show
from app.config import Settings
from jobs.rollup import run_rollup
from jobs.status import Status, rollup_status

EX_TEMPFAIL = 75


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
    text = (
        f"{done.outcome.replace('_', ' ')}: {done.events} events into {done.buckets} buckets,"
        f" watermark {done.watermark}, {done.seconds:.2f} s"
    )
    result = asdict(done) | {"writers": [str(writer) for writer in done.writers]}
    show(result, text, as_json=as_json)
    for writer in done.writers:
        fail(f"held up by {writer}")
    sys.exit(0 if done.outcome == "done" else EX_TEMPFAIL)


@rollup.command()
@json_option
def status(as_json: bool) -> None:
    """Show how far events are counted, and what is still to come."""
    with open_database(Settings.from_environ()).reading() as connection:
        found = rollup_status(connection)
    show(asdict(found), _status_text(found), as_json=as_json)


def _status_text(found: Status) -> str:
    lines = [
        f"watermark      {found.watermark}",
        f"pending        {found.pending} events",
        f"lag            {found.lag_seconds:.1f} s",
        f"last started   {found.last_started or 'never'}",
        f"last finished  {found.last_finished or 'never'}",
    ]
    if found.candidate is not None:
        lines.append(f"waiting        for an open writer, to count up to {found.candidate}")
    return "\n".join(lines)
