"""Bars of days: tokens a day beside earlier ones, by day or, for long ranges, by week."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from app.detection import Kind
from app.reports.findings import Finding
from app.reports.trend import DayCount
from app.web.pages.charts import Bar
from app.web.pages.formatting import count_of, day, number, short_day

# More bars than these would be too narrow to point at, so that the page shows weeks.
MOST_BARS = 98
FEW_BARS = 35
_FEW = 10  # bars that each have a label
_NEAR = 3  # days before the last one, whose label would meet that of the last one; at least
_WEEK, _DAY = timedelta(days=7), timedelta(days=1)
_MOMENT = timedelta(microseconds=1)

_MOST_MARKED = 400  # days of one finding
_SPIKES = {Kind.SPIKE, Kind.RETRY_LOOP}

# The address of the page of some days, by the first and the last.
AddressOf = Callable[[date, date], str]


class Mark(NamedTuple):
    """What is unusual on a day: ``"spike"`` or ``"silent"``, and a short text."""

    kind: str
    text: str


@dataclass(frozen=True)
class DayBars:
    """The days of a chart.

    ``before``: the compared days, or ``None``. ``whole``: how many days are wholly counted, from
    the first on; ``counted``: how many are counted in part. ``today``: the zone's present day.
    """

    days: Sequence[DayCount]
    before: Sequence[DayCount] | None
    whole: int
    counted: int
    today: date
    usual: Mapping[date, int | None]
    marks: Mapping[date, Mark]
    address: AddressOf

    @property
    def is_by_week(self) -> bool:
        return len(self.days) > MOST_BARS

    def bars(self) -> list[Bar]:
        """The bars, oldest first."""
        return self._weeks() if self.is_by_week else self._days()

    def _days(self) -> list[Bar]:
        return [self._day(place, point) for place, point in enumerate(self.days)]

    def _day(self, place: int, point: DayCount) -> Bar:
        before = self.before[place] if self.before else None
        mark = self._mark(point)
        usual = self.usual.get(point.date)
        is_whole = place < self.whole
        lines = [day(point.date), self._count(point.count, place, place + 1)]
        # Of many days only the unusual ones say what is usual, so that the page stays small.
        if usual is not None and (mark or len(self.days) <= FEW_BARS):
            lines.append(f"usual {number(usual)}")
        if before is not None:
            lines.append(f"{day(before.date)}: {number(before.count)}")
        kind = mark.kind if mark else "" if is_whole else "part"
        return Bar(
            point.count,
            tuple(lines),
            self.address(point.date, point.date),
            None if before is None else before.count,
            kind,
            mark.text if mark else "",
            self._tick(place, point.date),
            weekend=point.date.isoweekday() >= 6,
            is_known=place < self.counted,
        )

    def _mark(self, point: DayCount) -> Mark | None:
        mark = self.marks.get(point.date)
        # A silence may begin and end within days that have tokens.
        return None if mark and mark.kind == "silent" and point.count else mark

    def _tick(self, place: int, at: date) -> str:
        if at == self.today:
            return "today"
        left = len(self.days) - 1 - place
        if len(self.days) <= _FEW:
            return short_day(at)
        # On a phone every second label is hidden, so a Monday always shows.
        every = 7 if len(self.days) <= FEW_BARS else 14
        is_labelled = at.isoweekday() == 1 and at.toordinal() % every == 1
        near = self.days[-1].date == self.today and left <= max(_NEAR, len(self.days) // 14)
        return short_day(at) if is_labelled and not near else ""

    def _weeks(self) -> list[Bar]:
        # Weeks end with the last day, so that only the first may be shorter.
        starts = range(len(self.days) % 7 - 7 if len(self.days) % 7 else 0, len(self.days), 7)
        return [self._week(max(start, 0), start + 7) for start in starts]

    def _week(self, start: int, end: int) -> Bar:
        points = self.days[start:end]
        first, last = points[0].date, points[-1].date
        count = sum(point.count for point in points)
        lines = [
            f"{short_day(first)} \N{EN DASH} {short_day(last)}",
            self._count(count, start, end),
        ]
        unusual = [(point.date, mark) for point in points if (mark := self._mark(point))]
        lines += [f"{_WORDS[mark.kind]} on {day(at)}" for at, mark in unusual]
        before = None
        if self.before:
            compared = self.before[start:end]
            before = sum(point.count for point in compared)
            begin, until = short_day(compared[0].date), short_day(compared[-1].date)
            lines.append(f"{begin} \N{EN DASH} {until}: {number(before)}")
        is_new_month = (first - _WEEK).month != first.month
        return Bar(
            count,
            tuple(lines),
            self.address(first, last),
            before,
            unusual[0][1].kind if unusual else "" if end <= self.whole else "part",
            tick=f"{short_day(first).split(' ')[1]}" if is_new_month else "",
            is_known=start < self.counted,
        )

    def _count(self, count: int, start: int, end: int) -> str:
        if start >= self.counted:
            return "not counted yet"
        return count_of(count, "token") + ("" if end <= self.whole else ", so far")


def marks_of(findings: Iterable[Finding], zone: ZoneInfo | None, today: date) -> dict[date, Mark]:
    """The days that findings call unusual, as dates of a zone. A silence counts before a spike.

    A retry loop is unusual on each of its days, and an open silence goes on today.
    """
    marks: dict[date, Mark] = {}
    for finding in findings:
        first = finding.begins_at.astimezone(zone or UTC).date()
        # The end is that of the last unusual hour.
        last = (finding.ends_at - _MOMENT).astimezone(zone or UTC).date()
        if finding.kind in _SPIKES:
            usual = finding.usual.typical if finding.usual else 0
            text = f"{finding.observed / usual:.1f}\N{MULTIPLICATION SIGN}" if usual else ""
            marks.setdefault(last, Mark("spike", text))
            if finding.kind is Kind.RETRY_LOOP:
                for day_ in _days(first, last - _DAY):
                    marks.setdefault(day_, Mark("spike", ""))
        elif finding.kind is Kind.SILENCE and not finding.observed:
            last = today if finding.status == "open" else last
            marks |= dict.fromkeys(_days(first, last), Mark("silent", ""))
    return marks


def _days(first: date, last: date) -> list[date]:
    """The days from the first to the last, at most as many as are marked."""
    return [first + place * _DAY for place in range(min((last - first).days + 1, _MOST_MARKED))]


_WORDS = {"spike": "a spike", "silent": "silence"}
