"""Rivals of the rollup: the same numbers by plain SELECT, or as materialized views."""

from benchmarks.cluster import Connection
from benchmarks.figures import BenchmarkError

TABLES = ("daily_issuance", "dow_hour_activity", "monthly_agent_issuance")

# Written here, not imported from the jobs, because the rival must not change with the jobs.
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
    """Run the three SELECTs over all events; the client receives the rows and ignores them."""
    for keys in POSTGRESQL.values():
        connection.execute(select(keys))


def create_views(connection: Connection) -> None:
    """Create the three SELECTs as empty materialized views, with the unique keys for reads."""
    for table, keys in POSTGRESQL.items():
        connection.execute(
            f"CREATE MATERIALIZED VIEW {table}_view AS {select(keys)} WITH NO DATA;"
            f"CREATE UNIQUE INDEX ON {table}_view (tenant_id, {', '.join(keys)})"
        )


def refresh_views(connection: Connection) -> None:
    """Refresh the views, which is possible only from all events."""
    for table in POSTGRESQL:
        connection.execute(f"REFRESH MATERIALIZED VIEW {table}_view")


def forget_counts(connection: Connection) -> None:
    """Reset the rollup to the state in which no event is counted."""
    connection.execute(f"TRUNCATE {', '.join(TABLES)}, rollup_runs")
    connection.execute("UPDATE rollup_state SET watermark = 0, candidate = NULL, writers = NULL")
    connection.execute("VACUUM (ANALYZE) rollup_state")


def check_counts(connection: Connection, suffix: str = "") -> None:
    """Check that each table or view has counted every event.

    Raises:
        BenchmarkError: a table or view has another number.
    """
    events = connection.execute("SELECT count(*) FROM issuance_events").fetchone()
    for table in TABLES:
        counted = connection.execute(f"SELECT sum(issued) FROM {table}{suffix}").fetchone()
        if counted != events:
            raise BenchmarkError(f"{table}{suffix} has counted {counted} of {events} events")
