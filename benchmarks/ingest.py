"""I1 and I2: events by HTTP and from files, compared with COPY and executemany of their rows."""

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import data
from benchmarks.bench import Bench
from benchmarks.cluster import Connection
from benchmarks.figures import (
    BenchmarkError,
    Figure,
    Rival,
    Samples,
    below,
    faster,
    interleaved,
    more,
    seconds,
    timed,
)
from benchmarks.programs import Ended, flask
from benchmarks.service import Load, Service, service
from benchmarks.sqlite import opened, store, stored
from tests.support.tokens import token

BATCH, CONNECTIONS = 1_000, 8
FILES = 3
LINES, SQLITE_LINES = 1_000_000, 200_000  # of each file
TOKEN_SECONDS = 7200
BLOCK = 1024 * 1024
COPY = "COPY of the same rows"
RIVAL = "rival_events"
COPIED = f"COPY {RIVAL} ({data.COLUMNS}) FROM STDIN"


class Poster:
    """Posts batches of new events for all tenants."""

    def __init__(self, bench: Bench) -> None:
        self._runs = 0
        self._file = bench.folder / "posts"
        expiry = int(time.time()) + TOKEN_SECONDS
        self.token = token(None, "events:write:any", drop="organization_id", exp=expiry)
        with bench.cluster.connect("postgres") as connection:
            lines = (
                f"SELECT substr(line, 45) FROM ({data.ndjson(data.events(10_000))}) AS all_of(line)"
            )
            self.rests = [str(line) for (line,) in connection.execute(lines)]
        self._file.write_text("\n".join([f"Bearer {self.token}", *self.rests]))

    def post(self, running: Service, for_seconds: float) -> Load:
        """Send batches, one in each request, on as many connections as the service has threads."""
        self._runs += 1
        return running.post(self._file, BATCH, self._runs, CONNECTIONS, for_seconds)


def create_rival(connection: Connection) -> None:
    """Create the rival's table with the same columns, defaults, constraints and indexes."""
    connection.execute(f"CREATE TABLE {RIVAL} (LIKE issuance_events INCLUDING ALL)")


def copy_rows(connection: Connection, rows: list[bytes]) -> float:
    """The seconds of one COPY of rows that are already text."""

    def copy() -> None:
        with connection.cursor().copy(COPIED) as target:
            for block in rows:
                target.write(block)

    connection.execute("CHECKPOINT")
    return timed(copy)


def rows_of(connection: Connection, selected: str) -> list[bytes]:
    """Rows as text for COPY, in blocks of a megabyte."""
    columns = f"SELECT {data.COLUMNS} FROM ({selected}) AS event"
    with connection.cursor().copy(f"COPY ({columns}) TO STDOUT") as source:
        whole = b"".join(map(bytes, source))
    return [whole[start : start + BLOCK] for start in range(0, len(whole), BLOCK)]


def by_http(bench: Bench) -> Iterator[Figure]:
    """I1: batches of 1,000 events by HTTP, two workers."""
    poster, name = Poster(bench), bench.cluster.create()
    with (
        service(bench.cluster.url(name), bench.folder) as running,
        bench.cluster.connect(name) as connection,
    ):
        create_rival(connection)
        poster.post(running, 1)
        turns = (
            lambda: _posted(connection, poster, running, bench.seconds),
            lambda: _copied(connection),
        )
        ours, rival = (
            Samples(tuple(found), "/s") for found in interleaved(bench.repetitions, turns)
        )
    yield more("I1", "POST /api/v1/events, events stored", ours, Rival(COPY, rival), 0.6)


def _posted(connection: Connection, poster: Poster, running: Service, for_seconds: float) -> float:
    connection.execute(f"TRUNCATE issuance_events, {RIVAL}")
    connection.execute("CHECKPOINT")
    done = poster.post(running, for_seconds)
    if _count(connection, "issuance_events") < done.requests * BATCH:
        raise BenchmarkError(f"fewer events than {done.requests} batches have")
    return done.rate * BATCH


def _copied(connection: Connection) -> float:
    """The rate of a COPY of the events that were posted just before."""
    rows = rows_of(connection, "SELECT * FROM issuance_events ORDER BY id")
    took = copy_rows(connection, rows)
    return _count(connection, RIVAL) / took


def _count(connection: Connection, table: str) -> int:
    (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone() or (0,)
    return int(count)


def from_files(bench: Bench) -> Iterator[Figure]:
    """I2: flask events import of 3,000,000 lines, and of 600,000 on SQLite."""
    yield from _import_postgresql(bench, bench.scaled(LINES))
    yield from _import_sqlite(bench, bench.scaled(SQLITE_LINES))


def _import_postgresql(bench: Bench, count: int) -> Iterator[Figure]:
    imported: list[Ended] = []
    copies: list[float] = []
    name = bench.cluster.create()
    with bench.cluster.connect(name) as connection:
        create_rival(connection)
        for number in range(FILES):
            chosen = _staged(connection, _chosen(number, count))
            path = write_lines(bench, connection, chosen)
            connection.execute("CHECKPOINT")
            imported.append(flask(bench.cluster.url(name), "events", "import", str(path)))
            copies.append(copy_rows(connection, rows_of(connection, chosen)))
        _check_equal(connection)
    work = f"flask events import, {FILES} × {count:,} lines"
    ours = seconds(done.seconds for done in imported)
    yield faster("I2a", work, ours, Rival(COPY, seconds(copies)), 0.75)
    yield below("I2b", f"{work}: memory", Samples(tuple(e.peak for e in imported), "MB"), 150)


def _import_sqlite(bench: Bench, count: int) -> Iterator[Figure]:
    imported: list[Ended] = []
    rivals: list[float] = []
    path = bench.folder / "i2.db"
    with (
        opened(path),
        opened(bench.folder / "i2-rival.db") as (_, rival),
        bench.cluster.connect("postgres") as connection,
    ):
        for number in range(FILES):
            chosen = _chosen(number, count)
            lines = write_lines(bench, connection, chosen)
            imported.append(flask(f"sqlite:///{path}", "events", "import", str(lines)))
            rivals.append(_executemany(bench, rival, chosen))
    work = f"SQLite: flask events import, {FILES} × {count:,} lines"
    ours = seconds(done.seconds for done in imported)
    yield faster("I2c", work, ours, Rival("executemany of the same rows", seconds(rivals)), 0.6)
    yield below("I2d", f"{work}: memory", Samples(tuple(e.peak for e in imported), "MB"), 150)


def _executemany(bench: Bench, connection: sqlite3.Connection, chosen: str) -> float:
    rows = stored(bench, chosen)
    return timed(lambda: store(connection, rows))


def _chosen(number: int, count: int) -> str:
    """The events of one file; their days follow those of the previous file."""
    first = data.FIRST + number * data.PERIOD / FILES
    return data.events(count, after=number * count, first=first, period=data.PERIOD / FILES)


def write_lines(bench: Bench, connection: Connection, selected: str) -> Path:
    """Write events to a file of JSON lines."""
    path = bench.folder / "events.ndjson"
    with (
        path.open("wb") as file,
        connection.cursor().copy(f"COPY ({data.ndjson(selected)}) TO STDOUT") as source,
    ):
        for block in source:
            file.write(block)
    return path


def _staged(connection: Connection, selected: str) -> str:
    """A SELECT of the same rows from a temporary table, computed once for both sides."""
    connection.execute(f"DROP TABLE IF EXISTS staged; CREATE TEMPORARY TABLE staged AS {selected}")
    return "SELECT * FROM staged"


def _check_equal(connection: Connection) -> None:
    counts = [
        connection.execute(
            f"SELECT count(*), min(issued_at), max(issued_at) FROM {table}"
        ).fetchone()
        for table in ("issuance_events", RIVAL)
    ]
    if counts[0] != counts[1]:
        raise BenchmarkError(f"not the same rows: {counts}")
