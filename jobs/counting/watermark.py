"""The watermark: the id up to which counting is safe, because no such id can commit any more.

On PostgreSQL an id is drawn before its row commits, so a higher id may be visible while a lower one
is still uncommitted. A writer locks the table before it draws an id. Therefore, in this order:

1. Read the newest id from the sequence: the *candidate*.
2. List the transactions that hold a writer's lock on the table. Every transaction that drew an id
   up to the candidate is in that list, or has ended.
3. When all of them have ended, every id up to the candidate is committed or never will be. Later
   writers draw higher ids, and the run does not wait for them.

A writer is identified by its virtual transaction id. A pid would not do, because the next
transaction on a pooled connection has the same pid. A virtual id also survives PREPARE TRANSACTION.
A crash ends every transaction except prepared ones, whose id is ``-1/xid`` afterwards. These may
belong to any writer, so a run always waits for them.

With Citus, a writer is connected to the coordinator, and ids come from the coordinator's sequence.
The writer prepares its parts at the nodes, commits, and notifies the nodes. Then it ends at the
coordinator, even if a notification failed. So after step 3 those writers begin no further parts,
but some parts may still be prepared (see ``app.storage.citus``). The nodes are therefore asked once
for their open parts, and the run waits for all of these, whichever writer they belong to.

SQLite has one writer at a time. Ids commit in order, so every committed id is safe.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from app.storage.citus import is_citus, open_parts
from app.storage.database import Database
from app.storage.tables import issuance_events
from app.storage.types import as_utc
from jobs.counting.refusals import (
    MismatchError,
    checked_newest_id,
    refuse_refused,
    store_refusal,
)
from jobs.counting.state import read_state

RECOVERED = "-1/"
# A marker among a candidate's writers. When no other writer is left, the open parts at the nodes
# replace it.
NODES = "nodes"

# A writer's lock has this mode, on the events table of this database.
_HELD = """
    SELECT * FROM pg_locks
    WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted
    AND relation = CAST('issuance_events' AS regclass)
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""

# S608, here and below: built from the constant above alone.
_OPEN_WRITERS = sa.text(f"SELECT DISTINCT virtualtransaction FROM ({_HELD}) AS held")  # noqa: S608

# A prepared transaction has no pid. It locks its own transaction id, which leads to its name.
_DESCRIBED_WRITERS = sa.text(f"""
    SELECT DISTINCT held.virtualtransaction, held.pid, activity.application_name AS application,
           coalesce(activity.xact_start, prepared.prepared) AS since, prepared.gid
    FROM ({_HELD}) AS held
    LEFT JOIN pg_stat_activity AS activity ON activity.pid = held.pid
    LEFT JOIN pg_locks AS own ON held.pid IS NULL AND own.locktype = 'transactionid'
         AND own.virtualtransaction = held.virtualtransaction
    LEFT JOIN pg_prepared_xacts AS prepared ON prepared.transaction = own.transactionid
    ORDER BY since
""")  # noqa: S608


@dataclass(frozen=True)
class Candidate:
    """An id, and the transactions that may still commit this id or a lower one."""

    upto: int
    writers: frozenset[str] = frozenset()

    def remaining(self, now_open: frozenset[str]) -> "Candidate":
        """The same candidate without the writers that have ended.

        Args:
            now_open: the result of :func:`open_writers` just now.
        """
        waiting = {w for w in now_open if w in self.writers or RECOVERED in w}
        if NODES in self.writers:
            parts = {w for w in now_open if _is_part(w)}
            waiting = waiting - parts if waiting - parts > {NODES} else parts
        return Candidate(self.upto, frozenset(waiting))


@dataclass(frozen=True)
class Writer:
    """A transaction that delays a candidate, as far as this role may see it."""

    pid: int | None
    application: str | None
    since: datetime | None
    gid: str | None

    def __str__(self) -> str:
        if self.gid is not None:
            return f"prepared transaction {self.gid!r} since {self.since}"
        if self.pid is None and self.application is not None:
            return f"a part of a transaction at the cluster's node {self.application}"
        if self.pid is None:
            return "a prepared transaction (see pg_prepared_xacts)"
        since = self.since or "a time this role may not see (needs pg_read_all_stats)"
        return f"pid {self.pid} ({self.application or 'no application name'}) since {since}"


def newest_candidate(connection: Connection, state: Row[Any]) -> Candidate:
    """The newest id drawn so far, and the writers that are open right after it was read.

    Args:
        connection: outside of a transaction, so that each statement sees the newest commits.
        state: as read before this call.

    Raises:
        RefusedError: counting is refused, or would give wrong numbers.
    """
    refuse_refused(state)
    upto = checked_newest_id(connection, state)
    return Candidate(upto, open_writers(connection))


def candidate_or_refusal(database: Database, state: Row[Any]) -> Candidate:
    """The newest candidate; if counting would give wrong numbers, that refusal is stored.

    Raises:
        RefusedError: counting is refused.
    """
    try:
        with database.reading() as connection:
            return newest_candidate(connection, state)
    except MismatchError:
        database.write(store_refusal)
    with database.reading() as connection:
        return newest_candidate(connection, read_state(connection))


def open_writers(connection: Connection) -> frozenset[str]:
    """The virtual transaction ids of open transactions that may have drawn an id.

    With Citus also the open parts at its nodes, and ``NODES``.
    """
    if connection.dialect.name == "sqlite":
        return frozenset()
    here = frozenset(connection.scalars(_OPEN_WRITERS))
    if not is_citus(connection):
        return here
    # The parts are read last: a writer that has ended at the coordinator has begun all its parts.
    return here | {NODES} | open_parts(connection, [issuance_events])


def describe_writers(connection: Connection, candidate: Candidate) -> list[Writer]:
    """The writers that delay the candidate, the oldest first."""
    if not candidate.writers:
        return []
    rows = connection.execute(_DESCRIBED_WRITERS)
    return [
        Writer(row.pid, row.application, as_utc(row.since), row.gid)
        for row in rows
        if row.virtualtransaction in candidate.writers
    ] + [Writer(None, part, None, None) for part in sorted(filter(_is_part, candidate.writers))]


def _is_part(writer: str) -> bool:
    return ":" in writer
