"""``flask budgets``: limits of tokens, and how they are used."""

from typing import Any

import click

from app.alerts.budgets import PERIODS, Budget, delete_budget, list_budgets, set_budget
from app.cli.base import Group, check_organization, json_option, open_database, show
from app.config.settings import Settings
from app.dates import utc_now
from app.errors import RefusedError
from app.ids import is_id
from app.intake.organization_settings import options_between
from app.storage.audit import shell_user

_COLUMNS = ("agent", "period", "budget", "used", "remaining", "projected", "crosses on")
_organization = click.option(
    "--organization", metavar="ORG", required=True, help="The organization of the budget."
)
_agent = click.option(
    "--agent", metavar="AGENT", help="An agent. By default it is the whole organization."
)
_period = click.option(
    "--period", type=click.Choice(PERIODS), required=True, help="Days and months are UTC."
)


@click.group(cls=Group)
def budgets() -> None:
    """Budgets: limits of tokens for each day or month, of an organization or of an agent.

    On PostgreSQL with separate roles, run these as the owner.
    """


@budgets.command(
    "list",
    examples=[
        "flask budgets list --organization org-a",
        "flask budgets list --organization org-a --json",
    ],
)
@_organization
@json_option
def list_(organization: str, as_json: bool) -> None:
    """List the budgets of an organization, and how they are used."""
    check_organization(organization)
    with open_database(Settings.from_environ()).reading() as connection:
        found = list_budgets(connection, organization, utc_now(), options_between).budgets
    shown = [_described(one) for one in found]
    show({"data": shown}, _table(found) if found else "no budgets", as_json=as_json)


@budgets.command(
    "set",
    examples=[
        "flask budgets set --organization org-a --period month --tokens 100000",
        "flask budgets set --organization org-a --agent agent-1 --period day --tokens 500 --json",
    ],
    interrupted="the budget is set or not; check it with `flask budgets list`",
)
@_organization
@_agent
@_period
@click.option("--tokens", type=click.IntRange(1), required=True, help="How many tokens it has.")
@json_option
def set_(organization: str, agent: str | None, period: str, tokens: int, as_json: bool) -> None:
    """Set a budget, in place of an earlier one of the same agent and period."""
    _check(organization, agent)
    database = open_database(Settings.from_environ())
    set_budget(database, organization, agent, period, tokens, now=utc_now(), by=shell_user())
    text = f"{agent or organization}: {tokens:,} tokens a {period}"
    show({"agentId": agent, "period": period, "tokens": tokens}, text, as_json=as_json)


@budgets.command(
    "delete",
    examples=[
        "flask budgets delete --organization org-a --period month",
        "flask budgets delete --organization org-a --agent agent-1 --period day --json",
    ],
    interrupted="the budget is deleted or not; check it with `flask budgets list`",
)
@_organization
@_agent
@_period
@json_option
def delete(organization: str, agent: str | None, period: str, as_json: bool) -> None:
    """Delete a budget."""
    _check(organization, agent)
    database = open_database(Settings.from_environ())
    tokens = delete_budget(database, organization, agent, period, now=utc_now(), by=shell_user())
    if tokens is None:
        raise RefusedError("there is no such budget; `flask budgets list` shows all of them")
    text = f"{agent or organization}: the budget of each {period} is deleted"
    show({"agentId": agent, "period": period, "tokens": tokens}, text, as_json=as_json)


def _check(organization: str, agent: str | None) -> None:
    check_organization(organization)
    if agent is not None and not is_id(agent):
        raise click.UsageError("--agent must have 1 to 255 characters, and no control characters")


def _described(one: Budget) -> dict[str, Any]:
    return {
        "agentId": one.agent_id,
        "period": one.period,
        "tokens": one.tokens,
        "used": one.used,
        "remaining": one.remaining,
        "projected": one.projected,
        "crossesOn": one.crosses_on,
    }


def _table(found: list[Budget]) -> str:
    rows = [_COLUMNS, *map(_cells, found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _cells(one: Budget) -> tuple[str, ...]:
    numbers = (one.tokens, one.used, one.remaining, one.projected)
    shown = ("-" if number is None else f"{number:,}" for number in numbers)
    crosses_on = "-" if one.crosses_on is None else f"{one.crosses_on}"
    return (one.agent_id or "(all)", one.period, *shown, crosses_on)
