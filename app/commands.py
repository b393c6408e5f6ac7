"""The service's commands: ``flask db``, ``events``, ``tokens`` and ``demo``."""

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import click
from alembic import command as alembic
from alembic.config import Config
from alembic.util import CommandError

from app import auth, importer
from app import demo as demonstration
from app.cli import Group, json_option, open_database, show, warn
from app.config import Settings
from app.errors import RefusedError, ValidationError
from app.periods import utc_now
from app.schema import MIGRATIONS, current_revision, expected_revision

SHOWN_REFUSALS = 100
YEAR_SECONDS = 366 * 24 * 3600
EX_CANTCREAT = 73


@click.group(cls=Group)
def db() -> None:
    """The database schema."""


@db.command()
@click.argument("revision", default="head")
@json_option
def upgrade(revision: str, as_json: bool) -> None:
    """Bring the schema to REVISION, the newest by default."""
    _migrate(lambda config: alembic.upgrade(config, revision))
    _show_revision(as_json=as_json)


@db.command()
@click.argument("revision", default="-1")
@json_option
def downgrade(revision: str, as_json: bool) -> None:
    """Take the schema back to REVISION, by default one step."""
    _migrate(lambda config: alembic.downgrade(config, revision))
    _show_revision(as_json=as_json)


@db.command()
@json_option
def current(as_json: bool) -> None:
    """Show the database's schema version."""
    _show_revision(as_json=as_json)


@db.command()
@json_option
def check(as_json: bool) -> None:
    """Compare the database with the tables this version expects; exit 1 when they differ."""
    _migrate(alembic.check)
    show({"differs": False}, "the schema is as expected", as_json=as_json)


def _migrate(run: Callable[[Config], object]) -> None:
    config = Config(stdout=io.StringIO())
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    try:
        run(config)
    except (CommandError, RuntimeError) as error:
        raise RefusedError(str(error)) from error


def _show_revision(*, as_json: bool) -> None:
    with open_database(Settings.from_environ()).reading() as connection:
        revision = current_revision(connection)
    head = expected_revision()
    text = f"{revision or 'no schema'}{' (head)' if revision == head else ''}"
    show({"revision": revision, "head": head}, text, as_json=as_json)


@click.group(cls=Group)
def events() -> None:
    """Raw issuance events."""


@events.command("import")
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

    Lines that are refused are named on stderr, by file and line, and end the command with
    exit code 1; all others are stored. Interrupted? Run it again: nothing counts twice.
    """
    if organization is not None and not auth.is_id(organization):
        raise ValidationError("--organization must be 1 to 255 characters, none of them control")
    database = open_database(Settings.from_environ())
    refusals = _Refusals()
    with _progress(files) as on_chunk:
        job = importer.Importer(
            database, file_format, organization, utc_now, refusals.show, on_chunk
        )
        for file in files:
            job.load(file.name, file)
    done = job.totals
    text = (
        f"{done.received} events: {done.accepted} stored, {done.duplicates} duplicates,"
        f" {done.refused} refused"
    )
    show(asdict(done), text, as_json=as_json)
    sys.exit(1 if done.refused else 0)


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


@contextmanager
def _progress(files: tuple[io.BufferedReader, ...]) -> Iterator[Callable[[], None]]:
    """A bar on stderr, by bytes read, when stderr is a terminal and the sizes are known."""
    try:
        sizes = [os.fstat(file.fileno()).st_size for file in files if file.seekable()]
    except OSError:
        sizes = []
    if not sys.stderr.isatty() or len(sizes) < len(files):
        yield lambda: None
        return
    with click.progressbar(length=sum(sizes), label="importing", file=sys.stderr) as bar:
        yield lambda: bar.update(sum(_position(file) for file in files) - bar.pos)


def _position(file: io.BufferedReader) -> int:
    return 0 if file.closed else file.tell()


@click.group(cls=Group)
def tokens() -> None:
    """Access tokens for development."""


@tokens.command()
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
    if not auth.is_id(organization):
        raise ValidationError("--organization must be 1 to 255 characters, none of them control")
    token = auth.mint_token(organization, scopes, timedelta(seconds=expires))
    show({"token": token}, token, as_json=as_json)


@click.group(cls=Group)
def demo() -> None:
    """Demonstration data for a first look."""


@demo.command()
@json_option
def load(as_json: bool) -> None:
    """Add demonstration events up to now; refused, with exit code 73, where other data is."""
    database = open_database(Settings.from_environ())
    try:
        recorded = demonstration.load_demo(database, utc_now())
    except RefusedError as error:
        warn(f"Error: {error.message}")
        sys.exit(EX_CANTCREAT)
    text = f"demo data: {recorded.accepted} events added, {recorded.duplicates} there already"
    show(recorded._asdict(), text, as_json=as_json)


@demo.command()
@json_option
def calls(as_json: bool) -> None:
    """Print a TOKEN for the demonstration's organization and three curl calls to paste."""
    settings = Settings.from_environ()
    scopes = [auth.WRITE]
    token = auth.mint_token(demonstration.ORGANIZATION, scopes, timedelta(days=1))
    base = f"http://{settings.address}/api/v1/analytics"
    urls = [f"{base}/tokens?days=30", f"{base}/agents/activity", f"{base}/agents"]
    header = '"Authorization: Bearer $TOKEN"'
    lines = [f"curl -s {_quoted(url)} -H {header}" for url in urls]
    result: dict[str, Any] = {"token": token, "urls": urls}
    show(result, "\n".join(["", f"TOKEN={token}", *lines, ""]), as_json=as_json)


def _quoted(url: str) -> str:
    return f'"{url}"'
