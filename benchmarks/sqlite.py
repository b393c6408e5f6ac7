"""R4: rollup runs on SQLite, compared with plain SELECTs."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy.engine import make_url

from app.storage.database import Database
from benchmarks import data, rivals
from benchmarks.bench import Bench
from benchmarks.figures import BenchmarkError, Figure, Rival, faster, interleaved, seconds, timed
from benchmarks.rollups import BATCH, BATCH_PERIOD
from tests.support.databases import migrate

EVENTS = 500_000
LAST = 10**12  # no event has a higher id
INSERT = f"INSERT INTO issuance_events ({data.COLUMNS}) VALUES (?, ?, ?, ?)"


@contextmanager
def opened(path: Path) -> Iterator[tuple[Database, sqlite3.Connection]]:
    """A new database of the service, and a connection of the driver to it."""
    url = f"sqlite:///{path}"
    migrate(url)
    database = Database(make_url(url))
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            yield database, connection
    finally:
        database.dispose()
        path.unlink()


def stored(bench: Bench, selected: str) -> list[tuple[str, ...]]:
    """Events as SQLite stores them; PostgreSQL makes them."""
    columns = f"tenant_id, event_id, agent_id, {data.instant('YYYY-MM-DD HH24:MI:SS.US')}"
    with bench.cluster.connect("postgres") as connection:
        return connection.execute(f"SELECT {columns} FROM ({selected}) AS event").fetchall()


def store(connection: sqlite3.Connection, rows: list[tuple[str, ...]]) -> None:
    """Store all rows in one transaction."""
    connection.execute("BEGIN")
    connection.executemany(INSERT, rows)
    connection.execute("COMMIT")


def rollups(bench: Bench) -> Iterator[Figure]:
    """R4: rollup runs on SQLite, from empty and for the next events."""
    events, batch = bench.scaled(EVENTS), bench.scaled(BATCH)
    with opened(bench.folder / "r4.db") as (database, connection):
        store(connection, stored(bench, data.events(events)))
        bench.roll_up(database)
        whole = _Turns(bench, database, connection)
        ours, recounts = map(seconds, interleaved(bench.few, (whole.from_empty, whole.recount)))
        yield faster(
            "R4a",
            f"SQLite: roll up {events:,} events from empty",
            ours,
            Rival("six SELECT … GROUP BY", recounts),
            0.8,
        )
        batches = _Turns(bench, database, connection, batch)
        batches.next_run()
        ours, recounts = map(
            seconds, interleaved(bench.repetitions, (batches.next_run, batches.recount))
        )
        whole.check()
    work = f"SQLite: roll up the next {batch:,} events after {events:,}"
    yield faster("R4b", work, ours, Rival("six SELECT … GROUP BY of these", recounts), 0.8)


class _Turns:
    """The measurements that take turns; ``batch``: the number of events added before each run."""

    def __init__(
        self, bench: Bench, database: Database, connection: sqlite3.Connection, batch: int = 0
    ) -> None:
        self._bench, self._database, self._connection = bench, database, connection
        self._batch, self._batches, self._after = batch, 0, 0

    def from_empty(self) -> float:
        for table in rivals.TABLES:
            self._connection.execute(f"DELETE FROM {table}")
        self._connection.execute("UPDATE rollup_state SET counted_upto = 0")
        return self._run()

    def next_run(self) -> float:
        """The seconds of a run over the next events; each call adds later events."""
        (self._after,) = self._connection.execute("SELECT max(id) FROM issuance_events").fetchone()
        first = data.END + self._batches * BATCH_PERIOD
        self._batches += 1
        numbers = 1_000_000_000 + self._batches * 1_000_000
        chosen = data.events(self._batch, after=numbers, first=first, period=BATCH_PERIOD)
        store(self._connection, stored(self._bench, chosen))
        return self._run()

    def recount(self) -> float:
        """The seconds of the SELECTs over the same events; SQLite reads the rows, not Python."""
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return timed(self._recount)

    def check(self) -> None:
        for table in rivals.TABLES:
            (missing,) = self._connection.execute(
                f"SELECT (SELECT count(*) FROM issuance_events) - sum(issued) FROM {table}"
            ).fetchone()
            if missing:
                raise BenchmarkError(f"{table} lacks {missing} events")

    def _run(self) -> float:
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return timed(lambda: self._bench.roll_up(self._database))

    def _recount(self) -> None:
        for table, keys in rivals.SQLITE.items():
            # With two bounds, SQLite does not use the other index, which would be slower.
            where = f"WHERE id > {self._after} AND id <= {LAST}"
            selected = rivals.select(keys, where, rivals.SQLITE_VALUES.get(table, ""))
            self._connection.execute(f"SELECT sum(issued) FROM ({selected})").fetchone()
