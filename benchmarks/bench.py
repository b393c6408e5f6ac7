"""What the rows share: how much to do, one PostgreSQL, databases that are prepared once."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from app.config.settings import Settings
from app.dates import utc_now
from app.storage.database import Database
from benchmarks import data
from benchmarks.cluster import Cluster
from benchmarks.figures import BenchmarkError
from benchmarks.programs import environment
from jobs.counting.history import Run
from jobs.counting.run import run_rollup


@dataclass
class Bench:
    """One run of the benchmarks.

    Args:
        scale: of the numbers of events and requests; 1 is what the limits are for.
        repetitions: of each measurement, at least.
        seconds: of each load by HTTP.
    """

    scale: float
    repetitions: int
    seconds: float
    _prepared: dict[tuple[str, int], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")

    @property
    def folder(self) -> Path:
        """For files, as long as the run lasts."""
        return Path(self._folder.name)

    @cached_property
    def cluster(self) -> Cluster:
        return Cluster()

    def close(self) -> None:
        """Delete everything."""
        if "cluster" in self.__dict__:
            self.cluster.close()
        self._folder.cleanup()

    def scaled(self, count: int) -> int:
        """So many of something at this scale."""
        return max(round(count * self.scale), 100)

    def raw(self, count: int) -> str:
        """A database with ``count`` events, none counted; to be copied, not changed."""
        return self._prepare("raw", count, lambda: self._raw(count))

    def counted(self, count: int) -> str:
        """The same with every event counted; to be copied, not changed."""
        return self._prepare("counted", count, lambda: self._counted(count))

    def readable(self, count: int) -> str:
        """The same with numbers of tenants that are read; to be copied, not changed."""
        return self._prepare("readable", count, lambda: self._readable(count))

    def roll_up(self, database: Database) -> Run:
        """What ``flask rollup run`` does, with its defaults.

        Raises:
            BenchmarkError: it did not count everything.
        """
        defaults = Settings.from_environ(environment("postgresql://"))
        run = run_rollup(
            database,
            window_ids=defaults.rollup_window_ids,
            wait_seconds=defaults.rollup_wait_seconds,
        )
        if run.outcome != "done":
            raise BenchmarkError(f"the rollup run was {run.outcome}")
        return run

    def _prepare(self, kind: str, count: int, make: Callable[[], str]) -> str:
        if (kind, count) not in self._prepared:
            self._prepared[kind, count] = make()
        return self._prepared[kind, count]

    def _raw(self, count: int) -> str:
        name = self.cluster.create()
        with self.cluster.connect(name) as connection:
            data.load(connection, data.events(count))
        return name

    def _counted(self, count: int) -> str:
        name = self.cluster.keep_copy(self.raw(count))
        with self.cluster.database(name) as database:
            self.roll_up(database)
        with self.cluster.connect(name) as connection:
            data.settle(connection)
        return name

    def _readable(self, count: int) -> str:
        name = self._raw(count)  # its own: nobody else wants these sizes, and copies take long
        with self.cluster.database(name) as database:
            self.roll_up(database)
        with self.cluster.connect(name) as connection:
            data.add_readers(connection, utc_now().date())
        return name
