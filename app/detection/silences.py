"""Silences: of an organization by the hour, and of its agents by the day."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import accumulate, pairwise
from math import exp

from app.detection.bounds import (
    AT_LEAST_WEEKS,
    DAY,
    EARLIER_HOURS,
    MONTH_DAYS,
    Usual,
    Window,
    day_bounds,
    middle,
)
from app.detection.calendar import WEEK, Calendar
from app.detection.findings import Candidate, Kind, Part, Range, Severity, Share
from app.detection.series import AgentSeries, Series
from app.detection.shares import Counts, largest, loss_shares
from app.detection.times import day_end, hour_end
from app.detection.today import Today

# Tokens seen, and the second least of eight weeks, as parts of the usual.
_SILENT, _SILENT_LOW = 0.1, 0.25
# A gap is too short for one hour more to be seen, so it must be empty, and be a part of a day.
_GAP_HOURS, _GAP_PART, _EMPTY = (2, 3), 0.03, 0.03
_DROPPED, _DROPPED_LOW = 0.3, 0.7
_BACK = 0.3  # of the usual hours: the silence is over
_CRITICAL_HOURS = 4
# An hour with this part of the busiest hour's tokens is one of work.
_WORK = 0.3
_REST_HOURS = 4
_FEW = 0.1  # of the busiest hour's tokens
# Of an agent: tokens that a window must usually have, and the part that may be left.
_AGENT_TOKENS, _SEEN = 10.0, 0.02
_SEVERAL = 3  # agents that fall silent together are one finding


def silences(usual: Usual, today: Today) -> tuple[list[Candidate], list[int]]:
    """The silences of the day's settled hours, and the hours in which the organization was back."""
    hours = today.hours[: today.settled]
    known = [*usual.earlier, *hours]
    sums = [0, *accumulate(known)]
    by_hour: dict[int, list[Window]] = {}
    for one in usual.windows:
        by_hour.setdefault(one.hour, []).append(one)
    found: list[Candidate] = []
    recovered: list[int] = []
    first: Window | None = None
    for hour in range(len(hours)):
        if _is_back(usual, sums, hour):
            recovered.append(hour)
            first = None
            continue
        silent = _silent_window(usual, sums, hour, by_hour.get(hour, ()))
        if silent is not None and first is None:
            first = silent
            found.append(_silence(usual, known, first, hour, today.agents))
        elif silent is not None and first is not None:
            later = _silence(usual, known, first, hour, today.agents)
            severity = max(found[-1].severity, later.severity, key=lambda one: one.rank)
            found[-1] = replace(later, severity=severity)
    return found, recovered


def _silent_window(
    usual: Usual, sums: Sequence[int], hour: int, windows: Iterable[Window]
) -> Window | None:
    """The shortest window up to an hour that is a silence."""
    end = EARLIER_HOURS + hour + 1
    for window in windows:
        seen = sums[end] - sums[max(end - window.length - 1, 0)]
        own = sums[end] - sums[end - window.length]
        if _is_silence(usual, window, seen) or _is_gap(usual, window, own):
            return window
    return None


def _is_silence(usual: Usual, window: Window, seen: int) -> bool:
    # Where days vary much, a drop is one only if it is beyond that.
    dropped = min(_DROPPED, exp(-3.5 * usual.spread))
    return seen <= _SILENT * window.typical or (
        seen <= dropped * window.typical and window.low >= _DROPPED_LOW * window.typical
    )


def _is_back(usual: Usual, sums: Sequence[int], hour: int) -> bool:
    """Whether an hour had tokens, and with the two before it at least 30 % of the usual ones."""
    end = EARLIER_HOURS + hour + 1
    if sums[end] == sums[end - 1]:
        return False
    if sums[end] - sums[end - 1] >= max(_BACK * usual.hours[hour], 1):
        expected = sum(usual.hours[max(hour - 2, 0) : hour + 1])
        return sums[end] - sums[end - 3] >= _BACK * expected
    return False


def _is_gap(usual: Usual, window: Window, own: int) -> bool:
    """Whether two or three hours of an organization's usual ones have next to nothing."""
    if window.length not in _GAP_HOURS:
        return False
    if window.is_steady and own <= _SILENT * window.typical:
        return True
    return own <= _EMPTY * window.typical and window.typical >= _GAP_PART * usual.busy


def _silence(
    usual: Usual, known: Sequence[int], first: Window, hour: int, agents: Counts
) -> Candidate:
    """A silence up to an hour, which was first seen in a window."""
    seen = EARLIER_HOURS + first.hour + 1
    start, end = seen - first.length, EARLIER_HOURS + hour + 1
    while start > 0 and _is_quiet(usual, known, start - 1):
        start -= 1
    observed = sum(known[start:end])
    typical = first.typical + sum(usual.hours[first.hour + 1 : hour + 1])
    is_silent = observed <= _SILENT * typical
    detail = "silent" if is_silent else "dropped"
    severity = Severity.WARNING
    # Night hours before the window do not make a silence longer.
    least = _FEW * max(usual.hours)
    counted = range(min(seen - first.length, max(start, EARLIER_HOURS)), end)
    missed = sum(usual.hours[one % DAY] >= least for one in counted)
    if is_silent and missed >= _CRITICAL_HOURS:
        severity = Severity.CRITICAL
    if _is_day_off(usual, known, start, end):
        detail, severity = "day off", Severity.INFO
    return Candidate(
        Kind.SILENCE,
        Part.ORGANIZATION,
        "",
        severity,
        opened_at=hour_end(usual.day, first.hour),
        start=hour_end(usual.day, start - 1 - EARLIER_HOURS),
        end=hour_end(usual.day, hour),
        observed=observed,
        usual=Range(round(first.low * typical / first.typical), round(typical), round(typical)),
        agents=loss_shares(usual, agents),
        detail=detail,
    )


def _is_quiet(usual: Usual, known: Sequence[int], hour: int) -> bool:
    """Whether a silence may have begun before an hour: it has no tokens, or today too few."""
    is_today = hour >= EARLIER_HOURS
    return not known[hour] or (is_today and known[hour] <= _BACK * usual.hours[hour % DAY])


def _is_day_off(usual: Usual, known: Sequence[int], start: int, end: int) -> bool:
    """Whether a silence began before work did, and is like the same hours of a Sunday."""
    if not usual.weekend:
        return False
    # It begins with the first hour that is not usually quiet.
    busiest = max(usual.hours)
    missed = (hour for hour in range(start, end) if usual.hours[hour % DAY] >= _FEW * busiest)
    onset = next(missed, end)
    rest = [usual.hours[hour % DAY] for hour in range(onset - _REST_HOURS, onset)]
    if any(one >= _WORK * busiest for one in rest):
        return False
    sunday = sum(usual.weekend[hour % DAY] for hour in range(start, end))
    seen = sum(known[start:end])
    return 0.3 * sunday - 3 <= seen <= 1.7 * sunday + 3


def agent_silences(
    series: Series, usual: Usual, calendar: Calendar, candidates: Iterable[Candidate]
) -> list[Candidate]:
    """The agents that were silent on a whole day, unless the organization was."""
    if any(one.kind is Kind.SILENCE for one in candidates):
        return []
    found = []
    for agent, one in series.agents.items():
        known = max((one.first - series.start).days, calendar.base)
        if not agent or known > calendar.judged - AT_LEAST_WEEKS * WEEK:
            continue
        # No window can be silent with so many tokens on its last day.
        if one.issued[-1] > _SEEN * 1.5 * WEEK * max(one.issued[known:-1]):
            continue
        silence = _agent_silence(agent, one, usual, calendar, known)
        if silence is not None:
            found.append(silence)
    expected = sum(one.typical >= _AGENT_TOKENS for one in usual.agents.values())
    by_start: dict[datetime, list[Candidate]] = {}
    for candidate in found:
        by_start.setdefault(candidate.start, []).append(candidate)
    told: list[Candidate] = []
    for together in by_start.values():
        is_one = len(together) >= _SEVERAL and 2 * len(together) >= expected
        told += [_several(together)] if is_one else together
    return told


def _agent_silence(
    agent: str, one: AgentSeries, usual: Usual, calendar: Calendar, known: int
) -> Candidate | None:
    """The silence of an agent after the judged day."""
    judged, issued = calendar.judged, one.issued
    recent = sorted(issued[max(judged - MONTH_DAYS, known) : judged])
    least = max(_AGENT_TOKENS, 0.3 * recent[(3 * len(recent)) // 4])
    level = -1.0
    for length in (1, 2, 3, 7):
        days = _same_days(calendar, length, known)
        if len(days) < AT_LEAST_WEEKS:
            break
        sums = sorted([sum(issued[day + 1 - length : day + 1]) for day in days])
        # The level that is looked up below is at most 1.5.
        most, seen = middle(sums) * 1.5, sum(issued[judged + 1 - length : judged + 1])
        if most < least or seen > _SEEN * most:
            continue
        if level < 0:
            bounds = day_bounds(issued, calendar, known)
            level = bounds.level if bounds is not None else 1.0
        typical = middle(sums) * min(level, 1.5)
        low = (sums[1] if len(sums) >= 5 else sums[0]) * min(level, 1.0)
        if typical < least or low < _SILENT_LOW * typical:
            continue
        if seen <= _SEEN * typical and _is_due(
            issued, calendar, known, length, is_regular=usual.agents[agent].is_regular
        ):
            numbers = seen, typical, low
            days_missing = _missing_days(issued, calendar, known)
            return _agent_candidate(agent, usual, numbers, days_missing)
    return None


def _agent_candidate(
    agent: str, usual: Usual, numbers: tuple[int, float, float], days: int
) -> Candidate:
    seen, typical, low = numbers
    return Candidate(
        Kind.SILENCE,
        Part.AGENT,
        agent,
        Severity.WARNING,
        opened_at=day_end(usual.day),
        start=day_end(usual.day) - timedelta(days=days),
        end=day_end(usual.day),
        observed=seen,
        usual=Range(round(low), round(typical), round(typical)),
        agents=(Share(agent, seen, round(typical), 1.0),),
        detail="silent",
    )


def _since(issued: Sequence[int], judged: int) -> int:
    """The days without a token up to the judged one; at least 1."""
    days = 0
    while days <= judged and not issued[judged - days]:
        days += 1
    return max(days, 1)


def _missing_days(issued: Sequence[int], calendar: Calendar, known: int) -> int:
    """The days since the first one without a token on a weekday that the agent uses."""
    judged, base = calendar.judged, calendar.base
    start = max(base, known)
    used = []
    for group in calendar.groups:
        days = [issued[day] for day in group if day >= start]
        used.append(2 * days.count(0) < len(days))
    gap = _since(issued, judged)
    for day in range(max(judged + 1 - gap, base), judged + 1):
        if used[calendar.kinds[day - base]]:
            return judged + 1 - day
    return gap


def _same_days(calendar: Calendar, length: int, known: int) -> list[int]:
    """The days with which the last ``length`` days are compared; none that meet a day off."""
    first = known + length - 1
    if length == 1 or not calendar.has_days_off:
        return [day for day in calendar.same if day >= first]
    if any(day > calendar.judged - length for day in calendar.off):
        return []
    return [
        day
        for day in calendar.same
        if day >= first and not any(day - length < one <= day for one in calendar.off)
    ]


def _is_due(
    issued: Sequence[int], calendar: Calendar, known: int, length: int, *, is_regular: bool
) -> bool:
    """Whether the agent should have been issued tokens: by its weekdays, or after such a gap."""
    if length == 1 and is_regular:
        used = [issued[day] for day in calendar.same if day >= known]
        return 2 * used.count(0) <= len(used)
    judged = calendar.judged
    gap = _since(issued, judged)
    start = max(calendar.base, known)
    window = issued[start : judged + 1 - gap]
    active = [day for day, count in enumerate(window) if count]
    if not active:
        return False
    longest = max((b - a - 1 for a, b in pairwise(active)), default=0)
    chance = len(active) / len(window)
    return gap >= 2 * (longest + 1) and (1 - chance) ** gap <= 1e-4


def _several(found: list[Candidate]) -> Candidate:
    """Many agents that fall silent on the same day: one finding of the organization."""
    observed = sum(one.observed for one in found)
    typical = sum(one.usual.typical for one in found if one.usual)
    low = sum(one.usual.low for one in found if one.usual)
    return Candidate(
        Kind.SILENCE,
        Part.SEVERAL,
        "",
        Severity.WARNING,
        opened_at=found[0].opened_at,
        start=found[0].start,
        end=found[0].end,
        observed=observed,
        usual=Range(low, typical, typical),
        agents=largest(
            ((one.agent, one.observed, one.usual.typical) for one in found if one.usual), sign=-1
        ),
        detail="silent",
        collected=len(found),
    )
