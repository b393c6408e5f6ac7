"""D1 and D2: the same events in DuckDB, which reads them all for each answer, in many threads.

DuckDB needs what ``requirements-bench.txt`` pins.
"""

from collections.abc import Callable, Iterator
from datetime import date, timedelta
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from msgspec.structs import astuple

from app.reports import activity, days, trend, usage
from app.reports.finer import Span
from app.storage.database import Database
from benchmarks import data
from benchmarks.bench import Bench
from benchmarks.figures import (
    BenchmarkError,
    Figure,
    Rival,
    faster,
    interleaved,
    seconds,
    timed,
)
from benchmarks.programs import flask
from benchmarks.rivals import DUCKDB, DUCKDB_VALUES, select
from tests.support.databases import migrate

EVENTS = 5_000_000
LINES = 1_000_000
READS = 20  # of each report in a turn, since one is short
RAW = "DuckDB, over the raw events"
_TREND_DAYS = 30
_TABLE = """
    CREATE TABLE issuance_events (
        tenant_id TEXT, event_id TEXT, agent_id TEXT, issued_at TIMESTAMP
    )
"""


def reads(bench: Bench) -> Iterator[Figure]:
    """D1: three reports of one organization of 5,000,000 events."""
    events, tenant = bench.scaled(EVENTS), data.organizations()[7]
    lines = bench.folder / "events.csv"
    with bench.cluster.connect(bench.raw(events)) as connection, lines.open("wb") as target:
        chosen = f"SELECT {data.COLUMNS} FROM issuance_events ORDER BY id"
        with connection.cursor().copy(f"COPY ({chosen}) TO STDOUT (FORMAT csv)") as rows:
            target.writelines(map(bytes, rows))
    rival = _database(bench.folder / "reads.duckdb")
    rival.execute(f"{_TABLE}; COPY issuance_events FROM '{lines}' (FORMAT csv)")
    lines.unlink()
    last = data.END.date() - timedelta(days=1)
    span = Span(days.Days(last - timedelta(days=_TREND_DAYS - 1), last, None))
    month = date.fromisoformat(f"{data.A_MONTH}-01")
    with bench.cluster.database(bench.counted(events)) as database:
        kinds: list[tuple[str, Callable[[Any], Any], str]] = [
            ("trend of 30 days", lambda one: trend.daily_tokens(one, tenant, span), _trend(span)),
            (
                "heatmap",
                lambda one: activity.agent_activity(one, tenant, last=month, months=None),
                _HEATMAP,
            ),
            (
                "20 agents of a month",
                lambda one: usage.agent_usage(one, tenant, month=month, limit=20),
                _AGENTS,
            ),
        ]
        for letter, (name, ours, theirs) in zip("abc", kinds, strict=True):
            with database.reading_for(tenant) as connection:
                found = _same(ours(connection).points, rival.execute(theirs, [tenant]).fetchall())
            turns = (
                lambda ours=ours: _ours(database, tenant, ours),
                _theirs(rival, theirs, tenant),
            )
            mine, other = interleaved(bench.repetitions, turns)
            work = f"{name} of one organization of {events:,} events ({found} rows)"
            yield faster(
                f"D1{letter}", work, seconds(mine, "ms"), Rival(RAW, seconds(other, "ms")), 1
            )
    rival.close()


def loads(bench: Bench) -> Iterator[Figure]:
    """D2: a file of 1,000,000 lines into SQLite and its tables."""
    count = bench.scaled(LINES)
    lines = bench.folder / "lines.ndjson"
    with bench.cluster.connect("postgres") as connection:
        copied = f"COPY ({data.ndjson(data.events(count))}) TO STDOUT"
        with connection.cursor().copy(copied) as rows, lines.open("wb") as target:
            target.writelines(map(bytes, rows))

    def ours() -> float:
        path = bench.folder / "loads.db"
        url = f"sqlite:///{path}"
        migrate(url)
        took = timed(lambda: _imported(url, lines))
        path.unlink()
        return took

    def theirs() -> float:
        path = bench.folder / "loads.duckdb"
        path.unlink(missing_ok=True)
        with _database(path) as rival:
            return timed(lambda: _loaded(rival, lines))

    mine, other = map(seconds, interleaved(1, (ours, theirs)))  # a minute; it has no limit
    lines.unlink()
    work = f"SQLite: flask events import and rollup run, {count:,} lines"
    # It reads a file in many threads, and checks neither keys nor events.
    yield faster("D2", work, mine, Rival("DuckDB: load, and six SELECTs into tables", other), None)


def _database(path: Path) -> Any:
    if find_spec("duckdb") is None:
        raise BenchmarkError("needs duckdb: pip install --require-hashes -r requirements-bench.txt")
    return import_module("duckdb").connect(str(path))


def _ours(database: Database, tenant: str, report: Callable[[Any], Any]) -> float:
    def work() -> None:
        for _ in range(READS):
            with database.reading_for(tenant) as connection:
                report(connection)

    return timed(work) / READS


def _theirs(rival: Any, statement: str, tenant: str) -> Callable[[], float]:
    return lambda: timed(lambda: rival.execute(statement, [tenant]).fetchall())


def _same(ours: Any, theirs: list[Any]) -> int:
    """The number of rows, which must be that of the rival's with a token."""
    counts = [found for point in ours if (found := astuple(point)[-1])]
    if sorted(counts) != sorted(row[-1] for row in theirs):
        raise BenchmarkError("the rival's numbers are others")
    return len(counts)


def _imported(url: str, lines: Path) -> None:
    flask(url, "events", "import", str(lines))
    flask(url, "rollup", "run")


def _loaded(rival: Any, lines: Path) -> None:
    columns = "{id: 'TEXT', organizationId: 'TEXT', agentId: 'TEXT', issuedAt: 'TIMESTAMP'}"
    rival.execute(
        f"CREATE TABLE issuance_events AS SELECT organizationId AS tenant_id, id AS event_id,"
        f" agentId AS agent_id, issuedAt AS issued_at FROM read_json('{lines}', columns={columns},"
        " format='newline_delimited')"
    )
    for table, keys in DUCKDB.items():
        rival.execute(
            f"CREATE TABLE {table} AS {select(keys, values=DUCKDB_VALUES.get(table, ''))}"
        )


def _trend(span: Span) -> str:
    first, last = span.days.first, span.days.last
    return f"""
        SELECT issued_at::date, count(*) FROM issuance_events
        WHERE tenant_id = ? AND issued_at >= '{first}' AND issued_at < date '{last}' + 1 GROUP BY 1
    """


_HEATMAP = """
    SELECT extract(dow FROM issued_at), extract(hour FROM issued_at), count(*) FROM issuance_events
    WHERE tenant_id = ? GROUP BY 1, 2
"""
_AGENTS = f"""
    SELECT agent_id, count(*) AS issued FROM issuance_events
    WHERE tenant_id = ? AND date_trunc('month', issued_at) = date '{data.A_MONTH}-01'
    GROUP BY 1 ORDER BY issued DESC, agent_id LIMIT 20
"""
