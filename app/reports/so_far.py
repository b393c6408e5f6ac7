"""Today so far, beside the tokens that are usual up to the same hour.

The database sums up today's hours, and the same hours of the days that today is compared with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy import Select

from app.reports.base import TENANT, total
from app.reports.days import Days, hour_of, instant_of
from app.reports.usual_days import WEEKS, days_like, usual
from app.storage.tables import hourly_issuance

_DAY_HOURS = 24
_COUNT = WEEKS + 1  # today, and the days that it is compared with


class Window(NamedTuple):
    """Hours of a day from its beginning on; given by their numbers, half-open."""

    day: date
    begin: int
    end: int


class SoFar(NamedTuple):
    """Today's tokens, the usual ones, and the beginning of the first hour that is left out."""

    tokens: int
    usual: int
    until: datetime

    @property
    def change(self) -> float | None:
        """How far today differs from the usual, as a share of the usual."""
        return (self.tokens - self.usual) / self.usual if self.usual else None


@dataclass(frozen=True)
class Known:
    """What is known of the hours: those from UTC day ``first`` on, up to hour ``counted``.

    ``began``: the first day with a token. It may not be whole.
    """

    first: date | None
    began: date | None
    counted: int


def windows(today: date, zone: ZoneInfo | None, settled: datetime) -> list[Window]:
    """The windows of today and of the days like it, newest first.

    They end before the hour of ``settled``; so they are empty in the first hour of a day.
    """
    found: list[Window] = []
    for day in (today, *days_like(today)):
        own = Days(day, day, zone)
        passed = found[0].end - found[0].begin if found else hour_of(settled) - own.begin
        found.append(Window(day, own.begin, min(own.begin + max(passed, 0), own.end)))
    return found


def parameters(found: Sequence[Window]) -> dict[str, Any]:
    """The parameters of :func:`window_sums`."""
    values: dict[str, Any] = {"oldest": instant_of(found[-1].begin).date()}
    for number, window in enumerate(found):
        for name, hour in (("begin", window.begin), ("end", window.end)):
            day, of_day = divmod(hour, _DAY_HOURS)
            values |= {f"{name}_day_{number}": date.fromordinal(day), f"{name}_{number}": of_day}
    return values


def window_sums() -> Select[*tuple[Any, ...]]:
    """The tokens of each window that has any: ``place`` of the window, and ``issued``."""
    hour = hourly_issuance.c
    place = sa.case(*((_within(number), number) for number in range(_COUNT)))
    oldest = sa.bindparam("oldest", type_=sa.Date)
    newest = sa.bindparam("end_day_0", type_=sa.Date)
    found = (
        sa.select(place.label("place"), hour.issued)
        .where(hour.tenant_id == TENANT, hour.date.between(oldest, newest))
        .subquery("windows")
    ).c
    return (
        sa.select(found.place, total(found.issued).label("issued"))
        .where(found.place.is_not(None))
        .group_by(found.place)
    )


def so_far(found: Sequence[Window], sums: Mapping[int, int], known: Known) -> SoFar | None:
    """Today beside the usual; ``None`` if too little is known."""
    today = found[0]
    if today.begin == today.end or known.counted < today.end or known.began is None:
        return None
    first = None if known.first is None else known.first.toordinal() * _DAY_HOURS
    typical = usual(
        sums.get(place, 0)
        for place, window in enumerate(found)
        if place and window.day > known.began and (first is None or window.begin >= first)
    )
    if typical is None:
        return None
    return SoFar(sums.get(0, 0), typical, instant_of(today.end))


def _within(number: int) -> sa.ColumnElement[bool]:
    hour = hourly_issuance.c
    begin_day, end_day = (
        sa.bindparam(f"{name}_day_{number}", type_=sa.Date) for name in ("begin", "end")
    )
    begin, end = (sa.bindparam(f"{name}_{number}", type_=sa.Integer) for name in ("begin", "end"))
    return sa.and_(
        sa.or_(hour.date > begin_day, sa.and_(hour.date == begin_day, hour.hour >= begin)),
        sa.or_(hour.date < end_day, sa.and_(hour.date == end_day, hour.hour < end)),
    )
