"""Tiles of budgets, on the overview and on an agent's page, and what the month costs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date

from flask import g

from app.alerts.budgets import ORGANIZATION, Budget, BudgetReport, list_budgets
from app.detection import Kind
from app.intake.organization_settings import options_between
from app.reports.agent import MONTH_DAYS
from app.reports.findings import Finding
from app.web.context import connection, services

# The days that a finding of the kind token_waste is about.
_WASTE_DAYS = 7


@dataclass(frozen=True)
class BudgetTiles:
    """Budgets, and the costs of a month.

    Attributes:
        cost, cost_projected: of this month so far, and at its end; ``None`` without a price, or
            if the end is not projected.
        avoidable: what agents that do not keep their tokens cost in a month; ``None`` if none does.
    """

    tiles: Sequence[Budget]
    today: date
    cost: float | None
    cost_projected: float | None
    avoidable: float | None
    currency: str


def read_budgets(agent_id: str | None = None, names_of: Sequence[str] = ()) -> BudgetReport:
    """The budgets of an agent or of the organization, and names of agents, in one statement.

    They come with the settings of the organization, which are then those of the request.
    """
    found = list_budgets(
        connection(),
        g.tenant_id,
        services().clock(),
        options_between,
        only=agent_id or ORGANIZATION,
        names_of=names_of,
    )
    lifetime = found.options.token_lifetime or services().settings.token_lifetime_seconds
    g.options = replace(found.options, token_lifetime=lifetime)
    return found


def overview_tiles(report: BudgetReport, findings: Sequence[Finding]) -> BudgetTiles:
    """The tiles of the organization.

    Args:
        findings: those that are open, and that the page has.
    """
    wasted = sum(
        max(one.observed - (one.usual.typical if one.usual else 0), 0) * MONTH_DAYS / _WASTE_DAYS
        for one in findings
        if one.kind is Kind.TOKEN_WASTE
    )
    return BudgetTiles(
        report.budgets,
        report.today,
        report.cost(report.month_used),
        report.cost(report.month_projected),
        report.cost(round(wasted)) if wasted else None,
        report.options.currency,
    )


def agent_tiles(report: BudgetReport, used: int, avoidable: float | None) -> BudgetTiles:
    """The tiles of an agent.

    Args:
        used: its tokens of this month.
        avoidable: what it costs in a month that it does not keep its tokens.
    """
    month = next((one for one in report.budgets if one.period == "month"), None)
    return BudgetTiles(
        report.budgets,
        report.today,
        report.cost(used),
        None if month is None else report.cost(month.projected),
        avoidable,
        report.options.currency,
    )
