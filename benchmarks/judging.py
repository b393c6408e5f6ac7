"""J1: what it costs to judge organizations each day, each hour, and after a run."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from itertools import chain, islice
from statistics import median
from typing import NamedTuple

from app.config.settings import Settings
from app.storage.database import Database
from benchmarks.bench import Bench
from benchmarks.cluster import Cluster, Connection
from benchmarks.data import settle
from benchmarks.figures import BenchmarkError, Figure, Samples, below, timed
from benchmarks.programs import environment
from jobs.findings.task import judge_findings
from tests.insight.organizations import organizations

ORGANIZATIONS, AGENTS, HISTORY_DAYS = 200, 50, 116
# So many organizations are drawn and judged from their first day. The others are copies of these.
DRAWN = 10
SEED = 1
FIRST = date(2026, 1, 5)
DELAY_SECONDS = 900
CHANGED = 200
LONG = 36_000.0  # seconds: a pass is measured as a whole

# The columns of each table besides the tenant: of the key, and of the counts.
_OF_DAYS = {
    "hourly_issuance": ("date, hour", "issued"),
    "daily_agent_issuance": ("date, agent", "issued, hours"),
    "daily_issuance": ("date", "issued"),
}
_COUNTED = """
    SELECT tenant || suffix, {keys}, {counts} FROM copies CROSS JOIN (
        SELECT tenant, {keys}, sum(issued) AS issued, bit_or(1 << hour) AS hours
        FROM drawn WHERE {where} GROUP BY tenant, {keys}
    ) AS counted ORDER BY 1
"""


def passes(bench: Bench) -> Iterator[Figure]:
    """J1: judge organizations of 50 agents: each day, each hour, and after a run."""
    number = bench.scaled(ORGANIZATIONS)
    days = range(HISTORY_DAYS, HISTORY_DAYS + bench.repetitions)
    changed = min(CHANGED, number)
    daily, hourly, after_runs = [], [], []
    name = bench.cluster.create()
    with bench.cluster.connect(name) as connection, bench.cluster.database(name) as database:
        judge = partial(_judge, bench.cluster, connection, database)
        _draw(connection, days.stop)
        _count(connection, 0, _instant(HISTORY_DAYS - 1, 2))
        judge(_instant(HISTORY_DAYS - 1, 2))
        _copy(connection, number // DRAWN)
        _count(connection, 0, _instant(HISTORY_DAYS - 1, 2))
        for day in days:
            for hour, times in ((1, daily), (2, hourly)):
                _count(connection, day - 1, _instant(day, hour))
                times.append(judge(_instant(day, hour)))
            _change(connection, changed, _instant(day, 1))
            after_runs.append(judge(_instant(day, 2)))
    of = f"one of {number:,} organizations"
    yield _below("J1a", f"each day, judge {of}", daily, number, 0.030)
    yield _below("J1b", f"each hour, judge {of}", hourly, number, 0.003)
    after_run = f"after a run, judge one of {changed} that changed"
    yield _below("J1c", after_run, after_runs, changed, 0.002)


class Took(NamedTuple):
    """The seconds of a pass by the clock, and of processors: this one's and PostgreSQL's."""

    clock: float
    processor: float


def _below(row: str, work: str, passes: list[Took], number: int, limit: float) -> Figure:
    clock = median(one.clock for one in passes) / number * 1000
    samples = Samples(tuple(one.processor / number for one in passes), "ms")
    return below(row, f"{work}: processor time ({clock:.1f} ms by the clock)", samples, limit)


def _instant(day: int, hour: int) -> datetime:
    return datetime.combine(FIRST, time(hour), UTC) + timedelta(days=day)


def _draw(connection: Connection, days: int) -> None:
    """Draw the tokens of each agent and hour. Agents have the habits of the tests' generator."""
    connection.execute("""
        CREATE TABLE drawn (tenant text, agent text, date date, hour int, issued int);
        CREATE TABLE copies AS SELECT '' AS suffix
    """)
    agents = chain.from_iterable(one.agents.values() for one in organizations(SEED, DRAWN * AGENTS))
    with connection.cursor().copy("COPY drawn FROM STDIN") as copy:
        for number, hours in enumerate(islice(agents, DRAWN * AGENTS)):
            for at, issued in enumerate(hours[: 24 * days]):
                if issued:
                    day = FIRST + timedelta(days=at // 24)
                    copy.write_row((number // AGENTS, number % AGENTS, day, at % 24, issued))
    # Ids as long as usual ones. The history begins with the first event of each.
    connection.execute(f"""
        UPDATE drawn SET agent = md5(tenant || '-' || agent)::uuid, tenant = md5(tenant)::uuid;
        CREATE INDEX ON drawn (date);
        INSERT INTO usual (tenant_id, judged_through, due_at, delay_seconds, delays, usuals, states)
        SELECT tenant, min(date) - 1, min(date), {DELAY_SECONDS}, '{{}}', '{{}}', '{{}}'
        FROM drawn GROUP BY tenant
    """)


def _copy(connection: Connection, copies: int) -> None:
    """Copy the organizations, with what is known of them; their counts are stored anew."""
    connection.execute(f"INSERT INTO copies SELECT '-' || n FROM generate_series(2, {copies}) AS n")
    for table in ("usual", "findings"):
        connection.execute(f"""
            CREATE TEMP TABLE known AS SELECT * FROM {table};
            TRUNCATE {table};
            INSERT INTO {table} SELECT (jsonb_populate_record(
                known, jsonb_build_object('tenant_id', tenant_id || suffix))).*
            FROM known CROSS JOIN copies;
            DROP TABLE known
        """)


def _count(connection: Connection, first: int, until: datetime) -> None:
    """Store the counts from a day up to an instant, day by day, in place of those there."""
    days = [FIRST + timedelta(days=day) for day in range(first, (until.date() - FIRST).days + 1)]
    for table, (keys, counts) in _OF_DAYS.items():
        with _from_empty(connection, table) if first == 0 else nullcontext():
            for day in days:
                if first > 0:
                    connection.execute(f"DELETE FROM {table} WHERE date = '{day}'")
                where = f"date = '{day}' AND date + hour * interval '1 hour' < '{until:%F %R}'"
                counted = _COUNTED.format(keys=keys, counts=counts, where=where)
                connection.execute(f"INSERT INTO {table} {counted}")
    if first == 0:
        _count_months(connection, until)
    settle(connection)


@contextmanager
def _from_empty(connection: Connection, table: str) -> Iterator[None]:
    """Empty a table, and create its key after it is filled, which is faster."""
    (key,) = connection.execute(
        f"SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'pk_{table}'"
    ).fetchone() or ("",)
    connection.execute(f"TRUNCATE {table}; ALTER TABLE {table} DROP CONSTRAINT pk_{table}")
    yield
    connection.execute("SET maintenance_work_mem = '1GB'")
    connection.execute(f"ALTER TABLE {table} ADD CONSTRAINT pk_{table} {key}")


def _count_months(connection: Connection, until: datetime) -> None:
    """The months of agents, from which only their first one is read."""
    connection.execute("TRUNCATE monthly_agent_issuance")
    connection.execute(f"""
        INSERT INTO monthly_agent_issuance
        SELECT tenant || suffix, month, agent, issued FROM copies CROSS JOIN (
            SELECT tenant, date_trunc('month', date)::date AS month, agent, sum(issued) AS issued
            FROM drawn WHERE date < '{until.date()}' GROUP BY 1, 2, 3
        ) AS counted ORDER BY 1
    """)


def _judge(
    cluster: Cluster, connection: Connection, database: Database, counted_at: datetime
) -> Took:
    """What a pass takes, when everything is counted at an instant."""
    connection.execute("UPDATE rollup_state SET last_finished = %s", [counted_at])
    connection.execute("CHECKPOINT")
    settings = Settings.from_environ(environment("postgresql://"))
    passed = []
    before = cluster.processor_seconds()
    clock = timed(lambda: passed.append(judge_findings(database, settings, tick_seconds=LONG)))
    processor = cluster.processor_seconds() - before
    if passed[0].outcome != "done":
        raise BenchmarkError(f"judging was {passed[0].outcome}")
    return Took(clock, processor)


def _change(connection: Connection, number: int, issued_at: datetime) -> None:
    """An event of each of some organizations, as if a run had counted it."""
    connection.execute(
        "INSERT INTO issuance_events (tenant_id, event_id, agent_id, issued_at)"
        " SELECT tenant_id, gen_random_uuid(), 'agent', %s FROM usual ORDER BY tenant_id LIMIT %s",
        [issued_at, number],
    )
    connection.execute(
        "UPDATE rollup_state SET counted_upto = (SELECT max(id) FROM issuance_events)"
    )
