"""``python -m tests.faults.victims``: runs and backfills in children that are killed at random.

Children are forked from this process, which has imported everything and holds no threads
and no connections, so a new one costs milliseconds. Each writes a line here when it was
killed; the end of standard input ends them all.
"""

import argparse
import os
import random
import select
import signal
import sys
import time
import traceback

from sqlalchemy.engine import make_url

from app.storage.database import Database
from app.storage.failures import is_unavailable
from jobs.counting import backfill as backfilling
from jobs.counting.backfill import backfill
from jobs.counting.run import run_rollup
from tests.jobs.counting.test_watermark import naive_run

IDLE_SECONDS = 0.05
MAX_WAIT_SECONDS = 2
backfilling.WINDOW_IDS = 20


class Victims:
    """So many children that count events, until they are killed."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.dice = random.Random(f"{options.seed}-victims")
        self.pids = [self._fork() for _ in range(options.children)]

    def kill_until_told(self) -> None:
        while not select.select([sys.stdin], [], [], self._pause())[0]:
            place = self.dice.randrange(len(self.pids))
            self._kill(self.pids[place])
            self.pids[place] = self._fork()
            print("killed", flush=True)

    def end(self) -> None:
        for pid in self.pids:
            self._kill(pid)

    def _pause(self) -> float:
        return self.dice.uniform(0, 2 * self.options.pause)

    def _kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if status != signal.SIGKILL:
            sys.exit(f"a rollup process ended by itself: {status}")

    def _fork(self) -> int:
        seed, parent = self.dice.random(), os.getpid()
        if pid := os.fork():
            return pid
        try:
            work(self.options, random.Random(seed), parent)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)  # the parent is gone


def work(options: argparse.Namespace, dice: random.Random, parent: int) -> None:
    """Count events again and again; the database may be away for a while."""
    database = Database(make_url(options.url))
    while os.getppid() == parent:
        wait = dice.uniform(0, MAX_WAIT_SECONDS)
        try:
            if options.naive:
                naive_run(database)
            else:
                run_rollup(database, window_ids=options.window_ids, wait_seconds=wait)
                backfill(database)
        except Exception as error:
            if not is_unavailable(error):
                raise
        time.sleep(dice.uniform(0, IDLE_SECONDS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--seed", required=True)
    parser.add_argument("--children", type=int, default=3)
    parser.add_argument("--pause", type=float, help="mean seconds from kill to kill")
    parser.add_argument("--window-ids", type=int)
    parser.add_argument("--naive", action="store_true", help="count up to the newest visible id")
    victims = Victims(parser.parse_args())
    try:
        victims.kill_until_told()
    finally:
        victims.end()


if __name__ == "__main__":
    main()
