"""The arithmetic of a load run: rates, percentiles, and the window of the restart."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

NO_ANSWER = 0
EXPECTED = (200, 202, 304)
EXCUSABLE = (NO_ANSWER, 503)
MARGIN_SECONDS = 1.0


class Request(NamedTuple):
    """One request: seconds since the epoch, its kind, status and duration in seconds."""

    start: float
    kind: str
    status: int
    seconds: float

    @property
    def end(self) -> float:
        return self.start + self.seconds

    @property
    def succeeded(self) -> bool:
        return self.status in EXPECTED


def read_requests(path: Path) -> list[Request]:
    """What the clients wrote, a line for each answer; half a line is one to come."""
    requests = []
    for line in path.read_text().rpartition("\n")[0].splitlines():
        start, kind, status, seconds = line.split()
        requests.append(Request(float(start), kind, int(status), float(seconds)))
    return requests


@dataclass(frozen=True)
class Window:
    """From the stop of PostgreSQL to the first success after it was back.

    ``back``: when PostgreSQL took connections again.
    """

    start: float
    back: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start

    def excuses(self, request: Request) -> bool:
        """Whether a failure is the restart's: it came within the window or its margin.

        One that hangs until long afterwards is not.
        """
        in_time = self.start <= request.end <= self.end + MARGIN_SECONDS
        return in_time and request.status in EXCUSABLE

    def touches(self, request: Request) -> bool:
        """Whether any part of a request lies in the window."""
        return request.start <= self.end and request.end >= self.start


def window_of(requests: Iterable[Request], stopped: float, back: float) -> Window | None:
    """The window of a restart, once it is over."""
    later = [r.end for r in requests if r.succeeded and r.start > stopped and r.end >= back]
    return Window(stopped, back, min(later)) if later else None


def failures(requests: Iterable[Request], window: Window | None = None) -> list[Request]:
    """Answers that nothing excuses."""
    return [r for r in requests if not (r.succeeded or (window is not None and window.excuses(r)))]


def rate(requests: Sequence[Request], skip: float = 0.1) -> float:
    """Requests answered per second, without the first part of the time, which warms up."""
    begin, end = min(r.start for r in requests), max(r.end for r in requests)
    begin += skip * (end - begin)
    return sum(r.end > begin for r in requests) / (end - begin)


def rate_outside(requests: Sequence[Request], window: Window) -> float:
    """Requests per second, without those that touch the window, and without its time."""
    begin, end = min(r.start for r in requests), max(r.end for r in requests)
    return sum(not window.touches(r) for r in requests) / (end - begin - window.seconds)


@dataclass(frozen=True)
class Spread:
    """How many values, and their median, 99th percentile and maximum."""

    count: int
    p50: float
    p99: float
    worst: float


def spread(values: Sequence[float]) -> Spread:
    """Percentiles are interpolated between the values."""
    cuts = statistics.quantiles(values, n=100, method="inclusive") if len(values) > 1 else values
    return Spread(len(values), cuts[len(cuts) // 2], cuts[-1], max(values))
