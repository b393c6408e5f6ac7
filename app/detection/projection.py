"""Projection: how many tokens the rest of a day, or of a month, will bring.

Pure functions of counts. A coming day has the usual tokens of its weekday, at the level of the
last days. A day off is a Sunday. The rest of today has what usually comes at such hours, at today's
pace.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import date, timedelta
from functools import lru_cache
from typing import NamedTuple

from app.dates import last_day, month_of
from app.detection.bounds import middle
from app.detection.calendar import SUNDAY, WEEK

# What is usual is read from so many days before today.
USUAL_WEEKS = 6
USUAL_DAYS = USUAL_WEEKS * WEEK
# The level is that of so many days; one is worth half of the one a week later.
LEVEL_DAYS = 21
_HALF_LIFE = 7
# A day counts for the level with at most so many times its usual tokens.
_HIGHEST = 2.5
# Today's pace is trusted as far as more than this part of a usual day has come.
_TRUST = 0.25
_SLOWEST, _FASTEST = 0.5, 2.0
_DAY = timedelta(days=1)


class Projection(NamedTuple):
    """The tokens of a period at its end.

    ``crosses_on``: the first day on which they reach the budget; ``None`` if they do not.
    """

    projected: int
    crosses_on: date | None


def project(budget: int, first: date, days: Sequence[float]) -> Projection:
    """The tokens of a period, and when they reach a budget.

    Args:
        budget: in tokens.
        days: the tokens of each day of the period from ``first`` on, past and coming ones.
    """
    total, crosses_on = 0.0, None
    for number, tokens in enumerate(days):
        total += tokens
        # As it is rounded below; the sum is compared first, because rounding takes time.
        if crosses_on is None and total >= budget - 1 and round(total) >= budget:
            crosses_on = first + number * _DAY
    return Projection(round(total), crosses_on)


class Course(NamedTuple):
    """The days of a month: past ones, today so far with its rest, and coming ones."""

    past: list[int]
    today: int
    rest: float
    coming: list[float]

    @property
    def used(self) -> int:
        """The tokens of the month so far."""
        return sum(self.past) + self.today

    @property
    def month(self) -> list[float]:
        """The tokens of each day of the month."""
        return [*self.past, self.today + self.rest, *self.coming]


def course(
    counts: Mapping[date, int], today: date, part: float, days_off: Collection[date] = ()
) -> Course:
    """The course of a month.

    Args:
        counts: the tokens of days, from the first of the month or earlier; a day that is left out
            has none. Days before the first one are unknown.
        part: the part of today's usual tokens that has come by now, see :func:`part_of_day`.
    """
    month = month_of(today)
    first = max(min(counts, default=today), today - USUAL_DAYS * _DAY)
    history = [counts.get(day, 0) for day in _days(first, (today - first).days)]
    left = (last_day(month) - today).days
    expected, *coming = expected_days(history, today, left + 1, days_off)
    so_far = counts.get(today, 0)
    return Course(
        [counts.get(day, 0) for day in _days(month, (today - month).days)],
        so_far,
        rest_of_today(expected, so_far, part),
        coming,
    )


def expected_days(
    history: Sequence[int], first: date, number: int, days_off: Collection[date] = ()
) -> list[float]:
    """The tokens that are expected on some days.

    Args:
        history: the tokens of each known day before ``first``, the last one is the day before.
        first: the first of the days.
        number: how many days there are.
        days_off: they are like Sundays, in the history, too.
    """
    known = list(history[-USUAL_DAYS:])
    if not known:
        return [0.0] * number
    off = frozenset(days_off)
    kinds = _kinds(first - len(known) * _DAY, len(known), off)
    usual = _usual(known, kinds)
    level = _level(known, kinds, usual)
    return [level * usual[kind] for kind in _kinds(first, number, off)]


def rest_of_today(expected: float, so_far: int, part: float) -> float:
    """The tokens that are still expected today.

    Args:
        expected: those of the whole day.
        so_far: those that have come.
        part: the part of a usual day that has come by now, 0 to 1.
    """
    part = min(max(part, 0.0), 1.0)
    trust = max(_TRUST * expected, 1.0)
    pace = (so_far + trust) / (expected * part + trust)
    return expected * (1 - part) * min(max(pace, _SLOWEST), _FASTEST)


def part_of_day(profiles: Sequence[Sequence[int]], hours: float) -> float:
    """The part of a day's tokens that usually comes in its first ``hours``.

    Args:
        profiles: the tokens of each hour, of earlier days like this one. Without tokens on them,
            all hours are alike.
    """
    whole, rest = divmod(min(max(hours, 0.0), 24.0), 1)
    hour = int(whole)
    parts = []
    for counts in profiles:
        if total := sum(counts):
            begun = counts[hour] * rest if hour < len(counts) else 0.0
            parts.append((sum(counts[:hour]) + begun) / total)
    return middle(sorted(parts)) if parts else hours / 24


def like_days(today: date, days_off: Collection[date] = (), number: int = 4) -> list[date]:
    """The last days before today that are like it, of ``USUAL_DAYS`` days."""
    kind = _kind(today, days_off)
    before = (today - ago * _DAY for ago in range(1, USUAL_DAYS + 1))
    return [day for day in before if _kind(day, days_off) == kind][:number]


# The same days are asked for with each budget of an organization.
@lru_cache(maxsize=256)
def _days(first: date, number: int) -> tuple[date, ...]:
    return tuple(first + place * _DAY for place in range(number))


@lru_cache(maxsize=256)
def _kinds(first: date, number: int, days_off: frozenset[date]) -> tuple[int, ...]:
    return tuple(_kind(day, days_off) for day in _days(first, number))


def _kind(day: date, days_off: Collection[date]) -> int:
    return SUNDAY if day in days_off else day.weekday()


def _usual(known: Sequence[int], kinds: Sequence[int]) -> list[float]:
    """The usual tokens of each kind of day."""
    groups: list[list[int]] = [[] for _ in range(WEEK)]
    for kind, tokens in zip(kinds, known, strict=True):
        groups[kind].append(tokens)
    # Of a weekday that was not seen yet nothing is known but all other days.
    other = sum(known) / len(known)
    return [_robust_mean(group) if group else other for group in groups]


def _robust_mean(counts: Sequence[int]) -> float:
    """The mean without the lowest and the highest, or the median of a few."""
    ordered = sorted(counts)
    if len(ordered) < 5:
        return middle(ordered)
    return sum(ordered[1:-1]) / (len(ordered) - 2)


def _level(known: Sequence[int], kinds: Sequence[int], usual: Sequence[float]) -> float:
    """How many times their usual tokens the last days had, the latest of them above all."""
    seen, normal = 0.0, 0.0
    for ago in range(1, min(LEVEL_DAYS, len(known)) + 1):
        typical = usual[kinds[-ago]]
        weight = 0.5 ** ((ago - 1) / _HALF_LIFE)
        seen += weight * min(known[-ago], _HIGHEST * typical)
        normal += weight * typical
    return seen / normal if normal else 1.0
