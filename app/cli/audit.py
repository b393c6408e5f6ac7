"""``flask audit``: who changed what in the service, and when."""

from datetime import UTC, date, datetime, time, timedelta

import click
import msgspec

from app.cli.base import (
    Command,
    check_order,
    check_organization,
    day,
    json_option,
    open_database,
    say,
)
from app.config.settings import Settings
from app.storage.audit import Change, changes


@click.command(
    cls=Command,
    examples=[
        "flask audit",
        "flask audit --organization org-a --from 2026-04-01 --to 2026-04-30",
        "flask audit --json",
    ],
)
@click.option("--organization", metavar="ORG", help="Only changes of this organization.")
@click.option("--from", "first", metavar="DAY", callback=day, help="The first day, YYYY-MM-DD.")
@click.option("--to", "last", metavar="DAY", callback=day, help="The last day.")
@json_option
def audit(organization: str | None, first: date | None, last: date | None, as_json: bool) -> None:
    """List administrative changes, newest first; with --json one a line.

    Days are UTC. Changes are kept for 400 days. On PostgreSQL with separate roles, run this as the
    owner.
    """
    check_organization(organization)
    check_order(first, last)
    begin = None if first is None else _beginning(first)
    # After the last day there is no other.
    end = None if last is None or last == date.max else _beginning(last + timedelta(days=1))
    found = 0
    # In one transaction, because the changes are read as a stream.
    with open_database(Settings.from_environ()).snapshot() as connection:
        for change in changes(connection, tenant_id=organization, begin=begin, end=end):
            found += 1
            if as_json:
                click.echo(msgspec.json.encode(_described(change)).decode())
            else:
                say(_line(change))
    if not found and not as_json:
        say("no changes")


def _beginning(of: date) -> datetime:
    return datetime.combine(of, time(), UTC)


def _described(change: Change) -> dict[str, object]:
    return {
        "at": change.at,
        "actor": change.actor,
        "action": change.action,
        "organizationId": change.tenant_id,
        "subject": change.subject,
        "details": change.details,
    }


def _line(change: Change) -> str:
    organization = "(any)" if change.tenant_id is None else change.tenant_id
    details = "" if change.details is None else msgspec.json.encode(change.details).decode()
    cells = (change.actor, change.action, organization, change.subject, details)
    return f"{change.at:%Y-%m-%d %H:%M:%S}  {'  '.join(map(_escaped, cells))}".rstrip()


def _escaped(text: str) -> str:
    """The text with escapes in place of characters that a terminal obeys or does not show."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )
