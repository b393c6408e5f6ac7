"""Copy: a service's data from one database into another, of the same kind or the other.

**Consistent.** All is read in one snapshot, taken after an id is known to be safe (see
``jobs.counting.watermark``): no event up to it is still to come, so what is copied are all events
up to an id, and topping up means the ids beyond. **Resumable.** Events come in batches, each
committed with the mark of how far they are (see ``jobs.copymark``). **Whole or recognisably
half.** Everything else, the state row included, comes in one last transaction, which also
compares both databases row by row and commits only when they are equal.

Every table of the models is copied; one that is added to them needs nothing here.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Column, ColumnElement, Connection, Table

from app.errors import RefusedError
from app.storage.database import Database
from app.storage.tables import issuance_events, metadata, rollup_runs, rollup_state
from jobs import copymark
from jobs.bulk import (
    Row,
    batches,
    differences,
    key_getter,
    key_of,
    read_rows,
    undisturbed,
    write_rows,
)
from jobs.copycheck import Origin, count_gone, gone, refuse_other_names
from jobs.copymark import Mark
from jobs.copytarget import prepare_target, refuse_cluster, refuse_same, require_schema
from jobs.counting.sequences import advance, newest_id
from jobs.counting.state import read_state
from jobs.counting.watermark import (
    Candidate,
    Writer,
    describe_writers,
    newest_candidate,
    open_writers,
)

POLL_SECONDS = 0.05

# Which transactions were open at the source means nothing elsewhere.
CLEARED = (rollup_state.c.candidate, rollup_state.c.writers)

event = issuance_events.c
_id_of = itemgetter(list(event).index(event.id))

# What is being done, how many rows of how many.
OnRows = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Copied:
    """A copy that was compared and found equal.

    ``copied``: events that this call brought, of ``events`` that are there; ``upto``: the id
    up to which they are all there; ``watermark``: up to which they are counted. ``behind``:
    events that the source has received since, and ``writers``: transactions that are open
    there. With either, the copy is to be topped up by copying again.
    """

    copied: int
    events: int
    upto: int
    watermark: int
    behind: int
    writers: list[Writer]


def copy_database(
    source: Database,
    target: Database,
    *,
    wait_seconds: float,
    on_rows: OnRows = lambda _what, _rows, _all: None,
) -> Copied:
    """Fill an empty ``target``, go on with a copy that was interrupted, or top one up.

    Ingest, runs and reads go on at the source meanwhile.

    Args:
        wait_seconds: how long to wait for writers that are open at the start; after that
            only the events that are counted are copied.
        on_rows: told of the progress.

    Raises:
        RefusedError: the two cannot be copied, and nothing was changed; or they differ
            after the copy, and the target is still half a copy.
    """
    require_schema(source, "the source")
    refuse_cluster(source)
    safe = _safe_candidate(source, wait_seconds)
    with source.snapshot() as origin:
        undisturbed(origin)
        refuse_same(origin, target)
        prepare_target(target)
        copy = _Copy(origin, target, safe, on_rows)
        copy.claim()
        copied = copy.add_events()
        events = target.write(copy.complete)
        watermark, upto = copy.watermark, copy.upto
    with source.reading() as connection:
        since = sa.select(sa.func.count()).where(event.id > upto)
        behind = connection.execute(since).scalar_one()
        writers = describe_writers(connection, Candidate(upto, open_writers(connection)))
    return Copied(copied, events, upto, watermark, behind, writers)


def _safe_candidate(source: Database, wait_seconds: float) -> Candidate:
    """The newest id, and who still holds it up after the wait."""
    give_up = time.monotonic() + wait_seconds
    with source.reading() as connection:
        candidate = newest_candidate(connection, read_state(connection).watermark)
        while candidate.writers and time.monotonic() < give_up:
            time.sleep(POLL_SECONDS)
            candidate = candidate.remaining(open_writers(connection))
    return candidate


class _Copy:
    """A copy under way."""

    def __init__(
        self, origin: Connection, target: Database, safe: Candidate, on_rows: OnRows
    ) -> None:
        self.watermark: int = read_state(origin).watermark
        # What a run has counted is safe, too, and it may be further than this copy has waited.
        self.upto = max(self.watermark, 0 if safe.writers else safe.upto)
        self._origin = origin
        self._source = Origin(origin, self.watermark, max(self.watermark, safe.upto))
        self._target = target
        self._on_rows = on_rows
        # Up to where the events are known to be equal.
        self._compared = 0

    def claim(self) -> None:
        """Make the target ours to write, half a copy from now on.

        Raises:
            RefusedError: it holds something that did not come from the source as it is.
        """
        purged = 0
        with self._target.snapshot() as connection:
            undisturbed(connection)
            seen = copymark.find_mark(connection)
            if seen is not None:
                checking = self._progress("checking", _count(self._origin, event.id <= seen.upto))
                purged = count_gone(self._source, connection, seen, checking)
        self.mark = self._target.write(
            partial(copymark.claim, seen=seen, newest=self._source.newest)
        )
        # An earlier copy may have waited longer for a writer than this one.
        self.upto = max(self.upto, self.mark.upto)
        self._compared = self.mark.upto
        if purged:
            self._delete_gone()

    def _delete_gone(self) -> None:
        with self._target.snapshot() as connection:
            undisturbed(connection)
            for ids in batches(gone(self._source, connection, self.mark)):
                self._target.write(partial(self._delete, ids=ids))

    def _delete(self, connection: Connection, ids: list[int]) -> None:
        undisturbed(connection)
        copymark.move(connection, self.mark, self.mark.upto, -len(ids))
        connection.execute(sa.delete(issuance_events).where(event.id.in_(ids)))

    def add_events(self) -> int:
        """Bring the events that the target does not have, batch by batch; their number."""
        missing = sa.and_(event.id > self.mark.upto, event.id <= self.upto)
        copying = self._progress("copying", _count(self._origin, missing))
        copied = 0
        with read_rows(self._origin, issuance_events, missing) as rows:
            for batch in batches(rows):
                self.mark = self._target.write(partial(self._add, batch=batch))
                copied += len(batch)
                copying(len(batch))
        return copied

    def _add(self, connection: Connection, batch: list[Row]) -> Mark:
        undisturbed(connection)
        mark = copymark.move(connection, self.mark, _id_of(batch[-1]), len(batch))
        write_rows(connection, issuance_events, batch)
        return mark

    def complete(self, connection: Connection) -> int:
        """Bring everything else, and let it stand if both are equal; the number of events.

        Raises:
            RefusedError: they are not.
        """
        undisturbed(connection)
        mark = copymark.move(connection, self.mark, self.upto)
        refuse_other_names(self._source, connection)
        for table in reversed(_others()):
            connection.execute(sa.delete(table))
        for table in _others():
            with read_rows(self._origin, table, cleared=CLEARED) as rows:
                write_rows(connection, table, rows)
        for column in _drawn():
            advance(connection, column, newest_id(self._origin, column))
        events = _count(connection)
        own = copymark.finish(connection, mark, events)
        self._compare_all(connection, own)
        return events

    def _compare_all(self, connection: Connection, own: int) -> None:
        """Refuse any difference but the copy's ``own`` row in the history.

        Events that were there before this call have been compared already.
        """
        new, upto = event.id > self._compared, event.id <= self.upto
        verifying = self._progress("verifying", _count(self._origin, new, upto))
        self._compare(connection, issuance_events, [new, upto], [new], verifying)
        if _count(connection) != _count(self._origin, upto):
            raise _unequal(issuance_events, "in the number of rows")
        for table in _others():
            history = [rollup_runs.c.id != own] if table is rollup_runs else []
            self._compare(connection, table, theirs=history)

    def _compare(
        self,
        connection: Connection,
        table: Table[Any],
        mine: Sequence[ColumnElement[bool]] = (),
        theirs: Sequence[ColumnElement[bool]] = (),
        on_rows: Callable[[int], None] | None = None,
    ) -> None:
        with (
            read_rows(self._origin, table, *mine, cleared=CLEARED, on_rows=on_rows) as expected,
            read_rows(connection, table, *theirs) as found,
        ):
            key = key_getter(table)
            for one, other in differences(expected, found, key):
                values = zip(key_of(table), key(one or other or ()), strict=True)
                where = " ".join(f"{column.name}={value}" for column, value in values)
                raise _unequal(table, f"at {where}")

    def _progress(self, what: str, total: int) -> Callable[[int], None]:
        done = 0

        def on_rows(rows: int) -> None:
            nonlocal done
            done += rows
            self._on_rows(what, done, total)

        return on_rows


def _others() -> list[Table[Any]]:
    """Every table but the events', in an order in which rows can be inserted."""
    return [table for table in metadata.sorted_tables if table is not issuance_events]


def _drawn() -> Iterator[Column[Any]]:
    """Every column that the database draws from a sequence."""
    for table in metadata.sorted_tables:
        yield from (column for column in table.c if column.identity is not None)


def _count(connection: Connection, *conditions: ColumnElement[bool]) -> int:
    count = sa.select(sa.func.count()).select_from(issuance_events).where(*conditions)
    return connection.execute(count).scalar_one()


def _unequal(table: Table[Any], where: str) -> RefusedError:
    return RefusedError(
        f"{table.name} differs {where}: the target is not equal to the source, and stays half a"
        " copy"
    )
