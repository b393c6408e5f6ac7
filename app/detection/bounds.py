"""Bounds: the usual tokens of one day, from the days before it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import reduce
from itertools import accumulate
from math import exp, log, sqrt
from operator import or_, sub
from typing import NamedTuple

from app.detection.calendar import WEEK, Calendar, Days
from app.detection.series import AgentSeries, Options, Series

# Added to each count before a logarithm, so that small counts differ less.
PSEUDO = 3.0
AT_LEAST_WEEKS = 3  # of the same weekday, for a usual count
DAY = 24
MONTH_DAYS = 28
# Organizations have agents at all before a new one is news.
OLD_DAYS = 14

# The lengths of bursts and silences, in hours.
BURST_HOURS = (1, 3)
SILENCE_HOURS = (1, 2, 3, 4, 6, 8, 12, 24, 48, 72, 120, 168)
EARLIER_HOURS = SILENCE_HOURS[-1]
FEW_HOURS = 3

_MAX_LEVEL = 1.1  # of the logarithm
_ALIKE = 0.4, 2.5
_DAY_SPREAD = 0.07  # that even the steadiest day has
_UNKNOWN_SPREAD = 0.35
_SPREAD_PAIRS = 4
_MONTHLY = 1.5  # times its neighbours: a day of the month is special
_MATCHED = 0.6  # of the judged count, on the same day of an earlier month: it is usual


class AgentUsual(NamedTuple):
    """The usual of one agent on the day.

    Attributes:
        typical: the usual tokens of the day.
        high: its own high: more than that is its part of a spike.
        loop: at least so many tokens are a retry loop; -1.0 if the agent is not judged.
        run: the usual tokens of a day on which it is active, with which a loop is compared.
        is_regular: whether it is issued tokens on the same weekdays each week.
        unused: a mask of the day's hours that it has not used, while it uses few hours at all.
    """

    typical: float
    high: int
    loop: float
    run: float
    is_regular: bool
    unused: int


class Window(NamedTuple):
    """A window of ``length`` hours up to the end of ``hour``, in which little is a silence.

    Attributes:
        typical, low: its usual tokens, and the second least of eight weeks.
        is_steady: whether it had its tokens on nearly all alike days, which are many.
    """

    hour: int
    length: int
    typical: float
    low: float
    is_steady: bool = False


@dataclass(frozen=True, slots=True)
class Usual:
    """The usual of an organization on one day. It is stored: a few kB for 50 agents.

    Attributes:
        day: the day. Only days before it were read.
        is_known: whether enough days of the same weekday are known.
        is_old: whether the organization is old enough for new agents to be news.
        typical: the usual tokens of the day (mu).
        low, high: the range in which most such days are.
        level: the factor by which the last 14 days differ from the eight weeks (rho).
        spread: the spread of the logarithm of a day's tokens (s).
        busy: the 75 % quantile of 28 days (B).
        spike: at least so many tokens are a spike.
        bursts: the bounds of windows of 1 hour, then those of windows of 3 hours; in each list one
            number for each hour of the day, in which the window ends.
        burst_usual: the usual tokens of these windows.
        hours: the usual tokens of each hour.
        weekend: those of an hour on a day off; empty if a day off is not quieter, or is judged.
        earlier: the tokens of the 168 hours before the day.
        windows: the windows in which little is a silence, by hour, shortest first.
        empty: a mask of the day's hours in which the organization was never issued a token.
        agents: each agent with a token in the 56 days before, by id.
    """

    day: date
    is_known: bool
    is_old: bool
    typical: float = 0.0
    low: float = 0.0
    high: float = 0.0
    level: float = 1.0
    spread: float = 0.0
    busy: float = 0.0
    spike: float = 0.0
    bursts: Sequence[Sequence[float]] = ()
    burst_usual: Sequence[Sequence[float]] = ()
    hours: Sequence[float] = ()
    weekend: Sequence[float] = ()
    earlier: Sequence[int] = (0,) * EARLIER_HOURS
    windows: Sequence[Window] = ()
    empty: int = 0
    agents: Mapping[str, AgentUsual] = field(default_factory=dict)


def usual(series: Series, options: Options) -> Usual:
    """The usual of the last day of a series. The counts of that day itself are not read."""
    calendar = Calendar(series, options)
    day = series.last
    is_old = (day - series.began).days >= OLD_DAYS
    agents = {
        agent: agent_usual(one, calendar, (one.first - series.start).days)
        for agent, one in series.agents.items()
        if any(one.issued[calendar.base : calendar.judged])
    }
    found = day_bounds(series.days, calendar, calendar.known)
    # Hours before the series are unknown, and no window reaches them.
    before = series.hours[max(calendar.judged * DAY - EARLIER_HOURS, 0) : calendar.judged * DAY]
    earlier = [0] * (EARLIER_HOURS - len(before)) + before
    if found is None:
        return Usual(day, is_known=False, is_old=is_old, earlier=earlier, agents=agents)
    hours = Hours(series, calendar, found)
    bursts, burst_usual = hours.bursts()
    range_ = 2 * found.spread
    return Usual(
        day,
        is_known=True,
        is_old=is_old,
        typical=found.typical,
        low=max((found.typical + PSEUDO) * exp(-range_) - PSEUDO, 0.0),
        high=(found.typical + PSEUDO) * exp(range_) - PSEUDO,
        level=found.level,
        spread=found.spread,
        busy=found.busy,
        spike=found.spike,
        bursts=bursts,
        burst_usual=burst_usual,
        hours=hours.typical(),
        weekend=hours.weekend(),
        earlier=earlier,
        windows=hours.windows(),
        empty=hours.empty(),
        agents=agents,
    )


class Bounds(NamedTuple):
    """The usual of one series of days, and the bounds that follow from it."""

    typical: float
    median: float
    level: float
    spread: float
    busy: float
    high: int  # H: of the same weekday
    monthly: int  # M
    spike: float
    alike: list[int]  # the kinds of days with about as many tokens


def day_bounds(counts: Sequence[int], calendar: Calendar, known: int) -> Bounds | None:
    """The bounds of the judged day; ``None`` if too few days of its kind are known.

    ``known`` is the position of the first known day: that of the first token.
    """
    judged, days = calendar.judged, calendar.since(known)
    samples = [sorted(pick(counts)) for pick in days.picks]
    same = samples[calendar.kind]
    if len(same) < AT_LEAST_WEEKS:
        return None
    medians = [middle(one) if len(one) >= AT_LEAST_WEEKS else -1.0 for one in samples]
    median = medians[calendar.kind]
    logs = [log(count + PSEUDO) for count in counts[calendar.base : judged]]

    level = exp(_level(logs, days, medians))
    typical = level * median
    least, most = _ALIKE[0] * (median + PSEUDO), _ALIKE[1] * (median + PSEUDO)
    alike = [kind for kind, one in enumerate(medians) if one >= 0 and least <= one + PSEUDO <= most]
    spread = _spread(logs, days, alike, typical)
    spread *= sqrt(1 + 1.57 / len(same))

    recent = sorted(counts[max(judged - MONTH_DAYS, known) : judged])
    busy = recent[(3 * len(recent)) // 4]
    high = second(same)
    highest = sorted([count for kind in alike for count in samples[kind][-2:]])
    alike_high = highest[-2 if sum([len(samples[kind]) for kind in alike]) >= 5 else -1]
    monthly = month_high(counts, calendar)
    two, more = (typical + PSEUDO) * exp(2 * spread), (typical + PSEUDO) * exp(3.5 * spread)
    spike = max(
        2 * typical,
        typical + max(20.0, 0.3 * busy),
        min(more - PSEUDO, max(two - PSEUDO, 1.5 * alike_high)),
        1.25 * high,
        monthly / _MATCHED,
    )
    return Bounds(typical, median, level, spread, busy, high, monthly, spike, alike)


def _level(logs: Sequence[float], days: Days, medians: Sequence[float]) -> float:
    """The logarithm of rho: how far the last 14 days differ from the median of their kind."""
    usual_logs = [log(one + PSEUDO) if one >= 0 else None for one in medians]
    ratios = [logs[day] - one for day, kind in days.recent if (one := usual_logs[kind]) is not None]
    if not ratios:
        return 0.0
    ratios.sort()
    return max(-_MAX_LEVEL, min(middle(ratios), _MAX_LEVEL))


def _spread(logs: Sequence[float], days: Days, alike: Sequence[int], typical: float) -> float:
    """The spread of a day's logarithm, never below that of a Poisson count."""
    steps = [logs[day] - logs[before] for kind in alike for day, before in days.pairs[kind]]
    spread = _UNKNOWN_SPREAD
    if len(steps) >= _SPREAD_PAIRS:
        steps.sort()
        centre = middle(steps)
        away = sorted([abs(step - centre) for step in steps])
        spread = max(1.4826 * middle(away), away[(3 * len(away)) // 4] / 1.15) / sqrt(2)
    return sqrt(max(spread * spread, 1 / (typical + PSEUDO)) + _DAY_SPREAD**2)


def month_high(counts: Sequence[int], calendar: Calendar) -> int:
    """M: the most on the same day of earlier months, if that day was higher than its neighbours."""
    highest = 0
    for day, around in calendar.months:
        count = counts[day]
        if count > highest:
            neighbours = sorted(around(counts))
            if neighbours and count > _MONTHLY * middle(neighbours):
                highest = count
    return highest


def agent_usual(agent: AgentSeries, calendar: Calendar, known: int) -> AgentUsual:
    """The usual of an agent; ``known`` is the position of its first token."""
    base, judged = calendar.base, calendar.judged
    issued, start = agent.issued, max(known, base)
    window = sorted(issued[start:judged])
    active = window[window.count(0) :]
    used, runs, chances = used_kinds(issued, calendar, start)
    is_known = judged - start >= AT_LEAST_WEEKS * WEEK
    is_regular = is_known and used > 0 and runs >= 0.9 * chances
    unused = _unused_hours(agent.hours, calendar, start, len(active))
    bounds = day_bounds(issued, calendar, start) if len(active) >= LOOP_DAYS else None
    if bounds is None:
        high = max(second(window), month_high(issued, calendar))
        return AgentUsual(float(middle(window)), high, -1.0, 0.0, is_regular, unused)
    high = max(second(window) if used < 3 else bounds.high, bounds.monthly)
    run = max(bounds.typical, middle(active))
    loop = max(
        4 * run,
        run + max(50.0, 0.3 * bounds.busy),
        (run + PSEUDO) * exp(3.5 * bounds.spread) - PSEUDO,
        1.5 * high,
        bounds.monthly / _MATCHED,
    )
    return AgentUsual(bounds.typical, high, loop, run, is_regular, unused)


def used_kinds(counts: Sequence[int], calendar: Calendar, start: int) -> tuple[int, int, int]:
    """How many kinds of days are used in half of the weeks; on these: active days, and all days."""
    used = runs = chances = 0
    for pick in calendar.since(start).picks:
        days = pick(counts)
        active = len(days) - days.count(0)
        if active and 2 * active >= len(days):
            used += 1
            runs += active
            chances += len(days)
    return used, runs, chances


# An agent with fewer active days has no usual count, or no habits.
LOOP_DAYS = 5
_HABIT_DAYS = 20
_FEW_HOURS = 84  # of the week
_ALL_HOURS = (1 << DAY) - 1


def _unused_hours(masks: Sequence[int], calendar: Calendar, start: int, active: int) -> int:
    """The hours of the day that an agent of few hours uses on no weekday, nor those around them.

    An agent that has used some hour on one or two days only may use another tomorrow, and one that
    has sometimes used a weekday may do so again: these have no habits.
    """
    if active < _HABIT_DAYS:
        return 0
    groups = [pick(masks) for pick in calendar.since(start).picks]
    unions = [reduce(or_, days, 0) for days in groups]
    if sum([union.bit_count() for union in unions]) > _FEW_HOURS:
        return 0
    once = twice = often = 0
    for days, union in zip(groups, unions, strict=True):
        if 2 * days.count(0) <= len(days):
            for mask in days:
                often |= twice & mask
                twice |= once & mask
                once |= mask
        elif union:
            return 0
    if once != often:
        return 0
    around = once | once << 1 | once >> 1 | once >> (DAY - 1) | once << (DAY - 1)
    return _ALL_HOURS & ~around


# The part of alike days on which an unusual hour may have been used.
_RARELY = 0.05
# A window must usually have this part of its usual tokens, but for this part of the days.
_STEADY, _RARELY_LOW = 0.25, 0.15
# It must usually have so many tokens, in up to three hours more, and such a part of a busy day.
_TOKENS, _HOUR_TOKENS, _DAY_PART = 20.0, 30.0, 0.02
# The same of up to three hours that had few on next to none of at least so many alike days.
_SURE_TOKENS, _SURE_PART, _SURE_LOW, _SURE_DAYS = 50.0, 0.004, 0.06, 20


class Hours:
    """The usual hours of the judged day."""

    def __init__(self, series: Series, calendar: Calendar, bounds: Bounds) -> None:
        self._days = series.days
        self._hours = series.hours
        self._calendar = calendar
        self._bounds = bounds
        self._sums = [0, *accumulate(series.hours)]
        self._ends: dict[tuple[int, tuple[int, ...]], list[tuple[int, ...]]] = {}
        self._same = [day for day in calendar.same if day >= calendar.known]
        # A day after the first known one, so that no window begins before it.
        self._alike = [
            day for kind in bounds.alike for day in calendar.groups[kind] if day > calendar.known
        ]

    def _columns(
        self, length: int, days: Sequence[int], hours: Iterable[int] = range(-1, DAY + 1)
    ) -> list[list[int]]:
        """The sums of windows of ``length`` hours, for each of some hours in which they end.

        One sum for each of some days, except for windows that begin before the first known day.
        """
        # Windows of up to a day begin on the same days, so they share the sums at their ends.
        span = max(length, DAY)
        key = span, tuple(days)
        if key not in self._ends:
            sums, first = self._sums, self._calendar.known * DAY + span
            rows = [sums[at - span : at + DAY + 2] for day in days if (at := day * DAY) >= first]
            self._ends[key] = [*zip(*rows, strict=True)]
        ends = self._ends[key]
        if not ends:
            return []
        return [
            [*map(sub, ends[end], ends[end - length])]
            for end in [span + 1 + hour for hour in hours]
        ]

    def _medians(self, days: Sequence[int]) -> list[float]:
        """The medians of each hour of some days, times the level."""
        hours, level = self._hours, self._bounds.level
        columns = zip(*(hours[day * DAY : day * DAY + DAY] for day in days), strict=True)
        return [round(level * middle(sorted(column)), 2) for column in columns]

    def typical(self) -> list[float]:
        """The usual tokens of each hour."""
        return self._medians(self._same)

    def bursts(self) -> tuple[list[list[float]], list[list[float]]]:
        """The bounds of bursts, and the usual tokens of their windows."""
        bounds = self._bounds
        all_bounds, all_usual = [], []
        months = [day for day, _ in self._calendar.months]
        for length in BURST_HOURS:
            medians = [middle(sorted(one)) for one in self._columns(length, self._same)]
            medians = medians or [0.0] * (DAY + 2)
            highest = [max(one) for one in self._columns(length, months)] or [0] * (DAY + 2)
            most = max(50.0, 0.5 * max(bounds.typical, bounds.busy))
            least_excess = max(most, 2 * max(bounds.level, 1.0) * self._highest(length))
            usual_sums, limits = [], []
            for hour in range(DAY):
                typical = bounds.level * max(medians[hour : hour + 3])
                monthly = highest[hour + 1] / _MATCHED
                usual_sums.append(round(typical, 2))
                limits.append(round(max(3 * typical, typical + least_excess, monthly), 2))
            all_bounds.append(limits)
            all_usual.append(usual_sums)
        return all_bounds, all_usual

    def _highest(self, length: int) -> int:
        """The second highest daily maximum of such windows in 56 days."""
        calendar = self._calendar
        first = max(calendar.base, calendar.known) * DAY
        after = self._sums[first : calendar.judged * DAY + 1]
        sums = [*map(sub, after[length:], after)]
        return second(sorted([max(sums[at : at + DAY]) for at in range(0, len(sums), DAY)]))

    def windows(self) -> list[Window]:
        """The windows in which little is a silence."""
        bounds = self._bounds
        if not self._is_steady():
            return []
        level, low_level = min(bounds.level, 1.5), min(bounds.level, 1.0)
        reach = self._reach()
        found = []
        for length in SILENCE_HOURS:
            least = self._least_tokens(length)
            if length <= FEW_HOURS:
                least = min(least, max(_SURE_TOKENS, _SURE_PART * bounds.busy))
            sums = [sorted(one) for one in self._columns(length, self._days_without_off(length))]
            if not sums or len(sums[0]) < AT_LEAST_WEEKS:
                break
            medians = [middle(one) for one in sums]
            lows = [one[1] if len(one) >= 5 else one[0] for one in sums]
            windows = []
            for hour in range(max(length - reach - 1, 0), DAY):
                typical = level * min(medians[hour : hour + 3])
                low = low_level * min(lows[hour : hour + 3])
                if typical >= least and low >= _STEADY * typical:
                    windows.append(Window(hour, length, round(typical, 1), round(low, 1)))
            found += self._used(length, windows)
        found.sort()
        return found

    def _least_tokens(self, length: int) -> float:
        least = _HOUR_TOKENS if length <= FEW_HOURS else _TOKENS
        return max(least, _DAY_PART * self._bounds.busy)

    def _used(self, length: int, windows: list[Window]) -> list[Window]:
        """The windows that have tokens on nearly all alike days; those of several days are."""
        if length > DAY or not windows:
            return windows
        sums, first = self._sums, self._calendar.known * DAY + length
        kinds = [
            [day * DAY + 1 for day in self._calendar.groups[kind] if day * DAY >= first]
            for kind in self._bounds.alike
        ]
        columns = self._columns(length, self._alike, [one.hour for one in windows])
        needed = self._least_tokens(length)
        found = []
        for place, one in enumerate(windows):
            least, hour = _STEADY * one.typical, one.hour
            low = known = 0
            # Mostly no day has few tokens, which is seen without looking at the kinds of days.
            is_never_low = bool(columns) and min(columns[place]) >= least
            if is_never_low:
                known = len(columns[place])
            for ends in () if is_never_low else kinds:
                few = sum([sums[end + hour] - sums[end + hour - length] < least for end in ends])
                # A weekday on which these hours are quiet says nothing of the others.
                if 2 * few <= len(ends):
                    low += few
                    known += len(ends)
            is_sure = known >= _SURE_DAYS and low <= _SURE_LOW * known
            is_steady = is_sure and length <= FEW_HOURS
            if is_steady or (low <= _RARELY_LOW * known and one.typical >= needed):
                found.append(one._replace(is_steady=True) if is_steady else one)
        return found

    def _is_steady(self) -> bool:
        """Whether nearly all working days have tokens: else a day without says nothing.

        In other organizations the agents' own gaps tell a silence.
        """
        calendar, low, known = self._calendar, 0, 0
        groups = [
            [self._days[day] for day in one if day >= calendar.known] for one in calendar.groups
        ]
        medians = [middle(sorted(one)) if one else 0.0 for one in groups]
        for median, group in zip(medians, groups, strict=True):
            if median >= 0.3 * max(medians):
                known += len(group)
                low += sum(count < _STEADY * median for count in group)
        return low <= _RARELY_LOW * known

    def _reach(self) -> int:
        """How many hours before the day a window may begin: not on a day off, or after one."""
        calendar = self._calendar
        if calendar.judged in calendar.off:
            return 0
        before = [day for day in calendar.off if day < calendar.judged]
        return (calendar.judged - 1 - max(before)) * DAY if before else EARLIER_HOURS

    def _days_without_off(self, length: int) -> list[int]:
        """The earlier days of the same kind on which no window of a length meets a day off."""
        calendar = self._calendar
        if not calendar.off or calendar.judged in calendar.off:
            return self._same
        span = (length + DAY - 1) // DAY
        return [
            day for day in self._same if not any(day - span <= one <= day for one in calendar.off)
        ]

    def weekend(self) -> list[float]:
        """The usual tokens of each hour on a Sunday, if Sundays are quieter than the judged day."""
        calendar, bounds = self._calendar, self._bounds
        sundays = [day for day in calendar.groups[6] if day >= calendar.known]
        if calendar.kind >= 5 or len(sundays) < AT_LEAST_WEEKS:
            return []
        hours = self._medians(sundays)
        return hours if sum(hours) <= 0.5 * bounds.typical else []

    def empty(self) -> int:
        """The mask of hours that were empty in all eight weeks, with two hours around them."""
        calendar = self._calendar
        if len(self._same) < 4:
            return 0
        start = max(calendar.base, calendar.known) * DAY
        hours = self._hours[start : calendar.judged * DAY]
        if len(hours) - hours.count(0) < 0.06 * len(hours):
            return 0
        # Hours of the judged day are not read.
        end = calendar.judged * DAY
        sums = [*self._sums[: end + 1], *[self._sums[end]] * 2]
        same = _nonempty(sums, [day for day in self._same if day], 2)
        months = _nonempty(sums, [day for day, _ in calendar.months if day], 1)
        # An hour that is used now and then on such days may be used on this one as well.
        alike = _nonempty(sums, self._alike, 2)
        return sum(
            1 << hour
            for hour in range(DAY)
            if not same[hour] and not months[hour] and alike[hour] <= _RARELY * len(self._alike)
        )


def _nonempty(sums: Sequence[int], days: Sequence[int], around: int) -> list[int]:
    """On how many days each hour, or one of ``around`` hours before and after, has tokens."""
    rows = [
        [
            after > before
            for after, before in zip(
                sums[day * DAY + around + 1 : day * DAY + around + 1 + DAY],
                sums[day * DAY - around : day * DAY - around + DAY],
                strict=True,
            )
        ]
        for day in days
    ]
    return [sum(column) for column in zip(*rows, strict=True)] or [0] * DAY


def middle(values: Sequence[float]) -> float:
    """The median of sorted values."""
    half = len(values) // 2
    return values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2


def second(values: Sequence[int]) -> int:
    """The second highest of sorted values; the highest if there are fewer than five."""
    if len(values) >= 5:
        return values[-2]
    return values[-1] if values else 0
