"""B1: the bytes of an event and of a bucket of each table, with indexes."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

from benchmarks import data, rivals
from benchmarks.bench import Bench
from benchmarks.figures import Figure, Samples, size
from benchmarks.sqlite import opened, store, stored

EVENTS, SQLITE_EVENTS = 5_000_000, 1_000_000
TABLES = ("issuance_events", *rivals.TABLES)


def bytes_of_rows(bench: Bench) -> Iterator[Figure]:
    """B1: bytes of a row, with its part of the indexes."""
    events = bench.scaled(EVENTS)
    with bench.cluster.connect(bench.counted(events)) as connection:
        for letter, table in zip("abcdefg", TABLES, strict=True):
            (found,) = connection.execute(
                f"SELECT pg_total_relation_size('{table}')::float8 / count(*) FROM {table}"
            ).fetchone() or (0.0,)
            yield size(f"B1{letter}", f"PostgreSQL: a row of {table}", Samples((found,), "B"))
    path = bench.folder / "sizes.db"
    with opened(path) as (database, connection_):
        store(connection_, stored(bench, data.events(bench.scaled(SQLITE_EVENTS))))
        bench.roll_up(database)
        with closing(sqlite3.connect(path)) as reading:
            for letter, table in zip("hijklmn", TABLES, strict=True):
                yield size(f"B1{letter}", f"SQLite: a row of {table}", _of_sqlite(reading, table))


def _of_sqlite(connection: sqlite3.Connection, table: str) -> Samples:
    """Read from the b-trees of a table and its indexes."""
    (rows,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    (whole,) = connection.execute(
        "SELECT sum(pgsize) FROM dbstat WHERE name IN (SELECT name FROM sqlite_schema WHERE"
        " tbl_name = ?)",
        (table,),
    ).fetchone()
    return Samples((whole / rows,), "B")
