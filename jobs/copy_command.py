"""The command ``flask db copy``."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from typing import Any

import click
from sqlalchemy.exc import SQLAlchemyError

from app import variables
from app.cli import database_problem, json_option, open_database, show, warn
from app.config import Settings
from app.db import Database
from app.errors import RefusedError
from jobs.commands import EX_TEMPFAIL
from jobs.copying import Copied, OnRows, copy_database


@click.command()
@click.option("--to", "url", required=True, metavar="URL", help="As DATABASE_URL is written.")
@json_option
def copy(url: str, as_json: bool) -> None:
    """Copy everything in DATABASE_URL into another database, and compare the two.

    The other one is empty (its schema is made when there is none), or holds an earlier copy
    that nobody has written to: that one is gone on with. Interrupted? Run it again.

    Exit code 75: the copy is whole, and more has come in since. Stop the writers and run it
    again.
    """
    settings = Settings.from_environ()
    source = open_database(settings)
    target = _open_target(settings, url)
    with _progress() as on_rows:
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
    other = replace(settings, database_url=variables.database_url(url, "--to"))
    target = open_database(other)
    try:
        with target.reading():
            return target
    except SQLAlchemyError as error:
        raise RefusedError(f"--to: {database_problem(error)}") from error


def _result(done: Copied) -> dict[str, Any]:
    return asdict(done) | {"writers": [str(writer) for writer in done.writers], "verified": True}


@contextmanager
def _progress() -> Iterator[OnRows]:
    """A bar for each step on stderr, by events, when stderr is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _what, _rows, _all: None
        return
    with ExitStack() as bars:
        shown: dict[str, Any] = {}

        def on_rows(what: str, rows: int, total: int) -> None:
            if what not in shown:
                bars.close()
                bar = click.progressbar(length=total, label=what, file=sys.stderr)
                shown[what] = bars.enter_context(bar)
            shown[what].update(rows - shown[what].pos)

        yield on_rows
