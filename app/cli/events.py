"""``flask events``: load events from files."""

import io
import os
import stat
import sys
from dataclasses import asdict
from typing import cast

import click

from app.cli.base import Group, check_organization, json_option, open_database, progress, show, warn
from app.config.settings import Settings
from app.dates import utc_now
from app.errors import ValidationError
from app.intake import importer
from app.intake.formats import FORMATS

SHOWN_REFUSALS = 100
STDIN = "-"


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
    exits={1: "an error, or a file or lines were refused"},
)
@click.argument(
    "files",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, readable=True, allow_dash=True),
    metavar="FILE...",
)
@click.option(
    "--format",
    "file_format",
    type=click.Choice(list(FORMATS)),
    default="ndjson",
    show_default=True,
    help="One JSON event per line, or CSV (also with ; or tabs) with a header of the same names.",
)
@click.option(
    "--organization", metavar="ORG", help="The organization of all events; another one is refused."
)
@json_option
def import_events(
    files: tuple[str, ...],
    file_format: str,
    organization: str | None,
    as_json: bool,
) -> None:
    """Load events from each FILE ("-" is standard input; gzip and UTF-16 are recognised).

    Refused lines are named on stderr, by file and line; all others are stored. A damaged file is
    named, and the other files are read. Events from a pipe are stored within 5 seconds. After an
    interruption, run it again: no event is counted twice.
    """
    check_organization(organization)
    settings = Settings.from_environ()
    refusals, progressed = _Refusals(), _Progress(files)
    with progress() as on_progress:
        job = importer.Importer(
            database=open_database(settings),
            file_format=file_format,
            tenant_id=organization,
            max_bytes=settings.max_event_bytes,
            clock=utc_now,
            on_refused=refusals.show,
            on_chunk=lambda: on_progress("importing", *progressed.done(job.totals.received)),
        )
        damaged = sum(not _load(job, path, progressed) for path in files)
    done = job.totals
    text = (
        f"{done.received} events: {done.accepted} stored, {done.duplicates} duplicates,"
        f" {done.refused} refused"
    )
    result = asdict(done)
    del result["skipped"]
    show(result, text, as_json=as_json)
    sys.exit(1 if done.refused or damaged else 0)


def _load(job: importer.Importer, path: str, progressed: "_Progress") -> bool:
    """Import one file; return whether it could be read to its end."""
    before = job.totals.received
    try:
        file = _open(path)
        progressed.begin(file)
        try:
            job.load(file.name, file)
        finally:
            if path != STDIN:
                file.close()
    except ValidationError as error:
        warn(f"Error: {error.message}")
        return False
    if job.totals.received == before:
        warn(f"{file.name}: contains no event")
    return True


def _open(path: str) -> io.BufferedReader:
    if path == STDIN:
        if sys.stdin is None:
            raise ValidationError("standard input is closed; name a file")
        return cast("io.BufferedReader", sys.stdin.buffer)
    try:
        return open(path, "rb")
    except OSError as error:
        raise ValidationError(str(error)) from None


class _Progress:
    """How much of all files is read: in bytes, or in events if a file is a pipe of unknown size."""

    def __init__(self, paths: tuple[str, ...]) -> None:
        files = [os.stat(path) for path in paths if path != STDIN]
        known = len(files) == len(paths) and all(stat.S_ISREG(file.st_mode) for file in files)
        self._total = sum(file.st_size for file in files) if known else None
        self._file: io.BufferedReader | None = None
        self._size = self._before = 0

    def begin(self, file: io.BufferedReader) -> None:
        """Read this file next."""
        self._file = file
        if self._total is not None:
            self._before += self._size
            self._size = os.fstat(file.fileno()).st_size

    def done(self, events: int) -> tuple[int, int | None]:
        """What is done, and the total if it is known."""
        if self._total is None or self._file is None:
            return events, self._total
        return self._before + self._file.tell(), self._total


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
