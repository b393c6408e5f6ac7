"""Overview: the tokens of each day of a page, of the year before, and of today so far.

One statement reads them all. The rest is arithmetic, without SQL and HTML.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy import Connection

from app.reports.base import TENANT, read_with_totals, with_state
from app.reports.days import Days, hour_number, hour_of, instant_of
from app.reports.findings import Period
from app.reports.finer import Span, complete_from, completeness, first_readable
from app.reports.so_far import Known, SoFar, Window, so_far, window_sums, windows
from app.reports.so_far import parameters as window_parameters
from app.reports.trend import DayCount, first_day
from app.reports.usual_days import WEEKS, usual_of, usual_weekday, usual_weekend_day
from app.reports.zone_days import by_day, offsets, zone_days
from app.reports.zone_days import parameters as offset_parameters
from app.storage.driver import Reading
from app.storage.tables import daily_issuance, hourly_issuance, rollup_state
from app.storage.types import as_utc

_FIRST_HOUR = hour_number(date(1970, 1, 1), 0)
_DAYS, _TODAY = 0, 1  # the kinds of rows
_YEAR_WEEKS = 52  # of the calendar, before the week of the last day
_DAY, _WEEK = timedelta(days=1), timedelta(weeks=1)
# At most this part of the usual is a silent day, where so many tokens are usual.
_SILENT, _LEAST = 0.1, 20
# At least so many times the usual is a spike, on another day of a spike than the first.
_SPIKE = 2
_MOST_SPIKE_DAYS = timedelta(days=60)
_MOMENT = timedelta(microseconds=1)


@dataclass(frozen=True)
class Overview:
    """The days of a page, in its zone.

    Attributes:
        days: the days that can be read: all that were asked for, or the last ones, or none.
        compared: the days to compare with; ``None`` if nothing is compared.
        before: their tokens, if all of them can be read and follow the first day with a token.
        whole: how many of ``days`` are counted to their end, from the first one on.
        counted: how many of them have begun by the end of the last run.
        year: the counted days of the calendar.
        counts: the tokens of each day that was read and is counted to its end.
        usual: the usual tokens of each day of ``days``.
        weekday, weekend_day: the usual tokens of such days, in 8 weeks up to the last whole day.
        began: the first day with a token; ``None`` if there is none.
        today: the tokens of today; ``None`` if it is not one of the days.
        today_usual: those of a usual day like it.
        so_far: today beside the usual up to the same hour.
    """

    days: list[DayCount]
    compared: Days | None
    before: list[DayCount] | None
    whole: int
    counted: int
    year: list[DayCount]
    counts: Mapping[date, int]
    usual: Mapping[date, int | None]
    weekday: int | None
    weekend_day: int | None
    began: date | None
    today: int | None
    today_usual: int | None
    so_far: SoFar | None
    counted_at: datetime | None

    @property
    def total(self) -> int:
        return _sum(self.days)

    @property
    def whole_total(self) -> int:
        return _sum(self.days[: self.whole])

    @property
    def before_total(self) -> int | None:
        """The tokens on the compared days of the whole days; ``None`` without comparison."""
        return _sum(self.before[: self.whole]) if self.before and self.whole else None

    @property
    def change(self) -> float | None:
        """The growth of the whole days; ``None`` if there is nothing to compare."""
        before = self.before_total
        return (self.whole_total - before) / before if before else None

    @property
    def highest(self) -> DayCount | None:
        """The first day with the most tokens."""
        return max(self.days, key=lambda point: point.count, default=None)

    def spikes(self, periods: Iterable[Period], zone: ZoneInfo | None) -> dict[date, float | None]:
        """The days of spikes, with their tokens in usual days; ``None`` where none is usual.

        A period that goes on may have days that are no spikes. A retry loop may be none at all.
        """
        known = {point.date: point.count for point in [*self.year, *self.days]}
        found: dict[date, float | None] = {}
        for period in periods:
            first, last = (
                moment.astimezone(zone or UTC).date()
                for moment in (period.begins_at, period.ends_at - _MOMENT)
            )
            for day in Days(first, min(last, first + _MOST_SPIKE_DAYS)):
                if day not in known:
                    continue
                typical = usual_of(day, self.counts, self.began)
                times = known[day] / typical if typical else None
                if (period.is_shared and day == first) or (times or 0) >= _SPIKE:
                    found[day] = times
        return found

    @property
    def silent(self) -> set[date]:
        """The whole days with hardly any of their usual tokens."""
        return {
            point.date
            for point in self.days[: self.whole]
            if (typical := self.usual[point.date]) is not None
            and typical >= _LEAST
            and point.count <= _SILENT * typical
        }


def overview(  # noqa: PLR0913 - whose days, which, and when
    connection: Connection,
    tenant_id: str,
    span: Span,
    compared: Days | None,
    *,
    today: date,
    settled: datetime,
) -> Overview:
    """The days of a page. Days that are not kept, or not complete yet, are left out.

    Args:
        compared: as many days, to compare with.
        today: in the zone of the days.
        settled: today is compared up to the hour of this instant, which a run has passed already
            if runs are punctual.

    Raises:
        UnavailableError: the state row is missing.
    """
    days = span.days
    read = _days_to_read(span, compared)
    found = windows(today, days.zone, settled) if days.first <= today <= days.last else []
    pieces = [] if read.are_utc else offsets(read)
    statement = _statement(len(pieces), has_today=bool(found))
    values: dict[str, Any] = {
        "tenant_id": tenant_id,
        "first": read.utc_first,
        "checked_from": max(filter(None, (read.utc_first, span.kept.hours))),
        "last": read.utc_last,
        **offset_parameters(pieces),
        **(window_parameters(found) if found else {}),
    }
    state, rows = read_with_totals(connection, statement, **values)
    first = first_readable(Span(read, span.kept), hourly_issuance, state) if pieces else read.first
    counts = by_day((row[2:5] for row in rows if row[1] == _DAYS), _since(first, read))
    began = _began(counts, state[-3])
    counted_at = as_utc(state[0])
    hours_from = max(filter(None, (span.kept.hours, complete_from(state))), default=None)
    known = Known(hours_from, began, hour_of(counted_at) if counted_at else 0)
    sums = {row[3]: row[4] for row in rows if row[1] == _TODAY}
    return _made(days, compared, counts, known, counted_at, (today, found, sums))


def _days_to_read(span: Span, compared: Days | None) -> Days:
    """All days that the page shows, or compares with, as far as they are kept."""
    days = span.days
    first = min(
        days.first - WEEKS * _WEEK,
        year_first(days.last) - WEEKS * _WEEK,
        days.first if compared is None else compared.first,
    )
    read = Days(first, days.last, days.zone)
    if span.kept.hours is None or read.are_utc:
        return read
    return Days(min(max(first, read.first_from(span.kept.hours)), days.last), days.last, days.zone)


def year_first(last: date) -> date:
    """The first day of the calendar that ends with a day: a Monday."""
    return last - timedelta(days=last.weekday()) - _YEAR_WEEKS * _WEEK


def _since(first: date, days: Days) -> list[date]:
    return [day for day in days if day >= first]


def _began(counts: Mapping[date, int], began: date | None) -> date | None:
    """The first day with a token: among the days that were read, as their zone has it.

    Args:
        began: the UTC day.
    """
    if began is None or not counts or began < next(iter(counts)) - _DAY:
        return began
    return next((day for day, count in counts.items() if count), began)


def _made(  # noqa: PLR0913, PLR0917 - all that was read
    days: Days,
    compared: Days | None,
    counts: Mapping[date, int],
    known: Known,
    counted_at: datetime | None,
    today: tuple[date, Sequence[Window], Mapping[int, int]],
) -> Overview:
    this_day, found, sums = today
    shown = [DayCount(day, counts[day]) for day in days if day in counts]
    begins = days.begins[len(days) - len(shown) :]
    whole = sum(end <= known.counted for end in begins[1:])
    # A day that is not counted to its end does not tell what is usual.
    through = min(days.last, _whole_until(known.counted, days))
    of_whole = {day: count for day, count in counts.items() if day <= through}
    return Overview(
        days=shown,
        compared=compared,
        before=_before(compared, counts, known, len(shown)),
        whole=whole,
        counted=sum(begin <= known.counted for begin in begins[:-1]),
        year=_year(days, counts, known),
        counts=of_whole,
        usual={point.date: usual_of(point.date, of_whole, known.began) for point in shown},
        weekday=usual_weekday(through, of_whole, known.began),
        weekend_day=usual_weekend_day(through, of_whole, known.began),
        began=known.began,
        today=counts.get(this_day) if found else None,
        today_usual=usual_of(this_day, of_whole, known.began) if found else None,
        so_far=so_far(found, sums, known) if found else None,
        counted_at=counted_at,
    )


def _whole_until(counted: int, days: Days) -> date:
    """The last day of the zone that is counted to its end."""
    hour = instant_of(max(counted, _FIRST_HOUR))
    return (hour.astimezone(days.zone) if days.zone else hour).date() - _DAY


def _before(
    compared: Days | None, counts: Mapping[date, int], known: Known, shown: int
) -> list[DayCount] | None:
    """The compared days, if each of them is whole and known."""
    if compared is None or known.began is None or len(compared) != shown:
        return None
    if compared.first <= known.began or compared.first not in counts:
        return None
    if compared.end > known.counted:
        return None
    return [DayCount(day, counts[day]) for day in compared]


def _year(days: Days, counts: Mapping[date, int], known: Known) -> list[DayCount]:
    """The days of the calendar that have begun by the last run, since the first with a token."""
    if known.began is None:
        return []
    first = max(year_first(days.last), known.began)
    calendar = Days(min(first, days.last), days.last, days.zone)
    return [
        DayCount(day, counts[day])
        for day, begin in zip(calendar, calendar.begins, strict=False)
        if day >= first and day in counts and begin <= known.counted
    ]


def _sum(points: Sequence[DayCount]) -> int:
    return sum(point.count for point in points)


@cache
def _statement(pieces: int, *, has_today: bool) -> Reading:
    """Days, and today so far. Without offsets the days are those of UTC."""
    days = zone_days(pieces) if pieces else _utc_days()
    found = days.subquery("days").c
    rows: Any = sa.select(
        sa.literal(_DAYS).label("kind"), found.date, found.shift, found.issued.label("issued")
    )
    if has_today:
        window = window_sums().subquery("so_far").c
        nothing = sa.type_coerce(sa.null(), sa.Date).label("date")
        of_today = sa.select(sa.literal(_TODAY).label("kind"), nothing, window.place, window.issued)
        rows = sa.select(sa.union_all(rows, of_today).subquery("both"))
    first = first_day().subquery("first")
    totals = sa.select(first.c.began, *completeness(hourly_issuance))
    return with_state(rows, "kind", totals=totals.join_from(rollup_state, first, sa.true()))


def _utc_days() -> sa.Select[*tuple[Any, ...]]:
    day = daily_issuance.c
    first, last = sa.bindparam("first", type_=sa.Date), sa.bindparam("last", type_=sa.Date)
    return sa.select(day.date, sa.literal(0).label("shift"), day.issued).where(
        day.tenant_id == TENANT, day.date.between(first, last)
    )
