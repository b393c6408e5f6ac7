"""The command ``flask db copy``."""

import sys
from dataclasses import asdict, replace
from typing import Any

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
from jobs.copying import Copied, copy_database


@click.command(
    cls=Command,
    examples=[
        "flask db copy --to postgresql://analytics@db.internal/analytics",
        "flask db copy --to sqlite:////var/backups/analytics.db",
    ],
    interrupted="what was copied is kept; run it again, it goes on from there",
    exits={
        EX_TEMPFAIL: "the copy is whole, and more has come in since: stop the writers and run"
        " it again"
    },
)
@click.option("--to", "url", required=True, metavar="URL", help="As DATABASE_URL is written.")
@json_option
def copy(url: str, as_json: bool) -> None:
    """Copy everything in DATABASE_URL into another database, and compare the two.

    The other one is empty (its schema is made when there is none), or holds an earlier copy
    that nobody has written to: that one is gone on with. Interrupted? Run it again.
    """
    settings = Settings.from_environ()
    source = open_database(settings)
    target = _open_target(settings, url)
    with progress() as on_rows:
        done = copy_database(
            source, target, wait_seconds=settings.rollup_wait_seconds, on_rows=on_rows
        )
    text = (
        f"verified: {done.events} events, {done.copied} of them copied now, and every other"
        f" table; watermark {done.watermark}"
    )
    show(_result(done), text, as_json=as_json)
    for writer in done.writers:
        warn(f"a transaction is open at the source: {writer}")
    if done.behind or done.writers:
        warn(
            f"events have come in at the source since, {done.behind} of them to be seen: stop"
            " the writers and run this again"
        )
        sys.exit(EX_TEMPFAIL)


def _open_target(settings: Settings, url: str) -> Database:
    """The other database, seen to be there: an error names it, and later ones the source too."""
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


def _result(done: Copied) -> dict[str, Any]:
    return asdict(done) | {"writers": [str(writer) for writer in done.writers], "verified": True}
