"""``flask keys``: API keys for machines that cannot get tokens."""

from datetime import timedelta
from typing import Any

import click

from app.auth.api_keys import (
    KEY_SYNTAX,
    PREFIX,
    SCOPES,
    ApiKey,
    all_keys,
    new_key,
    revoke_key,
    store_key,
)
from app.cli.base import Group, check_organization, duration, json_option, open_database, show, warn
from app.config.settings import Settings
from app.dates import utc_now
from app.errors import RefusedError
from app.storage.audit import shell_user

_COLUMNS = ("key", "organization", "scopes", "created", "expires", "last used", "revoked", "note")


@click.group(cls=Group)
def keys() -> None:
    """API keys, for machines that cannot get tokens.

    On PostgreSQL with separate roles, run these as the owner.
    """


@keys.command(
    examples=[
        "flask keys create --organization org-a --scope events:write --note 'log stream'",
        "flask keys create --organization org-a --scope analytics:read --expires 90d",
        "flask keys create --any --scope events:write:any --json",
    ],
    interrupted="list the keys, and revoke one that you cannot use",
)
@click.option("--organization", metavar="ORG", help="The organization of the key.")
@click.option(
    "--any", "any_organization", is_flag=True, help="A key of every organization, for :any scopes."
)
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(SCOPES),
    help="A scope; may be repeated.",
)
@click.option(
    "--expires",
    metavar="DURATION",
    callback=duration,
    help="How long the key is valid, as 90d or 12h. By default it does not expire.",
)
@click.option("--note", metavar="TEXT", help="What the key is for.")
@json_option
def create(  # noqa: PLR0913, PLR0917 - one argument for each option
    organization: str | None,
    any_organization: bool,
    scopes: tuple[str, ...],
    expires: float | None,
    note: str | None,
    as_json: bool,
) -> None:
    """Create a key and print it. It is not stored, so it is shown only once."""
    if any_organization == (organization is not None):
        raise click.UsageError("give --organization ORG or --any, one of them")
    check_organization(organization)
    now = utc_now()
    until = None if expires is None else now + timedelta(seconds=expires)
    key = new_key(organization, scopes, now, expires=until, note=note or None)
    text = store_key(open_database(Settings.from_environ()), key, by=shell_user())
    show({"key": text, **_described(key)}, text, as_json=as_json)
    if not as_json:
        warn(f"This key is shown only once. Revoke it with `flask keys revoke {key.id}`.")


@keys.command("list", examples=["flask keys list", "flask keys list --organization org-a --json"])
@click.option("--organization", metavar="ORG", help="Only keys of this organization.")
@json_option
def list_keys(organization: str | None, as_json: bool) -> None:
    """List the keys: usable ones first, then the newest first. None is shown whole."""
    check_organization(organization)
    with open_database(Settings.from_environ()).reading() as connection:
        found = all_keys(connection, utc_now())
    if organization is not None:
        found = [key for key in found if key.tenant_id == organization]
    shown = [_described(key) for key in found]
    show({"data": shown}, _table(found) if found else "no keys", as_json=as_json)


@keys.command(
    examples=["flask keys revoke 7Qm2XcVb9TzK", "flask keys revoke 7Qm2XcVb9TzK --json"],
    interrupted="the key is revoked or not; check it with `flask keys list`",
)
@click.argument("key_id", metavar="ID")
@json_option
def revoke(key_id: str, as_json: bool) -> None:
    """Revoke the key with this ID. It stops working within a minute in every process."""
    # A whole key, which has leaked, and the prefix that the list shows also name a key.
    whole = KEY_SYNTAX.fullmatch(key_id)
    key_id = whole[1] if whole else key_id.removeprefix(PREFIX)
    database = open_database(Settings.from_environ())
    key = revoke_key(database, key_id, utc_now(), by=shell_user())
    if key is None:
        raise RefusedError("there is no key with this id; `flask keys list` shows all ids")
    show(_described(key), f"{key.id}: revoked", as_json=as_json)


def _described(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "prefix": key.prefix,
        "organization": key.tenant_id,
        "scopes": key.scopes,
        "note": key.note,
        "created": key.created,
        "expires": key.expires,
        "revoked": key.revoked,
        "lastUsed": key.last_used,
    }


def _table(found: list[ApiKey]) -> str:
    rows = [_COLUMNS, *map(_cells, found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _cells(key: ApiKey) -> tuple[str, ...]:
    days = (key.created, key.expires, key.last_used, key.revoked)
    created, expires, used, revoked = ("-" if day is None else f"{day:%Y-%m-%d}" for day in days)
    organization = "(any)" if key.tenant_id is None else key.tenant_id
    scopes = " ".join(key.scopes)
    return (key.prefix, organization, scopes, created, expires, used, revoked, key.note or "-")
