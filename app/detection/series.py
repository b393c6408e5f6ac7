"""Series: the counts of one organization, as the rules of detection read them.

Every list starts at the same day, ``start``. Its days follow one another without gaps, so that a
position in a list stands for a day. All days and hours are UTC.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from heapq import nlargest

# The days before a judged day that the rules look at: 8 weeks, or 3 months for a day of the month.
HISTORY_DAYS = 112
# An organization is judged on so many of its agents, and on the sum of all others.
LARGEST_AGENTS = 1000
LARGEST_DAYS = 56
# The others' id. No agent has it: an id has at least one character.
OTHERS = ""


@dataclass(slots=True)
class AgentSeries:
    """The days of one agent.

    Attributes:
        issued: the tokens of each day.
        hours: for each day a mask. Bit h is set if the agent was issued a token in hour h.
        first: the day of its first token ever.
        earlier_days: the number of its days with a token before ``start``.
    """

    issued: list[int]
    hours: list[int]
    first: date
    earlier_days: int = 0


@dataclass(slots=True)
class Series:
    """The days of one organization from ``start``, of which the last one is judged.

    Most days more than 56 before the judged one decide nothing, so their counts can be 0: all but
    :func:`~app.detection.calendar.earlier_hours` for ``days`` and ``hours``, and all but
    :func:`~app.detection.calendar.earlier_days` for agents. But an agent without a token in the
    last 30 days needs all its days, because they tell whether it is dormant.

    Attributes:
        start: the first day of all lists.
        began: the day of the organization's first token ever. Days before it are unknown.
        days: the tokens of each day.
        hours: the tokens of each hour: 24 for each day.
        agents: the days of each agent with a token since ``start``, by id.
        new_others: how many of the OTHERS were issued their first token on the judged day.
    """

    start: date
    began: date
    days: list[int]
    hours: list[int]
    agents: dict[str, AgentSeries] = field(default_factory=dict)
    new_others: int = 0

    @property
    def last(self) -> date:
        """The last day of the series."""
        return date.fromordinal(self.start.toordinal() + len(self.days) - 1)


@dataclass(frozen=True, slots=True)
class Options:
    """The settings of an organization.

    Attributes:
        days_off: days that are judged as Sundays.
        token_lifetime: seconds for which an agent can keep a token.
        token_lifetimes: the same for single agents, by id.
        price_per_thousand: the price of 1,000 tokens; ``None`` if it is not set.
        currency: the currency of the price.
        names: the agents' names, by id, for sentences.
    """

    days_off: frozenset[date] = frozenset()
    token_lifetime: int = 3600
    token_lifetimes: Mapping[str, int] = field(default_factory=dict)
    price_per_thousand: float | None = None
    currency: str = ""
    names: Mapping[str, str] = field(default_factory=dict)


def merge_smallest(series: Series, largest: int = LARGEST_AGENTS) -> Series:
    """The same series with its ``largest`` agents of 56 days; the rest is the agent OTHERS.

    Statements that read fewer agents can do the same: the others' rows summed under that id.
    """
    if len(series.agents) <= largest:
        return series
    judged = len(series.days) - 1
    start = max(judged - LARGEST_DAYS, 0)
    # The id decides between equals, so that the choice is the same everywhere.
    kept = nlargest(
        largest, series.agents, key=lambda agent: (sum(series.agents[agent].issued[start:]), agent)
    )
    chosen = {agent: series.agents[agent] for agent in kept}
    size = len(series.days)
    rest = AgentSeries([0] * size, [0] * size, series.began)
    new_others = series.new_others
    for agent, one in series.agents.items():
        if agent in chosen:
            continue
        new_others += one.first == series.last
        rest.issued = [a + b for a, b in zip(rest.issued, one.issued, strict=True)]
        rest.hours = [a | b for a, b in zip(rest.hours, one.hours, strict=True)]
    chosen[OTHERS] = rest
    return replace(series, agents=chosen, new_others=new_others)
