"""A fault run: writers, jobs and their killers, all at once, then a recount.

Afterwards the database must hold exactly the acknowledged events, after any kill.
"""

import random
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psycopg
from sqlalchemy.engine import make_url

from app.storage.database import Database
from jobs.counting.run import run_rollup
from tests.faults.findings import misjudged
from tests.faults.inserts import INSERT, columns
from tests.faults.jobs import Keeper, Operator, Victims, count_the_rest
from tests.faults.ledger import Drift, drift_at, make_events
from tests.faults.processes import Workshop
from tests.faults.writers import Crew, Writer
from tests.support.citus import Cluster
from tests.support.databases import conninfo
from tests.support.postgresql import Server
from tests.support.processes import free_port
from tests.support.upgraded import forget_finer_tables

REDELIVERERS = 2
OLDER_EVENTS = 2_000
# How long a freeze or a lock lasts, and how long a batch may wait for its answer.
FAULT_SECONDS = 20
ANSWER_SECONDS = 10


@dataclass(frozen=True)
class Plan:
    """What must have happened before a run is over.

    ``freezes``: of PostgreSQL, by SIGSTOP; ``locks``: of the state row, by a session that
    forgets its transaction. ``naive``: count to the newest visible id; ``prepared``: writers
    prepare some transactions. ``findings``: compare these with a recompute, too.
    """

    events: int
    kills: int
    restarts: int
    seed: int
    writers: int = 4
    batch: int = 300
    window_ids: int = 200
    kill_pause: float = 0.5
    freezes: int = 0
    locks: int = 0
    naive: bool = False
    prepared: bool = True
    findings: bool = False
    seconds: float = 300


@dataclass(frozen=True)
class Report:
    """What happened.

    ``complete``: how many ``flask rollup run`` exited 0 in between; ``incomplete``: those
    that had counted less than was promised before they began. ``verified``: the exit code of
    ``flask rollup verify``, which must see what the recount sees. ``slowest``: the seconds of
    the slowest answer to a batch. ``findings``: how many were compared with a recompute;
    ``misjudged``: those that differ from it.
    """

    seed: int
    events: int
    kills: int
    restarts: int
    slowest: float
    drift: Drift
    incomplete: list[str]
    complete: int
    verified: int
    findings: int
    misjudged: list[str]
    tracebacks: str
    seconds: float
    done: dict[str, int]

    @property
    def exact(self) -> bool:
        drift = self.drift.lost or self.drift.doubled
        wrong = drift or self.incomplete or self.verified or self.misjudged or self.tracebacks
        return not wrong

    @property
    def in_time(self) -> bool:
        """Whether every batch was answered in time. Only an idle machine can promise that."""
        return self.slowest <= ANSWER_SECONDS

    def __str__(self) -> str:
        return (
            f"events {self.events}, kills {self.kills}, restarts {self.restarts},"
            f" lost {self.drift.lost}, doubled {self.drift.doubled},"
            f" slowest answer {self.slowest:.1f} s"
        )

    def explain(self) -> str:
        """All of it, for a failed run."""
        done = ", ".join(f"{name} {count}" for name, count in self.done.items())
        return "\n".join(
            [
                f"{self}; seed {self.seed}, {self.seconds:.0f} s",
                f"flask rollup run: {self.complete} complete; verify: exit {self.verified}",
                f"deliveries and transactions: {done}",
                f"findings: {self.findings}, {len(self.misjudged)} differ from a recompute",
                *self.misjudged,
                *self.drift.examples,
                *self.incomplete,
                self.tracebacks,
            ]
        )


class Harness:
    """One run on ``server``, or a cluster, against a fresh migrated database at ``url``."""

    def __init__(self, plan: Plan, server: Server | Cluster, url: str, folder: Path) -> None:
        self.plan, self.server = plan, server
        self.restarts = self.freezes = self.locks = 0
        # One fault of the server at a time.
        self.steady = threading.Lock()
        port = free_port()
        self.workshop = Workshop(
            folder,
            url,
            {
                "PORT": str(port),
                "ROLLUP_INTERVAL_SECONDS": "1",
                "ROLLUP_WAIT_SECONDS": "5",
                "ROLLUP_WINDOW_IDS": str(plan.window_ids),
            },
        )
        self.crew = Crew(self.workshop, port, plan.seed, plan.batch, prepared=plan.prepared)
        # In the naive run nobody else may count: it shall show what the naive way alone does.
        several = () if plan.naive else range(2)
        ledger, seed = self.crew.ledger, plan.seed
        self.operators = [Operator(self.workshop, ledger, f"{seed}-operator-{n}") for n in several]
        self.keepers = [Keeper(self.workshop, f"{seed}-scheduler-{n}") for n in several]

    def run(self) -> Report:
        """Start everybody, wait until enough has happened, count the rest and compare."""
        began = time.monotonic()
        try:
            if not self.plan.naive:
                self._begin_as_after_an_upgrade()
            self._rage()
            count_the_rest(self.workshop)
            return self._report(began)
        finally:
            self.workshop.close()

    def _begin_as_after_an_upgrade(self) -> None:
        """Some events are counted, but not by the tables that an upgrade added."""
        events = make_events(random.Random(f"{self.plan.seed}-older"), "older", OLDER_EVENTS)
        with psycopg.connect(conninfo(self.workshop.url)) as session:
            session.cursor().executemany(INSERT, columns(events))
        self.crew.ledger.acknowledge(events)
        database = Database(make_url(self.workshop.url))
        run_rollup(database, window_ids=OLDER_EVENTS, wait_seconds=60)
        forget_finer_tables(database)
        database.dispose()

    def _rage(self) -> None:
        web = self.workshop.start("gunicorn", "wsgi:app")
        self.victims = Victims(self.workshop, *self._victims_options())
        people = len(self.operators) + len(self.keepers) + self.plan.writers + REDELIVERERS + 4
        with ThreadPoolExecutor(people) as pool:
            try:
                self._wait_for_enough(self._start(pool))
            finally:
                self.crew.enough.set()
                self.victims.stop()
                for _ in range(REDELIVERERS):
                    self.crew.again.put(None)
        self.victims.end()
        assert self.workshop.end(web) == 0, self.workshop.output("gunicorn")

    def _victims_options(self) -> list[str]:
        plan = self.plan
        options = {"seed": plan.seed, "pause": plan.kill_pause, "window-ids": plan.window_ids}
        naive = ["--naive"] if plan.naive else []
        return [f"--{name}={value}" for name, value in options.items()] + naive

    def _start(self, pool: ThreadPoolExecutor) -> list[Future]:
        crew, enough = self.crew, self.crew.enough
        return [
            *(pool.submit(Writer(crew, "writer", n).write) for n in range(self.plan.writers)),
            *(pool.submit(Writer(crew, "again", n).redeliver) for n in range(REDELIVERERS)),
            *(pool.submit(job.run_until, enough) for job in (*self.operators, *self.keepers)),
            pool.submit(self.victims.count),
            pool.submit(self._restart_now_and_then),
            pool.submit(self._freeze_now_and_then),
            pool.submit(self._lock_now_and_then),
        ]

    def _wait_for_enough(self, futures: list[Future]) -> None:
        """Until the plan is fulfilled; whoever fails in the meantime ends the run."""
        plan, give_up = self.plan, time.monotonic() + self.plan.seconds
        while (
            len(self.crew.ledger) < plan.events
            or self.kills < plan.kills
            or self.restarts < plan.restarts
            or self.freezes < plan.freezes
            or self.locks < plan.locks
        ):
            for future in futures:
                if future.done():
                    future.result()
            assert time.monotonic() < give_up, (
                f"only {len(self.crew.ledger)} events, {self.kills} kills, {self.restarts}"
                f" restarts, {self.freezes} freezes and {self.locks} locks by now"
            )
            time.sleep(0.1)

    @property
    def kills(self) -> int:
        return self.victims.kills + sum(one.kills for one in (*self.operators, *self.keepers))

    def _restart_now_and_then(self) -> None:
        """As after a power cut, spread evenly over the events to come."""
        dice = random.Random(f"{self.plan.seed}-restarts")
        for number in range(self.plan.restarts):
            due = self.plan.events * (number + 1) // (self.plan.restarts + 1)
            while len(self.crew.ledger) < due:
                if self.crew.enough.wait(0.05):
                    return
            with self.steady:
                self._wait_for_a_prepared_transaction()
                self.server.stop(self.server.IMMEDIATE)
                time.sleep(dice.uniform(0, 1.5))
                self.server.start()
            self.restarts += 1

    def _freeze_now_and_then(self) -> None:
        while self._is_due(self.freezes, self.plan.freezes, 1 / 4):
            with self.steady:
                self.server.freeze()
                self.crew.enough.wait(FAULT_SECONDS)
                self.server.thaw()
            self.freezes += 1

    def _lock_now_and_then(self) -> None:
        """As a person who leaves a session open."""
        while self._is_due(self.locks, self.plan.locks, 1 / 2):
            with self.steady, psycopg.connect(conninfo(self.workshop.url)) as session:
                session.execute("SELECT 1 FROM rollup_state FOR UPDATE")
                self.crew.enough.wait(FAULT_SECONDS)
            self.locks += 1

    def _is_due(self, done: int, faults: int, phase: float) -> bool:
        """Wait for the next fault's turn: they are spread evenly over the events to come."""
        while done < faults and not self.crew.enough.wait(0.05):
            if len(self.crew.ledger) >= self.plan.events * (done + phase) / faults:
                return True
        return False

    def _wait_for_a_prepared_transaction(self) -> None:
        """For a moment: one that a crash leaves behind comes back under another name."""
        with psycopg.connect(self.server.conninfo("postgres"), autocommit=True) as admin:
            for _ in range(100):
                if admin.execute("SELECT 1 FROM pg_prepared_xacts").fetchone():
                    return
                time.sleep(0.02)

    def _report(self, began: float) -> Report:
        found, wrong = misjudged(self.workshop.url) if self.plan.findings else (0, [])
        return Report(
            seed=self.plan.seed,
            events=len(self.crew.ledger),
            kills=self.kills,
            restarts=self.restarts,
            slowest=self.crew.slowest,
            drift=drift_at(self.workshop.url, self.crew.ledger),
            incomplete=[run for one in self.operators for run in one.incomplete],
            complete=sum(one.finished for one in self.operators),
            verified=self.workshop.run("flask", "rollup", "verify"),
            findings=found,
            misjudged=wrong,
            tracebacks=tracebacks(self.workshop.output()),
            seconds=time.monotonic() - began,
            done=dict(sorted(self.crew.done.items())),
        )


def tracebacks(output: str) -> str:
    """What children wrote from the first traceback on."""
    return output[output.index("Traceback") :] if "Traceback" in output else ""
