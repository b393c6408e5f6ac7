"""``python -m jobs.dev``: web server and scheduler in the foreground, for ``make run``.

In production a supervisor starts each of them. ``python -m jobs.dev check`` starts nothing, and
only refuses an address that cannot be listened on.
"""

import signal
import subprocess  # nosec B404  # each call gives its reason, to S603
import sys
import time
from types import FrameType

from app.config.settings import ROOT, Settings
from app.errors import SettingsError
from app.server.address import check_port

COMMANDS = (["gunicorn", "--config", "python:app.server.gunicorn_config", "wsgi:app"], ["jobs"])
STOP_SECONDS = 40
POLL_SECONDS = 0.2


def main() -> int:
    """Run both until a signal arrives or one process ends; return that process's exit code."""
    # A list instead of an Event, because the interrupted code may hold the lock of an Event.
    signals: list[int] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        signals.append(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    # Each has its own process group, so that Ctrl-C reaches this process only. It then stops both.
    children = [
        subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT, process_group=0)  # noqa: S603 - fixed commands
        for command in COMMANDS
    ]
    while not signals and all(child.poll() is None for child in children):
        time.sleep(POLL_SECONDS)
    ended = [child.returncode for child in children if child.returncode is not None]
    for child in children:
        child.terminate()
    for child in children:
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()  # the database rolls its open transaction back
    return ended[0] if ended else 0


if __name__ == "__main__":
    try:
        check_port(Settings.from_environ())
    except SettingsError as error:
        sys.exit(f"error: {error}")
    sys.exit(0 if sys.argv[1:] == ["check"] else main())
