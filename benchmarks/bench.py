"""The state that all rows share: the scale, one PostgreSQL server, and prepared databases."""

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
        scale: the factor of the numbers of events and requests. The limits are made for 1.
        repetitions: the least number of repetitions of each measurement.
        seconds: the length of each load by HTTP.
    """

    scale: float
    repetitions: int
    seconds: float
    _prepared: dict[tuple[str, int], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")

    @property
    def folder(self) -> Path:
        """A folder for files, deleted after the run."""
        return Path(self._folder.name)

    @cached_property
    def cluster(self) -> Cluster:
        return Cluster()

    def close(self) -> None:
        """Delete everything."""
        if "cluster" in self.__dict__:
            self.cluster.close()
        self._folder.cleanup()

    @property
    def few(self) -> int:
        """The repetitions of a measurement that takes many seconds."""
        return min(self.repetitions, 3)

    def scaled(self, count: int) -> int:
        """``count`` multiplied by the scale; at least 100."""
        return max(round(count * self.scale), 100)

    def raw(self, count: int) -> str:
        """A database with ``count`` uncounted events. Copy it; do not change it."""
        return self._prepare("raw", count, lambda: self._raw(count))

    def counted(self, count: int) -> str:
        """A database with ``count`` events, all of them counted. Copy it; do not change it."""
        return self._prepare("counted", count, lambda: self._counted(count))

    def readable(self, count: int) -> str:
        """A counted database with additional tenants to read. Copy it; do not change it."""
        return self._prepare("readable", count, lambda: self._readable(count))

    def roll_up(self, database: Database) -> Run:
        """Run the rollup as ``flask rollup run`` does, with the default settings.

        Raises:
            BenchmarkError: the run did not count every event.
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
        name = self.cluster.keep_copy(self.counted(count))
        with self.cluster.connect(name) as connection:
            data.add_readers(connection, utc_now().date())
        return name
