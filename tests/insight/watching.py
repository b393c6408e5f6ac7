"""Watching: detection lives through the days of a generated organization."""

from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from itertools import pairwise

from app.detection import (
    HISTORY_DAYS,
    AgentSeries,
    Finding,
    Options,
    Series,
    State,
    advance,
    judge_day,
    usual,
)
from tests.insight.organizations import DAYS, WARM_UP, Organization


class History:
    """The days of an organization, from which a series is cut for each judged day."""

    def __init__(self, first: date, agents: Mapping[str, list[int]]) -> None:
        """A history from ``first`` on; for each agent the tokens of each hour."""
        self._first = first
        self._hours = [sum(hour) for hour in zip(*agents.values(), strict=True)]
        self._days = _days(self._hours)
        self.size = len(self._days)
        self._agents = {agent: (_days(hours), _masks(hours)) for agent, hours in agents.items()}
        self._began = next((day for day, count in enumerate(self._days) if count), self.size)
        self._firsts = {
            agent: next((day for day, count in enumerate(days) if count), self.size)
            for agent, (days, _) in self._agents.items()
        }

    def series(self, day: int) -> Series:
        """The series up to a day."""
        start = max(day - HISTORY_DAYS, 0)
        agents = {}
        for agent, (days, masks) in self._agents.items():
            issued = days[start : day + 1]
            if any(issued):
                first = self._firsts[agent]
                before = sum(1 for count in days[:start] if count)
                agents[agent] = AgentSeries(
                    issued, masks[start : day + 1], self._first + timedelta(days=first), before
                )
        return Series(
            self._first + timedelta(days=start),
            self._first + timedelta(days=self._began),
            self._days[start : day + 1],
            self._hours[start * 24 : (day + 1) * 24],
            agents,
        )

    def starts(self, day: int) -> bool:
        """Whether the organization was issued a token up to a day."""
        return self._began <= day


def findings_of(organization: Organization, options: Options | None = None) -> list[Finding]:
    """All findings of the judged days of an organization, as they are in the end."""
    history = History(organization.first, organization.agents)
    return watched(organization.name, history, range(WARM_UP, DAYS), options)


def watched(
    name: str, history: History, days: Iterable[int], options: Options | None = None
) -> list[Finding]:
    """The findings of an organization that lived through some days, as they are in the end."""
    options = options or Options()
    state, found = State(), {}
    for day in days:
        if history.starts(day):
            series = history.series(day)
            judgement = judge_day(series, usual(series, options), options)
            state, changed = advance(name, state, judgement)
            found.update((one.id, one) for one in changed)
    return list(found.values())


def _days(hours: list[int]) -> list[int]:
    return [sum(hours[at : at + 24]) for at in range(0, len(hours), 24)]


def _masks(hours: list[int]) -> list[int]:
    return [
        sum(1 << hour for hour, count in enumerate(hours[at:end]) if count)
        for at, end in pairwise(range(0, len(hours) + 1, 24))
    ]
