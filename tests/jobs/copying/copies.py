"""What the tests of ``flask db copy`` share: a full database, and two compared table by table."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import make_url

from app.intake.agent_names import set_names
from app.intake.events import Event
from app.intake.store import record_events
from app.storage.database import Database
from app.storage.tables import daily_issuance, issuance_events, metadata, rollup_runs, rollup_state
from jobs.copying import Copied, copy_database
from jobs.counting.run import Run, run_rollup
from jobs.recount.rebuild import rebuild
from jobs.retention import purge_events

MARCH, APRIL = date(2026, 3, 1), date(2026, 4, 1)
# What a text format could take for its own, and what sorts otherwise by locale or UTF-16.
HOSTILE = [
    "\\N", "\\.", "\\", "a\\tb", "''", '"', "$1", "%s", ":name", "{}", "--", "NULL", " ", " a ",
    "B", "a", "Z", "\xe9", "e\u0301", "\xa0", "\u2028", "\ufeff", "\uffee", "\U0001f600",
    "\U0010ffff", "x" * 255, "\U0001f600" * 255,
]  # fmt: skip
KINDS = ["sqlite", "postgresql"]


def open_url(url: str) -> Database:
    return Database(make_url(url), pool_size=20)


def execute(database: Database, statement: Any) -> None:
    database.write(lambda connection: connection.execute(statement))


def issue(
    database: Database, *names: str, at: str = "2026-04-01T10:00:00Z", **members: str
) -> None:
    """Store an event for each name."""
    whole = {"tenant_id": "org-a", "agent_id": "agent-1"} | members
    when = datetime.fromisoformat(at)
    events = [Event(event_id=name, issued_at=when, **whole) for name in names]
    assert record_events(database, events).accepted == len(names)


def name(database: Database, agent: str, text: str | None, at: str, tenant: str = "org-a") -> None:
    """Call an agent so from an instant on."""
    set_names(database, tenant, {agent: text}, datetime.fromisoformat(at))


def roll_up(database: Database) -> Run:
    return run_rollup(database, window_ids=1000, wait_seconds=5)


def age(database: Database, *names: str) -> None:
    """As if they had been received long ago."""
    old = datetime.now(UTC) - timedelta(days=400)
    aged = sa.update(issuance_events).where(issuance_events.c.event_id.in_(names))
    execute(database, aged.values(received_at=old))


def purge(database: Database, *names: str) -> None:
    """Purge these events, which are counted."""
    age(database, *names)
    assert purge_events(database, retention_days=300).events == len(names)


def correct(database: Database) -> None:
    """Leave a correction in the journal."""
    execute(
        database, sa.update(daily_issuance).where(daily_issuance.c.date >= APRIL).values(issued=9)
    )
    assert rebuild(database, APRIL, APRIL).correction is not None


def fill(database: Database) -> None:
    """Something in every table: hostile ids and names, exact times, a correction, a purged month,
    events that are not counted yet, and what a run left to be resumed."""
    for text in HOSTILE:
        issue(database, text, tenant_id=text, agent_id=text, at="2026-04-30T23:59:59.999999Z")
        name(database, text, text, "2026-04-30T23:59:59.999999Z", tenant=text)
    name(database, "nobody", None, "1970-01-01T00:00:00Z")
    issue(database, "first", at="1970-01-01T00:00:00Z")
    issue(database, "micro", at="2026-02-28T23:59:59.000001Z")
    issue(database, "old", "older", at="2026-03-31T23:59:59.999999Z")
    roll_up(database)
    correct(database)
    purge(database, "old", "older")
    issue(database, *(f"pending {number}" for number in range(20)), at="2026-05-01T00:00:00Z")
    left = sa.update(rollup_state).values(candidate=10**6, writers="3/77 4/1")
    execute(database, left.values(last_started=datetime(2026, 5, 1, 1, 2, 3, 456789, UTC)))


def copy(source: Database, target: Database, **options: Any) -> Copied:
    return copy_database(source, target, **({"wait_seconds": 5} | options))


def contents(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, and nothing left out."""
    with database.reading() as connection:
        return {
            table.name: sorted(map(tuple, connection.execute(sa.select(table))), key=repr)
            for table in metadata.sorted_tables
        }


def without_mark(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """The same, without the copy's own row in the history."""
    found = contents(database)
    place = list(rollup_runs.c).index(rollup_runs.c.outcome)
    marks = [row for row in found["rollup_runs"] if row[place] == "copied"]
    found["rollup_runs"].remove(max(marks))
    return found


def as_copied(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """What a copy of the database should hold."""
    found = contents(database)
    (state,) = found["rollup_state"]
    names = [column.name for column in rollup_state.c]
    cleared = [None if name in ("candidate", "writers") else value
               for name, value in zip(names, state, strict=True)]  # fmt: skip
    return found | {"rollup_state": [tuple(cleared)]}


def is_half(database: Database) -> bool:
    return contents(database)["rollup_state"] == []
