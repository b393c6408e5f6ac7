"""Copy a database into another one, in one transaction (``flask db copy``).

**All or nothing.** The target must be migrated and empty, and it is locked against other writers.
One transaction there writes every row, compares both databases row by row, and commits only if
they are equal. A copy that fails or is killed leaves the target as it was.

**One moment.** The source is read in one snapshot, while ingest, runs and reads continue there.
The source is checked once more before the commit. Nothing is committed if it has changed:

- Events: the newest id is settled before the snapshot. Every transaction that may have drawn it
  or a lower one has ended (see ``jobs.counting.watermark``), so the snapshot holds every event up
  to it. If it is still the newest id at the end, no event was added, because each insert draws an
  id. A writer that is still open may yet insert an event, so it counts as a change.
- Summary tables change only together with the state row: its watermark, its number of corrections
  or the progress of a backfill. Months that retention deletes meanwhile may still be in the copy.
- Every other table is compared with the snapshot. A purge also changes ``purged_months``.

Changes that commit after this check are not in the copy, and nothing reports them. No check could:
a change may commit at the source right after the target's commit. So stop the writers before the
copy, and start them on the target.

Every table of the metadata is copied, so a new table needs no change here. Only the sessions of
people stay behind: they sign in again, and no session that has ended meanwhile comes back.
"""

import os
import secrets
import time
from collections.abc import Callable, Generator, Set
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Column, Connection, Table

from app.errors import RefusedError
from app.storage.citus import is_citus
from app.storage.database import Database
from app.storage.failures import as_sqlalchemy_error
from app.storage.schema import current_revision, expected_revision
from app.storage.tables import (
    api_keys,
    detection_state,
    issuance_events,
    metadata,
    organization_summary_state,
    page_sessions,
    rollup_state,
    share_links,
)
from jobs.counting.sequences import advance, newest_id
from jobs.counting.state import read_state
from jobs.counting.tables import SUMMARY_TABLES
from jobs.counting.watermark import (
    Candidate,
    Writer,
    describe_writers,
    newest_candidate,
    open_writers,
)

BATCH_ROWS = 10_000
POLL_SECONDS = 0.05

Row = tuple[Any, ...]
Rows = Generator[Row, None, None]
# Called with the name of the step, the number of rows done, and the number of all rows.
OnRows = Callable[[str, int, int], None]

TABLES = [table for table in metadata.sorted_tables if table is not page_sessions]
DRAWN = [column for table in TABLES for column in table.c if column.identity is not None]
# These columns refer to open transactions of the source, which do not exist in another database.
_OPEN: set[Column[Any]] = {rollup_state.c.candidate, rollup_state.c.writers}
# A run changes these columns even if it counts nothing, detection even if it finds nothing, and a
# read that uses a key or a link, and a pass over organizations.
_TIMES: set[Column[Any]] = {
    rollup_state.c.last_tick,
    rollup_state.c.last_finished,
    api_keys.c.last_used,
    detection_state.c.turn,
    detection_state.c.claimed_until,
    detection_state.c.last_finished,
    share_links.c.opened,
    share_links.c.last_opened_at,
    organization_summary_state.c.began_at,
    organization_summary_state.c.after,
    organization_summary_state.c.counting,
    organization_summary_state.c.counted_at,
    organization_summary_state.c.last_finished,
}
# These tables are not compared again. The newest id shows new events; the state row and the journal
# show changes of summary tables.
_TOLD_BY_OTHERS = {issuance_events, *(summary.table for summary in SUMMARY_TABLES)}

# As pg_dump does: a default of the role or the database must not stop the copy midway, or hide rows
# without an error. Instants are read in UTC, because the driver cannot represent those that are
# after the year 9999 in the session's time zone.
_UNDISTURBED = sa.text("""
    SELECT set_config('statement_timeout', '0', true),
           set_config('idle_in_transaction_session_timeout', '0', true),
           set_config('row_security', 'off', true),
           set_config('timezone', 'UTC', true)
""")


@dataclass(frozen=True)
class Copied:
    """The result of a copy: the target's events and watermark after it.

    If ``changed`` names tables of the source, or ``writers`` are open there, the source has
    changed. Then nothing is committed, and the target stays empty.
    """

    events: int = 0
    watermark: int = 0
    changed: list[str] = field(default_factory=list)
    writers: list[Writer] = field(default_factory=list)

    @property
    def verified(self) -> bool:
        """Whether the target equals the source and the copy is committed."""
        return not self.changed and not self.writers


class _SourceChangedError(Exception):
    """Rolls the target back because of changed tables and open writers at the source."""


def copy_database(
    source: Database,
    target: Database,
    *,
    wait_seconds: float,
    on_rows: OnRows = lambda _work, _rows, _all: None,
) -> Copied:
    """Copy everything into ``target``, which is migrated and empty, or change nothing there.

    Args:
        wait_seconds: how long to wait for writers that are open at the source at the start.
        on_rows: called with the progress.

    Raises:
        RefusedError: the two cannot be copied, or they differ after the copy.
    """
    _require_schema(source, "source")
    _require_schema(target, "target")
    with source.reading() as connection:
        if is_citus(connection):
            raise RefusedError(
                "the source is a cluster, whose nodes share no snapshot; make a backup of each node"
                " instead"
            )
    try:
        settled = _settled_id(source, wait_seconds)
        with source.snapshot() as origin:
            _undisturb(origin)
            return target.write(partial(_fill, source, origin, settled, on_rows))
    except _SourceChangedError as error:
        return Copied(0, 0, *error.args)


def _fill(
    source: Database, origin: Connection, settled: int, on_rows: OnRows, target: Connection
) -> Copied:
    """The target's transaction, from the snapshot ``origin`` of the source."""
    _undisturb(target)
    _claim(origin, target)
    count = sa.select(sa.func.count())
    counts = {table: origin.scalar(count.select_from(table)) or 0 for table in TABLES}
    copying, verifying = (
        _meter(on_rows, work, sum(counts.values())) for work in ("copying", "verifying")
    )
    target.execute(sa.delete(rollup_state))
    for table in TABLES:
        with closing(_rows(origin, table, _OPEN, copying)) as rows:
            _write(target, table, rows)
    for table in TABLES:
        _require_equal(table, _rows(origin, table, _OPEN, verifying), _rows(target, table))
    _require_unchanged(source, origin, settled)
    # Last, because PostgreSQL does not roll a sequence back. Skipped ids do no harm.
    for column in DRAWN:
        advance(target, column, newest_id(origin, column))
    return Copied(counts[issuance_events], read_state(origin).counted_upto)


def _require_schema(database: Database, name: str) -> None:
    with database.reading() as connection:
        revision = current_revision(connection)
    if revision != expected_revision():
        raise RefusedError(
            f"the {name} has schema {revision or 'none'}, this version needs"
            f" {expected_revision()}: run `flask db upgrade` with DATABASE_URL set to the {name}"
        )


def _settled_id(source: Database, wait_seconds: float) -> int:
    """The newest id, once every transaction has ended that may have drawn it or a lower one."""
    give_up = time.monotonic() + wait_seconds
    with source.reading() as connection:
        candidate = newest_candidate(connection, read_state(connection))
        while candidate.writers:
            if time.monotonic() >= give_up:
                raise _SourceChangedError([], describe_writers(connection, candidate))
            time.sleep(POLL_SECONDS)
            candidate = candidate.remaining(open_writers(connection))
    return candidate.upto


def _undisturb(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(_UNDISTURBED)


def _claim(origin: Connection, target: Connection) -> None:
    """Lock the target against other writers until the commit; refuse it if it holds anything."""
    if _is_same(origin, target):
        raise RefusedError("the target is the source")
    if target.dialect.name == "postgresql":  # SQLite has one writer at a time
        names = ", ".join(table.name for table in TABLES)
        target.execute(sa.text(f"LOCK TABLE {names} IN EXCLUSIVE MODE"))
    for table in TABLES:
        rows = target.execute(sa.select(table).limit(2)).all()
        # The migrations insert one row of state, which is empty except for its id.
        fresh = len(rows) == 1 and not any(rows[0][1:]) if table is rollup_state else not rows
        if not fresh:
            raise RefusedError(
                f"the target is in use, see its table {table.name}: copy into a new database after"
                " `flask db upgrade`"
            )


def _is_same(one: Connection, other: Connection) -> bool:
    """Whether two connections lead to the same database, even by different URLs."""
    if one.dialect.name != other.dialect.name:
        return False
    if one.dialect.name == "postgresql":
        # An advisory lock exists in one database of one server only. So the lock can be taken on
        # the other connection, unless it leads to the same database.
        key = secrets.randbits(63)
        one.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))
        return not other.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(key)))
    name = sa.text("SELECT file FROM pragma_database_list WHERE name = 'main'")
    files = [Path(str(connection.scalar(name))) for connection in (one, other)]
    return os.path.samefile(*files)


def _meter(on_rows: OnRows, work: str, total: int) -> Callable[[int], None]:
    done = 0

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        on_rows(work, done, total)

    return count


def _require_equal(table: Table[Any], mine: Rows, theirs: Rows) -> None:
    row = _first_difference(mine, theirs)
    if row is not None:
        values = dict(zip(table.c, row, strict=True))
        key = " ".join(f"{column.name}={values[column]}" for column in _key(table))
        raise RefusedError(
            f"{table.name} differs at {key}, so nothing was committed: look for a trigger or a"
            " rule on the target's table, then run this again"
        )


def _require_unchanged(source: Database, origin: Connection, settled: int) -> None:
    """End the copy if the source has changed since ``origin``, its snapshot."""
    changed = []
    with source.snapshot() as now:
        _undisturb(now)
        for table in (table for table in TABLES if table not in _TOLD_BY_OTHERS):
            then, since = (_rows(each, table, _OPEN | _TIMES) for each in (origin, now))
            if _first_difference(then, since) is not None:
                changed.append(str(table.name))
    with source.reading() as connection:
        writers = describe_writers(connection, Candidate(0, open_writers(connection)))
        # Read after the writers, so that the id of a writer that has just ended is seen.
        if newest_id(connection, issuance_events.c.id) != settled:
            changed.append(str(issuance_events.name))
    if changed or writers:
        raise _SourceChangedError(changed, writers)


def _first_difference(mine: Rows, theirs: Rows) -> Row | None:
    """The first row that differs between the two, from either side; ``None`` if all are equal."""
    with closing(mine), closing(theirs):
        pairs = zip_longest(mine, theirs)
        return next((one or other for one, other in pairs if one != other), None)


def _key(table: Table[Any]) -> list[Column[Any]]:
    # Two events may have one id, after a resume of counting; then their keys give the order.
    names = ["id"] if "id" in table.c else []
    key = table.primary_key.columns.keys() or table.c.keys()
    return [table.c[name] for name in dict.fromkeys([*names, *key])]


def _rows(
    connection: Connection,
    table: Table[Any],
    cleared: Set[Column[Any]] = frozenset(),
    on_batch: Callable[[int], None] = lambda _rows: None,
) -> Rows:
    """Every row by key, as a stream, which needs little memory; ``cleared`` columns are null.

    A row is a plain tuple, and a value is the same from both kinds of database.
    """
    columns = [sa.null().label(c.name) if c in cleared else c for c in table.c]
    # Without a named collation, each database sorts texts in its own order.
    order = "C" if connection.dialect.name == "postgresql" else "BINARY"
    key = [c.collate(order) if isinstance(c.type, sa.String) else c for c in _key(table)]
    options = {"yield_per": BATCH_ROWS}  # with a server-side cursor
    with connection.execute(sa.select(*columns).order_by(*key), execution_options=options) as found:
        for part in found.partitions():
            yield from map(tuple, part)
            on_batch(len(part))


def _write(connection: Connection, table: Table[Any], rows: Rows) -> None:
    """Insert rows and keep their ids."""
    names = [column.name for column in table.c]
    if connection.dialect.name != "postgresql":
        while batch := [dict(zip(names, row, strict=True)) for row in islice(rows, BATCH_ROWS)]:
            connection.execute(sa.insert(table), batch)
        return
    # COPY also takes values for GENERATED ALWAYS AS IDENTITY.
    statement = f"COPY {table.name} ({', '.join(names)}) FROM STDIN"
    driver: Any = connection.connection.driver_connection
    try:
        # The driver escapes each value. The statement contains only names from the metadata.
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)
    except connection.dialect.loaded_dbapi.Error as error:
        raise as_sqlalchemy_error(connection, statement, error) from error
