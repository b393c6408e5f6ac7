"""Test data of all benchmarks: events and numbers, always the same, made in SQL.

Events arrive in the order in which they were issued. The tenant and the agent of an event are drawn
independently of its time. Five million events are 5.6 a day for each agent, so few events share an
agent and an hour.
"""

import hashlib
import uuid
from datetime import UTC, date, datetime, timedelta

from benchmarks.cluster import Connection

TENANTS, AGENTS, DAYS = 200, 50, 90
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
PERIOD = timedelta(days=DAYS)
END = FIRST + PERIOD
A_MONTH = "2026-02"

COLUMNS = "tenant_id, event_id, agent_id, issued_at"

# Tenants whose reports are read. Their days, months of agents and cells of the week end today.
READERS, OLD_READERS, READER_AGENTS = 200, 20, 1000

# Each is computed once for a statement. For each row, it would take longer than all the rest.
_ORGS = f"""(
    SELECT array_agg(md5('org' || n)::uuid ORDER BY n) FROM generate_series(0, {TENANTS - 1}) AS n
)"""
_ALL_AGENTS = f"""(
    SELECT array_agg(md5('agent' || org || '-' || n)::uuid ORDER BY org, n)
    FROM generate_series(0, {TENANTS - 1}) AS org, generate_series(0, {AGENTS - 1}) AS n
)"""


def events(
    count: int, *, after: int = 0, first: datetime = FIRST, period: timedelta = PERIOD
) -> str:
    """A SELECT of ``count`` events from number ``after + 1`` on, spread evenly over a period."""
    step = period / timedelta(microseconds=1) / count
    return f"""
        SELECT 'org-' || ({_ORGS})[org + 1] AS tenant_id,
               md5('event' || n)::uuid::text AS event_id,
               ({_ALL_AGENTS})[org * {AGENTS} + agent + 1]::text AS agent_id,
               timestamptz '{first.isoformat()}'
                   + (n - {after} - 1 + chance) * {step} * interval '1 microsecond' AS issued_at
        FROM (
            SELECT n, (hashint8extended(n, 1) & 1048575) % {TENANTS} AS org,
                   (hashint8extended(n, 2) & 1048575) % {AGENTS} AS agent,
                   (hashint8extended(n, 3) & 1048575) / 1048576.0::float8 AS chance
            FROM generate_series({after + 1}, {after + count}) AS n
        ) AS drawn
    """


def insert(connection: Connection, selected: str) -> None:
    """Store events with a plain INSERT into the table."""
    connection.execute(f"INSERT INTO issuance_events ({COLUMNS}) {selected}")


def load(connection: Connection, selected: str) -> None:
    """Store many events in an empty table, and create its indexes afterwards, which is faster.

    Its CHECK constraints apply to later events only.
    """
    constraints = connection.execute("""
        SELECT conname, pg_get_constraintdef(oid) || CASE contype WHEN 'c' THEN ' NOT VALID'
            ELSE '' END FROM pg_constraint
        WHERE conrelid = 'issuance_events'::regclass AND contype IN ('c', 'p')
    """).fetchall()
    (index,) = connection.execute(
        "SELECT indexdef FROM pg_indexes WHERE indexname = 'ix_issuance_events_id'"
    ).fetchone() or ("",)
    for name, _ in constraints:
        connection.execute(f"ALTER TABLE issuance_events DROP CONSTRAINT {name}")
    connection.execute("DROP INDEX ix_issuance_events_id")
    connection.execute("SET maintenance_work_mem = '1GB'")  # to create the indexes faster
    insert(connection, selected)
    for name, definition in constraints:
        connection.execute(f"ALTER TABLE issuance_events ADD CONSTRAINT {name} {definition}")
    connection.execute(index)
    settle(connection)


def settle(connection: Connection) -> None:
    """Vacuum and write a checkpoint now, so that neither starts during a measurement."""
    connection.execute("VACUUM (ANALYZE)")
    connection.execute("CHECKPOINT")


def ndjson(selected: str) -> str:
    """A SELECT of the same events as lines for ``flask events import``."""
    return f"""
        SELECT format('{{"id":"%s","organizationId":"%s","agentId":"%s","issuedAt":"%s"}}',
            event_id, tenant_id, agent_id, {instant()}) FROM ({selected}) AS event
    """


def instant(form: str = 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') -> str:
    """The SQL that formats an event's time, by default as in JSON."""
    return f"to_char(issued_at AT TIME ZONE 'UTC', '{form}')"


def add_readers(connection: Connection, today: date) -> None:
    """Add summary numbers up to ``today`` for tenants whose reports are read.

    Each has 90 days, 12 months of cells, and 1,000 agents in the current month. Some other tenants
    have 120 months of cells. The rows are in the order in which runs would write them: month by
    month, with all tenants mixed.
    """
    month = f"date_trunc('month', date '{today}')"
    connection.execute(f"""
        INSERT INTO daily_issuance
        SELECT 'reader-' || n, date '{today}' - ago, 100 + (n * 89 + ago * 97) % 900
        FROM generate_series(1, {READERS}) AS n, generate_series(0, 89) AS ago
        ORDER BY ago DESC, n;
        INSERT INTO monthly_agent_issuance
        SELECT 'reader-' || n, {month}, md5(n || '-' || k)::uuid::text, 1 + (n * 89 + k * 97) % 900
        FROM generate_series(1, {READERS}) AS n, generate_series(1, {READER_AGENTS}) AS k
        ORDER BY k, n;
    """)
    for who, readers, months in (("reader", READERS, 12), ("old", OLD_READERS, 120)):
        connection.execute(f"""
            INSERT INTO dow_hour_activity
            SELECT '{who}-' || n, {month} - ago * interval '1 month', dow, hour,
                   1 + (n * 89 + ago * 97 + dow * 31 + hour * 7) % 50
            FROM generate_series(1, {readers}) AS n, generate_series(0, {months - 1}) AS ago,
                 generate_series(0, 6) AS dow, generate_series(0, 23) AS hour
            ORDER BY ago DESC, dow, hour, n;
            INSERT INTO dow_hour_total
            SELECT tenant_id, dow, hour, sum(issued) FROM dow_hour_activity
            WHERE starts_with(tenant_id, '{who}-') GROUP BY tenant_id, dow, hour
        """)
    settle(connection)


def organizations() -> list[str]:
    """The ids of the tenants that have events."""
    digests = (hashlib.md5(f"org{number}".encode()).hexdigest() for number in range(TENANTS))
    return [f"org-{uuid.UUID(digest)}" for digest in digests]
