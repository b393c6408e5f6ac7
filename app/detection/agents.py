"""Rules of single agents that are exact: concentration, new, dormant, and wasted tokens."""

from collections.abc import Sequence
from datetime import timedelta

from app.detection.bounds import Usual
from app.detection.findings import MOST_AGENTS, Candidate, Kind, Part, Range, Severity, Share
from app.detection.series import Options, Series
from app.detection.times import day_end, day_start, hour_end
from app.detection.today import Today

_SHARE = 0.8
_MONTH_DAYS, _MONTH_TOKENS = 7, 100
_NEW_ALONE = 5  # more of them on a day are one finding
_DORMANT_DAYS, _ACTIVE_DAYS = 30, 30
_WASTE_TIMES, _WASTE_TOKENS, _WASTE_DAYS = 10, 1000, 7
_DAY_SECONDS = 86_400


def _month_days(series: Series) -> int:
    """How many days of the month are known: those before the first token ever are not."""
    return min(series.last.day, (series.last - series.began).days + 1)


def month_shares(series: Series) -> dict[str, float]:
    """Each agent's share of the month so far; empty while few days of it are known."""
    days = _month_days(series)
    if days < _MONTH_DAYS:
        return {}
    total = sum(series.days[-days:])
    return {agent: sum(one.issued[-days:]) / total for agent, one in series.agents.items() if total}


def concentrations(series: Series, usual: Usual) -> list[Candidate]:
    """The agent with most of the month's tokens, as a list of at most one."""
    days = _month_days(series)
    if days < _MONTH_DAYS:
        return []
    counts = {agent: sum(one.issued[-days:]) for agent, one in series.agents.items()}
    total = sum(series.days[-days:])
    active = [agent for agent, count in counts.items() if count]
    if total < _MONTH_TOKENS or len(active) < 2:
        return []
    agent = max(active, key=lambda one: (counts[one], one))
    count = counts[agent]
    if not agent or count <= _SHARE * total:
        return []
    return [
        Candidate(
            Kind.CONCENTRATION,
            Part.AGENT,
            agent,
            Severity.INFO,
            opened_at=day_end(usual.day),
            start=day_end(usual.day) - timedelta(days=days),
            end=day_end(usual.day),
            observed=count,
            usual=Range(0, round(_SHARE * total), round(_SHARE * total)),
            agents=(Share(agent, count, 0, round(count / total, 4)),),
            detail="share",
        )
    ]


def new_agents(usual: Usual, today: Today) -> list[Candidate]:
    """The agents whose first token ever is on the day; many are one candidate."""
    if not usual.is_old:
        return []
    named = [agent for agent in today.new if agent]
    named.sort(key=lambda agent: (-today.agents[agent][0], agent))
    number = len(named) + today.new_others
    if number > _NEW_ALONE:
        return [_new(usual, today, named, number)]
    return [_new(usual, today, [agent], 1) for agent in named]


def _new(usual: Usual, today: Today, named: Sequence[str], number: int) -> Candidate:
    agents, end = today.agents, hour_end(usual.day, len(today.hours) - 1)
    in_empty_hours = any(agents[agent][1] & usual.empty for agent in named)
    observed = sum(agents[agent][0] for agent in named)
    return Candidate(
        Kind.NEW_AGENT,
        Part.SEVERAL if number > 1 else Part.AGENT,
        "" if number > 1 else named[0],
        Severity.WARNING if in_empty_hours else Severity.INFO,
        opened_at=end,
        start=day_start(usual.day),
        end=end,
        observed=observed,
        usual=None,
        agents=tuple(
            Share(agent, agents[agent][0], 0, round(agents[agent][0] / max(observed, 1), 4))
            for agent in named[:MOST_AGENTS]
        ),
        detail="first",
        collected=number,
    )


def dormant_agents(series: Series, usual: Usual) -> list[Candidate]:
    """The agents that have not been issued a token for 30 days, after 30 active days."""
    judged = len(series.days) - 1
    found = []
    for agent, one in series.agents.items():
        if not agent or any(one.issued[max(judged - _DORMANT_DAYS + 1, 0) :]):
            continue
        last = next((day for day in range(judged, -1, -1) if one.issued[day]), -1)
        active = len(one.issued) - one.issued.count(0) + one.earlier_days
        gap = judged - last
        if last < 0 or gap < _DORMANT_DAYS or active < _ACTIVE_DAYS:
            continue
        end = day_end(usual.day)
        start = end - timedelta(days=gap)
        found.append(
            Candidate(
                Kind.DORMANT_AGENT,
                Part.AGENT,
                agent,
                Severity.INFO,
                opened_at=start + timedelta(days=_DORMANT_DAYS),
                start=start,
                end=end,
                observed=0,
                usual=None,
                agents=(Share(agent, 0, 0, 1.0),),
                detail="dormant",
            )
        )
    return found


def wasters(series: Series, usual: Usual, options: Options) -> list[Candidate]:
    """The agents that do not keep their tokens."""
    found = []
    for agent, one in series.agents.items():
        week = one.issued[-_WASTE_DAYS:]
        if not agent or len(week) < _WASTE_DAYS or min(week) < _WASTE_TOKENS:
            continue
        lifetime = options.token_lifetimes.get(agent, options.token_lifetime)
        needed = max(_DAY_SECONDS / lifetime, 1.0)
        if min(week) < _WASTE_TIMES * needed:
            continue
        observed, typical = sum(week), round(needed * _WASTE_DAYS)
        end = day_end(usual.day)
        found.append(
            Candidate(
                Kind.TOKEN_WASTE,
                Part.AGENT,
                agent,
                Severity.INFO,
                opened_at=end,
                start=end - timedelta(days=_WASTE_DAYS),
                end=end,
                observed=observed,
                usual=Range(typical, typical, typical),
                agents=(Share(agent, observed, typical, 1.0),),
                detail="waste",
            )
        )
    return found
