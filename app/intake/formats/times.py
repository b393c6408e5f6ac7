"""Times of a provider's records: RFC 3339, with or without an offset, and seconds since 1970."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from app.dates import EPOCH, USUAL, parse_instant

# The divisor that makes seconds of a unit, as a power of ten.
UNITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}

ToInstant = Callable[[Any, ZoneInfo | None], datetime]

_LOCAL = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:[.,][0-9]+)?")
_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:[.,]([0-9]+))?"
    r" ?(?:([Zz])|([+-])([0-9]{2}):?([0-9]{2}))"
)
_NUMBER = re.compile(r"-?[0-9]{1,30}(?:\.[0-9]{0,30})?(?:[eE][+-]?[0-9]{1,2})?")
_DAY = timedelta(days=1)
_MOST_MICROSECONDS = 10**18  # far beyond the year 9999


def instant_of_text(value: Any, zone: ZoneInfo | None) -> datetime:
    """The instant in UTC of a date and time.

    A fraction is cut after six digits, not rounded. A local time that a clock change makes
    ambiguous is the earlier instant.

    Raises:
        ValueError: the value is no such text, or a local time that a clock change skips, or has no
            offset although ``zone`` is ``None``. The message has no part of the value.
    """
    if type(value) is not str:
        raise ValueError("it is not text; a number needs a unit in the mapping")
    if value[-1:] in ("Z", "0") and USUAL.fullmatch(value):
        return datetime.fromisoformat(value)
    if _LOCAL.fullmatch(value):
        return _in_zone(value, zone)
    match = _TIME.fullmatch(value)
    if match is None:
        raise ValueError("it is not a date and time, as 2026-04-01T09:00:00Z")
    day, time, fraction, utc, sign, hours, minutes = match.groups()
    offset = "Z" if utc else f"{sign}{hours}:{minutes}"
    return parse_instant(f"{day}T{time}.{fraction or 0}{offset}")


def _in_zone(text: str, zone: ZoneInfo | None) -> datetime:
    if zone is None:
        raise ValueError("it has no offset; name the zone of the log with --zone")
    offset = _offset_of_minute(text[:16], zone)
    if offset is not None:
        instant = datetime.fromisoformat(f"{text}Z")  # a quarter of the time of replace(tzinfo=UTC)
        return instant - offset if offset else instant
    local = datetime.fromisoformat(text)
    try:
        instant = local.replace(tzinfo=zone).astimezone(UTC)
        again = instant.astimezone(zone)
    except OverflowError:
        raise ValueError("it is outside the years 1 to 9999") from None
    if again.replace(tzinfo=None) != local:
        raise ValueError("a change of the clock skips it in this zone")
    return instant


@lru_cache(maxsize=4096)
def _offset_of_minute(text: str, zone: ZoneInfo) -> timedelta | None:
    """The offset of a local minute; ``None`` if the clock changes near it.

    To find an offset takes ten times as long as the rest, and records of a log follow each other.
    """
    minute = datetime.fromisoformat(text)
    if not minute.min + _DAY < minute < minute.max - _DAY:
        return None
    around = {(minute + shift).replace(tzinfo=zone).utcoffset() for shift in (-_DAY, _DAY)}
    offset = minute.replace(tzinfo=zone).utcoffset()
    return offset if around == {offset} else None


def instant_of_number(unit: str) -> ToInstant:
    """A function that makes an instant of the time since 1970 in a unit of ``UNITS``.

    The number may be text. Digits below a microsecond are cut.
    """
    power = UNITS[unit]
    up, down = 10 ** max(6 - power, 0), 10 ** max(power - 6, 0)

    def instant(value: Any, _zone: ZoneInfo | None) -> datetime:
        if type(value) is str and len(value) <= 30 and value.isascii() and value.isdigit():
            value = int(value)  # no Decimal, whose way takes three times as long
        if type(value) is int:
            microseconds = value * up // down
        elif type(value) is float or (type(value) is str and _NUMBER.fullmatch(value)):
            microseconds = _microseconds(Decimal(str(value)), power)
        else:
            raise ValueError("it is not a number")
        if not 0 <= microseconds < _MOST_MICROSECONDS:
            raise ValueError("it is before 1970 or after 9999")
        try:
            return EPOCH + timedelta(microseconds=microseconds)
        except OverflowError:
            raise ValueError("it is before 1970 or after 9999") from None

    return instant


def _microseconds(number: Decimal, power: int) -> int:
    if not number.is_finite() or number.adjusted() > 30:
        return _MOST_MICROSECONDS
    return -1 if number < 0 else int(number.scaleb(6 - power))
