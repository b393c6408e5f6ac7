"""Noting: which organizations have new events, on which days, and how late events arrive.

The events are read by their ids, as a run reads them, but in no transaction of a run. What is
noted twice does no harm: an organization is judged again, with the same result.
"""

from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite

from app.storage.database import Database
from app.storage.tables import issuance_events, rollup_corrections, usual
from app.storage.types import seconds_between
from jobs.counting.adding import Window, in_window
from jobs.findings.claim import Claim

HOUR = 3600
# A delay is stored as the smallest of these that is not exceeded. Later events do not count: no
# wait would be long enough, and an import of history must not delay what is live.
DELAYS = (
    *(60, 300, 900, HOUR, 2 * HOUR, 4 * HOUR, 6 * HOUR),
    *(12 * HOUR, 24 * HOUR, 36 * HOUR, 48 * HOUR),
)
LONGEST = DELAYS[-1]
QUANTILE = 0.99
# Delays are those of so many days.
DELAY_DAYS = 7
BATCH = 500

_DELAYS = msgspec.json.Decoder(dict[str, list[int]])


def changed_days(connection: Connection, window: Window) -> dict[str, date]:
    """The organizations of the events in a window of ids, each with its earliest day."""
    event = issuance_events.c
    rows = connection.execute(
        sa.select(event.tenant_id, sa.func.min(event.issued_at).label("first"))
        .where(in_window(window))
        .group_by(event.tenant_id)
    )
    return {row.tenant_id: row.first.date() for row in rows}


def corrected_days(connection: Connection, after: int) -> dict[str, date]:
    """The organizations that rebuilds have corrected since, each with its earliest day."""
    journal = rollup_corrections.c
    rows = connection.execute(
        sa.select(journal.tenant_id, sa.func.min(journal.month).label("first"))
        .where(journal.correction > after, journal.month.is_not(None))
        .group_by(journal.tenant_id)
    )
    return {row.tenant_id: row.first for row in rows}


def note_changes(
    database: Database, claim: Claim, changed: Mapping[str, date], now: datetime
) -> None:
    """Make organizations due whose judged days have changed, and those that are new."""
    for part in _batches(changed):
        with database.reading() as connection:
            known = _known(connection, [tenant for tenant, _ in part])
        new = [(tenant, day) for tenant, day in part if tenant not in known]
        late = [(tenant, day) for tenant, day in part if tenant in known and day <= known[tenant]]
        if new or late:
            database.write(partial(_note, claim, new, late, now))


def _note(
    claim: Claim,
    new: list[tuple[str, date]],
    late: list[tuple[str, date]],
    now: datetime,
    connection: Connection,
) -> None:
    claim.renew(connection)
    if new:
        upsert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        rows = [
            {
                "tenant_id": tenant,
                "judged_through": day - timedelta(days=1),
                "due_at": now,
                "delay_seconds": LONGEST,
                "delays": "{}",
                "usuals": "{}",
                "states": "{}",
            }
            for tenant, day in new
        ]
        connection.execute(upsert(usual).on_conflict_do_nothing(), rows)
    if late:
        column, begin = usual.c, sa.bindparam("begin", type_=sa.Date)
        # The earlier of the two days; SQLite's min() and PostgreSQL's least() differ.
        earlier = sa.case((column.changed_from < begin, column.changed_from), else_=begin)
        connection.execute(
            sa.update(usual)
            .where(column.tenant_id == sa.bindparam("tenant"))
            .values(changed_from=earlier, due_at=now),
            [{"tenant": tenant, "begin": day} for tenant, day in late],
        )


def measure_delays(database: Database, claim: Claim, window: Window, now: datetime) -> None:
    """Add the delays of the events in a window of ids to those of their organizations."""
    with database.reading() as connection:
        found = _delays(connection, window)
    for part in _batches(found):
        database.write(partial(_add_delays, claim, dict(part), now))


def _add_delays(
    claim: Claim, found: Mapping[str, list[int]], now: datetime, connection: Connection
) -> None:
    claim.renew(connection)
    column = usual.c
    stored = connection.execute(
        sa.select(column.tenant_id, column.delays).where(column.tenant_id.in_(found))
    )
    rows = [
        _with_delays(row.tenant_id, _delays_in(row.delays), found[row.tenant_id], now)
        for row in stored
    ]
    if rows:
        values: dict[str, Any] = {
            "delays": sa.bindparam("days"),
            "delay_seconds": sa.bindparam("seconds"),
        }
        connection.execute(
            sa.update(usual).where(column.tenant_id == sa.bindparam("tenant")).values(values), rows
        )


def _delays_in(text: str) -> dict[str, list[int]]:
    """The counts of a row; none if they cannot be read: they are counted anew within a week."""
    try:
        days = _DELAYS.decode(text)
    except (msgspec.MsgspecError, ValueError):
        return {}
    return {day: counts for day, counts in days.items() if len(counts) == len(DELAYS)}


def usual_delay(delays: Mapping[str, list[int]]) -> int:
    """The delay within which 99 of 100 events arrive, in seconds, at most 48 hours."""
    counts = [sum(day[index] for day in delays.values()) for index in range(len(DELAYS))]
    total, seen = sum(counts), 0
    for delay, count in zip(DELAYS, counts, strict=True):
        seen += count
        if total and seen >= QUANTILE * total:
            return delay
    return LONGEST


def _with_delays(
    tenant_id: str, before: Mapping[str, list[int]], counts: list[int], now: datetime
) -> dict[str, Any]:
    days = dict(before)
    today = now.date().isoformat()
    earlier = days.get(today, [0] * len(DELAYS))
    days[today] = [one + other for one, other in zip(earlier, counts, strict=True)]
    kept = {day: days[day] for day in sorted(days)[-DELAY_DAYS:]}
    text = msgspec.json.encode(kept).decode()
    return {"tenant": tenant_id, "days": text, "seconds": usual_delay(kept)}


def _delays(connection: Connection, window: Window) -> dict[str, list[int]]:
    """How many events of each organization arrived within each of the DELAYS."""
    event = issuance_events.c
    seconds = seconds_between(event.issued_at, event.received_at)
    place = sa.case(
        *((seconds <= delay, number) for number, delay in enumerate(DELAYS)), else_=len(DELAYS)
    ).label("place")
    rows = connection.execute(
        sa.select(event.tenant_id, place, sa.func.count().label("events"))
        .where(in_window(window))
        .group_by(event.tenant_id, place)
    )
    found: dict[str, list[int]] = {}
    for row in rows:
        if row.place < len(DELAYS):
            found.setdefault(row.tenant_id, [0] * len(DELAYS))[row.place] = row.events
    return found


def _known(connection: Connection, tenants: list[str]) -> dict[str, date]:
    column = usual.c
    rows = connection.execute(
        sa.select(column.tenant_id, column.judged_through).where(column.tenant_id.in_(tenants))
    )
    return {row.tenant_id: row.judged_through for row in rows}


def _batches(found: Mapping[str, Any]) -> Iterator[list[tuple[str, Any]]]:
    items = iter(sorted(found.items()))
    while part := list(islice(items, BATCH)):
        yield part
