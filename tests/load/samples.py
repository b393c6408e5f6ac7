"""One sample a second: the rollup's lag, and the memory of the processes."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil

from app.storage.database import Database
from app.storage.failures import is_unavailable
from jobs.counting.status import rollup_status

SECONDS = 1.0


@dataclass
class Samples:
    """Lags in seconds; the most bytes that one worker and the scheduler were seen to hold."""

    lags: list[float] = field(default_factory=list)
    worker_bytes: int = 0
    scheduler_bytes: int = 0


class Sampler:
    """Looks, until told to stop; ``scheduler`` tells the pid, which changes."""

    def __init__(self, database: Database, master: int, scheduler: Callable[[], int]) -> None:
        self.samples = Samples()
        self._database, self._master, self._scheduler = database, psutil.Process(master), scheduler

    def run_until(self, enough: threading.Event) -> None:
        while not enough.wait(SECONDS):
            self._sample_lag()
            self._sample_memory()

    def _sample_lag(self) -> None:
        try:
            with self._database.reading() as connection:
                self.samples.lags.append(rollup_status(connection).lag_seconds)
        except Exception as error:
            if not is_unavailable(error):  # being restarted
                raise

    def _sample_memory(self) -> None:
        samples = self.samples
        workers = [resident(worker.pid) for worker in self._master.children()]
        samples.worker_bytes = max([samples.worker_bytes, *workers])
        samples.scheduler_bytes = max(samples.scheduler_bytes, resident(self._scheduler()))


def resident(pid: int) -> int:
    """The bytes that a process holds in memory; 0 when it is gone."""
    try:
        return psutil.Process(pid).memory_info().rss
    except psutil.NoSuchProcess:
        return 0
