"""R1 to R3: rollup runs on PostgreSQL, compared with recounts and materialized views."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from threading import Event as Signal
from threading import Thread
from typing import Any
from unittest.mock import patch

from app.config.settings import Settings
from app.storage.database import Database
from benchmarks import data, rivals
from benchmarks.bench import Bench
from benchmarks.cluster import Connection
from benchmarks.figures import (
    Figure,
    Rival,
    Samples,
    at_most,
    faster,
    interleaved,
    seconds,
    timed,
)
from benchmarks.programs import environment
from jobs.counting import run
from jobs.findings import task
from jobs.findings.judging import catch_up
from jobs.findings.task import judge_findings

HISTORY = 5_000_000
BATCH, FEW = 100_000, 1_000
REFRESH = "REFRESH MATERIALIZED VIEW of the six"
BEGIN_SECONDS = 60
FIRST, FIRST_TABLES = 3, "the same into the three tables of 0.1.0"
# The next events are issued on the days after the history, which has about 55,000 events a day.
BATCH_PERIOD, FEW_PERIOD = timedelta(hours=43), timedelta(days=1)
# A refresh takes half a minute, and is measured once between as many runs, which vary more.
BATCH_TURNS, FEW_TURNS = 6, 10


@dataclass
class History:
    """A database with counted events, to which a measurement adds more events."""

    bench: Bench
    database: Database
    connection: Connection
    first_tables: bool = False  # its runs count into the first tables only
    number: int = 0
    batches: int = 0

    def next_run(self, *, judged: bool = False) -> float:
        """The seconds of a run over the next 100,000 events; each call adds later events.

        Args:
            judged: findings are judged at the same time, in another thread, as the jobs do it.
        """
        self.batches += 1
        count, first = self.bench.scaled(BATCH), data.END + self.batches * BATCH_PERIOD
        selected = data.events(count, after=self._numbers(), period=BATCH_PERIOD, first=first)
        return self.run(count, selected, judging(self.database) if judged else nullcontext())

    def late_run(self) -> float:
        """The seconds of a run over 1,000 events from the whole period of the history."""
        return self.run(FEW, data.events(FEW, after=self._numbers()))

    def fresh_run(self) -> float:
        """The seconds of a run over 1,000 events of the day after the history."""
        return self.run(
            FEW, data.events(FEW, after=self._numbers(), first=data.END, period=FEW_PERIOD)
        )

    def refresh(self) -> float:
        """The seconds of a refresh of the views."""
        self.connection.execute("CHECKPOINT")
        return timed(lambda: rivals.refresh_views(self.connection))

    def run(
        self, events: int, selected: str, beside: AbstractContextManager[None] | None = None
    ) -> float:
        data.insert(self.connection, selected)
        self.connection.execute(f"VACUUM (ANALYZE) {', '.join(rivals.TABLES)}, rollup_state")
        self.connection.execute("CHECKPOINT")
        counted: list[int] = []
        first_tables = only_first_tables() if self.first_tables else nullcontext()
        with first_tables, beside or nullcontext():
            took = timed(lambda: counted.append(self.bench.roll_up(self.database).events))
        assert counted == [events]
        return took

    def _numbers(self) -> int:
        """The start of new event numbers; the history's numbers are lower."""
        self.number += 1
        return 1_000_000_000 + self.number * 1_000_000


@contextmanager
def only_first_tables() -> Iterator[None]:
    """Within it, runs count into the tables of 0.1.0 only."""
    with patch.object(run, "SUMMARY_TABLES", run.SUMMARY_TABLES[:FIRST]):
        yield


@contextmanager
def judging(database: Database) -> Iterator[None]:
    """Within it, findings are judged: there are more days to judge than fit in.

    It begins once the first day is judged, as when a run begins beside a long tick.
    """
    settings, stop, begun = Settings.from_environ(environment("postgresql://")), Signal(), Signal()

    def catching_up(*arguments: Any, **options: Any) -> Any:
        begun.set()
        return catch_up(*arguments, **options)

    def judge() -> None:
        while not stop.is_set():
            judge_findings(database, settings, stop)

    thread = Thread(target=judge)
    try:
        with patch.object(task, "catch_up", catching_up):
            thread.start()
            assert begun.wait(BEGIN_SECONDS)
            yield
    finally:
        stop.set()
        thread.join()


# Every organization is known, and all of its days are left to judge.
_TO_JUDGE = """
    INSERT INTO usual (tenant_id, judged_through, due_at, delay_seconds, delays, usuals, states)
    SELECT tenant_id, min(date) - 1, min(date), 3600, '{}', '{}', '{}'
    FROM daily_issuance GROUP BY tenant_id;
    INSERT INTO detection_state (id, noted_upto, noted_correction, measured_upto, measured_at)
    SELECT 1, counted_upto, corrections, counted_upto, now() FROM rollup_state
"""


@contextmanager
def history(
    bench: Bench, events: int, *, views: bool = False, first_tables: bool = False
) -> Iterator[History]:
    """A copy of a database with ``events`` counted events, dropped after the ``with`` block."""
    with (
        bench.cluster.copy(bench.counted(events)) as name,
        bench.cluster.connect(name) as connection,
        bench.cluster.database(name) as database,
    ):
        if views:
            rivals.create_views(connection)
        yield History(bench, database, connection, first_tables)
        rivals.check_counts(connection, tables=rivals.TABLES[: FIRST if first_tables else None])


def from_empty(bench: Bench) -> Iterator[Figure]:
    """R1: five million events, from empty tables."""
    events = bench.scaled(HISTORY)
    with (
        bench.cluster.copy(bench.raw(events)) as name,
        bench.cluster.connect(name) as connection,
        bench.cluster.database(name) as database,
    ):
        rivals.create_views(connection)
        bench.roll_up(database)  # a warm-up: it fills every cache
        turns: list[Callable[[], float]] = [
            lambda: _into_first_tables(bench, connection, database),
            lambda: _from_empty(bench, connection, database),
            lambda: _at_rest(connection, rivals.recount),
            lambda: _at_rest(connection, rivals.refresh_views),
        ]
        first, ours, recounts, refreshes = map(seconds, interleaved(bench.few, turns))
        rivals.check_counts(connection)
        rivals.check_counts(connection, "_view")
    work = f"roll up {events:,} events from empty"
    yield faster("R1a", work, ours, Rival("six SELECT … GROUP BY", recounts), 0.85)
    yield faster("R1b", work, ours, Rival(REFRESH, refreshes), 1.0)
    yield at_most("R1c", work, ours, Rival(FIRST_TABLES, first), 1.7)


def _from_empty(bench: Bench, connection: Connection, database: Database) -> float:
    rivals.forget_counts(connection)
    return _at_rest(connection, lambda _: bench.roll_up(database))


def _into_first_tables(bench: Bench, connection: Connection, database: Database) -> float:
    with only_first_tables():
        return _from_empty(bench, connection, database)


def _at_rest(connection: Connection, work: Callable[[Connection], object]) -> float:
    connection.execute("CHECKPOINT")
    return timed(lambda: work(connection))


def next_batch(bench: Bench) -> Iterator[Figure]:
    """R2: the next 100,000 events, after a short and a long history."""
    events = bench.scaled(HISTORY)
    with (
        history(bench, events, views=True) as long,
        history(bench, events // 10) as short,
        history(bench, events, first_tables=True) as few,
    ):
        long.connection.execute(_TO_JUDGE)
        for one in (long, short, few):
            one.next_run()
        runs = (
            long.next_run,
            short.next_run,
            few.next_run,
            lambda: long.next_run(judged=True),
        )
        refresh, of_runs = _with_refresh(bench, long, runs, BATCH_TURNS)
        ours, before, first, beside = map(seconds, of_runs)
    work = f"roll up the next {bench.scaled(BATCH):,} events after {events:,}"
    yield faster("R2a", work, ours, Rival(REFRESH, refresh), 25)
    yield at_most("R2b", work, ours, Rival(f"the same after {events // 10:,}", before), 1.2)
    yield at_most("R2c", work, ours, Rival(FIRST_TABLES, first), 1.7)
    yield at_most("R2d", f"{work}, while findings are judged", beside, Rival("alone", ours), 1.1)


def _with_refresh(
    bench: Bench, one: History, runs: tuple[Callable[[], float], ...], turns: int
) -> tuple[Samples, list[list[float]]]:
    """The time of a refresh in the middle of the turns, and the times of each run."""
    half = min(turns // 2, bench.repetitions)
    before = interleaved(half, runs)
    refresh = seconds([one.refresh()])
    after = interleaved(half, runs)
    return refresh, [first + second for first, second in zip(before, after, strict=True)]


def late_events(bench: Bench) -> Iterator[Figure]:
    """R3: 1,000 late events, from the whole period of the history."""
    events = bench.scaled(HISTORY)
    with history(bench, events, views=True) as one:
        one.late_run(), one.fresh_run()
        runs = (one.late_run, one.fresh_run)
        refresh, of_runs = _with_refresh(bench, one, runs, FEW_TURNS)
        late, fresh = (seconds(values, "ms") for values in of_runs)
    work = f"roll up {FEW:,} late events after {events:,}"
    yield faster("R3a", work, late, Rival(REFRESH, refresh), 100)
    yield at_most("R3b", work, late, Rival(f"{FEW:,} fresh events", fresh), 2)
