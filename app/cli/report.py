"""``flask report``: numbers of all organizations, or of one, for operators."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from typing import Any

import click
import msgspec
from sqlalchemy import Connection

from app.alerts.digests import organization_digest
from app.cli.base import Group, check_organization, day, json_option, open_database, say
from app.config.settings import Settings
from app.dates import utc_now
from app.reports.all_organizations import (
    AgentOfDays,
    OrganizationOfDays,
    agents_of_days,
    organizations_of_days,
    tokens_of_days,
)
from app.reports.days import Days
from app.reports.digest import WEEKLY, Period, last_period, parse_month_name, parse_week
from app.reports.digest_texts import digest_text
from app.reports.trend import DayCount
from app.web.csv_export import CSV
from app.web.params import MAX_RANGE_DAYS

USUAL_DAYS = 28
_DAY = timedelta(days=1)
_NONE = "\N{EN DASH}"

Rows = Iterable[Sequence[Any]]


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that all reports have."""
    options = (
        click.option("--organization", metavar="ORG", help="Only this organization."),
        click.option(
            "--from",
            "first",
            metavar="DAY",
            callback=day,
            help=f"The first day, YYYY-MM-DD; by default {USUAL_DAYS} days with --to.",
        ),
        click.option(
            "--to", "last", metavar="DAY", callback=day, help="The last day; else yesterday."
        ),
        json_option,
        click.option("--csv", "as_csv", is_flag=True, help="Print the result as CSV."),
    )
    for option in reversed(options):
        command = option(command)
    return command


_limit = click.option(
    "--limit", metavar="N", type=click.IntRange(1), help="The maximum number of lines."
)


@click.group(cls=Group)
def report() -> None:
    """Numbers of all organizations, or of one. Days are UTC."""


@report.command(
    examples=[
        "flask report organizations",
        "flask report organizations --from 2026-04-01 --to 2026-04-30 --csv",
        "flask report organizations --limit 10 --json",
    ]
)
@_options
@_limit
def organizations(  # noqa: PLR0913, PLR0917 - one argument for each option
    organization: str | None,
    first: date | None,
    last: date | None,
    as_json: bool,
    as_csv: bool,
    limit: int | None,
) -> None:
    """List organizations by tokens, with the change from as many days before.

    With --json one organization a line. The share is that of the tokens of all organizations.
    """
    days = _days(first, last, organization, as_json=as_json, as_csv=as_csv)
    settings = Settings.from_environ()
    with _connection(settings) as connection:
        batches = organizations_of_days(
            connection,
            days,
            agent_days=settings.agent_daily_retention_days,
            tenant_id=organization,
            limit=limit,
        )
        columns = OrganizationOfDays._fields
        if not _machine_readable(columns, batches, as_json=as_json, as_csv=as_csv):
            say(f"{days.first} to {days.last}")
            say("        tokens     change   share    agents  last day    findings  organization")
            for one in _each(batches):
                say(_organization_line(*one))


@report.command(
    examples=[
        "flask report tokens",
        "flask report tokens --organization org-a --from 2026-04-01 --to 2026-04-30 --json",
    ]
)
@_options
def tokens(
    organization: str | None, first: date | None, last: date | None, as_json: bool, as_csv: bool
) -> None:
    """List tokens by day, of all organizations together or of one; with --json a day a line."""
    days = _days(first, last, organization, as_json=as_json, as_csv=as_csv)
    with _connection(Settings.from_environ()) as connection:
        counts = tokens_of_days(connection, days, organization)
    rows = [(one.date, one.count) for one in counts]
    columns = DayCount.__struct_encode_fields__
    if not _machine_readable(columns, [rows], as_json=as_json, as_csv=as_csv):
        for at, count in rows:
            say(f"{at}  {count:>14,}")
        say(f"{'total':10}  {sum(count for _, count in rows):>14,}")


@report.command(
    examples=[
        "flask report agents --organization org-a",
        "flask report agents --from 2026-04-01 --to 2026-04-30 --limit 20 --csv",
    ]
)
@_options
@_limit
def agents(  # noqa: PLR0913, PLR0917 - as above
    organization: str | None,
    first: date | None,
    last: date | None,
    as_json: bool,
    as_csv: bool,
    limit: int | None,
) -> None:
    """List agents by tokens, of all organizations or of one; with --json one agent a line."""
    days = _days(first, last, organization, as_json=as_json, as_csv=as_csv)
    settings = Settings.from_environ()
    with _connection(settings) as connection:
        batches = agents_of_days(
            connection,
            days,
            agent_days=settings.agent_daily_retention_days,
            tenant_id=organization,
            limit=limit,
        )
        columns = AgentOfDays._fields
        if not _machine_readable(columns, batches, as_json=as_json, as_csv=as_csv):
            say(f"{days.first} to {days.last}")
            say("        tokens   share  organization  agent  name")
            for tenant_id, agent_id, name, count, share in _each(batches):
                named = "" if name is None else f"  {name}"
                say(f"{count:>14,}  {share:>6.1%}  {tenant_id}  {agent_id}{named}")


@report.command(
    examples=[
        "flask report digest --organization org-a",
        "flask report digest --organization org-a --week 2026-W14 --markdown",
        "flask report digest --organization org-a --month 2026-03 --html",
        "flask report digest --organization org-a --month 2026-03 --json",
    ]
)
@click.option("--organization", metavar="ORG", required=True, help="Whose digest it is.")
@click.option("--week", metavar="WEEK", help="An ISO week, as 2026-W14; else the last whole one.")
@click.option("--month", metavar="MONTH", help="A month, as 2026-03.")
@click.option("--markdown", is_flag=True, help="Print Markdown.")
@click.option("--html", is_flag=True, help="Print HTML, as in an e-mail.")
@json_option
def digest(  # noqa: PLR0913, PLR0917 - as above
    organization: str,
    week: str | None,
    month: str | None,
    markdown: bool,
    html: bool,
    as_json: bool,
) -> None:
    """Print a week or a month of an organization: trend, agents, findings, waste, budgets.

    It has only the days that are counted to their end, and says so if some are not.
    """
    check_organization(organization)
    if markdown + html + as_json > 1:
        raise click.UsageError("--markdown, --html and --json cannot be used together")
    now, settings = utc_now(), Settings.from_environ()
    period = _period(week, month, now.date())
    with _connection(settings) as connection:
        found = organization_digest(connection, organization, period, settings, now)
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
        return
    form = "markdown" if markdown else "html" if html else "text"
    public = settings.public_url
    click.echo(digest_text(found, form, None if public is None else str(public)), nl=False)


def _period(week: str | None, month: str | None, today: date) -> Period:
    """The period of the options, which are checked here."""
    if week is not None and month is not None:
        raise click.UsageError("--week and --month cannot be used together")
    option, parse = ("--week", parse_week) if month is None else ("--month", parse_month_name)
    text = week if month is None else month
    if text is None:
        return last_period(WEEKLY, today)
    try:
        period = parse(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}, not {text!r}", param_hint=option) from None
    if period.first > today:
        raise click.UsageError(f"{option} must not be in the future: {text} begins later")
    return period


def _days(
    first: date | None,
    last: date | None,
    organization: str | None,
    *,
    as_json: bool,
    as_csv: bool,
) -> Days:
    """The days of the options, which are checked here."""
    check_organization(organization)
    if as_json and as_csv:
        raise click.UsageError("--json and --csv cannot be used together")
    last = last or utc_now().date() - _DAY
    first = first or max(last - (USUAL_DAYS - 1) * _DAY, date(1970, 1, 1))
    if first > last:
        raise click.UsageError(f"--from must not be after --to, which is {last}")
    days = Days(first, last)
    if len(days) > MAX_RANGE_DAYS:
        raise click.UsageError(f"--to must be one of the {MAX_RANGE_DAYS} days from --from on")
    return days


@contextmanager
def _connection(settings: Settings) -> Iterator[Connection]:
    # In one transaction, because rows are read as a stream, and from one snapshot.
    with open_database(settings).snapshot() as connection:
        yield connection


def _machine_readable(
    columns: Sequence[str], batches: Iterable[Rows], *, as_json: bool, as_csv: bool
) -> bool:
    """Print the rows as JSON, one a line, or as CSV; false if neither is wanted."""
    names = [_camel(column) for column in columns]
    if as_csv:
        for piece in CSV(names).pieces(batches):
            click.echo(piece, nl=False)
    elif as_json:
        for row in _each(batches):
            line = dict(zip(names, row, strict=True))
            click.echo(msgspec.json.encode(line).decode())
    return as_csv or as_json


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(map(str.capitalize, rest))


def _each(batches: Iterable[Iterable[Any]]) -> Iterator[Any]:
    for rows in batches:
        yield from rows


def _organization_line(  # noqa: PLR0913, PLR0917 - one argument for each column
    tenant_id: str,
    count: int,
    _before: int,
    change: float | None,
    share: float,
    active: int | None,
    last_day: date | None,
    findings: int,
) -> str:
    grown = _NONE if change is None else f"{change:+.1%}"
    used = _NONE if active is None else f"{active:,}"
    return (
        f"{count:>14,}  {grown:>9}  {share:>6.1%}  {used:>8}  {last_day or _NONE!s:10}"
        f"  {findings:>8,}  {tenant_id}"
    )
