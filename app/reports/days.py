"""Days of a report: calendar days in UTC or in a time zone, as ranges of UTC hours.

The summary tables count whole UTC hours. Where a zone's offset is not of whole hours, a day begins
at the first UTC hour after its midnight. An hour is given as its number: the hours since the
beginning of the calendar, in UTC.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import NamedTuple
from zoneinfo import ZoneInfo

_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)
_LAST = date.max.toordinal()
_END = (_LAST + 1) * 24  # no instant after it can be represented


class Offset(NamedTuple):
    """From a UTC hour on, a zone's clock is ``hours`` ahead, rounded down to whole hours."""

    number: int
    hours: int


class LocalHour(NamedTuple):
    """A UTC hour and its beginning on the clock of a zone."""

    number: int
    begin: datetime


@dataclass(frozen=True)
class Days:
    """The days from ``first`` to ``last``, both included; in UTC without a zone."""

    first: date
    last: date
    zone: ZoneInfo | None = None

    def __len__(self) -> int:
        return (self.last - self.first).days + 1

    def __iter__(self) -> Iterator[date]:
        ordinals = range(self.first.toordinal(), self.last.toordinal() + 1)
        return map(date.fromordinal, ordinals)

    @cached_property
    def begins(self) -> list[int]:
        """The first hour of each day, and after these the end of the last day.

        A day has 24 hours, but where the zone's clock is changed. A day that the zone skipped has
        none.
        """
        ordinals = range(self.first.toordinal(), self.last.toordinal() + 2)
        if self.zone is None:
            return [ordinal * 24 for ordinal in ordinals]
        return [_begin(ordinal, self.zone) for ordinal in ordinals]

    @property
    def begin(self) -> int:
        return self.begins[0]

    @property
    def end(self) -> int:
        """The first hour after the days."""
        return self.begins[-1]

    @cached_property
    def are_utc(self) -> bool:
        """Whether each day is a UTC day, as in UTC itself."""
        return self.zone is None or not any(begin % 24 for begin in self.begins)

    @property
    def utc_first(self) -> date:
        """The UTC day in which the days begin."""
        return date.fromordinal(self.begin // 24)

    @property
    def utc_last(self) -> date:
        """The UTC day in which the days end."""
        return date.fromordinal(max(self.end - 1, self.begin) // 24)

    @property
    def before(self) -> "Days":
        """As many days, before these."""
        return Days(self.first - len(self) * _DAY, self.first - _DAY, self.zone)

    def leading(self, count: int) -> "Days":
        """The first ``count`` of the days, at least one."""
        return Days(self.first, self.first + (count - 1) * _DAY, self.zone)

    def whole(self, counted_at: datetime | None) -> int:
        """How many of the days are wholly counted, if all up to ``counted_at`` is counted."""
        if counted_at is None:
            return 0
        counted = hour_of(counted_at)
        return sum(end <= counted for end in self.begins[1:])

    def hours(self) -> Iterator[LocalHour]:
        """Every hour of the days, with its beginning in the zone."""
        begin = instant_of(self.begin)
        for passed, number in enumerate(range(self.begin, self.end)):
            hour = begin + passed * _HOUR
            yield LocalHour(number, hour.astimezone(self.zone) if self.zone else hour)

    def first_from(self, utc_day: date) -> date:
        """The first day of the zone that begins with this UTC day or later."""
        if self.zone is None or _begin(utc_day.toordinal(), self.zone) >= utc_day.toordinal() * 24:
            return utc_day
        return utc_day + _DAY


def offsets(begin: int, end: int, zone: ZoneInfo | None) -> list[Offset]:
    """The offsets of a zone from one hour to another: the first one, and each change."""
    found = [Offset(begin, _ahead(begin, zone))]
    for day in range(begin, end, 24):
        # A zone does not change its clock twice within a day.
        if _ahead(min(day + 24, end) - 1, zone) != found[-1].hours:
            hours = range(day, min(day + 24, end))
            changed = next(hour for hour in hours if _ahead(hour, zone) != found[-1].hours)
            found.append(Offset(changed, _ahead(changed, zone)))
    return found


def _ahead(number: int, zone: ZoneInfo | None) -> int:
    offset = instant_of(number).astimezone(zone).utcoffset() if zone else None
    return (offset or timedelta(0)) // _HOUR


def hour_number(day: date, hour: int) -> int:
    """The number of an hour of a UTC day."""
    return day.toordinal() * 24 + hour


def hour_of(instant: datetime) -> int:
    """The number of the hour that an instant lies in."""
    utc = instant.astimezone(UTC)
    return hour_number(utc.date(), utc.hour)


def instant_of(number: int) -> datetime:
    """The beginning of an hour, in UTC."""
    day, hour = divmod(number, 24)
    return datetime.combine(date.fromordinal(day), datetime.min.time(), UTC) + hour * _HOUR


def _begin(ordinal: int, zone: ZoneInfo) -> int:
    """The first hour of a day, which is given by its ordinal."""
    day = date.fromordinal(min(ordinal, _LAST))
    # A midnight that the clock skips has the offset before the change, and one that comes twice
    # has the earlier one. So this is the first instant of the day in both cases.
    ahead = datetime(day.year, day.month, day.day, tzinfo=zone).utcoffset() or timedelta(0)
    return min(ordinal * 24 - ahead // _HOUR, _END)
