"""Activity: tokens by hour of the week, with the shades of the heatmap and what it says in words.

The first half reads dow_hour_total, or dow_hour_activity for some months, or hourly_issuance for
some days. The second half is arithmetic, without SQL and HTML.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache
from typing import Annotated, Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection, Select

from app.dates import months_back
from app.errors import UnavailableError, ValidationError
from app.reports.base import TENANT, Count, Point, Report, read_report, total, with_state
from app.reports.days import Days, hour_number, hour_of, instant_of, offsets
from app.reports.finer import Span, can_be_read, read_finer, with_finer_state
from app.storage.driver import Reading
from app.storage.tables import dow_hour_activity, dow_hour_total, hourly_issuance
from app.storage.types import as_utc

_WEEK_HOURS = 7 * 24
_NO_DAYS = Days(date(1970, 1, 2), date(1970, 1, 1))


class HourCount(Point, frozen=True):
    """Tokens issued in one cell of the week; ``dow`` 0 is Sunday."""

    dow: Annotated[int, msgspec.Meta(ge=0, le=6)]
    hour: Annotated[int, msgspec.Meta(ge=0, le=23)]
    count: Count


def agent_activity(
    connection: Connection, tenant_id: str, *, last: date, months: int | None
) -> Report[HourCount]:
    """Tokens by day of the week and hour, in that order, without empty cells.

    Args:
        last: the last month, by its first day.
        months: how many months to read; ``None`` for all recorded activity.
    """
    if months is None:
        found = read_report(connection, _ACTIVITY, tenant_id=tenant_id)
    else:
        first = months_back(last, months - 1)
        found = read_report(
            connection, _RECENT_ACTIVITY, tenant_id=tenant_id, first=first, last=last
        )
    points = [HourCount(dow, hour, count) for _, dow, hour, count in found.points]
    return Report(points, found.counted_at)


def activity_of_days(connection: Connection, tenant_id: str, span: Span) -> Report[HourCount]:
    """As :func:`agent_activity`, for some days, in their zone.

    Raises:
        ValidationError, UnavailableError: see :func:`~app.reports.finer.read_finer`.
    """
    state, rows = _read_days(connection, tenant_id, span, None)
    points = [HourCount(cell // 24, cell % 24, count) for _, cell, count, *_ in rows]
    return Report(points, as_utc(state[0]))


def _read_days(
    connection: Connection, tenant_id: str, span: Span, compared: Days | None
) -> tuple[Sequence[Any], list[Any]]:
    """The tokens of each hour of the week of the days, and of two parts of the compared days."""
    days, zone = span.days, span.days.zone
    other = compared if compared is not None else _NO_DAYS
    begin = days.begin if compared is None else min(days.begin, compared.begin)
    found = offsets(begin, days.end, zone)
    changes = [instant_of(change.number) for change in found]
    values: dict[str, Any] = {
        "tenant_id": tenant_id,
        "offset_0": found[0].hours,
        **_edges("", days),
        **_edges("other_", other),
    }
    for number, (change, at) in enumerate(zip(found[1:], changes[1:], strict=True), 1):
        values |= {f"offset_{number}": change.hours}
        values |= {f"changed_{number}": at.date(), f"changed_hour_{number}": at.hour}
    statement, checked = _days_cells(len(found) - 1), instant_of(begin).date()
    return read_finer(connection, statement, hourly_issuance, span, checked_from=checked, **values)


def _edges(prefix: str, days: Days) -> dict[str, Any]:
    """The first and last UTC day, the hour in which the days begin, and the one they end before."""
    first, last = days.utc_first, days.utc_last
    return {
        f"{prefix}first": first,
        f"{prefix}last": last if days.begin < days.end else first - timedelta(days=1),
        f"{prefix}first_hour": days.begin - hour_number(first, 0),
        f"{prefix}last_hour": days.end - hour_number(last, 0),
    }


@cache
def _days_cells(changes: int) -> Reading:
    """The statement for a zone that changes its clock so many times.

    Its numbers are hours of the week from Sunday on, and of the compared days -1 for the weekend
    and -2 for all other hours.
    """
    hour = hourly_issuance.c

    def bind(name: str, type_: Any = sa.Integer) -> sa.BindParameter[Any]:
        return sa.bindparam(name, type_=type_)

    def is_from(number: int) -> sa.ColumnElement[bool]:
        changed = bind(f"changed_{number}", sa.Date)
        is_later = hour.hour >= bind(f"changed_hour_{number}")
        return sa.or_(hour.date > changed, sa.and_(hour.date == changed, is_later))

    offset: Any = bind("offset_0")
    if changes:
        later = [(is_from(number), bind(f"offset_{number}")) for number in range(changes, 0, -1)]
        offset = sa.case(*later, else_=offset)
    dow = sa.cast(sa.extract("dow", hour.date), sa.Integer)
    cell = (dow * 24 + hour.hour + offset + _WEEK_HOURS) % _WEEK_HOURS
    is_weekend = sa.or_(cell < 24, cell >= 6 * 24)

    def sums(prefix: str, place: sa.ColumnElement[Any]) -> Select[*tuple[Any, ...]]:
        first, last = bind(f"{prefix}first", sa.Date), bind(f"{prefix}last", sa.Date)
        rows = (
            sa.select(place.label("cell"), hour.issued)
            .where(
                hour.tenant_id == TENANT,
                hour.date.between(first, last),
                sa.or_(hour.date > first, hour.hour >= bind(f"{prefix}first_hour")),
                sa.or_(hour.date < last, hour.hour < bind(f"{prefix}last_hour")),
                hour.issued > 0,
            )
            .subquery()
            .c
        )
        return sa.select(rows.cell, total(rows.issued).label("issued")).group_by(rows.cell)

    other = sa.case((is_weekend, -1), else_=-2)
    both = sa.union_all(sums("", cell), sums("other_", other)).subquery("cells")
    return with_finer_state(hourly_issuance, sa.select(both), "cell")


def _cells() -> Select[*tuple[Any, ...]]:
    cell = dow_hour_total.c
    return sa.select(cell.dow, cell.hour, cell.issued).where(
        cell.tenant_id == TENANT, cell.issued > 0
    )


def _recent_cells() -> Select[*tuple[Any, ...]]:
    cell = dow_hour_activity.c
    first, last = sa.bindparam("first", type_=sa.Date), sa.bindparam("last", type_=sa.Date)
    # On PostgreSQL the sum of big integers is a decimal; the cast keeps it an integer.
    total = sa.cast(sa.func.sum(cell.issued), sa.BigInteger).label("issued")
    return (
        sa.select(cell.dow, cell.hour, total)
        .where(cell.tenant_id == TENANT, cell.month.between(first, last))
        .group_by(cell.dow, cell.hour)
        .having(sa.func.sum(cell.issued) > 0)
    )


_ACTIVITY = with_state(_cells(), "dow", "hour")
_RECENT_ACTIVITY = with_state(_recent_cells(), "dow", "hour")


STEPS = 6  # shades of the heatmap; 0 is for hours without tokens
OFFICE = range(8, 18)
_ROUND = (1, 1.2, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9)


@dataclass(frozen=True)
class Cell:
    """An hour of the week; ``dow`` 0 is Sunday.

    ``times``: how often it was in the days, counted wholly. ``step``: its shade, 0 to STEPS.
    """

    dow: int
    hour: int
    count: int
    times: int
    step: int

    @property
    def is_known(self) -> bool:
        """Whether it was in the days at all, and was counted."""
        return self.times > 0 or self.count > 0

    @property
    def average(self) -> float:
        """The tokens of one such hour, of those that are counted wholly."""
        return self.count / max(self.times, 1)


class Facts(NamedTuple):
    """What a heatmap says in words.

    Hours are compared by their averages, since the days may have more Mondays than Sundays, and
    today is not over. The shares are of all tokens. ``None``: there is no such hour, or no days
    before to compare with. ``maintenance``: the first of the two hours in a row with the fewest
    tokens, and ``maintenance_average`` of both.
    """

    busiest: Cell
    quietest: Cell | None
    office_share: float
    weekend_share: float
    weekend_share_before: float | None
    maintenance: Cell | None
    maintenance_average: float


@dataclass(frozen=True)
class Week:
    """The 168 hours of the week, from Monday on, in the zone of some days.

    ``size``: an hour of shade 2 has more than ``size`` tokens, of shade 3 more than twice as many,
    and so on. ``is_even``: whether each day of the week comes as often. ``problem``: why there are
    no numbers.
    """

    rows: list[list[Cell]]
    size: int = 1
    is_even: bool = True
    facts: Facts | None = None
    problem: str | None = None

    @property
    def totals(self) -> list[int]:
        """The tokens of each day of the week."""
        return [sum(cell.count for cell in row) for row in self.rows]

    @property
    def hour_totals(self) -> list[int]:
        """The tokens of each hour on all days."""
        return [sum(cell.count for cell in hours) for hours in zip(*self.rows, strict=True)]


def week_of_days(
    connection: Connection,
    tenant_id: str,
    span: Span,
    *,
    compared: Days | None = None,
    counted_at: datetime | None = None,
) -> Week:
    """The heatmap of some days, in their zone.

    Args:
        compared: other days, which the share of weekends is compared with.
        counted_at: when the run finished that has counted the days; by default the last one.
    """
    try:
        state, rows = _read_days(connection, tenant_id, span, compared)
    except (ValidationError, UnavailableError) as error:
        return Week([], problem=error.message)
    other = compared
    if other and not can_be_read(Span(other, span.kept), hourly_issuance, state):
        other = None
    counts = {cell: count for _, cell, count, *_ in rows}
    weekend, rest = counts.pop(-1, 0), counts.pop(-2, 0)
    before = weekend / (weekend + rest) if other and weekend + rest else None
    return week(counts, _times(span.days, counted_at or as_utc(state[0])), before)


def week(
    counts: Mapping[int, int], times: Sequence[int], weekend_share_before: float | None = None
) -> Week:
    """The heatmap of the tokens of each hour of the week, from Sunday on.

    Args:
        times: how often each hour was counted wholly.
    """
    size = _round_size(max(counts.values(), default=0))
    cells = []
    for number in range(_WEEK_HOURS):
        count = counts.get(number, 0)
        step = min(-(-count // size), STEPS)
        cells.append(Cell(*divmod(number, 24), count, times[number], step))
    rows = [cells[dow * 24 : dow * 24 + 24] for dow in (1, 2, 3, 4, 5, 6, 0)]
    is_even = len({max(cell.times for cell in row) for row in rows}) == 1
    monday_first = [cell for row in rows for cell in row]
    return Week(rows, size, is_even, _facts(monday_first, weekend_share_before))


def _facts(cells: list[Cell], weekend_share_before: float | None) -> Facts | None:
    whole = sum(cell.count for cell in cells)
    counted = [cell for cell in cells if cell.times]
    if not whole or not counted:
        return None
    workdays = [cell for cell in cells if 1 <= cell.dow <= 5]
    office = sum(cell.count for cell in workdays if cell.hour in OFFICE)
    quiet = min((cell for cell in workdays if cell.times), key=_average, default=None)
    pairs = [
        place
        for place, cell in enumerate(cells)
        if cell.times and cells[(place + 1) % _WEEK_HOURS].times
    ]

    def around(place: int, reach: int) -> float:
        places = range(place - reach, place + 2 + reach)
        return sum(cells[number % _WEEK_HOURS].average for number in places)

    # Of equally quiet hours, those in the middle of a quiet time.
    best = min(pairs, key=lambda place: [around(place, reach) for reach in range(3)], default=None)
    return Facts(
        max(counted, key=_average),
        quiet,
        office / whole,
        1 - sum(cell.count for cell in workdays) / whole,
        weekend_share_before,
        None if best is None else cells[best],
        0.0 if best is None else around(best, 0),
    )


def _average(cell: Cell) -> float:
    return cell.average


def _times(days: Days, counted_at: datetime | None) -> list[int]:
    """How often each hour of the week, from Sunday on, is in the days and counted wholly."""
    times = [0] * _WEEK_HOURS
    end = days.begin if counted_at is None else min(days.end, hour_of(counted_at))
    changes = offsets(days.begin, end, days.zone)
    ends = [change.number for change in changes[1:]] + [end]
    for change, until in zip(changes, ends, strict=True):
        for number in range(change.number, until):
            times[(number + change.hours) % _WEEK_HOURS] += 1  # the first day of all was a Monday
    return times


def _round_size(highest: int) -> int:
    """The smallest round number of tokens with which STEPS shades reach the highest count."""
    unit = 1
    while True:
        for factor in _ROUND:
            size = factor * unit
            if size == int(size) and STEPS * size >= highest:
                return int(size)
        unit *= 10
