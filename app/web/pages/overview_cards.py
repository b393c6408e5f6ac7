"""Cards of the overview: the texts of its tiles, the bars of its days, and its calendar."""

import string
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import groupby

from app.reports.findings import Finding
from app.reports.overview import Overview, year_first
from app.web.pages.charts import Chart
from app.web.pages.day_bars import FEW_BARS, DayBars, Mark
from app.web.pages.filters import DATES, DEFAULT_RANGE, Filters
from app.web.pages.formatting import day, short_day

LEVELS = 6  # shades of the calendar; 0 is for days without tokens
_TIMES = "\N{MULTIPLICATION SIGN}"
_DAY = timedelta(days=1)
# Of the calendar: the distance between two days, their size, and the first one's place.
_PITCH, _LEFT, _TOP = 6, 14, 11
_WEEKS = 53
_DIGITS = string.digits + string.ascii_lowercase
_LABEL_WEEKS = 2  # that a month's name needs
_YEAR_WEEKS = 4  # with the year
_YEAR_COLUMN = 46  # from there on, there is no room for a year

Spikes = Mapping[date, float | None]


def days_chart(overview: Overview, spikes: Spikes, filters: Filters) -> Chart:
    """The days of the range as bars; those of a long range as weeks."""
    marks = {at: Mark("silent", "0") for at in overview.silent}
    marks |= {at: Mark("spike", _times(times)) for at, times in spikes.items()}

    of_day = filters
    if len(overview.days) > FEW_BARS:  # the page would be too large with all in each of the links
        is_named = filters.range != DATES
        of_day = replace(filters, comparison="before")
        of_day = of_day if is_named else replace(of_day, range=DEFAULT_RANGE)

    def address(first: date, last: date) -> str:
        if first == last:
            return of_day.url("day.page", {"day": first})
        return filters.url("dashboard.page", **filters.dates(first, last))

    bars = DayBars(
        overview.days,
        overview.before,
        overview.whole,
        overview.counted,
        filters.today,
        overview.usual,
        marks,
        address,
    )
    return Chart(bars.bars())


def _times(times: float | None) -> str:
    # A burst may be a few hours of a day that is not much higher than usual.
    return f"{times:.1f}{_TIMES}" if times and times >= 1.5 else "▲"


def not_compared(overview: Overview) -> str:
    """Why the tokens of the range are not compared."""
    if overview.compared is None:
        return "not compared"
    if not overview.whole:
        return "no whole day is counted yet"
    if overview.before:
        return "no tokens on the same days before"
    if overview.began is not None and overview.began >= overview.compared.first:
        return f"the first tokens are of {day(overview.began)} {overview.began.year}"
    return "the days before cannot be read"


def cause(finding: Finding) -> tuple[str, str]:
    """The sentence of a finding as what happened, and the cause, or what to check without one."""
    head, _, rest = finding.summary.rstrip(".").partition("; ")
    return head, f"{rest}." if rest else finding.advice.split(" See docs/")[0]


@dataclass(frozen=True)
class MonthName:
    """The name of a month at the top of the calendar; it leads to the month's days."""

    text: str
    column: int
    place: int
    href: str


@dataclass(frozen=True)
class Calendar:
    """Twelve months as a square for each day, from a Monday on.

    ``paths``: for each shade the squares, as thick lines that are dashed. ``dots``: the middles of
    the spikes, which so are marked by more than a colour. ``counts`` are the tokens of each day to
    base 36, separated by spaces, and empty for days that are not known. ``href`` leads to the first
    day; for another one its date is replaced.
    """

    first: date
    total: int
    paths: Mapping[str, str]
    dots: str
    counts: str
    months: list[MonthName]
    href: str


def calendar(overview: Overview, spikes: Spikes, filters: Filters) -> Calendar | None:
    """The calendar up to the last day of the range; ``None`` without a known day."""
    days = overview.year
    if not days:
        return None
    first = year_first(filters.days.last)
    highest = max((point.count for point in days if point.date not in spikes), default=0)
    shades = {
        point.date: "cx" if point.date in spikes else f"c{_level(point.count, highest)}"
        for point in days
    }
    spots = [divmod((at - first).days, 7) for at, shade in shades.items() if shade == "cx"]
    unknown = " " * (days[0].date - first).days
    return Calendar(
        first,
        sum(point.count for point in days),
        _squares(shades, first),
        "".join(
            f"M{_LEFT + _PITCH * column + 2.5} {_TOP + _PITCH * row}h0" for column, row in spots
        ),
        unknown + " ".join(_base36(point.count) for point in days),
        _months(days[0].date, days[-1].date, first, filters),
        filters.url("day.page", {"day": first}),
    )


def _squares(shades: Mapping[date, str], first: date) -> dict[str, str]:
    """For each shade its squares. Those in a row are one dashed line."""
    paths: dict[str, str] = {}
    for row in range(7):
        weeks = (first + (7 * column + row) * _DAY for column in range(_WEEKS))
        for shade, run in groupby(enumerate(weeks), key=lambda one: shades.get(one[1])):
            if shade is not None:
                columns = [column for column, _ in run]
                line = f"M{_x(columns[0])} {_y(row)}h{_PITCH * len(columns) - 1}"
                paths[shade] = paths.get(shade, "") + line
    return dict(sorted(paths.items()))


def _x(column: int) -> int:
    return _LEFT + _PITCH * column


def _y(row: int) -> int:
    return _TOP + _PITCH * row


def _base36(count: int) -> str:
    text = ""
    while True:
        count, digit = divmod(count, 36)
        text = _DIGITS[digit] + text
        if not count:
            return text


def _level(count: int, highest: int) -> int:
    return min(-(-count * LEVELS // highest), LEVELS) if count else 0


def _months(begin: date, end: date, first: date, filters: Filters) -> list[MonthName]:
    """The months that begin where there is room for their names, and the first one if it fits."""
    found: list[MonthName] = []
    days = (begin + number * _DAY for number in range((end - begin).days + 1))
    for month, group in groupby(days, key=lambda one: one.month):
        own = list(group)
        column = (own[0] - first).days // 7 + (own[0].weekday() > 0)
        if found and column - found[-1].column < (
            _YEAR_WEEKS if " " in found[-1].text else _LABEL_WEEKS
        ):
            found.pop()  # the first month, of which there are only some days
        if column <= _WEEKS - _LABEL_WEEKS:
            text = short_day(own[0]).split()[1]
            text += f" {own[0].year}" if (month == 1 or not found) and column < _YEAR_COLUMN else ""
            href = filters.url("dashboard.page", **filters.dates(own[0].replace(day=1), own[-1]))
            found.append(MonthName(text, column, _x(column), href))
    return found
