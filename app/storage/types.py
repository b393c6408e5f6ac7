"""Column types and SQL functions that both databases share."""

import sys
from array import array
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
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


class joined(FunctionElement[Any]):  # noqa: N801 - reads as a function of SQL
    """The integers of a group in one value, which :func:`numbers` reads; null without rows.

    Thousands of rows take longer to receive than to join.
    """

    inherit_cache = True


@compiles(joined)
def _joined(element: joined, compiler: SQLCompiler, **options: Any) -> str:
    (column,) = (compiler.process(one, **options) for one in element.clauses)
    if compiler.dialect.name == "postgresql":
        return f"string_agg(int8send({column}), ''::bytea)"
    return f"group_concat({column}, ',')"


_NUMBERS = msgspec.json.Decoder(list[int])


def numbers(value: bytes | str | None) -> Sequence[int]:
    """The integers that :class:`joined` has joined; two such values have them in one order."""
    if isinstance(value, bytes):
        found = array("q", value)
        if sys.byteorder == "little":
            found.byteswap()
        return found
    return _NUMBERS.decode(f"[{value or ''}]")
