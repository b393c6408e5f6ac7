"""``flask findings list``: what is unusual, in every organization, for operators."""

from datetime import date
from functools import cache
from typing import Any

import click
import msgspec

from app.cli.base import (
    Group,
    check_order,
    check_organization,
    coloured,
    day,
    json_option,
    open_database,
    say,
)
from app.config.settings import Settings
from app.detection import Options
from app.intake.organization_settings import options_of, settings_of
from app.reports.findings import KINDS, STATUSES, Finding, FindingsFilter, all_findings

COLOURS = {"critical": "red", "warning": "yellow"}


@click.group(cls=Group)
def findings() -> None:
    """What is unusual in the organizations, and which agents cause it."""


@findings.command(
    "list",
    examples=[
        "flask findings list",
        "flask findings list --status all --from 2026-04-01 --to 2026-04-30 --json",
        "flask findings list --kind silence --organization org-a",
    ],
)
@click.option("--from", "first", metavar="DAY", callback=day, help="The first day, YYYY-MM-DD.")
@click.option("--to", "last", metavar="DAY", callback=day, help="The last day.")
@click.option("--kind", type=click.Choice(KINDS), help="Only findings of this kind.")
@click.option(
    "--status",
    type=click.Choice(STATUSES),
    default=STATUSES[0],
    help="By default open findings.",
)
@click.option("--organization", metavar="ORG", help="Only findings of this organization.")
@json_option
def list_findings(  # noqa: PLR0913, PLR0917 - one argument for each option
    first: date | None,
    last: date | None,
    kind: str | None,
    status: str,
    organization: str | None,
    as_json: bool,
) -> None:
    """List findings, newest first in each organization; with --json one a line.

    Days are UTC. A finding is listed if its period overlaps the days from --from to --to.
    """
    check_organization(organization)
    check_order(first, last)
    settings = Settings.from_environ()
    database = open_database(settings)
    wanted = FindingsFilter(status=status, kind=kind, first=first, last=last)
    found = 0
    # In one transaction, because the findings are read as a stream.
    with database.snapshot() as connection:

        @cache
        def options(tenant_id: str) -> Options:
            stored = settings_of(connection, tenant_id)
            return options_of(stored, settings.token_lifetime_seconds)

        for tenant_id, finding in all_findings(connection, wanted, organization, options):
            found += 1
            if as_json:
                line = {"organizationId": tenant_id, **_plain(finding)}
                click.echo(msgspec.json.encode(line).decode())
            else:
                say(_line(tenant_id, finding))
    if not found and not as_json:
        say("no findings")


def _plain(finding: Finding) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(finding)
    return plain


def _line(tenant_id: str, finding: Finding) -> str:
    severity = coloured(f"{finding.severity:8}", COLOURS.get(finding.severity))
    state = finding.status if finding.resolution is None else finding.resolution
    return (
        f"{finding.opened_at:%Y-%m-%d %H:%M}  {severity}  {finding.kind.value:13}  {state:12}"
        f"  {tenant_id}  {finding.summary}"
    )
