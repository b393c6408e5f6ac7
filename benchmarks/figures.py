"""Figures: a measurement, its rival, their ratio, and whether the limit is reached."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple, TypeVar

T = TypeVar("T")

UNITS = {  # for each unit, how a value is printed: factor, format, name
    "s": (1.0, "{:.2f}", "s"),
    "ms": (1000.0, "{:.1f}", "ms"),
    "/s": (1.0, "{:,.0f}", "/s"),
    "MB": (1.0, "{:.0f}", "MB"),
    "B": (1.0, "{:.0f}", "B"),
}


@dataclass(frozen=True)
class Samples:
    """The values of a repeated measurement: seconds (``s`` or ``ms``), ``/s``, ``MB`` or bytes."""

    values: tuple[float, ...]
    unit: str

    @property
    def median(self) -> float:
        return median(self.values)

    def __str__(self) -> str:
        factor, form, name = UNITS[self.unit]
        low, middle, high = (
            form.format(value * factor)
            for value in (min(self.values), self.median, max(self.values))
        )
        return f"{middle} {name} ({low}–{high})"


class Rival(NamedTuple):
    """The measurement that the service is compared with."""

    name: str
    samples: Samples


@dataclass(frozen=True)
class Figure:
    """A line of the table: ours, the rival, their ratio and its limit (``≥`` or ``≤``).

    ``ratio`` is ``None`` if the limit is for ``ours`` itself, as with memory. Without a ``limit``
    the line only informs.
    """

    row: str
    work: str
    ours: Samples
    rival: Rival | None
    ratio: float | None
    sign: str
    limit: float | None

    @property
    def reached(self) -> bool:
        if self.limit is None:
            return True
        value = max(self.ours.values) if self.ratio is None else self.ratio
        return value >= self.limit if self.sign == "≥" else value <= self.limit

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells of the line in the table."""
        return (
            self.row,
            self.work,
            str(self.ours),
            *(("–", "–") if self.rival is None else map(str, self.rival)),
            "–" if self.ratio is None else f"{self.ratio:.3g}",
            *self._verdict(),
        )

    def _verdict(self) -> tuple[str, str]:
        if self.limit is None:
            return "–", "–"
        limit = f"{self.limit:.3g}"
        if self.ratio is None:
            factor, _, unit = UNITS[self.ours.unit]
            limit = f"{self.limit * factor:g} {unit}"
        return f"{self.sign} {limit}", "yes" if self.reached else "no"


@dataclass(frozen=True)
class Failure:
    """A row that could not be measured, and why."""

    row: str
    work: str
    reason: str
    reached: bool = False

    @property
    def cells(self) -> tuple[str, ...]:
        return (self.row, self.work, self.reason, "–", "–", "–", "–", "no")


class BenchmarkError(Exception):
    """A measurement is not possible here, or it did not measure the intended work."""


def faster(row: str, work: str, ours: Samples, rival: Rival, limit: float | None) -> Figure:
    """Both are times; ours has to reach ``limit`` of the rival's speed."""
    ratio = rival.samples.median / ours.median
    return Figure(row, work, ours, rival, ratio, "≥", limit)


def more(row: str, work: str, ours: Samples, rival: Rival, limit: float | None) -> Figure:
    """Both are throughputs; ours has to reach ``limit`` of the rival's."""
    ratio = ours.median / rival.samples.median
    return Figure(row, work, ours, rival, ratio, "≥", limit)


def at_most(row: str, work: str, ours: Samples, rival: Rival, limit: float) -> Figure:
    """Both are costs; ours may be ``limit`` times the rival's."""
    ratio = ours.median / rival.samples.median
    return Figure(row, work, ours, rival, ratio, "≤", limit)


def size(row: str, work: str, ours: Samples) -> Figure:
    """A number of bytes, without a limit."""
    return Figure(row, work, ours, None, None, "≤", None)


def below(row: str, work: str, ours: Samples, limit: float) -> Figure:
    """No sample may be above ``limit``; there is no rival."""
    return Figure(row, work, ours, None, None, "≤", limit)


def timed(work: Callable[[], object]) -> float:
    """The seconds that ``work`` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def interleaved(repetitions: int, measurements: Iterable[Callable[[], T]]) -> list[list[T]]:
    """The results of each measurement, taken in turns: A B A B …"""
    turns = [(measure, list[T]()) for measure in measurements]
    for _ in range(repetitions):
        for measure, results in turns:
            results.append(measure())
    return [results for _, results in turns]


def seconds(values: Iterable[float], unit: str = "s") -> Samples:
    """Times as samples."""
    return Samples(tuple(values), unit)
