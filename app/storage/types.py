"""Column types and SQL functions that both databases share."""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class UTCDateTime(sa.types.TypeDecorator[datetime]):
    """An aware datetime in UTC.

    ``timestamptz`` on PostgreSQL; text as ``YYYY-MM-DD HH:MM:SS.ffffff`` on SQLite, which has no
    time zones.
    """

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None or dialect.name == "postgresql":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return as_utc(value)


def as_utc(value: datetime | str | None) -> datetime | None:
    """An instant as a driver returns it, made aware and converted to UTC."""
    if value is None:
        return None
    instant = datetime.fromisoformat(value) if isinstance(value, str) else value
    return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)


class database_now(FunctionElement[datetime]):  # noqa: N801 - reads as SQL's now()
    """The database's clock, to the millisecond or better, because the clocks of hosts differ."""

    type = UTCDateTime()
    inherit_cache = True


@compiles(database_now)
def _now(_element: database_now, compiler: SQLCompiler, **_: Any) -> str:
    if compiler.dialect.name == "postgresql":
        # Citus refuses clock_timestamp() for distributed tables, since each node has its own clock.
        return "statement_timestamp()"
    return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"


class seconds_between(FunctionElement[float]):  # noqa: N801 - reads as a function of SQL
    """The seconds from one instant to another; negative if the second is earlier."""

    type = sa.Float()
    inherit_cache = True


@compiles(seconds_between)
def _between(element: seconds_between, compiler: SQLCompiler, **options: Any) -> str:
    first, second = (compiler.process(one, **options) for one in element.clauses)
    if compiler.dialect.name == "postgresql":
        return f"EXTRACT(EPOCH FROM ({second} - {first}))"
    return f"((julianday({second}) - julianday({first})) * 86400.0)"


class days_between(FunctionElement[int]):  # noqa: N801 - reads as a function of SQL
    """The days from one day to another; negative if the second is earlier."""

    type = sa.Integer()
    inherit_cache = True


@compiles(days_between)
def _days_between(element: days_between, compiler: SQLCompiler, **options: Any) -> str:
    first, second = (compiler.process(one, **options) for one in element.clauses)
    if compiler.dialect.name == "postgresql":
        return f"({second} - {first})"
    # Days are whole numbers and a half, so their difference is exact.
    return f"CAST(julianday({second}) - julianday({first}) AS INTEGER)"
