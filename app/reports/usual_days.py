"""The usual tokens of a day: the median of the same weekday in the 8 weeks before. No SQL.

The pages show it beside a day, an hour or an agent's day. Detection has finer rules of its own, in
``app.detection``, which also know days off.
"""

from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from statistics import median_low

WEEKS = 8
# Fewer days of a kind tell nothing.
LEAST = 3
_WEEK = timedelta(weeks=1)


def days_like(day: date) -> list[date]:
    """The days that a day is compared with, newest first."""
    return [day - weeks * _WEEK for weeks in range(1, WEEKS + 1)]


def usual(counts: Iterable[int]) -> int | None:
    """The median of the counts of days of one kind; ``None`` with too few of them."""
    known = list(counts)
    return median_low(known) if len(known) >= LEAST else None


def usual_of(day: date, counts: Mapping[date, int], began: date | None) -> int | None:
    """The usual count of a day.

    Args:
        counts: by day; a day that is missing is unknown.
        began: the first day with tokens, which is not whole, so that only later days count.
    """
    if began is None:
        return None
    return usual(counts[like] for like in days_like(day) if like > began and like in counts)


def usual_weekday(last: date, counts: Mapping[date, int], began: date | None) -> int | None:
    """The usual count from Monday to Friday, in the 8 weeks up to a day; arguments as above."""
    return _usual_of_kind(last, counts, began, weekend=False)


def usual_weekend_day(last: date, counts: Mapping[date, int], began: date | None) -> int | None:
    """The usual count of a Saturday or Sunday, in the 8 weeks up to a day; arguments as above."""
    return _usual_of_kind(last, counts, began, weekend=True)


def _usual_of_kind(
    last: date, counts: Mapping[date, int], began: date | None, *, weekend: bool
) -> int | None:
    if began is None:
        return None
    days = (last - timedelta(days=ago) for ago in range(7 * WEEKS))
    return usual(
        counts[day]
        for day in days
        if day > began and day in counts and (day.isoweekday() >= 6) == weekend
    )
