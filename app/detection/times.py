"""Times: instants of a UTC day."""

from datetime import UTC, date, datetime, time, timedelta

_MIDNIGHT = time(tzinfo=UTC)


def day_start(day: date) -> datetime:
    """The first instant of a day."""
    return datetime.combine(day, _MIDNIGHT)


def day_end(day: date) -> datetime:
    """The first instant after a day."""
    return datetime.combine(day, _MIDNIGHT) + timedelta(days=1)


def hour_end(day: date, hour: int) -> datetime:
    """The end of an hour of a day; a negative hour is one of the days before."""
    return datetime.combine(day, _MIDNIGHT) + timedelta(hours=hour + 1)
