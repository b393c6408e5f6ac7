"""The acknowledged events of a fault run, compared with the database."""

import random
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone

import msgspec
from sqlalchemy import select
from sqlalchemy.engine import make_url

from app.intake.events import Event
from app.storage.database import Database
from app.storage.tables import issuance_events
from tests.support.recount import numbers, recount, stored

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


def drift(database: Database, promised: Iterable[Event]) -> Drift:
    """Recount what was promised in plain Python and compare the raw table and every rollup.

    ``promised`` is gone through several times. An event in the raw table that nobody was
    promised, such as one of a rolled-back transaction, is one too many.
    """
    found = Drift()
    found.add("issuance_events", *_unmatched(database, promised))
    instants = ((event.tenant_id, event.agent_id, event.issued_at) for event in promised)
    for table, expected in recount(instants).items():
        issued, hours = zip(numbers(expected), numbers(stored(database, table)), strict=True)
        found.add(table.name, *issued)
        found.add(f"{table.name}.hours", *hours)
    return found


def _unmatched(database: Database, promised: Iterable[Event]) -> tuple[Counter, Counter]:
    """What is only promised, and what is only in the raw table.

    There may be millions: of those that match only hashes are kept.
    """
    open_hashes = Counter(map(hash, promised))
    excess: Counter[Event] = Counter()
    for event in raw_events(database):
        if open_hashes[hash(event)] > 0:
            open_hashes[hash(event)] -= 1
        else:
            excess[event] += 1
    open_hashes = +open_hashes
    missing = (event for event in promised if hash(event) in open_hashes) if open_hashes else ()
    return Counter(missing), excess


def raw_events(database: Database) -> Iterator[Event]:
    """The raw table, row by row."""
    event = issuance_events.c
    columns = select(event.tenant_id, event.event_id, event.agent_id, event.issued_at)
    with database.snapshot() as connection:
        for row in connection.execution_options(yield_per=10_000).execute(columns):
            yield Event(*row)


def drift_at(url: str, promised: Iterable[Event]) -> Drift:
    """The same, for a database named by its URL."""
    database = Database(make_url(url))
    try:
        return drift(database, promised)
    finally:
        database.dispose()
