"""``flask demo``: demonstration data of a few organizations, the same on every machine.

:mod:`app.cli.demo_story` says what each day holds. This module stores it, a day in a transaction.
"""

import io
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout, suppress
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import click
import sqlalchemy as sa
from flask import current_app
from sqlalchemy import Connection

from app.auth.claims import AGENTS_WRITE, ANALYTICS_ADMIN, ANALYTICS_READ_ANY, EVENTS_WRITE
from app.auth.tokens import mint_token
from app.cli import demo_first_release, demo_story
from app.cli.base import (
    EX_INTERRUPTED,
    EX_TEMPFAIL,
    STEP,
    Group,
    OnProgress,
    json_option,
    open_database,
    progress,
    show,
    warn,
)
from app.cli.demo_story import DAY, NAMES, ORGANIZATION, OTHERS, PREFIX, TENANTS
from app.config.settings import Settings
from app.dates import EPOCH, days_until, utc_now
from app.errors import RefusedError
from app.intake.events import Event
from app.intake.organization_settings import (
    DaysOff,
    OrganizationSettings,
    settings_of,
    store_settings,
)
from app.intake.store import Stored, store_events
from app.storage.audit import shell_user
from app.storage.database import Database
from app.storage.tables import agents, daily_issuance, issuance_events

__all__ = ["NAMES", "ORGANIZATION", "demo", "holds_other_data", "load_demo"]

# "Cannot create output" in sysexits.h.
EX_CANTCREAT = 73


def load_demo(
    database: Database,
    now: datetime,
    on_progress: OnProgress = lambda _what, _done, _total: None,
) -> Stored:
    """Store the demonstration's events up to ``now``; stored ones stay as they are.

    Raises:
        RefusedError: the database holds other data.
    """
    with database.reading() as connection:
        if holds_other_data(connection):
            raise RefusedError(
                "the database holds other data; nothing was added: use an empty database"
            )
        after = _delivered_until(connection)
        story_first = _story_first(connection)
    day_events: Callable[[date], Iterable[Event]]
    if story_first is None and after > EPOCH:
        first = now.date() - (demo_first_release.DAYS - 1) * DAY
        day_events = demo_first_release.day_events
    else:
        first = story_first or now.date() - (demo_story.DAYS - 1) * DAY
        _store_days_off(database, first, now)

        def day_events(day: date) -> list[Event]:
            return demo_story.day_events(first, day)

    days = days_until(now.date(), (now.date() - max(after.date(), first)).days + 1)
    total = Stored(0, 0, 0)
    for number, day in enumerate(days, 1):
        events = [event for event in day_events(day) if after < event.issued_at <= now]
        recorded = store_events(database, events)
        total = Stored(*map(sum, zip(total, recorded, strict=True)))
        on_progress("demo data", number, len(days))
    return total


def holds_other_data(connection: Connection) -> bool:
    """Whether the database holds data that is not the demonstration's."""
    event = issuance_events.c
    is_demo = event.event_id.startswith(PREFIX)
    others = [
        sa.exists().where(event.tenant_id.not_in(TENANTS)),
        sa.exists().where(daily_issuance.c.tenant_id.not_in(TENANTS)),
        sa.exists().where(agents.c.tenant_id.not_in(TENANTS)),
        # Events of the demonstration's organizations, but none of the demonstration itself.
        sa.exists().where(event.tenant_id.in_(TENANTS))
        & ~sa.exists().where(event.tenant_id.in_(TENANTS), is_demo),
    ]
    return bool(connection.scalar(sa.select(sa.or_(*others))))


def _organization(connection: Connection) -> str:
    """The organization to print calls for: one with events, the demonstration's if there is any."""
    event, day = issuance_events.c, daily_issuance.c
    demo_first = (day.tenant_id == ORGANIZATION).desc()
    counted = sa.select(day.tenant_id).order_by(demo_first, day.date.desc(), day.issued.desc())
    newest = sa.select(event.tenant_id).order_by(event.id.desc())
    found: str | None = connection.scalar(counted.limit(1)) or connection.scalar(newest.limit(1))
    return found or ORGANIZATION


def _delivered_until(connection: Connection) -> datetime:
    """The instant up to which the demonstration is stored; one transaction stores a day.

    Older events are not delivered again: a purged event would not be recognised as a duplicate.
    """
    event = issuance_events.c
    newest = sa.select(sa.func.max(event.issued_at)).where(
        event.tenant_id.in_(TENANTS), event.event_id.startswith(PREFIX)
    )
    last: datetime | None = connection.scalar(newest)
    if last is not None:
        return last
    counted: date | None = connection.scalar(sa.select(sa.func.max(daily_issuance.c.date)))
    return datetime.combine(counted, time.max, UTC) if counted else EPOCH


def _story_first(connection: Connection) -> date | None:
    """The story's first day; ``None`` if no part of it is stored.

    It is the first day of an organization to which nothing else adds events. Counts are kept for
    good, and events are purged only when they are counted.
    """
    day, event, tenant_id = daily_issuance.c, issuance_events.c, OTHERS[0].tenant_id
    counted: date | None = connection.scalar(
        sa.select(sa.func.min(day.date)).where(day.tenant_id == tenant_id)
    )
    if counted is not None:
        return counted
    oldest = sa.select(sa.func.min(event.issued_at)).where(event.tenant_id == tenant_id)
    stored: datetime | None = connection.scalar(oldest)
    return None if stored is None else stored.date()


def _store_days_off(database: Database, first: date, now: datetime) -> None:
    """Store the story's holidays as days off, unless the organization has settings."""
    with database.reading() as connection:
        stored = settings_of(connection, ORGANIZATION)
    if stored == OrganizationSettings():
        days_off = DaysOff(dates=demo_story.holidays(first))
        settings = OrganizationSettings(days_off=days_off)
        store_settings(database, ORGANIZATION, settings, now, by=shell_user())


@click.group(cls=Group)
def demo() -> None:
    """Demonstration data."""


@demo.command(
    examples=["flask demo load"],
    interrupted="the days added so far are kept; run it again for the others",
    exits={EX_CANTCREAT: "the database holds other data; nothing was added"},
)
@json_option
def load(as_json: bool) -> None:
    """Add demonstration events up to now; refused if the database holds other data."""
    database = open_database(Settings.from_environ())
    try:
        with progress() as on_progress:
            recorded = load_demo(database, utc_now(), on_progress)
    except RefusedError as error:
        warn(f"Error: {error.message}")
        sys.exit(EX_CANTCREAT)
    text = f"demo data: {recorded.accepted} events added, {recorded.duplicates} already stored"
    show(recorded._asdict(), text, as_json=as_json)


@demo.command(
    examples=["flask demo prepare"],
    interrupted="what is done so far is kept; run it again for the rest",
)
@click.pass_context
def prepare(context: click.Context) -> None:
    """Do all that comes before serving: upgrade, demonstration events, their counts, and calls.

    A database with other data is left as it is. `make run` begins with it.
    """
    if _run("db upgrade"):
        context.exit(1)
    if _run("demo load") == EX_CANTCREAT:
        click.echo("serving the database as it is")
    # The jobs count what an open transaction delays now.
    if _run("rollup run") not in {0, EX_TEMPFAIL}:
        context.exit(1)
    with redirect_stdout(io.StringIO()):
        _run("rollup backfill")
    # With a provider's keys no token can be minted.
    with suppress(click.ClickException):
        _run("demo calls")


def _run(command: str) -> int:
    """Run another command in this process, and return its exit code."""
    try:
        code = current_app.cli.main(
            command.split(), prog_name="flask", standalone_mode=False, obj=STEP
        )
    except SystemExit as exit_:
        code = exit_.code
    if code == EX_INTERRUPTED:
        raise KeyboardInterrupt
    return int(code or 0)


@demo.command(examples=["flask demo calls"])
@json_option
def calls(as_json: bool) -> None:
    """Print a link that signs in, a TOKEN of an organization that has data, and three curl calls.

    In production there is no link.
    """
    settings = Settings.from_environ()
    with open_database(settings).reading() as connection:
        organization = _organization(connection)
    scopes = [EVENTS_WRITE, AGENTS_WRITE]
    if not settings.production:
        scopes += [ANALYTICS_ADMIN, ANALYTICS_READ_ANY]
    token = mint_token(settings, organization, scopes, timedelta(days=1))
    dashboard = f"{settings.base_url}/dashboard"
    # Browsers do not send the text behind the #, so the token is in no log and no referrer.
    sign_in = f"{settings.base_url}/signin/link#{token}" if settings.sign_in_link else None
    base = f"{settings.base_url}/api/v1/analytics"
    urls = [f"{base}/tokens?days=30", f"{base}/agents/activity", f"{base}/agents"]
    header = '"Authorization: Bearer $TOKEN"'
    lines = [f'curl -s "{url}" -H {header}' for url in urls]
    hint = " (paste the TOKEN there)" if settings.token_login else ""
    lines.append(f"# the dashboard{hint}: {dashboard}")
    if organization != ORGANIZATION:
        lines.insert(0, f"# a token of the organization {organization}")
    lines.insert(0, f"TOKEN={token}")
    if sign_in is not None:
        lines.insert(0, f"# open this link to see the dashboard; it signs in: {sign_in}")
    result: dict[str, Any] = {
        "organization": organization,
        "token": token,
        "urls": urls,
        "dashboard": dashboard,
        "signIn": sign_in,
    }
    show(result, "\n".join(["", *lines, ""]), as_json=as_json)
