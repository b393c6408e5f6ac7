"""Ctrl-C at the worst moments: in the middle of a failure, or just before a read."""

import io
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import click
import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result
from sqlalchemy import event as hooks
from sqlalchemy.exc import OperationalError

from app.cli.base import Command, open_database
from app.config.settings import Settings
from app.intake.importer import Importer
from app.storage.database import Database
from tests.support.settings import EVENT_BYTES, NOW

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture
def run(sqlite_url: str) -> Iterator[Callable[[Callable[[Database], None]], Result]]:
    """Run a command with a database, in this process."""

    def run(work: Callable[[Database], None]) -> Result:
        @click.command(cls=Command, examples=["none"])
        def command() -> None:
            work(open_database(Settings.from_environ({"DATABASE_URL": sqlite_url})))

        return CliRunner().invoke(command)

    handlers = {one: signal.getsignal(one) for one in STOPPING}
    yield run
    for one, handler in handlers.items():
        signal.signal(one, handler)


def test_an_interrupted_connection_reset_logs_no_traceback(
    run: Callable[..., Result], caplog: pytest.LogCaptureFixture
) -> None:
    """An interruption while a connection returns to the pool logs no traceback."""

    def interrupted_reset(*_: object) -> None:
        raise KeyboardInterrupt

    def work(database: Database) -> None:
        hooks.listen(database.engine, "reset", interrupted_reset)
        with database.reading() as connection:
            connection.execute(sa.select(1))

    assert outcome(run(work)) == (130, "Interrupted: nothing was changed\n")
    assert caplog.text == ""


def test_what_fails_because_of_it_is_an_interruption_too(run: Callable[..., Result]) -> None:
    def work(_: Database) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise OperationalError("ROLLBACK", None, Exception("torn out of its work"))

    assert outcome(run(work)) == (130, "Interrupted: nothing was changed\n")


def test_another_one_is_too_late_to_spoil_the_way_out(run: Callable[..., Result]) -> None:
    def work(_: Database) -> None:
        raise KeyboardInterrupt

    run(work)
    assert {signal.getsignal(one) for one in STOPPING} == {signal.SIG_IGN}


def outcome(result: Result) -> tuple[int, str]:
    return result.exit_code, result.output


def test_an_interruption_before_a_pipe_read_ends_the_import(
    run: Callable[..., Result],
) -> None:
    """An interruption just before a read from a pipe ends the import at once."""
    reader, writer = os.pipe()
    pipe = io.BufferedReader(io.FileIO(reader))

    def press() -> None:
        time.sleep(0.3)
        # In this thread, so that it does not end the other one's system call.
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        time.sleep(20)
        os.close(writer)

    def work(database: Database) -> None:
        threading.Thread(target=press, daemon=True).start()
        importer = Importer(database, "ndjson", None, EVENT_BYTES, lambda: NOW, print, lambda: None)
        importer.load("-", pipe)

    began = time.monotonic()
    assert outcome(run(work)) == (130, "Interrupted: nothing was changed\n")
    assert time.monotonic() - began < 15
    pipe.close()
