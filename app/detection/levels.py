"""Level shifts: a new usual that has lasted for a week."""

from datetime import timedelta
from math import log

from app.detection.bounds import PSEUDO, Usual, middle
from app.detection.calendar import WEEK, Calendar
from app.detection.findings import Candidate, Kind, Part, Range, Severity
from app.detection.series import Series
from app.detection.shares import largest
from app.detection.times import day_end

_LEAST = log(1.6)
_BEYOND = log(1.2)
_TOKENS = 100
_BUSY, _DAYS = 0.1, 4  # the days that count: their part of the busiest one, and how many
_LEFT = 0.1  # less is a silence


def level_shifts(series: Series, usual: Usual, calendar: Calendar) -> list[Candidate]:
    """The shift of the last seven days against the three weeks before, as a list of at most one."""
    judged, days = calendar.judged, series.days
    if not usual.is_known or judged - 3 * WEEK - WEEK + 1 < calendar.known:
        return []
    week = range(judged - WEEK + 1, judged + 1)
    before = [_before(days, day) for day in week]
    # A weekend without tokens has no level.
    least = _BUSY * max(before)
    ratios = [
        log((days[day] + PSEUDO) / (typical + PSEUDO))
        for day, typical in zip(week, before, strict=True)
        if day not in calendar.off and typical >= least
    ]
    if len(ratios) < _DAYS:
        return []
    shift = middle(sorted(ratios))
    sign = 1 if shift > 0 else -1
    observed, expected = sum(days[day] for day in week), sum(before)
    if (
        abs(shift) < max(_LEAST, 1.8 * usual.spread)
        or sum(sign * ratio > _BEYOND for ratio in ratios) < len(ratios) - 1
        or abs(observed - expected) < _TOKENS
        or observed <= _LEFT * expected
    ):
        return []
    return [_shift(series, usual, week, sign, (observed, expected))]


def _before(days: list[int], day: int) -> float:
    return middle(sorted([days[day - weeks * WEEK] for weeks in (1, 2, 3)]))


def _shift(
    series: Series, usual: Usual, week: range, sign: int, numbers: tuple[int, float]
) -> Candidate:
    observed, expected = numbers
    agents = largest(
        (
            (
                agent,
                sum(one.issued[week.start : week.stop]),
                sum(_before(one.issued, day) for day in week),
            )
            for agent, one in series.agents.items()
        ),
        sign=sign,
    )
    end = day_end(usual.day)
    return Candidate(
        Kind.LEVEL_SHIFT,
        Part.ORGANIZATION,
        "",
        Severity.WARNING,
        opened_at=end,
        start=end - timedelta(days=WEEK),
        end=end,
        observed=observed,
        usual=Range(round(expected), round(expected), round(expected)),
        agents=agents,
        detail="up" if sign > 0 else "down",
    )
