"""Buckets: the UTC day, month, day of the week and hour of an event, as SQL.

Each expression names UTC, so that the time zone of a server, role or session cannot move an event
into another bucket. UTC is written as an offset of zero, because PostgreSQL would look up the name
of a zone for each event. On SQLite ``issued_at`` is text in UTC, and every part is cut from it.
SQLite's date functions would round 23:59:59.9996 into the next day.
"""

from datetime import date, datetime
from typing import Any, ClassVar, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from app.storage.tables import issuance_events
from app.storage.types import UTCDateTime

T = TypeVar("T")


class Bucket(FunctionElement[T]):
    """A part of an instant or of a day, with its SQL for each database."""

    inherit_cache = True
    postgresql: ClassVar[str]
    sqlite: ClassVar[str]


@compiles(Bucket)
def _sql(bucket: Bucket[Any], compiler: SQLCompiler, **_: Any) -> str:
    name = compiler.dialect.name
    template = bucket.postgresql if name == "postgresql" else bucket.sqlite
    return template.format(compiler.process(bucket.clauses))


class IssuedOn(Bucket[date]):
    """The UTC day of an instant."""

    inherit_cache = True
    type = sa.Date()
    postgresql = "CAST({0} AT TIME ZONE INTERVAL '0' AS DATE)"
    sqlite = "substr({0}, 1, 10)"


class IssuedMonth(Bucket[date]):
    """The first day of the UTC month of an instant."""

    inherit_cache = True
    type = sa.Date()
    postgresql = "CAST(date_trunc('month', {0} AT TIME ZONE INTERVAL '0') AS DATE)"
    sqlite = "substr({0}, 1, 7) || '-01'"


class IssuedDow(Bucket[int]):
    """The UTC day of the week; 0 is Sunday.

    On PostgreSQL it is computed from 1970-01-01, a Thursday, because no event is older. extract()
    would calculate with decimals and take twice as long.
    """

    inherit_cache = True
    type = sa.SmallInteger()
    postgresql = (
        "CAST(mod(CAST({0} AT TIME ZONE INTERVAL '0' AS DATE) - DATE '1970-01-01' + 4, 7)"
        " AS SMALLINT)"
    )
    sqlite = "CAST(strftime('%w', substr({0}, 1, 10)) AS INTEGER)"


class IssuedHour(Bucket[int]):
    """The UTC hour, 0 to 23; computed without extract(), which calculates with decimals."""

    inherit_cache = True
    type = sa.SmallInteger()
    postgresql = "CAST(date_part('hour', {0} AT TIME ZONE INTERVAL '0') AS SMALLINT)"
    sqlite = "CAST(substr({0}, 12, 2) AS INTEGER)"


class MonthOf(Bucket[date]):
    """The first day of the month that a day lies in."""

    inherit_cache = True
    type = sa.Date()
    postgresql = "CAST(date_trunc('month', CAST({0} AS TIMESTAMP)) AS DATE)"
    sqlite = "substr({0}, 1, 7) || '-01'"


class Beginning(Bucket[datetime]):
    """The beginning of the hour, day or month that an instant lies in.

    An instant and its beginning belong to the same bucket. On SQLite the beginning is a prefix of
    the text.
    """

    inherit_cache = True
    type = UTCDateTime()


class HourBeginning(Beginning):
    """The beginning of the hour, by date_bin(), which is twice as fast as date_trunc()."""

    inherit_cache = True
    postgresql = "date_bin(INTERVAL '1 hour', {0}, TIMESTAMPTZ '1970-01-01 00:00:00+00')"
    sqlite = "substr({0}, 1, 13)"


class DayBeginning(Beginning):
    """The beginning of the day."""

    inherit_cache = True
    postgresql = "date_bin(INTERVAL '1 day', {0}, TIMESTAMPTZ '1970-01-01 00:00:00+00')"
    sqlite = "substr({0}, 1, 10)"


class MonthBeginning(Beginning):
    """The beginning of the month."""

    inherit_cache = True
    postgresql = "date_trunc('month', {0} AT TIME ZONE INTERVAL '0') AT TIME ZONE INTERVAL '0'"
    sqlite = "substr({0}, 1, 7)"


issued_month = IssuedMonth(issuance_events.c.issued_at)
