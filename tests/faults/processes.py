"""Child processes of a fault run: their output kept in files, ended by their own pid."""

import itertools
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

from app.config.settings import ROOT
from tests.support.settings import child_environ

PATIENCE_SECONDS = 120


@dataclass
class Workshop:
    """Starts ``python -m …`` beside one database and remembers who is still running."""

    folder: Path
    url: str
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()

    def start(self, *command: str, **options) -> "subprocess.Popen[bytes]":
        path = self.folder / f"{next(self._numbers):05d}-{command[0]}.log"
        with self._lock, path.open("wb") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", *command],
                **({"stdout": log, "stderr": log, "env": self._environ()} | options),
                cwd=ROOT,
            )
            self._running.add(child)
        return child

    def wait(self, child: "subprocess.Popen[bytes]", seconds: float = PATIENCE_SECONDS) -> int:
        """Its exit code; ``TimeoutExpired`` leaves it running."""
        code = child.wait(seconds)
        with self._lock:
            self._running.discard(child)
        return code

    def run(self, *command: str) -> int:
        return self.wait(self.start(*command))

    def end(self, child: "subprocess.Popen[bytes]", number=signal.SIGTERM) -> int:
        child.send_signal(number)
        return self.wait(child)

    def output(self, program: str = "") -> str:
        """Everything the children wrote, or those of one program."""
        paths = sorted(self.folder.glob(f"*-{program}*.log"))
        return "\n".join(path.read_text(errors="replace") for path in paths)

    def close(self) -> None:
        """Kill what a failed run left behind."""
        for child in list(self._running):
            child.kill()
            self.wait(child)

    def _environ(self) -> dict[str, str]:
        environ = child_environ(self.url, **self.variables)
        # Measuring the coverage of processes that are killed costs time and tells nothing.
        return {name: value for name, value in environ.items() if not name.startswith("COV")}
