"""Calendar: which earlier days a judged day is compared with."""

from calendar import monthrange
from datetime import date, timedelta

from app.detection.series import Options, Series

WEEKS = 8
WEEK = 7
MONTHS = 3
SUNDAY = 6


class Calendar:
    """The earlier days of a series, by their kind. A kind is a weekday; a day off is a Sunday.

    Days are positions in the series' lists.

    Attributes:
        judged: the judged day.
        base: the first of the 56 days before it, or of as many as the series has.
        known: the first day that is known: that of the organization's first token.
        kinds: the kind of each day from ``base`` to the judged one.
        kind: that of the judged day.
        groups: for each kind its days before the judged one.
        same: those of the judged day's kind.
        months: the same day in earlier months, with the days 7 and 14 days before and after it.
        has_days_off: whether a day from ``base`` to the judged one is a day off.
    """

    __slots__ = (
        *("base", "groups", "has_days_off", "judged", "kind", "kinds", "known", "months", "off"),
        *("pairs", "same"),
    )

    def __init__(self, series: Series, options: Options) -> None:
        last = series.last
        self.judged = judged = len(series.days) - 1
        self.base = base = max(judged - WEEKS * WEEK, 0)
        self.known = max((series.began - series.start).days, 0)
        self.off = {
            judged - age
            for age in range(judged + 1)
            if options.days_off and last - timedelta(days=age) in options.days_off
        }
        self.has_days_off = any(day >= base for day in self.off)
        weekday = last.weekday() - judged
        self.kinds = [
            SUNDAY if day in self.off else (weekday + day) % WEEK for day in range(base, judged + 1)
        ]
        self.kind = self.kinds[-1]
        self.groups: list[list[int]] = [[] for _ in range(WEEK)]
        for day in range(base, judged):
            self.groups[self.kinds[day - base]].append(day)
        self.same = self.groups[self.kind]
        # A day and the one a week before it, for the spread of a kind of day.
        self.pairs = [
            [day for day in group if day - WEEK >= base and self._kind(day - WEEK) == kind]
            for kind, group in enumerate(self.groups)
        ]
        self.months = [
            (day, [day + step for step in (-14, -7, 7, 14) if 0 <= day + step < judged])
            for day in _same_days(last, judged)
        ]

    def _kind(self, day: int) -> int:
        return self.kinds[day - self.base]


def _same_days(last: date, judged: int) -> list[int]:
    """The same day of the earlier months; the last day of a month is the same as another's."""
    is_end = last.day == monthrange(last.year, last.month)[1]
    found = []
    year, month = last.year, last.month
    for _ in range(MONTHS):
        year, month = (year, month - 1) if month > 1 else (year - 1, 12)
        days = monthrange(year, month)[1]
        if is_end or last.day <= days:
            day = days if is_end else last.day
            position = judged - (last - date(year, month, day)).days
            if position >= 0:
                found.append(position)
    return found
