"""Week card: the heatmap of the hours of the week, with its legend and the facts beside it."""

from dataclasses import dataclass
from datetime import datetime, time, timedelta

from app.reports.activity import STEPS, Cell, Facts, Week
from app.web.pages.charts import short
from app.web.pages.filters import Filters
from app.web.pages.formatting import hours, number, weekday_name

_MINUTE, _HOUR = timedelta(minutes=1), timedelta(hours=1)
_BARS = 12  # heights of the totals of the hours
_DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class WeekCard:
    """The card of the week.

    ``minute``: the minute in which the hours of the zone begin. ``days``: the abbreviated name, the
    cells, the total and its length in percent, of each day from Monday on. ``hour_totals``: the
    total of each hour and its height, 0 to _BARS. ``steps``: the label of each shade.
    """

    week: Week
    minute: int
    days: list[tuple[str, list[Cell], int, float]]
    hour_totals: list[tuple[int, int]]
    steps: list[str]

    @property
    def facts(self) -> Facts | None:
        return self.week.facts

    def text(self, cell: Cell) -> str:
        """What a cell says: ``Mon 10-11: 1,914``, with an en dash."""
        count = number(cell.count) if cell.is_known else _DASH
        return f"{weekday_name(cell.dow)[:3]} {self.at(cell.hour)}: {count}"

    def at(self, hour: int) -> str:
        """An hour in few characters: where it does not begin at :00, its beginning alone."""
        return f"{hour}:{self.minute:02}" if self.minute else hours(hour)

    def named(self, cell: Cell, count: int = 1) -> str:
        """Some hours in words: ``Monday 10-11``, with an en dash."""
        return f"{weekday_name(cell.dow)} {hours(cell.hour, count, self.minute)}"


def week_card(filters: Filters, week: Week) -> WeekCard:
    """The card of the week."""
    most = max(week.totals, default=0) or 1
    highest = max(week.hour_totals, default=0) or 1
    used = max((cell.step for row in week.rows for cell in row), default=0)
    return WeekCard(
        week,
        _minute(filters),
        [
            (weekday_name(row[0].dow)[:3], row, count, 100 * count / most)
            for row, count in zip(week.rows, week.totals, strict=True)
        ],
        [(count, -(-_BARS * count // highest)) for count in week.hour_totals],
        ["none", *(_label(step, week.size) for step in range(1, used + 1))],
    )


def _minute(filters: Filters) -> int:
    """The minute in which the UTC hours begin on the zone's clock, at the end of the range."""
    noon = datetime.combine(filters.days.last, time(12), filters.days.zone)
    return ((noon.utcoffset() or timedelta(0)) % _HOUR) // _MINUTE


def _label(step: int, size: int) -> str:
    if step < STEPS or size == 1:
        return f"to {short(step * size)}"
    return f"over {short((step - 1) * size)}"
