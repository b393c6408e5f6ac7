"""Starts gunicorn with the service, and loads it with ``wrk``."""

import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.config.settings import ROOT
from benchmarks.figures import BenchmarkError
from benchmarks.programs import children, environment

CONNECTIONS = 16
START_SECONDS = 60
SCRIPT = Path(__file__).with_name("load.lua")


@dataclass(frozen=True)
class Read:
    """A GET request: its path, and its headers."""

    path: str
    headers: dict[str, str]


@dataclass(frozen=True)
class Load:
    """The result of a load: requests, requests per second, and latency quantiles in seconds."""

    requests: int
    rate: float
    p50: float
    p99: float


@dataclass(frozen=True)
class Service:
    """A running gunicorn with the settings' defaults: two workers of four threads."""

    url: str
    pid: int
    port: int
    folder: Path

    @property
    def workers(self) -> list[int]:
        """The pids of the worker processes."""
        return children(self.pid)

    def answer(self, read: Read) -> tuple[int, dict[str, str], bytes]:
        """The status, headers and body of the response to one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=START_SECONDS)
        try:
            connection.request("GET", read.path, headers=read.headers)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def is_ready(self) -> bool:
        try:
            return self.answer(Read("/ready", {}))[0] == 200
        except OSError:
            return False

    def load(self, reads: Sequence[Read], seconds: float) -> Load:
        """Send ``reads`` in turns on sixteen connections."""
        return self.end_load(self.begin_load(reads, seconds))

    def begin_load(self, reads: Sequence[Read], seconds: float) -> "subprocess.Popen[bytes]":
        """Begin a :meth:`load`, and do not wait for its end."""
        lines = (
            "\t".join([read.path, *(f"{name}: {value}" for name, value in read.headers.items())])
            for read in reads
        )
        path = self.folder / "reads"
        path.write_text("\n".join(lines))
        return self._wrk(CONNECTIONS, seconds, "get", path)

    def post(self, file: Path, size: int, run: int, connections: int, seconds: float) -> Load:
        """Post batches of ``size`` new events; see ``load.lua``."""
        return self.end_load(self._wrk(connections, seconds, "post", file, size, run))

    def end_load(self, wrk: "subprocess.Popen[bytes]", now: bool = False) -> Load:
        """Wait for the end of a load, or end it ``now``.

        Raises:
            BenchmarkError: a request failed.
        """
        if now:
            wrk.send_signal(signal.SIGINT)
        _, said = wrk.communicate()
        if wrk.returncode or not said:
            raise BenchmarkError(f"wrk: exit {wrk.returncode}: {said.decode()}")
        found = json.loads(said.splitlines()[-1])
        if found["failures"]:
            raise BenchmarkError(f"{found['failures']} of {found['requests']} requests failed")
        rate = found["requests"] / found["microseconds"] * 1e6
        return Load(found["requests"], rate, found["p50"] / 1e6, found["p99"] / 1e6)

    def _wrk(
        self, connections: int, seconds: float, *arguments: object
    ) -> "subprocess.Popen[bytes]":
        command = [needed_wrk(), "--threads=1", f"--connections={connections}", "--timeout=30s"]
        command += [f"--duration={seconds:.0f}s", f"--script={SCRIPT}"]
        command += [f"http://127.0.0.1:{self.port}", "--", *map(str, arguments)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def needed_wrk() -> str:
    """The path of wrk.

    Raises:
        BenchmarkError: wrk is not installed.
    """
    if (found := shutil.which("wrk")) is None:
        raise BenchmarkError("needs wrk")
    return found


@contextmanager
def service(url: str, folder: Path) -> Iterator[Service]:
    """The service on a database, stopped after the ``with`` block."""
    needed_wrk()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = folder / f"gunicorn-{port}.log"
    with path.open("wb") as log:
        gunicorn = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "benchmarks.wsgi:app"],
            cwd=ROOT,
            env=environment(url, PORT=str(port)),
            stdout=log,
            stderr=log,
        )
    try:
        running = Service(url, gunicorn.pid, port, folder)
        _wait(gunicorn, running, path)
        yield running
    finally:
        gunicorn.terminate()
        gunicorn.wait()


def _wait(gunicorn: "subprocess.Popen[bytes]", running: Service, log: Path) -> None:
    give_up = time.monotonic() + START_SECONDS
    while not running.is_ready():
        if gunicorn.poll() is not None or time.monotonic() > give_up:
            raise BenchmarkError(f"{log.read_text()}\nthe service did not start")
        time.sleep(0.05)
