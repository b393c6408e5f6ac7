"""``flask events``: load events from files."""

import io
import os
import stat
import sys
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

import click
import sqlalchemy as sa

from app.cli import import_report
from app.cli.base import (
    Group,
    check_organization,
    json_option,
    open_database,
    postponed_interruption,
    progress,
    show,
    warn,
)
from app.cli.import_report import STDIN
from app.config.settings import Settings
from app.dates import parse_zone, utc_now
from app.errors import RefusedError, ValidationError
from app.intake import importer
from app.intake.files import is_regular
from app.intake.formats import FORMATS, NATIVE, Format, load_mapping
from app.intake.organizations import load_organizations
from app.storage.database import Database
from app.storage.tables import issuance_events

_FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)


@click.group(cls=Group)
def events() -> None:
    """Raw issuance events."""


@events.command(
    "import",
    examples=[
        "flask events import monday.ndjson tuesday.ndjson.gz",
        "flask events import --format csv --organization org-a tokens.csv",
        "flask events import --format keycloak --zone Europe/Berlin --dry-run server.log",
        "flask events import --mapping mapping.toml --rejects rejects.log idp.log.gz",
        "ssh idp cat events.ndjson | flask events import -",
    ],
    interrupted="the events stored so far are kept; run it again, no event is counted twice",
    exits={1: "an error, or a file or records were refused"},
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
    "name",
    metavar="NAME",
    help=f"One of {', '.join(FORMATS)}. Without it, the first records of each file decide.",
)
@click.option("--mapping", type=_FILE, help="A TOML file that describes a format of your own.")
@click.option(
    "--zone", metavar="ZONE", help="The zone of times without an offset, as Europe/Berlin."
)
@click.option(
    "--organization",
    metavar="ORG",
    help="The organization of all events. One of the service's own events may not name another.",
)
@click.option(
    "--organizations",
    "table",
    type=_FILE,
    help="A TOML file with your organization for each of the provider's.",
)
@click.option("--dry-run", is_flag=True, help="Store nothing; print what would be imported.")
@click.option(
    "--rejects",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write refused records into FILE, which replaces it; import it again once it is mended.",
)
@json_option
def import_events(
    files: tuple[str, ...], organization: str | None, as_json: bool, **options: Any
) -> None:
    """Load events from each FILE ("-" is standard input; gzip and UTF-16 are recognised).

    Records of a provider's log that are not issued tokens are counted by reason. Refused records
    are named on stderr, by file and line; all others are stored. A damaged file is named, and the
    other files are read. Events from a pipe are stored within 5 seconds. After an interruption, run
    it again: no event is counted twice.
    """
    check_organization(organization)
    _import(files, organization, as_json=as_json, **options)


def _import(  # noqa: PLR0913 - the options of the command
    files: tuple[str, ...],
    organization: str | None,
    *,
    name: str | None,
    mapping: Path | None,
    zone: str | None,
    table: Path | None,
    dry_run: bool,
    rejects: str | None,
    as_json: bool,
) -> None:
    # All options are checked, and the database is, before the file of rejects is emptied.
    file_format, local = _format(name, mapping), _zone(zone)
    settings = Settings.from_environ()
    organizations = load_organizations(table) if table else None
    database = None if dry_run else _usable_database(settings)
    progressed, trial = _Progress(files), import_report.Trial()
    inputs = (*files, *(str(one) for one in (mapping, table) if one is not None))
    with ExitStack() as stack:
        written = stack.enter_context(import_report.Rejects(rejects, inputs)) if rejects else None
        refusals = import_report.Refusals(written)
        on_progress = stack.enter_context(progress())
        job = importer.Importer(
            database=database,
            file_format=file_format,
            tenant_id=organization,
            max_bytes=settings.max_event_bytes,
            clock=utc_now,
            on_refused=refusals.show,
            on_chunk=lambda: on_progress("importing", *progressed.done(job.totals.received)),
            on_trial=trial.add,
            max_document_bytes=settings.max_document_bytes,
            zone=local,
            organizations=organizations,
        )
        reading = _Reading(job, progressed, refusals)
        damaged = sum(not reading.load(path) for path in files)
    done = job.totals
    result: dict[str, Any] = asdict(done) | {"skipped": dict(done.skipped)}
    if not reading.providers:
        del result["skipped"]  # the service's own events have nothing to skip
    text = import_report.summary(done, is_trial=dry_run)
    if dry_run:
        result |= trial.result() | {"refusals": refusals.listed()}
        text = "\n".join([text, *trial.lines()])
    show(result, text, as_json=as_json)
    sys.exit(1 if done.refused or damaged else 0)


def _format(name: str | None, mapping: Path | None) -> Format | None:
    if mapping is not None:
        return load_mapping(mapping, name)
    if name is not None and name not in FORMATS:
        raise click.UsageError(
            f"--format must be one of {', '.join(FORMATS)}; or describe yours with --mapping"
        )
    return FORMATS[name] if name is not None else None


def _zone(name: str | None) -> ZoneInfo | None:
    if name is None:
        return None
    try:
        return parse_zone(name)
    except ValueError as error:
        raise click.UsageError(f"--zone {error}") from None


def _usable_database(settings: Settings) -> Database:
    """The database. An error is raised if it is unavailable or has no table of events."""
    database = open_database(settings)
    with database.reading() as connection:
        # Not by a SELECT: the role may insert events and not read them.
        if not sa.inspect(connection).has_table(str(issuance_events.name)):
            raise RefusedError(
                "the database has no table of events (the schema is missing or out of date;"
                " run `flask db upgrade`)"
            )
    return database


class _Reading:
    """Imports files one after the other, and warns about what each one was.

    Attributes:
        providers: the formats of identity providers that the files had.
    """

    def __init__(
        self, job: importer.Importer, progressed: "_Progress", refusals: import_report.Refusals
    ) -> None:
        self.providers: set[str] = set()
        self._job = job
        self._progressed = progressed
        self._refusals = refusals
        job.on_format = self._on_format
        self._source = self._provider = ""

    def load(self, path: str) -> bool:
        """Import one file; return whether it could be read to its end."""
        before = deepcopy(self._job.totals)
        self._provider, self._refusals.unreadable = "", 0
        try:
            file = _open(path)
            self._source = file.name
            self._progressed.begin(file)
            try:
                self._load(file)
            finally:
                if path != STDIN:
                    file.close()
        except ValidationError as error:
            warn(f"Error: {error.message}")
            return False
        of_file = import_report.difference(self._job.totals, before)
        unreadable = self._refusals.unreadable
        if not of_file.received:
            warn(f"{self._source}: contains no event")
        elif doubt := import_report.doubt(self._source, self._provider, of_file, unreadable):
            warn(doubt)
        return True

    def _load(self, file: io.BufferedReader) -> None:
        if is_regular(file):
            self._job.load(file.name, file)
            return
        # What was read from a pipe is nowhere else, so it is stored before an interruption ends it.
        with postponed_interruption() as interrupt_now:
            self._job.on_wait = interrupt_now
            self._job.load(file.name, file)

    def _on_format(self, file_format: Format) -> None:
        if file_format.name in NATIVE:
            if self._job.organizations is not None:
                warn(
                    f"{self._source}: has events of this service, which name your organizations;"
                    " --organizations does not apply to them"
                )
            return
        self._provider = file_format.name
        self.providers.add(file_format.name)
        if self._job.file_format is None:
            warn(f"{self._source}: is read as {file_format.name}")


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
