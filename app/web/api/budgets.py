"""Budgets of the caller's organization, at ``/api/v1/budgets``."""

from typing import Annotated, cast

import msgspec
from flask import Blueprint, Response, g, request

from app.alerts import budgets
from app.alerts.budgets import PERIODS, BudgetReport, Period, Tokens
from app.errors import NotFoundError, ValidationError
from app.ids import Id
from app.intake.events import prepared
from app.intake.organization_settings import options_between
from app.web import params, rate_limit
from app.web.api import access
from app.web.api.bodies import object_of
from app.web.api.schemas import Budget, BudgetList, DeletedBudget
from app.web.context import connection, services
from app.web.responses import json_response, report_response

bp = Blueprint("budgets", __name__, url_prefix="/api/v1/budgets")
bp.before_request(access.authenticate)
bp.before_request(access.require_tenant)
bp.before_request(access.require_admin)
bp.before_request(rate_limit.count_request)


@prepared
class BudgetBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """A budget to set. Without ``agentId``, or with null, it is that of the organization."""

    period: Annotated[Period, msgspec.Meta(description="Days and months are UTC")]
    tokens: Tokens
    agent_id: Id | None = None


@bp.get("")
def list_budgets() -> Response:
    """Budgets, and how they are used: those of the organization first, then those of agents.

    What is projected takes weekdays, hours, days off and the level of the last days into account.
    """
    found = _budgets()
    body = BudgetList(g.tenant_id, [_budget(one) for one in found.budgets])
    return report_response(body, found.counted_at)


@bp.put("")
def set_budget() -> Response:
    """Set the budget of the organization or of an agent, in place of an earlier one."""
    body = _body()
    budgets.set_budget(
        services().database,
        g.tenant_id,
        body.agent_id,
        body.period,
        body.tokens,
        now=services().clock(),
        by=g.caller.subject,
    )
    of_agent = _budgets(body.agent_id or budgets.ORGANIZATION).budgets
    return _private(_budget(next(one for one in of_agent if one.period == body.period)))


@bp.delete("")
def delete_budget() -> Response:
    """Delete a budget. A finding about it is resolved within an hour."""
    arguments = params.arguments()
    agent_id = params.optional_agent_id(arguments)
    period = params.optional_one_of(arguments, "period", PERIODS)
    if period is None:
        raise ValidationError("period is missing: it must be day or month", {"parameter": "period"})
    tokens = budgets.delete_budget(
        services().database,
        g.tenant_id,
        agent_id,
        period,
        now=services().clock(),
        by=g.caller.subject,
    )
    if tokens is None:
        raise NotFoundError("the organization has no such budget")
    return _private(DeletedBudget(agent_id, cast("Period", period), tokens))


def _budgets(only: str | None = None) -> BudgetReport:
    return budgets.list_budgets(
        connection(), g.tenant_id, services().clock(), options_between, only=only
    )


def _body() -> BudgetBody:
    return object_of(
        BudgetBody, request, services().settings, what="the budget is", members=("agentId",)
    )


def _budget(one: budgets.Budget) -> Budget:
    return Budget(
        one.agent_id,
        one.period,
        one.tokens,
        one.used,
        one.remaining,
        one.projected,
        one.crosses_on,
    )


def _private(body: Budget | DeletedBudget) -> Response:
    response = json_response(body)
    response.headers["Cache-Control"] = "no-store"
    return response
