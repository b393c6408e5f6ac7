"""The measures of a load run as a Markdown table, and its place in the documents."""

import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.faults.ledger import Drift
from tests.load.measures import (
    MARGIN_SECONDS,
    NO_ANSWER,
    Request,
    Window,
    failures,
    rate,
    rate_outside,
    spread,
)
from tests.load.samples import Samples

KINDS = ("trend", "heatmap", "agents", "ingest")
SHOWN = 10
PLACE = re.compile(r"(?<=<!-- load -->\n).*?(?=<!-- /load -->)", re.DOTALL)


@dataclass(frozen=True)
class Report:
    """What happened: the requests of both phases, what was counted, what was seen meanwhile.

    ``verified``: the exit code of ``flask rollup verify``; ``said``: what the clients wrote.
    """

    postgresql: str
    at_most: list[Request]
    held: list[Request]
    clients: tuple[int, int]
    asked: float
    window: Window
    acknowledged: int
    drift: Drift
    verified: int
    tracebacks: str
    said: str
    samples: Samples

    @property
    def failures(self) -> list[Request]:
        return failures(self.at_most) + failures(self.held, self.window)

    @property
    def exact(self) -> bool:
        wrong = self.drift.lost or self.drift.doubled or self.verified or self.tracebacks
        return not (wrong or self.failures)

    def table(self) -> str:
        """All of it, in Markdown."""
        rows = ["| measured | |", "|---|---|"]
        rows += [f"| {name} | {value} |" for name, value in self._rows()]
        return "\n".join(rows) + "\n"

    def explain(self) -> str:
        """What is wrong, for a failed run."""
        unexcused = self.failures
        return "\n".join(
            [
                f"flask rollup verify: exit {self.verified}; failed requests: {len(unexcused)}",
                *(f"{r}, {r.start - self.window.start:.1f} s after" for r in unexcused[:SHOWN]),
                *self.drift.examples,
                *self.said.splitlines()[:SHOWN],
                self.tracebacks,
            ]
        )

    def _rows(self) -> Iterator[tuple[str, str]]:
        cores = os.cpu_count()
        versions = f"Python {platform.python_version()}, PostgreSQL {self.postgresql}"
        yield "machine, with the clients on it", f"{cores} cores, {versions}"
        most, held = rate(self.at_most), rate_outside(self.held, self.window)
        many, paced = self.clients
        yield (f"at most, {many} clients, each at once again", f"{most:.1f} requests/s")
        yield (
            f"held for {_length(self.held):.0f} s, {paced} clients",
            f"{held:.1f} requests/s, {held / most:.0%} of that ({self.asked:.1f}/s asked for)",
        )
        yield from self._latencies()
        yield from self._restart()
        yield "events acknowledged", f"{self.acknowledged:,}"
        yield "events lost, doubled", f"{self.drift.lost}, {self.drift.doubled}"
        yield from self._seen()

    def _latencies(self) -> Iterator[tuple[str, str]]:
        for kind in KINDS:
            times = [
                1000 * r.seconds for r in self.held if r.kind == kind and not self.window.touches(r)
            ]
            if times:
                seen = spread(times)
                figures = f"p50 {seen.p50:.0f} ms, p99 {seen.p99:.0f} ms, max {seen.worst:.0f} ms"
                yield f"{kind}, outside the restart", f"{seen.count:,} requests: {figures}"
        yield (
            f"failed outside the restart and {MARGIN_SECONDS:.0f} s after it",
            str(len(self.failures)),
        )

    def _restart(self) -> Iterator[tuple[str, str]]:
        inside = [r for r in self.held if self.window.touches(r)]
        statuses = [r.status for r in self.held if self.window.excuses(r)]
        away = self.window.back - self.window.start
        yield "PostgreSQL away", f"{away:.1f} s"
        yield "restart window: to the first success after it", f"{self.window.seconds:.1f} s"
        yield (
            "503 in it, without an answer, slowest",
            f"{statuses.count(503)}, {statuses.count(NO_ANSWER)},"
            f" {max(r.seconds for r in inside):.1f} s",
        )

    def _seen(self) -> Iterator[tuple[str, str]]:
        lag = spread(self.samples.lags)
        yield "lag of the rollup", f"median {lag.p50:.1f} s, max {lag.worst:.1f} s"
        yield (
            "memory at its peak",
            f"{_mebibytes(self.samples.worker_bytes)} a worker of gunicorn,"
            f" {_mebibytes(self.samples.scheduler_bytes)} the scheduler",
        )


def write(report: Report, document: Path) -> None:
    """Put the table between the document's two marks."""
    text = document.read_text()
    assert len(PLACE.findall(text)) == 1, f"{document} has no place for it"
    document.write_text(PLACE.sub(lambda _: report.table(), text))


def _length(requests: list[Request]) -> float:
    return max(r.end for r in requests) - min(r.start for r in requests)


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
