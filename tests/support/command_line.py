"""Helpers shared by the tests of the command line."""

import io
import json
import logging
import os
import pty
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import click
from click.testing import CliRunner
from flask import Flask
from flask.cli import FlaskGroup

from app.config.settings import ROOT
from jobs.__main__ import main
from tests.support.processes import PATIENCE_SECONDS

MORNING = "2024-04-01T09:00:00Z"
PASSWORD = "hunter2-of-the-operator"
# Commands silence these for the rest of their process.
QUIET_LOGGERS = ("sqlalchemy.pool", "psycopg")


def event(event_id: str = "e1", **members: Any) -> dict[str, Any]:
    """An event's members; a member given as ``...`` is left out."""
    whole = {"id": event_id, "organizationId": "org-a", "agentId": "a1", "issuedAt": MORNING}
    return {name: value for name, value in (whole | members).items() if value is not ...}


def line(event_id: str = "e1", **members: Any) -> bytes:
    return json.dumps(event(event_id, **members)).encode() + b"\n"


def assert_one_clear_error(done: Any) -> str:
    """No success, no traceback, nothing on stdout; click may put its usage before the line."""
    assert done.returncode not in (0, 75)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    *usage, error = [text for text in done.stderr.splitlines() if text]
    assert all(text.startswith(("Usage: ", "Try ")) for text in usage), done.stderr
    assert error.lower().startswith("error: ")
    return error


def result(done: Any) -> Any:
    """The one JSON document on stdout of a command that succeeded quietly."""
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1
    return json.loads(done.stdout)


@dataclass
class ProcessRunner:
    """Runs ``flask …`` in a process of its own: for what only a real one shows."""

    environ: dict[str, str]

    def __call__(
        self, *arguments: str, stdin: bytes = b"", **variables: str
    ) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [sys.executable, "-m", "flask", *arguments],
            cwd=ROOT,
            env=self.environ | variables,
            input=stdin,
            capture_output=True,
            timeout=120,
            check=False,
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )


@dataclass
class Runner:
    """Runs ``flask …`` in this process through click's runner; the same calls and results."""

    environ: dict[str, str]

    def __call__(
        self, *arguments: str, stdin: bytes = b"", **variables: str
    ) -> "subprocess.CompletedProcess[str]":
        group = FlaskGroup(create_app=self._load, load_dotenv=False, set_debug_flag=False)
        self._app: Flask | None = None
        standard_input = io.BufferedReader(_Stdin(stdin))
        before = dict(os.environ)
        stopping = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        handlers = {one: signal.getsignal(one) for one in (*stopping, signal.SIGALRM)}
        levels = {name: logging.getLogger(name).level for name in QUIET_LOGGERS}
        os.environ.clear()
        os.environ.update(self.environ | variables)
        try:
            done = CliRunner().invoke(group, arguments, input=standard_input, prog_name="flask")
        finally:
            os.environ.clear()
            os.environ.update(before)
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
            for one, handler in handlers.items():
                signal.signal(one, handler)
            # Only a command that needs routes has loaded the service.
            if self._app is not None and "analytics" in self._app.extensions:
                self._app.extensions["analytics"].database.dispose()
        stderr = done.stderr
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            stderr += "".join(traceback.format_exception(done.exception))
        return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, stderr)

    def _load(self) -> Flask:
        """The composed application, as ``flask`` finds it; reads the environment each time."""
        try:
            self._app = runpy.run_path(str(ROOT / "wsgi.py"))["app"]
        except SystemExit as refusal:
            # The interpreter prints it on stderr; click's runner would on stdout.
            click.echo(refusal.code, err=True)
            sys.exit(1)
        return self._app


class _Stdin(io.BytesIO):
    """Standard input, with the name that a real one has."""

    name = "<stdin>"


def commands(service: Flask) -> dict[str, click.Command]:
    """Every command by its whole name, but for those that Flask brings."""
    found = {"python -m jobs": main}

    def collect(group: click.Group, path: str) -> None:
        context = click.Context(group)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None, name
            if isinstance(command, click.Group):
                collect(command, f"{path} {name}")
            else:
                found[f"{path} {name}"] = command

    collect(service.cli, "flask")
    return found


class Shown(NamedTuple):
    """What a command wrote; ``screen`` is what went to the terminal."""

    returncode: int
    stdout: str
    stderr: str
    screen: str


def on_terminal(
    environ: dict[str, str], *arguments: str, streams: Sequence[str], stdin: Any = None
) -> Shown:
    """Run ``flask …`` with some of its streams, ``stdout`` and ``stderr``, on a terminal.

    ``stdin`` is a file; without one there is nothing to read.
    """
    ours, theirs = pty.openpty()
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        files = {"stdout": stdout.fileno(), "stderr": stderr.fileno()}
        child = subprocess.Popen(
            [sys.executable, "-m", "flask", *arguments],
            cwd=ROOT,
            env=environ | {"TERM": "xterm"},
            stdin=stdin or subprocess.DEVNULL,
            **(files | dict.fromkeys(streams, theirs)),
        )
        os.close(theirs)
        screen = b""
        with suppress(OSError):  # how Linux tells the end
            while part := os.read(ours, 65536):
                screen += part
        os.close(ours)
        child.wait(timeout=120)
        written = [file.seek(0) or file.read().decode() for file in (stdout, stderr)]
    return Shown(child.returncode, *written, screen.decode())


@contextmanager
def started(environ: dict[str, str], *command: str) -> "Iterator[subprocess.Popen[bytes]]":
    """A command of Python's, as ``flask …``, under way, with its standard input open."""
    child = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def interrupt(
    child: "subprocess.Popen[bytes]", number: signal.Signals = signal.SIGINT
) -> tuple[int, str, str]:
    """What Ctrl-C, or another signal, makes of it: exit code, stdout and stderr.

    In rare cases Python loses a signal, and says so (see docs/commands.md). Only then it is sent
    again, and what Python said is left out.
    """
    child.send_signal(number)
    is_lost = False
    try:
        child.wait(timeout=20)
    except subprocess.TimeoutExpired:
        is_lost = True
        child.send_signal(number)
        child.wait(timeout=60)
    stdout, stderr = (stream.decode() for stream in child.communicate())
    if is_lost:
        assert "Exception ignored" in stderr
        stderr = stderr[stderr.rindex("Interrupted:") :]
    return child.returncode, stdout, stderr


def wait_until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)
