"""How far it is safe to count: which ids no open transaction can still commit.

On PostgreSQL an id is drawn before its row commits, so a higher id may be visible while
a lower one is still to come. A writer locks the table before it draws an id. Therefore,
in this order:

1. read the newest id from the sequence: the *candidate*;
2. list who holds the writers' lock on the table. Whoever drew an id up to the candidate
   is in that list or has ended;
3. once all of them have ended, every id up to the candidate is committed or never will
   be. Writers who came later draw higher ids and are not waited for.

Writers are told apart by virtual transaction id, which, unlike a pid, is not shared by
the next transaction on a pooled connection, and which PREPARE TRANSACTION keeps. A crash
ends every transaction but the prepared ones, which come back under a new one, ``-1/xid``:
these may be anybody's and are always waited for.

With Citus a writer is connected to the coordinator, whose sequence ids are drawn from. It
prepares its parts at the nodes, commits, and ends here once it has told them, or has failed
to. So when step 3 is done, no part of those writers can begin any more, but some may be
prepared yet (see ``app.storage.citus``). Therefore the nodes are asked then, once, which parts
there are, and these are waited for, too, whoever's they are.

On SQLite there is one writer at a time, so ids commit in order and any committed id is safe.
"""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection

from app.errors import RefusedError
from app.storage.citus import is_citus, open_parts
from app.storage.tables import issuance_events
from app.storage.types import as_utc
from jobs.counting.sequences import newest_id

RECOVERED = "-1/"
# Among the writers: the nodes of the cluster are to be asked once nobody is left here.
NODES = "nodes"

# A writers' lock is one of this mode on the events table of this database.
_HELD = """
    SELECT * FROM pg_locks
    WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted
    AND relation = CAST('issuance_events' AS regclass)
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""

# S608, here and below: built from the constant above alone.
_OPEN_WRITERS = sa.text(f"SELECT DISTINCT virtualtransaction FROM ({_HELD}) AS held")  # noqa: S608

# A prepared transaction has no pid; its transaction id, locked by itself, leads to its name.
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

_SEQUENCE = sa.text("""
    SELECT pg_is_in_recovery() AS standby,
           (SELECT seqcache = 1 AND seqincrement = 1 AND NOT seqcycle FROM pg_sequence
            WHERE seqrelid = CAST(pg_get_serial_sequence('issuance_events', 'id') AS regclass)
           ) AS ordered
""")


@dataclass(frozen=True)
class Candidate:
    """An id, and the transactions that may still commit it or a lower one."""

    upto: int
    writers: frozenset[str] = frozenset()

    def remaining(self, now_open: frozenset[str]) -> "Candidate":
        """The same candidate, waiting only for those who are still open.

        Args:
            now_open: what :func:`open_writers` has just said.
        """
        waiting = {w for w in now_open if w in self.writers or RECOVERED in w}
        if NODES in self.writers:
            parts = {w for w in now_open if _is_part(w)}
            waiting = waiting - parts if waiting - parts > {NODES} else parts
        return Candidate(self.upto, frozenset(waiting))


@dataclass(frozen=True)
class Writer:
    """A transaction that holds a candidate up, as far as this role may see it."""

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


def newest_candidate(connection: Connection, watermark: int) -> Candidate:
    """The newest id drawn so far and the writers open right after.

    Args:
        connection: outside a transaction, so that each statement sees the present.
        watermark: as read before this call.

    Raises:
        RefusedError: counting here would be wrong: a standby, an id sequence that hands
            ids out in blocks, or one that lies behind the watermark.
    """
    _refuse_unordered_ids(connection)
    upto = newest_id(connection, issuance_events.c.id)
    if upto < watermark:
        raise RefusedError(
            f"the newest event id, {upto}, is below the watermark, {watermark}: events and"
            " rollups come from different backups; new events would never be counted"
        )
    return Candidate(upto, open_writers(connection))


def open_writers(connection: Connection) -> frozenset[str]:
    """Virtual transaction ids of all who may have drawn an id and not ended; with Citus also
    those of parts at its nodes, and ``NODES``."""
    if connection.dialect.name == "sqlite":
        return frozenset()
    here = frozenset(connection.scalars(_OPEN_WRITERS))
    if not is_citus(connection):
        return here
    # In this order: who is not here any more has left all its parts behind.
    return here | {NODES} | open_parts(connection, [issuance_events])


def describe_writers(connection: Connection, candidate: Candidate) -> list[Writer]:
    """Who holds the candidate up, longest first."""
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


def _refuse_unordered_ids(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        return
    sequence = connection.execute(_SEQUENCE).one()
    if sequence.standby:
        raise RefusedError("this database is a standby; use the primary")
    if not sequence.ordered:
        raise RefusedError("the sequence of issuance_events.id must have INCREMENT 1, CACHE 1")
