"""Run sources, each in a thread of its own: one that fails or hangs delays no other."""

import logging
import random
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Protocol

from app.errors import ServiceError
from app.intake.sources.pages import PullError
from app.storage.failures import is_unavailable, unavailable_message
from app.telemetry import logs

log = logging.getLogger("app.sources")

# The wait after a failure doubles from turn to turn, up to so much.
MAX_WAIT_SECONDS = 30.0
# After a refusal, which another turn would mostly meet again. Many attempts may lock a client out.
MAX_REFUSED_SECONDS = 600.0


class Source(Protocol):
    """A source that is read turn by turn.

    ``turn`` returns whether there is more at once, or ``None`` if it did nothing. ``fail`` notes
    why a turn failed, and ``close`` closes what is open.
    """

    @property
    def name(self) -> str: ...
    def turn(self) -> bool | None: ...
    def fail(self, reason: str) -> None: ...
    def close(self) -> None: ...


class Runner:
    """Runs one source until it is to stop.

    Args:
        every: the seconds between two turns.
    """

    def __init__(self, source: Source, every: float) -> None:
        self._source = source
        self._every = every
        self._failures = 0
        self._reason: str | None = None

    def run(self, stop: threading.Event) -> None:
        """Take turns until ``stop`` is set. A failure is logged, and the next turn tries again."""
        try:
            while not stop.is_set():
                stop.wait(self.step(stop))
        finally:
            self._source.close()

    def step(self, stop: threading.Event) -> float:
        """Take one turn; return the seconds until the next one."""
        try:
            more = self._source.turn()
        except Exception as error:  # no error may end the reading of later records
            if stop.is_set():
                return 0
            return self._failed(error)
        if more is None:
            return self._every
        if self._reason is not None:
            logs.write(log, logging.INFO, "source recovered", source=self._source.name)
        self._failures, self._reason = 0, None
        return 0 if more else self._every

    def _failed(self, error: Exception) -> float:
        self._failures += 1
        reason, expected = failure_reason(error)
        if reason != self._reason:
            self._reason = reason
            fields = {"source": self._source.name, "reason": reason}
            trace = None if expected else error
            log.error("source failed", exc_info=trace, extra={"fields": fields})
        if not is_unavailable(error):
            with suppress(Exception):  # the log has the reason anyway
                self._source.fail(reason)
        if isinstance(error, PullError) and error.wait:
            return error.wait
        is_refused = isinstance(error, PullError) and not error.is_temporary
        most = MAX_REFUSED_SECONDS if is_refused else MAX_WAIT_SECONDS
        doubled: float = max(self._every, 1.0) * 2 ** min(self._failures, 10)
        wait = min(most, doubled) * random.uniform(0.5, 1)  # noqa: S311 - jitter
        return max(self._every, wait)  # no turn is due earlier


def failure_reason(error: Exception) -> tuple[str, bool]:
    """Why a turn failed, for the log, and whether such a failure is expected.

    The texts hold nothing of the source's content.
    """
    if is_unavailable(error):
        return unavailable_message(error), True
    if isinstance(error, ServiceError):
        return error.message, True
    if isinstance(error, PullError):
        return str(error), True
    if isinstance(error, OSError):
        return str(error), True
    return f"unexpected error: {type(error).__name__}", False


def start(sources: Iterable[tuple[Source, float]], stop: threading.Event) -> list[threading.Thread]:
    """Run sources in threads, which end soon after ``stop`` is set.

    Args:
        sources: each source, and the seconds between two of its turns.
    """
    threads = [
        threading.Thread(
            target=Runner(source, every).run, args=(stop,), name=source.name, daemon=True
        )
        for source, every in sources
    ]
    for thread in threads:
        thread.start()
    return threads
