"""Unusual hours: tokens in hours of the week that are always empty."""

from dataclasses import replace

from app.detection.bounds import AgentUsual, Usual
from app.detection.findings import MOST_AGENTS, Candidate, Kind, Part, Range, Severity, Share
from app.detection.shares import Counts
from app.detection.times import hour_end
from app.detection.today import Today

_TOKENS = 3  # in three hours
_MANY = 50  # tokens a day
_NO_HABITS = AgentUsual(0.0, 0, -1.0, 0.0, is_regular=False, unused=0)


def unusual_hours(usual: Usual, today: Today) -> list[Candidate]:
    """The agents with tokens in hours that are empty, or that they alone do not use.

    A new agent is a finding of its own kind, and not here.
    """
    found: dict[str, Candidate] = {}
    hours, agents = today.hours, today.agents
    known = [*usual.earlier[-2:], *hours]
    for hour, count in enumerate(hours):
        seen = sum(known[hour : hour + 3])
        if not count or not usual.empty >> hour & 1 or seen < _TOKENS:
            continue
        present = [one for one in _present(usual, agents, hour) if one not in today.new]
        if not present:
            continue
        first = found.get(present[0])
        if first is None:
            found[present[0]] = _empty_hour(usual, agents, present, hour, seen)
        else:
            end, more = hour_end(usual.day, hour), first.observed + count
            found[present[0]] = replace(first, end=end, observed=more)
    for agent, (count, mask) in agents.items():
        one = usual.agents.get(agent, _NO_HABITS)
        odd = mask & one.unused
        # An agent with few tokens may by chance not have used an hour before.
        is_beyond = count >= one.typical + _TOKENS or one.typical >= _MANY
        if agent and odd and is_beyond and agent not in found:
            found[agent] = _own_hours(usual, agent, odd, count, one)
    return list(found.values())


def _present(usual: Usual, agents: Counts, hour: int) -> list[str]:
    """The agents with a token in an hour or the two before: first the regular, then the largest."""
    around = 7 << hour >> 2
    found = [agent for agent, (_, mask) in agents.items() if agent and mask & around]
    is_regular = {
        agent: agent in usual.agents and usual.agents[agent].is_regular for agent in found
    }
    return sorted(found, key=lambda agent: (not is_regular[agent], -agents[agent][0], agent))


def _empty_hour(
    usual: Usual, agents: Counts, present: list[str], hour: int, seen: int
) -> Candidate:
    one = usual.agents.get(present[0], _NO_HABITS)
    return Candidate(
        Kind.UNUSUAL_HOUR,
        Part.AGENT,
        present[0],
        Severity.CRITICAL if one.is_regular else Severity.INFO,
        opened_at=hour_end(usual.day, hour),
        start=hour_end(usual.day, hour - 1),
        end=hour_end(usual.day, hour),
        observed=seen,
        usual=Range(0, 0, 0),
        agents=tuple(
            Share(agent, agents[agent][0], 0, round(1 / len(present), 4))
            for agent in present[:MOST_AGENTS]
        ),
        detail="empty hour",
    )


def _own_hours(usual: Usual, agent: str, odd: int, count: int, one: AgentUsual) -> Candidate:
    first = (odd & -odd).bit_length() - 1
    last = odd.bit_length() - 1
    return Candidate(
        Kind.UNUSUAL_HOUR,
        Part.AGENT,
        agent,
        Severity.CRITICAL,
        opened_at=hour_end(usual.day, first),
        start=hour_end(usual.day, first - 1),
        end=hour_end(usual.day, last),
        # The hours of an agent have no counts of their own: this is the whole day's.
        observed=count,
        usual=Range(round(one.typical), round(one.typical), one.high),
        agents=(Share(agent, count, round(one.typical), 1.0),),
        detail="own hours",
    )
