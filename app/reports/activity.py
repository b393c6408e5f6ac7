"""Activity: tokens by hour of the week, with the busiest hours and the shades of the heatmap.

The first half reads dow_hour_total, or dow_hour_activity for some months, or hourly_issuance for
some days. The second half is arithmetic, without SQL and HTML.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection, Select

from app.dates import months_back
from app.reports.base import TENANT, Count, Point, Report, read_report, with_state
from app.reports.finer import Span
from app.reports.hours import hours_of
from app.storage.tables import dow_hour_activity, dow_hour_total


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
    hours = hours_of(connection, tenant_id, span)
    cells: Counter[tuple[int, int]] = Counter()
    for (_, begin), count in hours.with_labels():
        cells[begin.isoweekday() % 7, begin.hour] += count
    points = [HourCount(*cell, count) for cell, count in sorted(cells.items()) if count]
    return Report(points, hours.counted_at)


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


PEAKS = 5
LEVELS = 10  # shades of the heatmap; 0 is for cells without tokens
_WEEK_HOURS = 7 * 24


@dataclass(frozen=True)
class Cell:
    """An hour of the week; ``dow`` 0 is Sunday. ``heat`` is 0 without tokens, 9 for the most."""

    dow: int
    hour: int
    count: int
    heat: int


@dataclass(frozen=True)
class Week:
    """The 168 hours of the week, from Monday on, in a zone ``offset`` hours ahead of UTC."""

    rows: list[list[Cell]]
    peaks: list[Cell]
    total: int
    weekend: int
    offset: int

    @property
    def weekend_share(self) -> float:
        return self.weekend / self.total if self.total else 0.0


def week(points: Iterable[HourCount], offset: int = 0) -> Week:
    """The heatmap in a zone that is ``offset`` whole hours ahead of UTC."""
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


def zone_minutes(zone: ZoneInfo | None, now: datetime) -> int:
    """The minutes that a zone is ahead of UTC at ``now``; 0 without a zone."""
    ahead = now.astimezone(zone or UTC).utcoffset() or timedelta(0)
    return ahead // timedelta(minutes=1)


def whole_hours(minutes: int) -> int:
    """Minutes as hours; 0 if they are not whole hours, because a UTC hour cannot be divided."""
    return 0 if minutes % 60 else minutes // 60
