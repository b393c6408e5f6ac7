"""What the numbers say: comparisons, spikes, silent days, peak windows, shares.

Plain functions from the points of a report to what a page shows; no SQL, no HTML.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from statistics import median
from zoneinfo import ZoneInfo

from app.reports.base import DayCount, HourCount, NamedUsage

# A day is compared with the same kind of day, weekday or weekend, in the weeks before.
USUAL_DAYS = 28
USUAL_AT_LEAST = 3  # of them must be there
SPIKE = 2.0  # times what is usual
PEAKS = 5
HEAVY_SHARE = 0.8  # of a month's tokens: the guide's limit for one agent
LEVELS = 10  # of heat, 0 for none
_WEEK_HOURS = 7 * 24


@dataclass(frozen=True)
class Day:
    """One UTC day of the trend.

    ``usual`` is the median of the same kind of day in the four weeks before, ``None`` when
    too little is known. ``note`` is ``"spike"``, ``"silent"`` or empty. ``state`` is
    ``"whole"``, ``"partial"`` (counted until some time of the day) or ``"pending"`` (nothing of
    it is counted yet, so that its 0 says nothing).
    """

    date: date
    count: int
    state: str
    usual: float | None
    note: str

    @property
    def weekend(self) -> bool:
        return _is_weekend(self.date)

    @property
    def times_usual(self) -> float:
        """How many times the usual count this is; for spikes, which have one."""
        return self.count / self.usual if self.usual else 0.0


@dataclass(frozen=True)
class Trend:
    """The days that were asked for, and their total beside that of as many days before."""

    days: list[Day]
    total: int
    before: int

    @property
    def change(self) -> float | None:
        """By which share the total grew; ``None`` from zero, of which nothing is a share."""
        return (self.total - self.before) / self.before if self.before else None

    @property
    def notable(self) -> list[Day]:
        """Spikes and silent days, newest first."""
        return [day for day in reversed(self.days) if day.note]

    @property
    def highest(self) -> int:
        return max(day.count for day in self.days)


def trend(points: Sequence[DayCount], days: int, counted_at: datetime | None) -> Trend:
    """The last ``days`` of ``points``, which go back :func:`trend_days` days."""
    shown = [
        _day(points[: len(points) - days + index], points[len(points) - days + index], counted_at)
        for index in range(days)
    ]
    before = points[-2 * days : -days]
    return Trend(shown, sum(day.count for day in shown), sum(day.count for day in before))


def trend_days(days: int) -> int:
    """How many days have to be read to show ``days`` of them beside what is usual."""
    return max(2 * days, days + USUAL_DAYS)


def _day(earlier: Sequence[DayCount], point: DayCount, counted_at: datetime | None) -> Day:
    state = _state(point.date, counted_at)
    usual = _usual(earlier, point.date)
    note = ""
    if usual and point.count > SPIKE * usual:
        note = "spike"
    elif usual and not point.count and state == "whole":
        note = "silent"
    return Day(point.date, point.count, state, usual, note)


def _state(day: date, counted_at: datetime | None) -> str:
    if counted_at is None or counted_at.date() < day:
        return "pending"
    return "partial" if counted_at.date() == day else "whole"


def _usual(earlier: Sequence[DayCount], day: date) -> float | None:
    """The median since anything was issued at all; days before a first token are no pause."""
    alike = [
        point.count
        for point in earlier[-USUAL_DAYS:]
        if _is_weekend(point.date) == _is_weekend(day)
    ]
    first = next((index for index, count in enumerate(alike) if count), len(alike))
    known = alike[first:]
    return float(median(known)) if len(known) >= USUAL_AT_LEAST else None


def _is_weekend(day: date) -> bool:
    return day.isoweekday() >= 6


@dataclass(frozen=True)
class Cell:
    """An hour of the week; ``dow`` 0 is Sunday. ``heat``: 0 for none, up to 9 for the most."""

    dow: int
    hour: int
    count: int
    heat: int


@dataclass(frozen=True)
class Week:
    """The week's 168 hours, by day from Monday on, moved by ``offset`` hours from UTC."""

    rows: list[list[Cell]]
    peaks: list[Cell]
    total: int
    weekend: int
    offset: int

    @property
    def weekend_share(self) -> float:
        return self.weekend / self.total if self.total else 0.0


def week(points: Iterable[HourCount], offset: int = 0) -> Week:
    """The heatmap, its peaks first, in a zone ``offset`` whole hours ahead of UTC."""
    counts = [0] * _WEEK_HOURS
    for point in points:
        counts[(point.dow * 24 + point.hour + offset) % _WEEK_HOURS] += point.count
    highest = max(counts)
    cells = [
        Cell(index // 24, index % 24, count, _heat(count, highest))
        for index, count in enumerate(counts)
    ]
    rows = [cells[dow * 24 : dow * 24 + 24] for dow in (1, 2, 3, 4, 5, 6, 0)]
    busy = sorted((cell for cell in cells if cell.count), key=lambda cell: -cell.count)
    weekend = sum(cell.count for cell in rows[5] + rows[6])
    return Week(rows, busy[:PEAKS], sum(counts), weekend, offset)


def _heat(count: int, highest: int) -> int:
    return -(-count * (LEVELS - 1) // highest) if count else 0


def zone_minutes(zone: ZoneInfo, now: datetime) -> int:
    """How many minutes a zone is ahead of UTC, at this time of the year."""
    ahead = now.astimezone(zone).utcoffset() or timedelta(0)
    return ahead // timedelta(minutes=1)


@dataclass(frozen=True)
class Share:
    """An agent's part of a month's tokens; ``rank`` 1 is the most."""

    agent_id: str
    name: str | None
    count: int
    rank: int
    share: float

    @property
    def heavy(self) -> bool:
        return self.share > HEAVY_SHARE


def shares(points: Sequence[NamedUsage]) -> list[Share]:
    """Agents, most tokens first, as the report has them."""
    total = sum(point.token_count for point in points)
    return [
        Share(point.agent_id, point.name, point.token_count, rank, point.token_count / total)
        for rank, point in enumerate(points, start=1)
    ]


def found(agents: Iterable[Share], text: str) -> list[Share]:
    """The agents whose name or id contains ``text``, in any case."""
    folded = text.casefold()
    return [
        agent
        for agent in agents
        if folded in (agent.name or "").casefold() or folded in agent.agent_id.casefold()
    ]


def ordered(agents: Iterable[Share], by: str) -> list[Share]:
    """By ``count`` (most first), ``name`` (those without one last) or ``id``."""
    keys = {
        "count": lambda agent: (agent.rank,),
        "name": lambda agent: (agent.name is None, (agent.name or "").casefold(), agent.agent_id),
        "id": lambda agent: (agent.agent_id,),
    }
    return sorted(agents, key=keys[by])
