"""``python -m tests.faults.source_victims``: readers of a source that are killed at random.

Children are forked from this process, as in ``tests.faults.victims``. A line is written when one
was killed; the end of standard input ends the last ones.
"""

import argparse
import os
import random
import select
import signal
import sys
import threading
import traceback
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from sqlalchemy.engine import make_url

from app.dates import utc_now
from app.intake.sources import pages
from app.intake.sources.building import build
from app.intake.sources.entries import Follow, Prepared, Pull, prepare
from app.intake.sources.pages import PullError
from app.storage.database import Database
from app.storage.failures import is_unavailable
from tests.support.settings import make_settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--seed", required=True)
    parser.add_argument("--pause", type=float, help="mean seconds of a short life")
    parser.add_argument("--follow", type=Path, help="a log file of events")
    parser.add_argument("--pull", help="a provider and the URL of its API, separated by a space")
    parser.add_argument("--secret-file", type=Path)
    parser.add_argument("--children", type=int, default=1)
    options = parser.parse_args()
    dice = random.Random(options.seed)
    heard, options.said = os.pipe()
    os.set_blocking(heard, False)
    os.set_blocking(options.said, False)
    pids = [fork(options) for _ in range(options.children)]
    while not has_ended(dice, options.pause, heard):
        place = dice.randrange(len(pids))
        kill(pids[place])
        print("killed", flush=True)
        pids[place] = fork(options)
    for pid in pids:
        kill(pid)


def has_ended(dice: random.Random, pause: float, heard: int) -> bool:
    """Let the readers live for a while. Returns whether standard input has ended meanwhile.

    Every fifth time a reader lives until it has read all that there is, or for twenty times as
    long: on a slow machine the others may end before they store anything.
    """
    if dice.random() < 0.2:
        with suppress(BlockingIOError):
            os.read(heard, select.PIPE_BUF * 16)
        select.select([sys.stdin, heard], [], [], dice.uniform(0, 40 * pause))
    return bool(select.select([sys.stdin], [], [], dice.uniform(0, 2 * pause))[0])


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if status != signal.SIGKILL:
        sys.exit(f"a reader ended by itself: {status}")


def fork(options: argparse.Namespace) -> int:
    parent = os.getpid()
    if pid := os.fork():
        return pid
    try:
        work(options, parent)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)  # the parent is gone


def work(options: argparse.Namespace, parent: int) -> None:
    """Read the source again and again; the database or the provider may be unavailable."""
    settings = make_settings(options.url)
    database = Database(make_url(options.url))
    stop = threading.Event()
    pages.BACKOFF_SECONDS, pages.MIN_WAIT_SECONDS = (0.001, 0.02), 0.001
    source = build(database, settings, prepared(options, settings), stop, utc_now)
    if options.pull:
        source.every = 0
        source.overlap = timedelta(seconds=60)
    while os.getppid() == parent:
        try:
            more = source.turn()
            if not more:
                say(options.said)
        except PullError:
            more = False
        except Exception as error:
            if not is_unavailable(error):
                raise
            more = False
        if not more:
            stop.wait(0.01)


def say(said: int) -> None:
    """Say that everything is read."""
    with suppress(BlockingIOError):
        os.write(said, b".")


def prepared(options: argparse.Namespace, settings) -> Prepared:
    if options.follow:
        entry = Follow(name="audit", path=options.follow, format="ndjson")
        return prepare(entry, settings, None)
    provider, url = options.pull.split(" ")
    entry = Pull(
        name="theirs",
        provider=provider,
        url=url,
        secret_file=options.secret_file,
        organization="org-a",
    )
    return prepare(entry, settings, None)


if __name__ == "__main__":
    main()
