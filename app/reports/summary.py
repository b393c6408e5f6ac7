"""Summary: the tokens of some days, the change from the days before, and the agents behind them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection, Select

from app.errors import UnavailableError, ValidationError
from app.ids import Id
from app.reports.base import Point, Report
from app.reports.days import Days
from app.reports.finer import Span, read_finer, with_finer_state
from app.reports.trend import DayCount, daily_tokens
from app.reports.usage import agents_of_days, edges
from app.storage.tables import daily_agent_issuance

Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]


class LargestAgent(Point, frozen=True):
    """The agent with the most tokens, and its share of the tokens of all agents."""

    agent_id: Id
    share: Fraction


@dataclass(frozen=True)
class Summary:
    """The summary of the whole counted days of a period.

    ``days``: these days; without any, those that were asked for, with ``total`` 0.
    ``before``: the same days of the period before. ``before_total`` is ``None`` if they cannot be
    read any more, or not yet.
    """

    days: Days
    total: int
    before: Days
    before_total: int | None
    active_agents: int
    largest: LargestAgent | None
    counted_at: datetime | None

    @property
    def change(self) -> float | None:
        """The growth as a share of ``before_total``; ``None`` if there is nothing to compare."""
        if not self.before_total:
            return None
        return (self.total - self.before_total) / self.before_total


def summary(connection: Connection, tenant_id: str, span: Span) -> Summary:
    """The summary of the days, less those at their end that are not wholly counted yet.

    Raises:
        ValidationError, UnavailableError: see :func:`~app.reports.finer.read_finer`.
    """
    days = span.days
    trend = _with_days_before(connection, tenant_id, span)
    counts = [point.count for point in trend.points]
    known = len(counts) - len(days)  # of the period before, all or none
    whole = days.whole(trend.counted_at)
    if not whole:
        return Summary(days, 0, days.before, 0 if known else None, 0, None, trend.counted_at)
    agents, largest = _agents(connection, tenant_id, Span(days.leading(whole), span.kept))
    return Summary(
        days.leading(whole),
        sum(counts[known : known + whole]),
        days.before.leading(whole),
        sum(counts[:whole]) if known else None,
        agents,
        largest,
        trend.counted_at,
    )


def _with_days_before(connection: Connection, tenant_id: str, span: Span) -> Report[DayCount]:
    """The tokens of each day, from the period before on; without this if it cannot be read."""
    days = span.days
    both = Days(days.before.first, days.last, days.zone)
    try:
        return daily_tokens(connection, tenant_id, Span(both, span.kept))
    except (ValidationError, UnavailableError):
        return daily_tokens(connection, tenant_id, span)


def _agents(connection: Connection, tenant_id: str, span: Span) -> tuple[int, LargestAgent | None]:
    """The number of agents with tokens, and the one with the most."""
    days = span.days
    statement = _LARGEST[days.are_utc]
    _, rows = read_finer(
        connection, statement, daily_agent_issuance, span, tenant_id=tenant_id, **edges(days)
    )
    for _, agent_id, issued, agents, tokens, *_ in rows:
        return agents, LargestAgent(agent_id, issued / tokens)
    return 0, None


def _largest(*, are_utc: bool) -> Select[*tuple[Any, ...]]:
    """The agent with the most tokens, beside the number of agents and the tokens of all."""
    used = agents_of_days(are_utc=are_utc).subquery("used").c
    # On PostgreSQL the sum of big integers is a decimal; the cast keeps it an integer.
    tokens = sa.cast(sa.func.sum(used.issued).over(), sa.BigInteger)
    return (
        sa.select(
            used.agent_id,
            used.issued,
            sa.func.count(used.agent_id).over().label("agents"),
            tokens.label("tokens"),
        )
        .order_by(used.issued.desc(), used.agent_id)
        .limit(1)
    )


_LARGEST = {
    are_utc: with_finer_state(daily_agent_issuance, _largest(are_utc=are_utc), "-issued")
    for are_utc in (True, False)
}
