"""Runs the jobs during a fault run, and kills them."""

import random
import signal
import threading
import time
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired

import psycopg

from tests.faults.ledger import Ledger
from tests.faults.processes import PATIENCE_SECONDS, Workshop
from tests.support.databases import conninfo

COUNTED = "SELECT coalesce(sum(issued), 0) FROM daily_issuance"
EX_TEMPFAIL = 75


class Victims:
    """The process whose children run the rollup and are killed; counts the kills."""

    def __init__(self, workshop: Workshop, *arguments: str) -> None:
        self.kills = 0
        self._workshop = workshop
        command = ("tests.faults.victims", "--url", workshop.url, *arguments)
        self._child: Popen[bytes] = workshop.start(*command, stdin=PIPE, stdout=PIPE)

    def count(self) -> None:
        """Count until they end."""
        with self._child.stdout as lines:
            for _ in lines:
                self.kills += 1

    def stop(self) -> None:
        self._child.stdin.close()

    def end(self) -> None:
        assert self._workshop.wait(self._child) == 0, self._workshop.output("tests.faults")


class Operator:
    """Somebody who calls ``flask rollup run`` by hand again and again, and gets impatient."""

    def __init__(self, workshop: Workshop, ledger: Ledger, seed: str) -> None:
        self.kills = 0
        self.finished = 0
        self.incomplete: list[str] = []
        self._workshop, self._ledger = workshop, ledger
        self._dice = random.Random(seed)

    def run_until(self, enough: threading.Event) -> None:
        while not enough.is_set():
            self._run()
            enough.wait(self._dice.uniform(0, 2))

    def _run(self) -> None:
        promised = len(self._ledger)
        child = self._workshop.start("flask", "rollup", "run")
        if self._dice.random() < 0.4:
            try:
                self._workshop.wait(child, self._dice.uniform(0.5, 3))
            except TimeoutExpired:
                child.kill()
                self.kills += 1
        if self._workshop.wait(child) == 0:
            self.finished += 1
            counted = insist_on_reading(self._workshop.url, COUNTED)
            if counted < promised:
                self.incomplete.append(f"{counted} counted, {promised} promised before")


class Keeper:
    """A scheduler process, started again whenever it was killed."""

    def __init__(self, workshop: Workshop, seed: str) -> None:
        self.kills = 0
        self._workshop, self._dice = workshop, random.Random(seed)

    def run_until(self, enough: threading.Event) -> None:
        while not enough.is_set():
            child = self._workshop.start("jobs", stdin=DEVNULL)
            if enough.wait(self._dice.uniform(3, 12)):
                # Before it has begun to handle signals, SIGTERM simply ends it.
                code = self._workshop.end(child)
                assert code in (0, -signal.SIGTERM), self._workshop.output("jobs")
                return
            assert child.poll() is None, self._workshop.output("jobs")
            child.kill()
            self._workshop.wait(child)
            self.kills += 1


def insist_on_reading(url: str, query: str) -> int:
    """One number, read once the database is there."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with psycopg.connect(conninfo(url), autocommit=True) as connection:
                return int(connection.execute(query).fetchone()[0])
        except psycopg.OperationalError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.2)


def count_the_rest(workshop: Workshop) -> None:
    """``flask rollup run`` until it says that everything is counted; then the backfill's rest."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while (code := workshop.run("flask", "rollup", "run")) != 0:
        assert code == EX_TEMPFAIL, workshop.output("flask")
        assert time.monotonic() < give_up, workshop.output("flask")
    assert workshop.run("flask", "rollup", "backfill") == 0, workshop.output("flask")
