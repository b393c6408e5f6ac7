"""Calendar: which earlier days a judged day is compared with."""

from calendar import monthrange
from collections.abc import Callable, Iterable, Sequence
from datetime import date, timedelta
from operator import itemgetter

from app.detection.series import HISTORY_DAYS, Options, Series

WEEKS = 8
WEEK = 7
MONTHS = 3
SUNDAY = 6
LEVEL_DAYS = 14
# Positions in a whole series: of the judged day, and of the first of the 56 before it.
_JUDGED = HISTORY_DAYS
_BASE = HISTORY_DAYS - WEEKS * WEEK
AROUND = -14, -7, 7, 14  # days from the same day of an earlier month, with which it is compared

# Picks some days from a list with a count for each day.
Pick = Callable[[Sequence[int]], Sequence[int]]


class Days:
    """The earlier days from a first one on. Organization and agents begin on different days.

    Attributes:
        picks: for each kind of day a function that picks the counts of such days.
        recent: of each of the last 14 days its position behind the calendar's base, and its kind.
        pairs: for each kind the positions, behind the base, of a day and of the one a week before.
    """

    __slots__ = ("pairs", "picks", "recent")

    def __init__(self, calendar: "Calendar", start: int) -> None:
        base, judged, kinds = calendar.base, calendar.judged, calendar.kinds
        groups = [[day for day in group if day >= start] for group in calendar.groups]
        self.picks = [_pick(group) for group in groups]
        first = max(judged - LEVEL_DAYS, start)
        self.recent = [(day - base, kinds[day - base]) for day in range(first, judged)]
        self.pairs = [
            [
                (day - base, day - WEEK - base)
                for day in group
                if day - WEEK >= start and kinds[day - WEEK - base] == kind
            ]
            for kind, group in enumerate(groups)
        ]


def _pick(days: list[int]) -> Pick:
    if len(days) > 1:
        return itemgetter(*days)
    return lambda counts: [counts[day] for day in days]


def earlier_days(last: date) -> set[date]:
    """The days before the 56 on which an agent's tokens decide what is usual on a day.

    They are the same day of earlier months, and the days that it is compared with. All others tell
    only whether the agent was active.
    """
    return _before(last, [day + step for day in _same_days(last, _JUDGED) for step in (0, *AROUND)])


def earlier_hours(last: date) -> set[date]:
    """The days before the 56 on which the organization's hours decide what is usual on a day.

    These are more, since hours are summed beyond midnight, and for up to a week.
    """
    beside = [day + step for day in _same_days(last, _JUDGED) for step in (-1, 1)]
    return earlier_days(last) | _before(last, [*beside, *range(_BASE - WEEK - 1, _BASE)])


def _before(last: date, positions: Iterable[int]) -> set[date]:
    return {last - timedelta(days=_JUDGED - day) for day in positions if 0 <= day < _BASE}


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
        months: the same day in earlier months, and a function that picks the counts of the days
            AROUND it.
        has_days_off: whether a day from ``base`` to the judged one is a day off.
    """

    __slots__ = (
        *("_since", "base", "groups", "has_days_off", "judged", "kind", "kinds", "known"),
        *("months", "off", "same"),
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
        self.months = [
            (day, _pick([day + step for step in AROUND if 0 <= day + step < judged]))
            for day in _same_days(last, judged)
        ]
        self._since: dict[int, Days] = {}

    def since(self, known: int) -> Days:
        """The days from a known one on."""
        start = max(known, self.base)
        found = self._since.get(start)
        if found is None:
            found = self._since[start] = Days(self, start)
        return found


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
