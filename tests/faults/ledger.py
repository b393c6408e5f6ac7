"""What the writers were promised, and what the database made of it."""

import random
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone

import msgspec
from sqlalchemy import select
from sqlalchemy.engine import make_url

from app.db import Database
from app.events import Event
from app.models import issuance_events
from tests.recount import recount, stored

ZONES = [UTC, *(timezone(timedelta(minutes=m)) for m in (-570, -480, 60, 345, 840))]
LATE = 0.4
SHOWN = 10


def make_events(dice: random.Random, prefix: str, size: int) -> list[Event]:
    """Events of several tenants, written in several time zones, some 1 to 400 days late."""
    now = datetime.now(UTC)
    return [
        Event(
            f"org-{dice.randrange(4)}",
            f"{prefix}-{number}",
            f"agent-{dice.randrange(25)}",
            _instant(dice, now).astimezone(dice.choice(ZONES)),
        )
        for number in range(size)
    ]


def _instant(dice: random.Random, now: datetime) -> datetime:
    days = dice.uniform(1, 400) if dice.random() < LATE else dice.uniform(0, 0.1)
    return now - timedelta(days=days)


def ndjson(events: Iterable[Event]) -> bytes:
    """Events as ``POST /events`` and ``flask events import`` take them, one a line."""
    return b"".join(
        msgspec.json.encode(
            {
                "id": event.event_id,
                "organizationId": event.tenant_id,
                "agentId": event.agent_id,
                "issuedAt": event.issued_at.isoformat(),
            }
        )
        + b"\n"
        for event in events
    )


class Ledger:
    """Every event whose commit was acknowledged to its writer, once, however often sent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: dict[tuple[str, str], Event] = {}

    def acknowledge(self, events: Iterable[Event]) -> None:
        with self._lock:
            for event in events:
                self._events[event[:2]] = event

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self):
        return iter(self._events.values())


@dataclass
class Drift:
    """How the database differs from a ledger: the worst table's events too few, too many."""

    lost: int = 0
    doubled: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, table: str, expected: Counter, found: Counter) -> None:
        """Compare one table, given as counts by key."""
        missing, excess = expected - found, found - expected
        self.lost = max(self.lost, missing.total())
        self.doubled = max(self.doubled, excess.total())
        for word, keys in (("too few", missing), ("too many", excess)):
            room = SHOWN - len(self.examples)
            self.examples += [f"{table}: {n} {word} at {key}" for key, n in keys.items()][:room]


def drift(database: Database, ledger: Ledger) -> Drift:
    """Recount the ledger in plain Python and compare the raw table and every rollup with it.

    An event in the raw table that nobody was promised, such as one of a rolled-back
    transaction, is one too many.
    """
    found = Drift()
    event = issuance_events.c
    columns = select(event.tenant_id, event.event_id, event.agent_id, event.issued_at)
    with database.reading() as connection:
        raw = Counter(tuple(row) for row in connection.execute(columns))
    found.add("issuance_events", Counter(tuple(promised) for promised in ledger), raw)
    promised = ((event.tenant_id, event.agent_id, event.issued_at) for event in ledger)
    for table, expected in recount(promised).items():
        found.add(table.name, expected, Counter(stored(database, table)))
    return found


def drift_at(url: str, ledger: Ledger) -> Drift:
    """The same, for a database named by its URL."""
    database = Database(make_url(url))
    try:
        return drift(database, ledger)
    finally:
        database.dispose()
