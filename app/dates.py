"""UTC days, months and instants. Periods are half-open; "now" is always an argument."""

import math
import re
from calendar import monthrange
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# The first and the last month, both included. Each month is given as its first day.
MonthRange = tuple[date, date]

_INSTANT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]+))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)
# The usual form. Python's own parser is five times as fast, and also cuts long fractions.
USUAL = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:Z|\+00:00)"
)
# Files beside the zones: that of the host, and zones that count leap seconds.
_OTHER_ZONE = re.compile(r"(?:right|posix)/.*|localtime|posixrules", re.DOTALL)
_DURATION = re.compile(r"([0-9]{1,9})([smhd]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
MAX_DURATION_SECONDS = 3650 * 86_400
_MONTH = re.compile(r"(19[7-9][0-9]|[2-9][0-9]{3})-(0[1-9]|1[0-2])")
_DAY = re.compile(r"(?:19[7-9][0-9]|[2-9][0-9]{3})-[0-9]{2}-[0-9]{2}")


def utc_now() -> datetime:
    """The current instant in UTC, with its time zone; tests replace this clock."""
    return datetime.now(UTC)


def parse_duration(text: str) -> float:
    """The seconds of a duration such as ``90s``, ``5m``, ``2h`` or ``1d``; without unit, seconds.

    Raises:
        ValueError: it is no duration, or longer than ten years.
    """
    found = _DURATION.fullmatch(text)
    seconds = int(found[1]) * _UNITS[found[2]] if found else math.inf
    if seconds > MAX_DURATION_SECONDS:
        raise ValueError("must be a duration like 90s, 5m, 2h or 1d, of ten years at most")
    return float(seconds)


def parse_zone(name: str) -> ZoneInfo:
    """A time zone of the IANA database.

    Raises:
        ValueError: there is no such zone.
    """
    try:
        return ZoneInfo("" if _OTHER_ZONE.fullmatch(name) else name)
    except (KeyError, ValueError, OSError):  # unknown, not a valid key, or a directory of zones
        raise ValueError("must be the name of a time zone, as Europe/Berlin or UTC") from None


def parse_instant(text: str) -> datetime:
    """An RFC 3339 date-time with an explicit offset, converted to UTC, with microseconds.

    A fraction is cut after six digits, not rounded, because rounding would move 23:59:59.9999999
    into the next day. Leap seconds (``:60``) are refused.

    Raises:
        ValueError: not RFC 3339, no such date or time, or outside years 1..9999 in UTC.
    """
    if USUAL.fullmatch(text):
        return datetime.fromisoformat(text)
    match = _INSTANT.fullmatch(text)
    if match is None:
        raise ValueError("must be an RFC 3339 date-time with an offset, as 2026-04-01T09:00:00Z")
    day, time, fraction, sign, hours, minutes = match.groups()
    local = datetime.fromisoformat(f"{day} {time}.{(fraction or '')[:6]:0<6}")
    if sign is None:
        return local.replace(tzinfo=UTC)
    if hours > "23" or minutes > "59":
        raise ValueError("must have an offset of at most 23:59")
    offset = timedelta(hours=int(hours), minutes=int(minutes))
    zone = timezone(-offset if sign == "-" else offset)
    try:
        return local.replace(tzinfo=zone).astimezone(UTC)
    except OverflowError:
        raise ValueError("must be in the years 1 to 9999 in UTC") from None


def parse_month(text: str) -> date:
    """``YYYY-MM`` from 1970 to 9999 as the month's first day; ``ValueError`` otherwise."""
    match = _MONTH.fullmatch(text)
    if match is None:
        raise ValueError("must be a month, as 2026-04")
    return date(int(match[1]), int(match[2]), 1)


def parse_day(text: str) -> date:
    """``YYYY-MM-DD`` from 1970 to 9999; ``ValueError`` otherwise."""
    if not _DAY.fullmatch(text):
        raise ValueError("must be a day, as 2026-04-01")
    return date.fromisoformat(text)


def month_of(day: date) -> date:
    """The first day of the month of ``day``."""
    return date(day.year, day.month, 1)


def months_back(month: date, count: int) -> date:
    """The month that is ``count`` months before ``month``, both given as their first day.

    The result is limited to the years 1 to 9999.
    """
    index = min(max(month.year * 12 + month.month - 1 - count, 12), 9999 * 12 + 11)
    return date(index // 12, index % 12 + 1, 1)


def last_day(month: date) -> date:
    """The last day of a month, which is given as its first day."""
    return date(month.year, month.month, monthrange(month.year, month.month)[1])


def months_without(first: date, last: date, left_out: set[date]) -> list[MonthRange]:
    """The months from ``first`` to ``last`` except ``left_out``, as ranges."""
    ranges, start = [], first
    for month in sorted(month for month in left_out if first <= month <= last):
        if start < month:
            ranges.append((start, months_back(month, 1)))
        if month == last:
            return ranges
        start = months_back(month, -1)
    return [*ranges, (start, last)] if start <= last else ranges


def months_from(first: date | None, ranges: Iterable[MonthRange]) -> list[MonthRange]:
    """The parts of some months from the month ``first`` on; all of them with ``None``."""
    if first is None:
        return list(ranges)
    return [(max(start, first), last) for start, last in ranges if last >= first]


def kept_from(today: date, days: int) -> date | None:
    """The first day of what is kept for ``days`` days, by whole months; ``None``: every day.

    Args:
        days: 0 keeps all.
    """
    oldest = today.toordinal() - days
    if days == 0 or oldest < EPOCH.toordinal():
        return None
    return month_of(date.fromordinal(oldest))


def days_until(last: date, days: int) -> list[date]:
    """The ``days`` calendar days that end with ``last``, oldest first."""
    return [last - timedelta(days=ago) for ago in range(days - 1, -1, -1)]
