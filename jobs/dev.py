"""``python -m jobs.dev``: web and scheduler in the foreground, for ``make run``.

Production starts the two by themselves, under a supervisor.
"""

import signal
import subprocess  # nosec B404  # each call gives its reason, to S603
import sys
import time
from types import FrameType

from app.config.settings import ROOT

COMMANDS = (["gunicorn", "--config", "python:app.server.gunicorn_config", "wsgi:app"], ["jobs"])
STOP_SECONDS = 40
POLL_SECONDS = 0.2


def main() -> int:
    """Run both until a signal comes or one of them ends; exit as that one did."""
    # No Event: the code that a signal interrupts may hold its lock.
    told: list[int] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        told.append(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    # In groups of their own: Ctrl-C reaches this process alone, which then stops them in order.
    children = [
        subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT, process_group=0)  # noqa: S603 - fixed commands
        for command in COMMANDS
    ]
    while not told and all(child.poll() is None for child in children):
        time.sleep(POLL_SECONDS)
    ended = [child.returncode for child in children if child.returncode is not None]
    for child in children:
        child.terminate()
    for child in children:
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()  # a transaction that it had open is rolled back
    return ended[0] if ended else 0


if __name__ == "__main__":
    sys.exit(main())
