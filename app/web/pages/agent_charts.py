"""Charts of an agent's page: its days, its months, and its hours of the week."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.dates import last_day
from app.reports.agent import AgentDays, counted_days
from app.reports.agents import AgentLife
from app.reports.findings import Finding
from app.web.pages.charts import Bar, Chart
from app.web.pages.day_bars import DayBars, marks_of
from app.web.pages.filters import Filters
from app.web.pages.formatting import count_of, month, weekday_name

MOST_MONTHS = 12
_LEVELS = 6  # shades of an hour that is in use
_FROM_MONDAY = (1, 2, 3, 4, 5, 6, 0)


def days_chart(
    filters: Filters, days: AgentDays, findings: Sequence[Finding], agent_id: str
) -> Chart:
    """The agent's tokens a day, or a week. A bar leads to its day, or to the days of its week."""
    bars = DayBars(
        days.days,
        days.before,
        days.whole,
        counted_days(filters.days, days.counted_at),
        filters.today,
        {},
        marks_of(findings, filters.days.zone, filters.today),
        lambda first, last: (
            filters.url("day.page", {"day": first})
            if first == last
            else filters.url("agent.page", {"agentId": agent_id}, **filters.dates(first, last))
        ),
    )
    return Chart(bars.bars())


def months_chart(filters: Filters, life: AgentLife, agent_id: str) -> Chart:
    """The agent's tokens in each of the last months, in UTC. A bar leads to the month's days."""
    this_month = filters.today.replace(day=1)
    return Chart(
        [
            Bar(
                one.issued,
                (month(one.month), count_of(one.issued, "token")),
                filters.url(
                    "agent.page",
                    {"agentId": agent_id},
                    **filters.dates(one.month, last_day(one.month)),
                ),
                kind="part" if one.month == this_month else "",
                tick=month(one.month)[:3],
            )
            for one in life.months[-MOST_MONTHS:]
        ]
    )


@dataclass(frozen=True)
class OnHour:
    """An hour of the week: its shade, 0 if it was never in use, and its text."""

    shade: int
    text: str


@dataclass(frozen=True)
class OnDay:
    """A day of the week, with its hours."""

    name: str
    hours: list[OnHour]


def week_rows(days: AgentDays) -> list[OnDay]:
    """The hours of the week in which the agent was active, from Monday on."""
    weekdays = days.weekdays()

    def hours(dow: int) -> list[OnHour]:
        return [
            _hour(weekday_name(dow), hour, days.active[dow, hour], weekdays[dow])
            for hour in range(24)
        ]

    return [OnDay(weekday_name(dow)[:3], hours(dow)) for dow in _FROM_MONDAY]


def _hour(name: str, hour: int, active: int, among: int) -> OnHour:
    shade = -(-active * _LEVELS // among) if among else 0
    when = f"{name} {hour}\N{EN DASH}{hour + 1}"
    used = f"active on {active} of {count_of(among, 'day')}" if active else "never active"
    return OnHour(min(shade, _LEVELS), f"{when}\n{used}")
