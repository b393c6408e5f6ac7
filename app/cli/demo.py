"""``flask demo``: demonstration data of one organization, the same on every machine.

The events of a day depend only on its date. A second load therefore delivers the same events, and
each event is stored once.
"""

import random
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import click
import sqlalchemy as sa
from sqlalchemy import Connection

from app.auth.claims import AGENTS_WRITE, EVENTS_WRITE
from app.auth.tokens import mint_token
from app.cli.base import Group, json_option, open_database, show, warn
from app.config.settings import Settings
from app.dates import EPOCH, days_until, utc_now
from app.errors import RefusedError
from app.intake.events import Event
from app.intake.store import Stored, store_events
from app.storage.database import Database
from app.storage.tables import agents, daily_issuance, issuance_events

# "Cannot create output" in sysexits.h.
EX_CANTCREAT = 73
ORGANIZATION = "org-0a1b2c3d-e4f5-6789-abcd-ef0123456789"
DAYS = 90
NAMES = (
    *("billing-sync", "nightly-backup", "ci-deployer", "invoice-mailer", "search-indexer"),
    *("crm-export", "log-shipper", "image-resizer", "fraud-scorer", "report-builder"),
    *("cache-warmer", "order-router", "stock-watcher", "price-crawler", "ticket-triage"),
    *("chat-responder", "feed-importer", "cert-renewer", "tax-calculator", "audit-collector"),
    *("metrics-agent", "webhook-relay", "data-cleaner", "payroll-runner", "address-checker"),
    *("alert-bot", "release-notes", "dns-updater", "quota-keeper", "survey-sender"),
    *("translation-bot", "contract-reader", "refund-handler", "shipping-labels", "user-importer"),
    *("schema-migrator", "sandbox-cleaner", "video-encoder", "lead-scorer", "calendar-sync"),
)
AGENTS = len(NAMES)
PREFIX = "demo-"

# Every period of 90 days has one day of each kind.
_SPIKE_DAY, _SILENT_DAY = 31, 49
_SPIKE, _WEEKEND, _NIGHT = 4.0, 0.15, 0.06
_OFFICE_HOURS = range(8, 18)
# Tokens per office hour: of the one agent that requests a token for every call, and of all others.
_GREEDY, _FRUGAL = 150.0, (0.2, 0.5, 0.8, 1.6)


def load_demo(database: Database, now: datetime) -> Stored:
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
    first = max(after.date(), now.date() - timedelta(days=DAYS - 1))
    total = Stored(0, 0, 0)
    for day in days_until(now.date(), (now.date() - first).days + 1):
        events = [event for event in _day(day) if after < event.issued_at <= now]
        recorded = store_events(database, events)
        total = Stored(*map(sum, zip(total, recorded, strict=True)))
    return total


def holds_other_data(connection: Connection) -> bool:
    """Whether the database holds data that is not the demonstration's."""
    event = issuance_events.c
    is_demo = event.event_id.startswith(PREFIX)
    others = [
        sa.exists().where(event.tenant_id != ORGANIZATION),
        sa.exists().where(daily_issuance.c.tenant_id != ORGANIZATION),
        sa.exists().where(agents.c.tenant_id != ORGANIZATION),
        # Events of the demonstration's organization, but none of the demonstration itself.
        sa.exists().where(event.tenant_id == ORGANIZATION)
        & ~sa.exists().where(event.tenant_id == ORGANIZATION, is_demo),
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
        event.tenant_id == ORGANIZATION, event.event_id.startswith(PREFIX)
    )
    last: datetime | None = connection.scalar(newest)
    if last is not None:
        return last
    counted: date | None = connection.scalar(sa.select(sa.func.max(daily_issuance.c.date)))
    return datetime.combine(counted, time.max, UTC) if counted else EPOCH


def _day(day: date) -> Iterator[Event]:
    """All events of a day, future ones included."""
    if day.toordinal() % DAYS == _SILENT_DAY:
        return
    # S311: these numbers are not secret. Every machine has to draw the same ones.
    dice = random.Random(day.isoformat())  # noqa: S311
    volume = _WEEKEND if day.isoweekday() >= 6 else 1.0
    if day.toordinal() % DAYS == _SPIKE_DAY:
        volume = _SPIKE
    for agent in range(AGENTS):
        usual = _FRUGAL[agent % len(_FRUGAL)] if agent else _GREEDY
        for hour in range(24):
            expected = usual * volume * (1 if hour in _OFFICE_HOURS else _NIGHT)
            count = int(expected * dice.uniform(0.7, 1.3) + dice.random())
            start = datetime.combine(day, time(hour), UTC)
            for number in range(count):
                moment = start + timedelta(microseconds=dice.randrange(3_600_000_000))
                name = f"{PREFIX}{day}-{agent:02}-{hour:02}-{number:04}"
                yield Event(ORGANIZATION, name, _agent_id(agent), moment, NAMES[agent])


def _agent_id(number: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{ORGANIZATION}/agents/{number}"))


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
        recorded = load_demo(database, utc_now())
    except RefusedError as error:
        warn(f"Error: {error.message}")
        sys.exit(EX_CANTCREAT)
    text = f"demo data: {recorded.accepted} events added, {recorded.duplicates} already stored"
    show(recorded._asdict(), text, as_json=as_json)


@demo.command(examples=["flask demo calls"])
@json_option
def calls(as_json: bool) -> None:
    """Print a TOKEN of an organization that has data, three curl calls, and the dashboard's URL."""
    settings = Settings.from_environ()
    with open_database(settings).reading() as connection:
        organization = _organization(connection)
    scopes = [EVENTS_WRITE, AGENTS_WRITE]
    token = mint_token(organization, scopes, timedelta(days=1))
    dashboard = f"{settings.base_url}/dashboard"
    base = f"{settings.base_url}/api/v1/analytics"
    urls = [f"{base}/tokens?days=30", f"{base}/agents/activity", f"{base}/agents"]
    header = '"Authorization: Bearer $TOKEN"'
    lines = [f'curl -s "{url}" -H {header}' for url in urls]
    hint = " (paste the TOKEN there)" if settings.token_login else ""
    lines.append(f"# the dashboard{hint}: {dashboard}")
    if organization != ORGANIZATION:
        lines.insert(0, f"# a token of the organization {organization}")
    result: dict[str, Any] = {
        "organization": organization,
        "token": token,
        "urls": urls,
        "dashboard": dashboard,
    }
    show(result, "\n".join(["", f"TOKEN={token}", *lines, ""]), as_json=as_json)
