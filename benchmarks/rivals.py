"""Rivals of the rollup: the same numbers by plain SELECT, or as materialized views."""

from collections.abc import Sequence

from benchmarks.cluster import Connection
from benchmarks.figures import BenchmarkError

TABLES = (
    "daily_issuance",
    "dow_hour_activity",
    "monthly_agent_issuance",
    "hourly_issuance",
    "daily_agent_issuance",
    "dow_hour_total",
)

# Written here, not imported from the jobs, because the rival must not change with the jobs.
_MONTH = "CAST(date_trunc('month', issued_at AT TIME ZONE 'UTC') AS date)"
_DOW = "CAST(extract(dow FROM issued_at AT TIME ZONE 'UTC') AS smallint)"
_DATE = "CAST(issued_at AT TIME ZONE 'UTC' AS date)"
_HOUR = "CAST(extract(hour FROM issued_at AT TIME ZONE 'UTC') AS smallint)"
POSTGRESQL = {
    "daily_issuance": {"date": _DATE},
    "dow_hour_activity": {"month": _MONTH, "dow": _DOW, "hour": _HOUR},
    "monthly_agent_issuance": {"month": _MONTH, "agent_id": "agent_id"},
    "hourly_issuance": {"date": _DATE, "hour": _HOUR},
    "daily_agent_issuance": {"date": _DATE, "agent_id": "agent_id"},
    "dow_hour_total": {"dow": _DOW, "hour": _HOUR},
}
_SQLITE_MONTH = "substr(issued_at, 1, 7) || '-01'"
_SQLITE_DATE = "substr(issued_at, 1, 10)"
_SQLITE_DOW = "CAST(strftime('%w', substr(issued_at, 1, 10)) AS INTEGER)"
_SQLITE_HOUR = "CAST(substr(issued_at, 12, 2) AS INTEGER)"
SQLITE = {
    "daily_issuance": {"date": _SQLITE_DATE},
    "dow_hour_activity": {"month": _SQLITE_MONTH, "dow": _SQLITE_DOW, "hour": _SQLITE_HOUR},
    "monthly_agent_issuance": {"month": _SQLITE_MONTH, "agent_id": "agent_id"},
    "hourly_issuance": {"date": _SQLITE_DATE, "hour": _SQLITE_HOUR},
    "daily_agent_issuance": {"date": _SQLITE_DATE, "agent_id": "agent_id"},
    "dow_hour_total": {"dow": _SQLITE_DOW, "hour": _SQLITE_HOUR},
}
_DUCKDB_MONTH = "CAST(date_trunc('month', issued_at) AS date)"
_DUCKDB_DATE = "CAST(issued_at AS date)"
_DUCKDB_DOW = "CAST(extract(dow FROM issued_at) AS smallint)"
_DUCKDB_HOUR = "CAST(extract(hour FROM issued_at) AS smallint)"
DUCKDB = {
    "daily_issuance": {"date": _DUCKDB_DATE},
    "dow_hour_activity": {"month": _DUCKDB_MONTH, "dow": _DUCKDB_DOW, "hour": _DUCKDB_HOUR},
    "monthly_agent_issuance": {"month": _DUCKDB_MONTH, "agent_id": "agent_id"},
    "hourly_issuance": {"date": _DUCKDB_DATE, "hour": _DUCKDB_HOUR},
    "daily_agent_issuance": {"date": _DUCKDB_DATE, "agent_id": "agent_id"},
    "dow_hour_total": {"dow": _DUCKDB_DOW, "hour": _DUCKDB_HOUR},
}
# What a table holds besides the number of events.
POSTGRESQL_VALUES = {"daily_agent_issuance": f", bit_or(1 << {_HOUR}) AS hours"}
_DUCKDB_BIT = f"CAST(1 AS integer) << CAST({_DUCKDB_HOUR} AS integer)"
DUCKDB_VALUES = {"daily_agent_issuance": f", bit_or({_DUCKDB_BIT}) AS hours"}
SQLITE_VALUES = {"daily_agent_issuance": f", sum(DISTINCT 1 << {_SQLITE_HOUR}) AS hours"}


def select(keys: dict[str, str], where: str = "", values: str = "") -> str:
    """A plain SELECT of the events per tenant and ``keys``."""
    columns = ", ".join(f"{expression} AS {name}" for name, expression in keys.items())
    numbers = ", ".join(str(number) for number in range(1, len(keys) + 2))
    return (
        f"SELECT tenant_id, {columns}, count(*) AS issued{values}"
        f" FROM issuance_events {where} GROUP BY {numbers}"
    )


def recount(connection: Connection) -> None:
    """Run the SELECTs over all events; the client receives the rows and ignores them."""
    for table, keys in POSTGRESQL.items():
        connection.execute(select(keys, values=POSTGRESQL_VALUES.get(table, "")))


def create_views(connection: Connection) -> None:
    """Create the SELECTs as empty materialized views, with the unique keys for reads."""
    for table, keys in POSTGRESQL.items():
        selected = select(keys, values=POSTGRESQL_VALUES.get(table, ""))
        connection.execute(
            f"CREATE MATERIALIZED VIEW {table}_view AS {selected} WITH NO DATA;"
            f"CREATE UNIQUE INDEX ON {table}_view (tenant_id, {', '.join(keys)})"
        )


def refresh_views(connection: Connection) -> None:
    """Refresh the views, which is possible only from all events."""
    for table in POSTGRESQL:
        connection.execute(f"REFRESH MATERIALIZED VIEW {table}_view")


def forget_counts(connection: Connection) -> None:
    """Reset the rollup to the state in which no event is counted."""
    connection.execute(f"TRUNCATE {', '.join(TABLES)}, rollup_runs")
    connection.execute("UPDATE rollup_state SET counted_upto = 0, candidate = NULL, writers = NULL")
    connection.execute("VACUUM (ANALYZE) rollup_state")


def check_counts(connection: Connection, suffix: str = "", tables: Sequence[str] = TABLES) -> None:
    """Check that each table or view has counted every event.

    Raises:
        BenchmarkError: a table or view has another number.
    """
    events = connection.execute("SELECT count(*) FROM issuance_events").fetchone()
    for table in tables:
        counted = connection.execute(f"SELECT sum(issued) FROM {table}{suffix}").fetchone()
        if counted != events:
            raise BenchmarkError(f"{table}{suffix} has counted {counted} of {events} events")
