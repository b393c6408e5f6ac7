"""Shares: which agents explain an excess or a loss."""

from collections.abc import Iterable, Mapping

from app.detection.bounds import Usual
from app.detection.findings import MOST_AGENTS, Share

Counts = Mapping[str, tuple[int, int]]  # an agent's tokens, and the mask of its hours


def excess_shares(usual: Usual, agents: Counts) -> tuple[Share, ...]:
    """The agents that were issued more than usual, with their parts of all that was more."""
    return largest(
        (agent, count, usual.agents[agent].typical if agent in usual.agents else 0.0)
        for agent, (count, _) in agents.items()
    )


def loss_shares(usual: Usual, agents: Counts) -> tuple[Share, ...]:
    """The agents that were issued less than usual, with their parts of all that was less."""
    return largest(
        (
            (agent, agents[agent][0] if agent in agents else 0, one.typical)
            for agent, one in usual.agents.items()
        ),
        sign=-1,
    )


def largest(
    agents: Iterable[tuple[str, int, float]], *, sign: int = 1, most: int = MOST_AGENTS
) -> tuple[Share, ...]:
    """The agents with the largest differences of a sign, from ``(agent, observed, usual)``."""
    found = [
        (sign * (observed - usual), agent, observed, usual)
        for agent, observed, usual in agents
        if sign * (observed - usual) > 0
    ]
    total = sum(one[0] for one in found)
    found.sort(key=lambda one: (-one[0], one[1]))
    return tuple(
        Share(agent, observed, round(usual), round(difference / total, 4))
        for difference, agent, observed, usual in found[:most]
    )
