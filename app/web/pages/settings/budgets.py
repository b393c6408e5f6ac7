"""Budgets of the organization and of its agents: the list, a new one, a change, and the end."""

from hashlib import sha256
from typing import NamedTuple

from flask import Response, g, request
from werkzeug.wrappers import Response as Redirect

from app.alerts.budgets import MAX_TOKENS, PERIODS, Budget, delete_budget, list_budgets, set_budget
from app.errors import NotFoundError
from app.ids import is_id
from app.intake.organization_settings import options_between
from app.web.context import connection, services
from app.web.pages.settings import base
from app.web.pages.settings.base import NEW, Form

bp = base.blueprint("budgets", "/budgets")


class Row(NamedTuple):
    """A budget of the list. ``key`` names it in addresses; an agent's id may be too long there."""

    budget: Budget
    key: str


@bp.get("")
def page() -> Response:
    """The budgets of the organization."""
    return _page(NEW)


@bp.post("")
def store() -> Redirect:
    """Set a budget, in place of an earlier one of the same agent and period."""
    base.on_problem(_page)
    agent_id, period = _agent_id(), _period()
    tokens = base.number("tokens", "a budget", 1, MAX_TOKENS)
    database, now = services().database, services().clock()
    set_budget(database, g.tenant_id, agent_id, period, tokens, now=now, by=g.caller.subject)
    return base.done("settings_budgets.page")


@bp.post("/delete")
def delete() -> Redirect:
    """Delete a budget."""
    base.on_problem(_page)
    agent_id, period = _agent_id(), _period()
    database, now = services().database, services().clock()
    by = g.caller.subject
    if delete_budget(database, g.tenant_id, agent_id, period, now=now, by=by) is None:
        raise NotFoundError("the organization has no such budget")
    return base.done("settings_budgets.page")


def _page(form: Form) -> Response:
    report = list_budgets(connection(), g.tenant_id, services().clock(), options_between)
    rows = [Row(one, _key(one)) for one in report.budgets]
    return base.page(
        "budgets.html",
        form,
        listed=base.part_of(rows),
        changing=_budget(rows, "change"),
        deleting=_budget(rows, "delete"),
        periods={period: f"a {period}, UTC" for period in PERIODS},
        most_tokens=MAX_TOKENS,
    )


def _budget(rows: list[Row], what: str) -> Budget | None:
    """The budget that the query asks to change or to delete."""
    key = base.named(what)
    return next((row.budget for row in rows if row.key == key), None)


def _key(budget: Budget) -> str:
    text = f"{budget.period} {budget.agent_id or ''}"
    return sha256(text.encode()).hexdigest()[:16]


def _agent_id() -> str | None:
    """The agent of the form; ``None`` for the organization.

    Raises:
        ValidationError: it is not an id.
    """
    # Not without its spaces at the ends, which are a part of an id.
    text = request.form.get("agent", "")
    if not text.strip():
        return None
    if not is_id(text):
        raise base.wrong("agent", "an agent's id has at most 255 and no control characters")
    return text


def _period() -> str:
    period = request.form.get("period", "")
    if period not in PERIODS:
        raise base.wrong("period", "choose a day or a month")
    return period
