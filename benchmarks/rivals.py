"""The same numbers without a rollup: recounted by SELECT, or kept as materialized views."""

from benchmarks.cluster import Connection
from benchmarks.figures import BenchmarkError

TABLES = ("daily_issuance", "dow_hour_activity", "monthly_agent_issuance")

# Written down here and not taken from the jobs: what is compared with must not change with them.
_MONTH = "CAST(date_trunc('month', issued_at AT TIME ZONE 'UTC') AS date)"
_DOW = "CAST(extract(dow FROM issued_at AT TIME ZONE 'UTC') AS smallint)"
_HOUR = "CAST(extract(hour FROM issued_at AT TIME ZONE 'UTC') AS smallint)"
POSTGRESQL = {
    "daily_issuance": {"date": "CAST(issued_at AT TIME ZONE 'UTC' AS date)"},
    "dow_hour_activity": {"month": _MONTH, "dow": _DOW, "hour": _HOUR},
    "monthly_agent_issuance": {"month": _MONTH, "agent_id": "agent_id"},
}
_SQLITE_MONTH = "substr(issued_at, 1, 7) || '-01'"
SQLITE = {
    "daily_issuance": {"date": "substr(issued_at, 1, 10)"},
    "dow_hour_activity": {
        "month": _SQLITE_MONTH,
        "dow": "CAST(strftime('%w', substr(issued_at, 1, 10)) AS INTEGER)",
        "hour": "CAST(substr(issued_at, 12, 2) AS INTEGER)",
    },
    "monthly_agent_issuance": {"month": _SQLITE_MONTH, "agent_id": "agent_id"},
}


def select(keys: dict[str, str], where: str = "") -> str:
    """A plain SELECT of the events per tenant and ``keys``."""
    columns = ", ".join(f"{expression} AS {name}" for name, expression in keys.items())
    numbers = ", ".join(str(number) for number in range(1, len(keys) + 2))
    return (
        f"SELECT tenant_id, {columns}, count(*) AS issued"
        f" FROM issuance_events {where} GROUP BY {numbers}"
    )


def recount(connection: Connection) -> None:
    """The three SELECTs over all events, with their rows brought to the client, not looked at."""
    for keys in POSTGRESQL.values():
        connection.execute(select(keys))


def create_views(connection: Connection) -> None:
    """The three as materialized views, with the keys that reads of them need; still empty."""
    for table, keys in POSTGRESQL.items():
        connection.execute(
            f"CREATE MATERIALIZED VIEW {table}_view AS {select(keys)} WITH NO DATA;"
            f"CREATE UNIQUE INDEX ON {table}_view (tenant_id, {', '.join(keys)})"
        )


def refresh_views(connection: Connection) -> None:
    """Bring the views up to date, the only way there is: from all events."""
    for table in POSTGRESQL:
        connection.execute(f"REFRESH MATERIALIZED VIEW {table}_view")


def forget_counts(connection: Connection) -> None:
    """Put the rollups back to where nothing is counted."""
    connection.execute(f"TRUNCATE {', '.join(TABLES)}, rollup_runs")
    connection.execute("UPDATE rollup_state SET watermark = 0, candidate = NULL, writers = NULL")
    connection.execute("VACUUM (ANALYZE) rollup_state")


def check_counts(connection: Connection, suffix: str = "") -> None:
    """What was measured has counted every event, in each table or view.

    Raises:
        BenchmarkError: it has not.
    """
    events = connection.execute("SELECT count(*) FROM issuance_events").fetchone()
    for table in TABLES:
        counted = connection.execute(f"SELECT sum(issued) FROM {table}{suffix}").fetchone()
        if counted != events:
            raise BenchmarkError(f"{table}{suffix} has counted {counted} of {events} events")
