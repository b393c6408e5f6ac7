"""The events and numbers that everything is measured with: always the same, made in SQL.

Events arrive in the order in which they were issued. Tenant and agent are drawn for each,
whatever its time: a machine agent asks for a token about once an hour, so that events hardly
fall together by agent and hour.
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

# Of those who read: days, an agent's months and cells of the week are there up to today.
READERS, OLD_READERS, READER_AGENTS = 200, 20, 1000

# Worked out once for each statement, which for each row would take longer than all the rest.
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
    """A SELECT of events number ``after + 1`` and on, evenly over a period, in its order."""
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
    """Store events, as anybody may who writes straight into the table."""
    connection.execute(f"INSERT INTO issuance_events ({COLUMNS}) {selected}")


def load(connection: Connection, selected: str) -> None:
    """Store many events in an empty table: its indexes are made afterwards, and its checks hold
    for those that come later, which is quicker."""
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
    connection.execute("SET maintenance_work_mem = '1GB'")  # for the indexes, in this session
    insert(connection, selected)
    for name, definition in constraints:
        connection.execute(f"ALTER TABLE issuance_events ADD CONSTRAINT {name} {definition}")
    connection.execute(index)
    settle(connection)


def settle(connection: Connection) -> None:
    """Bring everything to rest: what vacuuming and a checkpoint would do in their time."""
    connection.execute("VACUUM (ANALYZE)")
    connection.execute("CHECKPOINT")


def ndjson(selected: str) -> str:
    """A SELECT of the same events as lines for ``flask events import``."""
    return f"""
        SELECT format('{{"id":"%s","organizationId":"%s","agentId":"%s","issuedAt":"%s"}}',
            event_id, tenant_id, agent_id, {instant()}) FROM ({selected}) AS event
    """


def instant(form: str = 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') -> str:
    """The text of an event's time, by default as JSON has it."""
    return f"to_char(issued_at AT TIME ZONE 'UTC', '{form}')"


def add_readers(connection: Connection, today: date) -> None:
    """Numbers up to ``today`` for tenants that are read: 90 days, 12 months of cells, 1,000
    agents in the month each; for some others 120 months of cells.

    Rows lie as runs leave them: month by month, those of all tenants mixed.
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
            ORDER BY ago DESC, dow, hour, n
        """)
    settle(connection)


def organizations() -> list[str]:
    """The ids of the tenants that have events."""
    digests = (hashlib.md5(f"org{number}".encode()).hexdigest() for number in range(TENANTS))
    return [f"org-{uuid.UUID(digest)}" for digest in digests]
