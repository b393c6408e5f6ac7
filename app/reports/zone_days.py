"""Days of a time zone, summed up from hourly_issuance by the database.

A row has the tokens of a UTC date and of its distance to a day of the zone: 0, or a day before or
after. So a year is at most 732 rows, and no date is calculated in SQL.
"""

from collections.abc import Iterable, Sequence
from datetime import date
from itertools import pairwise
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Select

from app.reports.base import TENANT, total
from app.reports.days import Days
from app.storage.tables import hourly_issuance

_DAY_HOURS, _HALF_DAY = 24, 12


class Offset(NamedTuple):
    """The whole hours that a zone is ahead of UTC, from the hour with the number ``begin`` on."""

    begin: int
    ahead: int


def offsets(days: Days) -> list[Offset]:
    """The offsets of a zone on some days, in order.

    Where the clock is changed within a day, the new offset begins in the middle of that day. So
    its first hour is of the same day by both, and each hour is of the right day.
    """
    found: list[Offset] = []
    ordinal = days.first.toordinal()
    for place, (begin, _) in enumerate(pairwise(days.begins)):
        ahead = (ordinal + place) * _DAY_HOURS - begin
        if not found:
            found.append(Offset(begin, ahead))
        elif found[-1].ahead != ahead:
            found.append(Offset(min(days.begins[place - 1] + _HALF_DAY, begin), ahead))
    return found


def parameters(pieces: Sequence[Offset]) -> dict[str, Any]:
    """The parameters of :func:`zone_days` for these offsets."""
    values: dict[str, Any] = {}
    for number, (begin, ahead) in enumerate(pieces):
        day, hour = divmod(begin, _DAY_HOURS)
        values[f"ahead_{number}"] = ahead
        if number:
            values |= {f"day_{number}": date.fromordinal(day), f"hour_{number}": hour}
    return values


def zone_days(count: int) -> Select[*tuple[Any, ...]]:
    """The tokens between two UTC dates: ``date``, ``shift`` to the day of the zone, ``issued``.

    Args:
        count: the number of offsets, at least one.
    """
    hour = hourly_issuance.c
    first, last = sa.bindparam("first", type_=sa.Date), sa.bindparam("last", type_=sa.Date)
    changes = [(_from(number), _ahead(number)) for number in range(count - 1, 0, -1)]
    ahead = sa.case(*changes, else_=_ahead(0)) if changes else _ahead(0)
    hours = (
        sa.select(hour.date, (hour.hour + ahead).label("local"), hour.issued)
        .where(hour.tenant_id == TENANT, hour.date.between(first, last))
        .subquery("hours")
    )
    shift = sa.case((hours.c.local >= _DAY_HOURS, 1), (hours.c.local < 0, -1), else_=0)
    parts = sa.select(hours.c.date, shift.label("shift"), hours.c.issued).subquery("parts").c
    return sa.select(parts.date, parts.shift, total(parts.issued).label("issued")).group_by(
        parts.date, parts.shift
    )


def by_day(rows: Iterable[tuple[date, int, int]], days: Iterable[date]) -> dict[date, int]:
    """The tokens of each of the days, from rows of ``date``, ``shift`` and ``issued``."""
    counts = {day.toordinal(): 0 for day in days}
    for utc_date, shift, issued in rows:
        day = utc_date.toordinal() + shift
        if day in counts:
            counts[day] += issued
    return {date.fromordinal(day): count for day, count in counts.items()}


def _from(number: int) -> sa.ColumnElement[bool]:
    hour = hourly_issuance.c
    day = sa.bindparam(f"day_{number}", type_=sa.Date)
    begin = sa.bindparam(f"hour_{number}", type_=sa.Integer)
    return sa.or_(hour.date > day, sa.and_(hour.date == day, hour.hour >= begin))


def _ahead(number: int) -> sa.ColumnElement[int]:
    return sa.bindparam(f"ahead_{number}", type_=sa.Integer)
