"""Histories for tests: agents with the same hours each day, changed where a test says."""

from datetime import date, timedelta

from app.detection import Finding, Judgement, Options, Series, Usual, judge_day, usual
from tests.insight.watching import History, watched

FIRST = date(2026, 1, 5)  # a Monday
DAYS = 90
LAST = DAYS - 1  # a Saturday is 89 % 7 == 5
OFFICE = range(8, 18)
OPTIONS = Options()


class Counts:
    """The tokens of agents by hour: on working days ``per_hour`` in office hours."""

    def __init__(self, *per_hour: int, days: int = DAYS, weekend: float = 0.0) -> None:
        self.days = days
        self.agents: dict[str, list[int]] = {}
        for number, tokens in enumerate(per_hour):
            self.agents[f"agent-{number}"] = [
                round(tokens * (1 if day % 7 < 5 else weekend)) if hour in OFFICE else 0
                for day in range(days)
                for hour in range(24)
            ]

    def set(self, agent: str, day: int, hours: range, tokens: int) -> None:
        """Set the tokens of an agent in each of some hours of a day."""
        issued = self.agents.setdefault(agent, [0] * 24 * self.days)
        for hour in hours:
            issued[day * 24 + hour] = tokens

    def scale(self, day: int, factor: float, agent: str | None = None) -> None:
        """Multiply a day of one agent, or of all."""
        for one in [agent] if agent else self.agents:
            issued = self.agents[one]
            for hour in range(day * 24, day * 24 + 24):
                issued[hour] = round(issued[hour] * factor)

    def judged(self, day: int, options: Options = OPTIONS) -> tuple[Series, Usual, Judgement]:
        """The series, the usual and the judgement of a day."""
        series = History(FIRST, self.agents).series(day)
        found = usual(series, options)
        return series, found, judge_day(series, found, options)

    def found(self, day: int, options: Options = OPTIONS) -> list[tuple[str, str, str]]:
        """The kind, the agent and the severity of what a day shows."""
        return [
            (one.kind.value, one.agent, one.severity.value)
            for one in self.judged(day, options)[2].candidates
        ]

    def watched(self, options: Options = OPTIONS, days: range | None = None) -> list[Finding]:
        """All findings of a history."""
        return watched("org", History(FIRST, self.agents), days or range(self.days), options)


def at(day: int) -> date:
    """The date of a day."""
    return FIRST + timedelta(days=day)
