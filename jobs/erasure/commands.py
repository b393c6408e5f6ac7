"""``flask organizations`` and ``flask agents``: export, delete and erase, for data subjects."""

import sys
from typing import Any

import click
import msgspec

from app import __version__
from app.cli.base import Group, json_option, open_database, progress, show, warn
from app.config.settings import Settings
from app.dates import utc_now
from app.errors import RefusedError
from app.ids import is_id
from app.storage.audit import shell_user
from jobs.erasure.agent import erase_agent
from jobs.erasure.export import exported_rows
from jobs.erasure.organization import delete_organization, describe, rows_of

_REST = "what is deleted stays deleted; run it again for the rest"


def _id(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    if not is_id(value):
        raise click.BadParameter("must have 1 to 255 characters, and no control characters")
    return value


@click.group(cls=Group)
def organizations() -> None:
    """Export an organization, or delete it.

    On PostgreSQL with separate roles, run these as the owner.
    """


@organizations.command(
    "export",
    examples=["flask organizations export org-a"],
    interrupted="the export is incomplete: its last line is missing",
)
@click.argument("organization", metavar="ORG", callback=_id)
@json_option
def export_(organization: str, as_json: bool) -> None:
    """Print every row of ORG as NDJSON: events, counts, names, keys, findings, settings.

    The first line names the organization, and the last one has the number of rows. All rows are of
    one moment. Secrets and hashes of keys are left out.
    """
    rows: dict[str, int] = {}
    with open_database(Settings.from_environ()).snapshot() as connection:
        for table, row in exported_rows(connection, organization):
            if not rows:
                _print({"organizationId": organization, "version": __version__, "at": utc_now()})
            rows[table] = rows.get(table, 0) + 1
            _print({"table": table, "row": row})
    if not rows:
        raise RefusedError("nothing is stored of this organization; check its id")
    _print({"rows": rows})


@organizations.command(
    examples=["flask organizations delete org-a", "flask organizations delete org-a --yes --json"],
    interrupted=_REST,
)
@click.argument("organization", metavar="ORG", callback=_id)
@click.option("--yes", is_flag=True, help="Delete without asking.")
@json_option
def delete(organization: str, yes: bool, as_json: bool) -> None:
    """Delete every row of ORG, keys, links and settings included, while the service runs.

    Export it first. Let its provider stop first: events that arrive later make a new organization.
    """
    database = open_database(Settings.from_environ())
    rows = rows_of(database, organization)
    if not rows:
        warn("nothing is stored of this organization; check its id")
        show({"rows": 0, "finished": True}, "0 rows deleted", as_json=as_json)
        return
    if not yes:
        warn(f"this deletes of {organization!a}: {describe(rows)}")
        _ask()
    with progress() as on_progress:
        done = delete_organization(
            database,
            organization,
            by=shell_user(),
            on_rows=lambda deleted: on_progress("deleting", deleted, None),
        )
    show(
        {"rows": done.rows, "finished": done.finished}, f"{done.rows} rows deleted", as_json=as_json
    )


@click.group(cls=Group)
def agents() -> None:
    """Erase an agent.

    On PostgreSQL with separate roles, run this as the owner.
    """


@agents.command(
    examples=["flask agents erase --organization org-a --agent agent-1"],
    interrupted="some months have the new id already; run it again for the rest",
)
@click.option("--organization", metavar="ORG", required=True, callback=_id, help="Of the agent.")
@click.option("--agent", metavar="ID", required=True, callback=_id, help="The id to erase.")
@json_option
def erase(organization: str, agent: str, as_json: bool) -> None:
    """Put a random id in place of an agent's id in every table, and remove its name.

    All numbers stay. Let its provider stop first: later events have the old id again.
    """
    database = open_database(Settings.from_environ())
    with progress() as on_progress:
        done = erase_agent(
            database,
            organization,
            agent,
            by=shell_user(),
            on_events=lambda events: on_progress("erasing", events, None),
        )
    if not done.known:
        warn("the organization has no such agent; check both ids")
    show(
        {"erased": done.known, "events": done.events, "notes": done.notes},
        f"{done.events} events have a random id now" if done.known else "nothing was changed",
        as_json=as_json,
    )
    if done.notes:
        warn(f"people's notes contain the id, in the findings {', '.join(done.notes)}; edit them")


def _print(line: dict[str, Any]) -> None:
    click.echo(msgspec.json.encode(line).decode())


def _ask() -> None:
    if not sys.stdin.isatty():
        raise RefusedError("nothing was deleted: export the organization, then add --yes")
    if not click.confirm("Delete all of it for good?", err=True):
        raise RefusedError("nothing was deleted")
