"""Judging: what is unusual on a day, or on the part of it that is counted so far."""

from dataclasses import replace

from app.detection.agents import concentrations, dormant_agents, month_shares, new_agents, wasters
from app.detection.bounds import DAY, Usual
from app.detection.calendar import Calendar
from app.detection.findings import Candidate, Judgement
from app.detection.levels import level_shifts
from app.detection.series import OTHERS, Options, Series
from app.detection.silences import agent_silences, silences
from app.detection.spikes import spikes_and_loops
from app.detection.times import hour_end
from app.detection.today import Today
from app.detection.unusual_hours import unusual_hours


def judge_today(usual: Usual, today: Today) -> Judgement:
    """What is unusual on the day of ``usual`` so far, by its stored usual alone."""
    today = _merged(usual, today)
    found = new_agents(usual, today) + unusual_hours(usual, today)
    recovered: list[int] = []
    if usual.is_known:
        found += spikes_and_loops(usual, today)
        quiet, recovered = silences(usual, today)
        found += quiet
    return Judgement(
        usual.day,
        whole=False,
        through=hour_end(usual.day, len(today.hours) - 1),
        candidates=_ordered(found),
        recovered=tuple(hour_end(usual.day, hour) for hour in recovered),
        counts={agent: count for agent, (count, _) in today.agents.items()},
    )


def judge_day(series: Series, usual: Usual, options: Options) -> Judgement:
    """What is unusual on the last day of a series, which is over and counted."""
    judged = len(series.days) - 1
    at = judged * DAY
    agents = {
        agent: (one.issued[judged], one.hours[judged])
        for agent, one in series.agents.items()
        if one.issued[judged]
    }
    new = [agent for agent in agents if series.agents[agent].first == usual.day]
    today = Today(series.hours[at:], agents, new, series.new_others, settled=DAY)
    so_far = judge_today(usual, today)

    calendar = Calendar(series, options)
    found = [*so_far.candidates]
    found += agent_silences(series, usual, calendar, so_far.candidates)
    found += level_shifts(series, usual, calendar)
    found += concentrations(series, usual)
    found += dormant_agents(series, usual)
    found += wasters(series, usual, options)
    return Judgement(
        usual.day,
        whole=True,
        through=so_far.through,
        candidates=_ordered(found),
        recovered=so_far.recovered,
        counts=so_far.counts,
        shares=month_shares(series),
    )


def _merged(usual: Usual, today: Today) -> Today:
    """The same counts, with those that are not among the largest agents under OTHERS."""
    if OTHERS not in usual.agents:
        return today
    agents: dict[str, tuple[int, int]] = {}
    for agent, (count, hours) in today.agents.items():
        key = agent if agent in usual.agents or agent in today.new else OTHERS
        before = agents.get(key, (0, 0))
        agents[key] = before[0] + count, before[1] | hours
    return replace(today, agents=agents)


def _ordered(found: list[Candidate]) -> tuple[Candidate, ...]:
    return tuple(sorted(found, key=lambda one: (one.opened_at, *one.key)))
