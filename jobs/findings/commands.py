"""``flask findings recompute``."""

from dataclasses import asdict
from datetime import date

import click

from app.cli.base import (
    Command,
    check_order,
    check_organization,
    day,
    json_option,
    open_database,
    progress,
    show,
)
from app.config.settings import Settings
from jobs.findings.recompute import recompute_findings


@click.command(
    cls=Command,
    examples=["flask findings recompute --from 2026-01-01 --to 2026-03-31"],
    interrupted="the organizations that are done stay so; run it again for the others",
)
@click.option(
    "--from", "first", metavar="DAY", callback=day, required=True, help="The first day, YYYY-MM-DD."
)
@click.option("--to", "last", metavar="DAY", callback=day, required=True, help="The last day.")
@click.option("--organization", metavar="ORG", help="Only this organization; by default all.")
@json_option
def recompute(first: date, last: date, organization: str | None, as_json: bool) -> None:
    """Judge whole days anew, from the summary tables alone.

    A finding that no longer holds is resolved as corrected. People's marks stay. Schedulers judge
    nothing meanwhile, and counting goes on.
    """
    check_organization(organization)
    check_order(first, last)
    settings = Settings.from_environ()
    with progress() as on_progress:
        done = recompute_findings(
            open_database(settings),
            settings,
            first,
            last,
            organization=organization,
            on_organizations=lambda number: on_progress("judging", number, None),
        )
    text = (
        f"{done.organizations} organizations judged: {done.opened} findings opened,"
        f" {done.changed} changed, {done.corrected} corrected"
    )
    show(asdict(done), text, as_json=as_json)
