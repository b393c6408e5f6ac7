"""Runs the service's programs as separate processes; measures their time and peak memory."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from app.config.settings import ROOT
from benchmarks.figures import BenchmarkError
from tests.support.settings import KEY

POLL_SECONDS = 0.01


@dataclass(frozen=True)
class Ended:
    """A process that ended with exit code 0: its seconds, and its peak memory in MB."""

    seconds: float
    peak: float


def environment(url: str, **variables: str) -> dict[str, str]:
    """The environment of a production service on ``url``, without any other of its settings."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    mode = {"APP_ENV": "production", "ALLOW_SQLITE": "1"}
    return kept | mode | {"DATABASE_URL": url, "SECRET_KEY": KEY, "JWT_SECRET_KEY": KEY} | variables


def flask(url: str, *arguments: str) -> Ended:
    """Run ``flask …`` and wait for its end."""
    return run(environment(url), "-m", "flask", *arguments)


def run(environ: Mapping[str, str], *arguments: str) -> Ended:
    """Run Python and wait for its end.

    Raises:
        BenchmarkError: the exit code was not 0.
    """
    began = time.perf_counter()
    command = [sys.executable, *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as child:
        peak = 0.0
        # The resource usage of the child is not used: it starts with the memory of its parent.
        while child.poll() is None:
            peak = max(peak, peak_memory(child.pid))
            time.sleep(POLL_SECONDS)
        took = time.perf_counter() - began
        assert child.stderr is not None
        if child.returncode:
            problem = child.stderr.read().decode()
            raise BenchmarkError(f"{' '.join(arguments)}: exit {child.returncode}: {problem}")
    return Ended(took, peak)


def peak_memory(pid: int) -> float:
    """The peak of a process's resident memory so far, in MB; 0 if the process has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    kilobytes = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(next(kilobytes, "0")) / 1024


def children(pid: int) -> list[int]:
    """The pids of a process's children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
