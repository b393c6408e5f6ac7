"""``flask events``: load events from files."""

import io
import os
import sys
from dataclasses import asdict

import click

from app.cli.base import Group, check_organization, json_option, open_database, progress, show, warn
from app.config.settings import Settings
from app.dates import utc_now
from app.intake import importer
from app.intake.formats import FORMATS
from app.storage.database import Database

SHOWN_REFUSALS = 100


@click.group(cls=Group)
def events() -> None:
    """Raw issuance events."""


@events.command(
    "import",
    examples=[
        "flask events import monday.ndjson tuesday.ndjson.gz",
        "flask events import --format csv --organization org-a tokens.csv",
        "ssh idp cat events.ndjson | flask events import -",
    ],
    interrupted="the events stored so far are kept; run it again, no event is counted twice",
    exits={1: "an error, or lines were refused"},
)
@click.argument("files", nargs=-1, required=True, type=click.File("rb"), metavar="FILE...")
@click.option(
    "--format",
    "file_format",
    type=click.Choice(list(FORMATS)),
    default="ndjson",
    show_default=True,
    help="One JSON event per line, or CSV with a header of the same names.",
)
@click.option(
    "--organization", metavar="ORG", help="The organization of all events; another one is refused."
)
@json_option
def import_events(
    files: tuple[io.BufferedReader, ...],
    file_format: str,
    organization: str | None,
    as_json: bool,
) -> None:
    """Load events from each FILE ("-" is standard input; gzip is recognised).

    Refused lines are named on stderr, by file and line; all others are stored. After an
    interruption, run it again: no event is counted twice.
    """
    check_organization(organization)
    done = _load(open_database(Settings.from_environ()), files, file_format, organization)
    text = (
        f"{done.received} events: {done.accepted} stored, {done.duplicates} duplicates,"
        f" {done.refused} refused"
    )
    show(asdict(done), text, as_json=as_json)
    sys.exit(1 if done.refused else 0)


def _load(
    database: Database,
    files: tuple[io.BufferedReader, ...],
    file_format: str,
    organization: str | None,
) -> importer.Imported:
    """Import all files, with progress in bytes, or in events if a file is a pipe."""
    refusals, size = _Refusals(), _size(files)
    with progress() as on_progress:

        def on_chunk() -> None:
            done = job.totals.received if size is None else sum(map(_position, files))
            on_progress("importing", done, size)

        job = importer.Importer(
            database, file_format, organization, utc_now, refusals.show, on_chunk
        )
        for file in files:
            job.load(file.name, file)
    return job.totals


class _Refusals:
    """Prints the first refused lines, since a wrong file may have millions."""

    def __init__(self) -> None:
        self.count = 0

    def show(self, refused: importer.Refused) -> None:
        self.count += 1
        if self.count <= SHOWN_REFUSALS:
            warn(f"{refused.source}:{refused.line}: {refused.reason}")
        elif self.count == SHOWN_REFUSALS + 1:
            warn("further refused lines are counted, not listed")


def _size(files: tuple[io.BufferedReader, ...]) -> int | None:
    """Bytes in all files; ``None`` if one is a pipe, whose size is unknown."""
    try:
        sizes = [os.fstat(file.fileno()).st_size for file in files if file.seekable()]
    except OSError:
        return None
    return sum(sizes) if len(sizes) == len(files) else None


def _position(file: io.BufferedReader) -> int:
    return 0 if file.closed else file.tell()
