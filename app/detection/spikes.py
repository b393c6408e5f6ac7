"""Spikes of an organization, by the day or in a few hours, and retry loops of single agents."""

from collections.abc import Sequence
from itertools import accumulate
from math import exp

from app.detection.bounds import BURST_HOURS, PSEUDO, Usual
from app.detection.findings import Candidate, Kind, Part, Range, Severity
from app.detection.shares import Counts, excess_shares, largest
from app.detection.times import day_start, hour_end
from app.detection.today import Today

# The part of the excess that agents beyond their own highs must make.
_EXPLAINED_DAY = 0.6
_EXPLAINED_BURST = 0.25
# An agent with this part of the excess is the cause, if the others are as usual.
_CAUSE = 0.7
_WARNING, _CRITICAL = 2.5, 5.0
_OTHERS = 2.0


def spikes_and_loops(usual: Usual, today: Today) -> list[Candidate]:
    """The day's spike, or the retry loops that explain it."""
    total = today.total
    loops = _loops(usual, today.agents, len(today.hours))
    spike = _spike(usual, today.hours, today.agents)
    if spike is None:
        return [loop for _, loop in loops]
    if loops:
        excess, cause = max(loops, key=lambda one: one[0])
        others = total - cause.observed
        others_usual = max(usual.typical - usual.agents[cause.agent].typical, 0.0)
        are_usual = others <= max(_OTHERS * others_usual, others_usual + 20)
        if excess >= _CAUSE * (total - usual.typical) and are_usual:
            return [loop for _, loop in loops]
    return [spike]


def _spike(usual: Usual, hours: Sequence[int], agents: Counts) -> Candidate | None:
    beyond = sum(
        max(count - usual.agents[agent].high, 0) if agent in usual.agents else count
        for agent, (count, _) in agents.items()
    )
    day = _day_hour(usual, hours, beyond)
    burst = _burst(usual, hours, beyond)
    if day is None and burst is None:
        return None
    total = sum(hours)
    first = min(hour for hour in (day, burst and burst[0]) if hour is not None)
    if day is None and burst is not None:
        hour, length, observed, typical = burst
        start = max(day_start(usual.day), hour_end(usual.day, hour - length))
        end, detail = hour_end(usual.day, hour), "burst"
        around = _range(typical, usual.spread)
    else:
        start, end = day_start(usual.day), hour_end(usual.day, len(hours) - 1)
        observed, detail = total, "day"
        around = Range(round(usual.low), round(usual.typical), round(usual.high))
    return Candidate(
        Kind.SPIKE,
        Part.ORGANIZATION,
        "",
        severity_of(total, usual.typical),
        opened_at=hour_end(usual.day, first),
        start=start,
        end=end,
        observed=observed,
        usual=around,
        agents=excess_shares(usual, agents),
        detail=detail,
    )


def _day_hour(usual: Usual, hours: Sequence[int], beyond: int) -> int | None:
    """The first hour at whose end the day's tokens are a spike."""
    for hour, total in enumerate(accumulate(hours)):
        if total >= usual.spike and beyond >= _EXPLAINED_DAY * (total - usual.typical):
            return hour
    return None


def _burst(usual: Usual, hours: Sequence[int], beyond: int) -> tuple[int, int, int, float] | None:
    """The first burst: its last hour, its length, its tokens and the usual ones."""
    known = [*usual.earlier[-2:], *hours]
    for hour in range(len(hours)):
        for index, length in enumerate(BURST_HOURS):
            observed = sum(known[hour + 3 - length : hour + 3])
            typical = usual.burst_usual[index][hour]
            if observed >= usual.bursts[index][hour] and beyond >= _EXPLAINED_BURST * (
                observed - typical
            ):
                return hour, length, observed, typical
    return None


def _loops(usual: Usual, agents: Counts, hours: int) -> list[tuple[float, Candidate]]:
    """The agents that retry, each with its excess."""
    found = []
    for agent, (count, _) in agents.items():
        one = usual.agents.get(agent)
        if not agent or one is None or not 0 <= one.loop <= count:
            continue
        candidate = Candidate(
            Kind.RETRY_LOOP,
            Part.AGENT,
            agent,
            severity_of(count, one.run),
            opened_at=hour_end(usual.day, hours - 1),
            start=day_start(usual.day),
            end=hour_end(usual.day, hours - 1),
            observed=count,
            usual=Range(round(one.run), round(one.run), max(one.high, round(one.run))),
            agents=largest([(agent, count, one.typical)]),
            detail="loop",
        )
        found.append((count - one.typical, candidate))
    return found


def severity_of(observed: float, typical: float) -> Severity:
    """The severity of a count by how often it is the usual one."""
    if observed >= _CRITICAL * typical:
        return Severity.CRITICAL
    return Severity.WARNING if observed >= _WARNING * typical else Severity.INFO


def _range(typical: float, spread: float) -> Range:
    low = max((typical + PSEUDO) * exp(-2 * spread) - PSEUDO, 0.0)
    high = (typical + PSEUDO) * exp(2 * spread) - PSEUDO
    return Range(round(low), round(typical), round(high))
