"""The base of every command: help, errors, results, progress bars and colours.

Help ends with examples. An error or Ctrl-C is one line on stderr. A result is text or JSON.
Progress bars and colours appear on a terminal only.
"""

import errno
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date
from itertools import count
from types import FrameType
from typing import Any

import click
import msgspec
from sqlalchemy.exc import DBAPIError

from app import __version__
from app.cli.imported import ImportingGroup
from app.config.settings import Settings, colours_wanted
from app.dates import parse_day, parse_duration
from app.errors import ServiceError
from app.ids import is_id
from app.storage.database import Database
from app.storage.failures import is_missing_table, is_unavailable

# "Temporary failure" in sysexits.h: nothing is lost, the same command may succeed later.
EX_TEMPFAIL = 75
EX_INTERRUPTED = 130
# The object of a context: the command is a step of another one, which has words of its own.
STEP = object()
EXITS = {0: "done", 1: "an error", 2: "wrong usage"}

# Ctrl-C, an end by the service manager, and the end of a terminal's session.
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AT_ONCE_SECONDS = 0.5

# The step, how much of it is done, and its total, which is None if unknown.
OnProgress = Callable[[str, int, int | None], None]

# Back to the beginning of the line, and clear it: a progress bar may be there.
_CLEAR_LINE = "\r\033[K"

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


class Command(click.Command):
    """A command that reports expected errors and Ctrl-C in one line, never as a traceback.

    Expected errors are bad input, a full disk and an unavailable database.

    Python loses a Ctrl-C that arrives inside a destructor or a weak reference's callback, and
    prints it as ignored. The command then goes on, and the user has to press Ctrl-C again.

    Args:
        examples: complete lines that work, for the end of the help.
        interrupted: the state after Ctrl-C, and what to do.
        exits: exit codes that ``EXITS`` lacks, or that have another meaning for this command.
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
            return super().invoke(ctx)
        except (Exception, KeyboardInterrupt) as error:
            if _is_interruption(error):
                # Everything is rolled back by now, so another signal would only disturb the exit.
                for number in _STOPPING:
                    signal.signal(number, signal.SIG_IGN)
                if ctx.find_root().obj is not STEP:
                    warn(f"Interrupted: {self.interrupted}")
                raise click.exceptions.Exit(EX_INTERRUPTED) from None
            if isinstance(error, ServiceError):
                raise click.ClickException(error.message) from error
            if isinstance(error, DBAPIError) or is_unavailable(error):
                raise click.ClickException(database_problem(error)) from error
            if isinstance(error, OSError) and error.errno != errno.EPIPE:  # the reader has stopped
                raise click.ClickException(str(error)) from error
            raise

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), text) for code, text in self.exits.items()])
        with formatter.section("Example" if len(self.examples) == 1 else "Examples"):
            for line in self.examples:
                # Unwrapped: a wrapped line cannot be pasted.
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


class Group(ImportingGroup):
    """A group of commands, in which SIGTERM and SIGHUP do what Ctrl-C does."""

    command_class = Command

    def invoke(self, ctx: click.Context) -> Any:
        for number in _STOPPING:
            # A parent process such as nohup may have a signal ignored, which then stays so.
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, signal.default_int_handler)
        return super().invoke(ctx)


@contextmanager
def postponed_interruption() -> Iterator[Callable[[], None]]:
    """Let Ctrl-C, SIGTERM and SIGHUP wait until the block calls what it is given, or ends.

    One that comes later is not postponed, in case the block takes too long. The end of a terminal
    may send two at once.
    """
    arrived: list[float] = []

    def note(number: int, frame: FrameType | None) -> None:
        if arrived and time.monotonic() - arrived[0] > _AT_ONCE_SECONDS:
            signal.default_int_handler(number, frame)
        arrived.append(time.monotonic())

    def interrupt_now() -> None:
        if arrived:
            raise KeyboardInterrupt

    heard = [one for one in _STOPPING if signal.getsignal(one) is signal.default_int_handler]
    for number in heard:
        signal.signal(number, note)
    try:
        yield interrupt_now
    finally:
        for number in heard:
            signal.signal(number, signal.default_int_handler)
        interrupt_now()


def _is_interruption(error: BaseException | None) -> bool:
    """Whether an error is Ctrl-C or a consequence of it.

    A connection that is interrupted in the middle of its work may fail again when it is closed.
    """
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def open_database(settings: Settings) -> Database:
    """The configured database; it is closed when the running command ends."""
    for name in ("sqlalchemy.pool", "psycopg"):
        # These loggers print a traceback of errors that Command reports in one line.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    database = Database(settings.database_url, pool_size=2, row_security=settings.row_security)
    click.get_current_context().call_on_close(database.dispose)
    return database


def show(result: Mapping[str, Any], text: str, *, as_json: bool) -> None:
    """Print a command's result on stdout."""
    click.echo(msgspec.json.encode(result).decode() if as_json else text)


def say(line: str) -> None:
    """Print a line of a result on stdout, even beside a progress bar on the same terminal."""
    if sys.stdout.isatty() and sys.stderr.isatty():
        click.echo(_CLEAR_LINE, nl=False, err=True)
    click.echo(line)


def warn(message: str) -> None:
    """Print a line on stderr; the command goes on."""
    click.echo(f"{_CLEAR_LINE if sys.stderr.isatty() else ''}{message}", err=True)


def coloured(text: str, colour: str | None) -> str:
    """Text for stdout, coloured if stdout is a terminal and the user wants colours."""
    if colour is None or not sys.stdout.isatty() or not colours_wanted():
        return text
    return click.style(text, fg=colour)


@contextmanager
def progress() -> Iterator[OnProgress]:
    """A function that reports progress: one bar for each step on stderr, if it is a terminal."""
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
            if done > bar.pos:  # a step that is repeated reports less than before
                bar.update(done - bar.pos)
            if total is not None and done >= total:
                bars.close()  # so that the next output starts on its own line

        yield on_progress


def _bar(what: str, total: int | None) -> Any:
    if total is None:
        # Without a length, only the position shows progress.
        return click.progressbar(count(), label=what, file=sys.stderr, show_pos=True)
    return click.progressbar(length=total, label=what, file=sys.stderr)


def database_problem(error: BaseException) -> str:
    """The first line of the database's own message, without the statement and its parameters."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    lines = str(cause).strip().splitlines() or [type(error).__name__]
    if is_missing_table(error):
        return (
            f"database: {lines[0]} (the schema is missing or out of date; run `flask db upgrade`)"
        )
    return f"database: {lines[0]}{_OTHER if _is_missing_column(cause, lines[0]) else ''}"


def _is_missing_column(cause: BaseException | None, line: str) -> bool:
    code = getattr(cause, "sqlstate", None)
    return code == _UNDEFINED if code else any(text in line for text in _NO_SUCH)


_UNDEFINED = "42703"
_NO_SUCH = ("no such column", "has no column named")
_OTHER = " (the schema may be out of date; check it with `flask db current`)"


def check_order(first: date | None, last: date | None) -> None:
    """Refuse a range that ends before it begins."""
    if first and last and first > last:
        raise click.UsageError("--from must not be after --to")


def check_organization(organization: str | None) -> None:
    """Refuse an invalid ``--organization``."""
    if organization is not None and not is_id(organization):
        raise click.UsageError(
            "--organization must have 1 to 255 characters, and no control characters"
        )


def duration(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """A duration on the command line, in seconds."""
    if value is None:
        return None
    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}, not {value!r}") from None


def day(_ctx: click.Context, _param: click.Parameter, value: str | None) -> date | None:
    """A day on the command line."""
    try:
        return None if value is None else parse_day(value)
    except ValueError:
        raise click.BadParameter(f"must be a day, as 2026-04-01, not {value!r}") from None


@click.command(cls=Command, examples=["flask version", "flask version --json"])
@json_option
def version(as_json: bool) -> None:
    """Print the version of this service."""
    show({"version": __version__}, __version__, as_json=as_json)
