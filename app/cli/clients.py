"""``flask clients``: the organizations of clients whose tokens name none."""

from typing import Any

import click

from app.auth.client_organizations import (
    ClientOrganization,
    all_client_organizations,
    remove_client_organization,
    set_client_organization,
)
from app.cli.base import Group, check_organization, json_option, open_database, show
from app.config.settings import Settings
from app.dates import utc_now
from app.errors import RefusedError
from app.storage.audit import shell_user

_COLUMNS = ("client", "organization", "tokens", "changed")


@click.group(cls=Group)
def clients() -> None:
    """The organizations of OAuth clients, whose tokens name none.

    On PostgreSQL with separate roles, run these as the owner.
    """


@clients.command(
    "set",
    examples=[
        "flask clients set billing-sync --organization org-a",
        "flask clients set internal-cli --organization org-a --people --json",
    ],
    interrupted="the client is set or not; check it with `flask clients list`",
)
@click.argument("client_id", metavar="CLIENT")
@click.option("--organization", metavar="ORG", required=True, help="The client's organization.")
@click.option(
    "--people", is_flag=True, help="Also the tokens that people get by this client are of it."
)
@json_option
def set_client(client_id: str, organization: str, people: bool, as_json: bool) -> None:
    """Put the tokens of CLIENT that name no organization into one.

    It is seen within a minute. An organization in the token itself comes first.
    """
    check_organization(organization)
    database = open_database(Settings.from_environ())
    new = ClientOrganization(client_id, organization, people, utc_now())
    found = set_client_organization(database, new, by=shell_user())
    text = f"{found.client_id}: of {found.tenant_id}"
    show(_described(found), text, as_json=as_json)


@clients.command("list", examples=["flask clients list", "flask clients list --json"])
@click.option("--organization", metavar="ORG", help="Only clients of this organization.")
@json_option
def list_clients(organization: str | None, as_json: bool) -> None:
    """List the clients that have an organization, by organization."""
    check_organization(organization)
    with open_database(Settings.from_environ()).reading() as connection:
        found = all_client_organizations(connection, organization)
    shown = [_described(one) for one in found]
    show({"data": shown}, _table(found) if found else "no clients", as_json=as_json)


@clients.command(
    examples=["flask clients remove billing-sync", "flask clients remove billing-sync --json"],
    interrupted="the client is removed or not; check it with `flask clients list`",
)
@click.argument("client_id", metavar="CLIENT")
@json_option
def remove(client_id: str, as_json: bool) -> None:
    """Take CLIENT out of its organization. Its tokens are refused within a minute."""
    database = open_database(Settings.from_environ())
    found = remove_client_organization(database, client_id, utc_now(), by=shell_user())
    if found is None:
        raise RefusedError("this client has no organization; `flask clients list` shows all")
    show(_described(found), f"{found.client_id}: removed", as_json=as_json)


def _described(one: ClientOrganization) -> dict[str, Any]:
    return {
        "client": one.client_id,
        "organization": one.tenant_id,
        "people": one.people,
        "changed": one.changed,
    }


def _table(found: list[ClientOrganization]) -> str:
    rows = [_COLUMNS, *map(_cells, found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _cells(one: ClientOrganization) -> tuple[str, ...]:
    tokens = "machines and people" if one.people else "machines"
    return (one.client_id, one.tenant_id, tokens, f"{one.changed:%Y-%m-%d}")
