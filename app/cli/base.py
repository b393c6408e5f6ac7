"""What all commands share: help that ends with examples, errors and Ctrl-C as one line on
stderr, results for people or as JSON, and what only a terminal shows: progress and colours."""

import errno
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any

import click
import msgspec
from sqlalchemy.exc import DBAPIError

from app import __version__
from app.config.settings import Settings, colours_wanted
from app.errors import ServiceError
from app.ids import is_id
from app.storage.database import Database
from app.storage.failures import is_unavailable

EX_INTERRUPTED = 130
EXITS = {0: "done", 1: "an error", 2: "wrong usage"}

# What is being done, how much of it is, and of how much; None: nobody knows.
OnProgress = Callable[[str, int, int | None], None]

# Until Ctrl-C that Python has dropped is raised once more.
_AGAIN_SECONDS = 0.01

# Nothing but the beginning of the line, cleared: where a bar may stand.
_CLEAR_LINE = "\r\033[K"

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


class Command(click.Command):
    """A command that never ends in a traceback for bad input, a full disk, an absent database or
    Ctrl-C.

    Args:
        examples: whole lines that work, for the end of the help.
        interrupted: what is the state after Ctrl-C, and what to do.
        exits: exit codes that mean something else or more with it than ``EXITS`` says.
    """

    def __init__(
        self,
        *arguments: Any,
        examples: Sequence[str],
        interrupted: str = "nothing was changed",
        exits: dict[int, str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self.examples = examples
        self.interrupted = interrupted
        self.exits = EXITS | (exits or {}) | {EX_INTERRUPTED: f"interrupted: {interrupted}"}

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _no_ctrl_c_dropped():
                return super().invoke(ctx)
        except (Exception, KeyboardInterrupt) as error:
            if _is_interruption(error):
                # All is rolled back by now. One more Ctrl-C would only spoil the way out.
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                warn(f"Interrupted: {self.interrupted}")
                raise click.exceptions.Exit(EX_INTERRUPTED) from None
            if isinstance(error, ServiceError):
                raise click.ClickException(error.message) from error
            if isinstance(error, DBAPIError) or is_unavailable(error):
                raise click.ClickException(database_problem(error)) from error
            if isinstance(error, OSError) and error.errno != errno.EPIPE:  # a reader may go away
                raise click.ClickException(str(error)) from error
            raise

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), text) for code, text in self.exits.items()])
        with formatter.section("Example" if len(self.examples) == 1 else "Examples"):
            for line in self.examples:
                # As it is: a line that is wrapped cannot be pasted.
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


class Group(click.Group):
    """A group of such commands."""

    command_class = Command


@contextmanager
def _no_ctrl_c_dropped() -> Iterator[None]:
    """Raise Ctrl-C again, a moment later, that met a destructor or a weak reference's callback.

    No exception leaves those, so Python prints and forgets it. Each connection that is given back
    calls some: of the Ctrl-Cs that hit a run of many windows one in forty came to nothing.
    """
    usual = sys.unraisablehook

    def press_again(dropped: Any) -> None:
        if dropped.exc_type is not KeyboardInterrupt:
            usual(dropped)
            return
        # A timer and not a thread: whoever is interrupted here may hold any lock.
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)

    sys.unraisablehook = press_again
    try:
        yield
    finally:
        sys.unraisablehook = usual
        if signal.getsignal(signal.SIGALRM) is signal.default_int_handler:
            signal.setitimer(signal.ITIMER_REAL, 0)  # the work is over


def _is_interruption(error: BaseException | None) -> bool:
    """Whether it is Ctrl-C, or what that left behind: a connection that is torn out of its work
    may fail once more when it is given back."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def open_database(settings: Settings) -> Database:
    """The configured database, for the running command, which closes it at its end."""
    for name in ("sqlalchemy.pool", "psycopg"):
        # They log, with a traceback, what is raised anyway.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    database = Database(settings.database_url, pool_size=2, row_security=settings.row_security)
    click.get_current_context().call_on_close(database.dispose)
    return database


def show(result: Mapping[str, Any], text: str, *, as_json: bool) -> None:
    """Print a command's result on stdout."""
    click.echo(msgspec.json.encode(result).decode() if as_json else text)


def say(line: str) -> None:
    """Print a line of a result on stdout, while there may be a bar on the same terminal."""
    if sys.stdout.isatty() and sys.stderr.isatty():
        click.echo(_CLEAR_LINE, nl=False, err=True)
    click.echo(line)


def warn(message: str) -> None:
    """Print a line on stderr; the command goes on."""
    click.echo(f"{_CLEAR_LINE if sys.stderr.isatty() else ''}{message}", err=True)


def coloured(text: str, colour: str | None) -> str:
    """Text for stdout, in a colour where it is a terminal whose user wants colours."""
    if colour is None or not sys.stdout.isatty() or not colours_wanted():
        return text
    return click.style(text, fg=colour)


@contextmanager
def progress() -> Iterator[OnProgress]:
    """What to tell of long work: a bar for each of its steps on stderr, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _what, _done, _total: None
        return
    with ExitStack() as bars:
        shown: dict[str, Any] = {}

        def on_progress(what: str, done: int, total: int | None) -> None:
            if what not in shown:
                bars.close()
                shown[what] = bars.enter_context(_bar(what, total))
            bar = shown[what]
            if done > bar.pos:  # work that is begun anew says less than before
                bar.update(done - bar.pos)
            if total is not None and done >= total:
                bars.close()  # so that what is printed next has a line of its own

        yield on_progress


def _bar(what: str, total: int | None) -> Any:
    if total is None:
        # Without a length it is the position that tells.
        return click.progressbar(count(), label=what, file=sys.stderr, show_pos=True)
    return click.progressbar(length=total, label=what, file=sys.stderr)


def database_problem(error: BaseException) -> str:
    """The server's own first line: SQLAlchemy's adds the statement and its parameters."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    lines = str(cause).strip().splitlines() or [type(error).__name__]
    return f"database: {lines[0]}{_MIGRATE if _is_missing(cause, lines[0]) else ''}"


def _is_missing(cause: BaseException | None, line: str) -> bool:
    """Whether a table or a column is not there, as PostgreSQL and SQLite say it."""
    code = getattr(cause, "sqlstate", None)
    return code in _UNDEFINED if code else any(text in line for text in _NO_SUCH)


_UNDEFINED = ("42P01", "42703")
_NO_SUCH = ("no such table", "no such column", "has no column named")
_MIGRATE = " (is the schema current? see `flask db current`)"


def check_organization(organization: str | None) -> None:
    """Refuse an ``--organization`` that is no id."""
    if organization is not None and not is_id(organization):
        raise click.UsageError("--organization must be 1 to 255 characters, none of them control")


@click.command(cls=Command, examples=["flask version", "flask version --json"])
@json_option
def version(as_json: bool) -> None:
    """Print the version of this service."""
    show({"version": __version__}, __version__, as_json=as_json)
