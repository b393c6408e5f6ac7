"""The service's commands: ``flask db``, ``events``, ``tokens``, ``demo`` and ``version``."""

import io
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from typing import Any

import click
from alembic import command as alembic
from alembic.config import Config
from alembic.util import CommandError

from app import __version__, auth, importer
from app import demo as demonstration
from app.cli import Command, Group, json_option, open_database, progress, show, warn
from app.config import Settings
from app.db import Database
from app.errors import RefusedError
from app.events import is_id
from app.periods import utc_now
from app.schema import MIGRATIONS, current_revision, expected_revision
from app.shards import distribute

SHOWN_REFUSALS = 100
YEAR_SECONDS = 366 * 24 * 3600
EX_CANTCREAT = 73

_MIGRATED = "the schema was changed as a whole or not at all, see `flask db current`"


@click.group(cls=Group)
def db() -> None:
    """The database schema."""


@db.command(
    examples=["flask db upgrade", "flask db upgrade 0001"],
    interrupted=_MIGRATED,
)
@click.argument("revision", default="head")
@json_option
def upgrade(revision: str, as_json: bool) -> None:
    """Bring the schema to REVISION, the newest by default.

    In a database that has the extension Citus the tables are spread over its nodes, too.
    """
    _migrate(lambda config: alembic.upgrade(config, revision))
    _distribute(Settings.from_environ())
    _show_revision(as_json=as_json)


@db.command(
    examples=["flask db downgrade", "flask db downgrade 0001"],
    interrupted=_MIGRATED,
)
@click.argument("revision", default="-1")
@json_option
def downgrade(revision: str, as_json: bool) -> None:
    """Take the schema back to REVISION, by default one step."""
    _migrate(lambda config: alembic.downgrade(config, revision))
    _show_revision(as_json=as_json)


@db.command(examples=["flask db current", "flask db current --json"])
@json_option
def current(as_json: bool) -> None:
    """Show the database's schema version."""
    _show_revision(as_json=as_json)


@db.command(
    examples=["flask db check"], exits={1: "an error, or the database and the tables differ"}
)
@json_option
def check(as_json: bool) -> None:
    """Compare the database with the tables this version expects."""
    _migrate(alembic.check)
    show({"differs": False}, "the schema is as expected", as_json=as_json)


def _migrate(run: Callable[[Config], object]) -> None:
    config = Config(stdout=io.StringIO())
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    try:
        run(config)
    except (CommandError, RuntimeError) as error:
        raise RefusedError(str(error)) from error


def _distribute(settings: Settings) -> None:
    """With Citus, spread the tables over its nodes; those that are already stay as they are."""
    database = open_database(settings)
    database.write(partial(distribute, shard_count=settings.citus_shard_count))


def _show_revision(*, as_json: bool) -> None:
    with open_database(Settings.from_environ()).reading() as connection:
        revision = current_revision(connection)
    head = expected_revision()
    text = f"{revision or 'no schema'}{' (head)' if revision == head else ''}"
    show({"revision": revision, "head": head}, text, as_json=as_json)


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
    interrupted="the events stored so far are kept; run it again, none counts twice",
    exits={1: "an error, or lines were refused"},
)
@click.argument("files", nargs=-1, required=True, type=click.File("rb"), metavar="FILE...")
@click.option(
    "--format",
    "file_format",
    type=click.Choice(list(importer.FORMATS)),
    default="ndjson",
    show_default=True,
    help="One JSON event a line, or CSV with a header of the same names.",
)
@click.option("--organization", metavar="ORG", help="Whose events these are; none may differ.")
@json_option
def import_events(
    files: tuple[io.BufferedReader, ...],
    file_format: str,
    organization: str | None,
    as_json: bool,
) -> None:
    """Load events from each FILE ("-" is standard input; gzip is recognised).

    Lines that are refused are named on stderr, by file and line; all others are stored.
    Interrupted? Run it again: nothing counts twice.
    """
    _refuse_no_id(organization)
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
    """Import all files under a bar, by bytes read; by events when there is a pipe."""
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
    """Names the first refused lines; a wrong file may have millions."""

    def __init__(self) -> None:
        self.count = 0

    def show(self, refused: importer.Refused) -> None:
        self.count += 1
        if self.count <= SHOWN_REFUSALS:
            warn(f"{refused.source}:{refused.line}: {refused.reason}")
        elif self.count == SHOWN_REFUSALS + 1:
            warn("further refused lines are counted, not named")


def _size(files: tuple[io.BufferedReader, ...]) -> int | None:
    """Bytes in all files; ``None`` when one is a pipe, whose end nobody knows."""
    try:
        sizes = [os.fstat(file.fileno()).st_size for file in files if file.seekable()]
    except OSError:
        return None
    return sum(sizes) if len(sizes) == len(files) else None


def _position(file: io.BufferedReader) -> int:
    return 0 if file.closed else file.tell()


def _refuse_no_id(organization: str | None) -> None:
    if organization is not None and not is_id(organization):
        raise click.UsageError("--organization must be 1 to 255 characters, none of them control")


@click.group(cls=Group)
def tokens() -> None:
    """Access tokens for development."""


@tokens.command(
    examples=[
        "flask tokens mint --organization org-a",
        "flask tokens mint --organization org-a --scope events:write --expires 86400",
    ],
)
@click.option("--organization", required=True, metavar="ORG", help="The organization_id claim.")
@click.option("--scope", "scopes", multiple=True, metavar="S", help="A scope; may be repeated.")
@click.option(
    "--expires",
    type=click.IntRange(1, 10 * YEAR_SECONDS),
    default=3600,
    show_default=True,
    metavar="SECONDS",
    help="How long the token is valid.",
)
@json_option
def mint(organization: str, scopes: tuple[str, ...], expires: int, as_json: bool) -> None:
    """Print a token signed with JWT_SECRET_KEY, nothing else."""
    _refuse_no_id(organization)
    token = auth.mint_token(organization, scopes, timedelta(seconds=expires))
    show({"token": token}, token, as_json=as_json)


@click.group(cls=Group)
def demo() -> None:
    """Demonstration data for a first look."""


@demo.command(
    examples=["flask demo load"],
    interrupted="the days added so far are kept; run it again for the others",
    exits={EX_CANTCREAT: "the database holds other data; nothing was added"},
)
@json_option
def load(as_json: bool) -> None:
    """Add demonstration events up to now; refused where other data is."""
    database = open_database(Settings.from_environ())
    try:
        recorded = demonstration.load_demo(database, utc_now())
    except RefusedError as error:
        warn(f"Error: {error.message}")
        sys.exit(EX_CANTCREAT)
    text = f"demo data: {recorded.accepted} events added, {recorded.duplicates} there already"
    show(recorded._asdict(), text, as_json=as_json)


@demo.command(examples=["flask demo calls"])
@json_option
def calls(as_json: bool) -> None:
    """Print a TOKEN for the demonstration's organization, three curl calls, and the dashboard."""
    settings = Settings.from_environ()
    scopes = [auth.WRITE, auth.NAME]
    token = auth.mint_token(demonstration.ORGANIZATION, scopes, timedelta(days=1))
    dashboard = f"http://{settings.address}/dashboard"
    base = f"http://{settings.address}/api/v1/analytics"
    urls = [f"{base}/tokens?days=30", f"{base}/agents/activity", f"{base}/agents"]
    header = '"Authorization: Bearer $TOKEN"'
    lines = [f"curl -s {_quoted(url)} -H {header}" for url in urls]
    hint = ", where the TOKEN can be pasted" if settings.token_login else ""
    lines.append(f"# the dashboard{hint}: {dashboard}")
    result: dict[str, Any] = {"token": token, "urls": urls, "dashboard": dashboard}
    show(result, "\n".join(["", f"TOKEN={token}", *lines, ""]), as_json=as_json)


def _quoted(url: str) -> str:
    return f'"{url}"'


@click.command(cls=Command, examples=["flask version", "flask version --json"])
@json_option
def version(as_json: bool) -> None:
    """Print the version of this service."""
    show({"version": __version__}, __version__, as_json=as_json)
