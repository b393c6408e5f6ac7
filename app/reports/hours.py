"""Hours: tokens in each hour of some days, read from hourly_issuance.

Days of a time zone are made of these hours, too: in the trend, the activity and the summary.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Annotated, Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection, Select

from app.reports.base import TENANT, Count, Point, Report
from app.reports.days import LocalHour, hour_number
from app.reports.finer import Span, read_finer, with_finer_state
from app.storage.tables import hourly_issuance
from app.storage.types import as_utc

Hour = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:00(Z|[+-][0-9]{2}:[0-9]{2})$",
        description="the beginning of the hour, RFC 3339",
    ),
]


class HourTokens(Point, frozen=True):
    """Tokens issued in one hour."""

    hour: Hour
    count: Count


class Hours(NamedTuple):
    """The tokens of each hour of some days, in order, and when they were counted."""

    span: Span
    counts: list[int]
    counted_at: datetime | None

    def of_days(self) -> list[int]:
        """The tokens of each day."""
        places = [begin - self.span.days.begin for begin in self.span.days.begins]
        return [sum(self.counts[begin:end]) for begin, end in pairwise(places)]

    def with_labels(self) -> Iterator[tuple[LocalHour, int]]:
        """Each hour, as its zone calls it, with its tokens."""
        return zip(self.span.days.hours(), self.counts, strict=True)


def hours_of(connection: Connection, tenant_id: str, span: Span) -> Hours:
    """The tokens of each hour of the days.

    Raises:
        ValidationError, UnavailableError: see :func:`~app.reports.finer.read_finer`.
    """
    state, rows = read_finer(connection, _HOURS, hourly_issuance, span, tenant_id=tenant_id)
    days = span.days
    counts = [0] * (days.end - days.begin)
    for _, day, hour, issued, *_ in rows:
        place = hour_number(day, hour) - days.begin
        if 0 <= place < len(counts):  # the first and the last UTC day may be there in part
            counts[place] = issued
    return Hours(span, counts, as_utc(state[0]))


def hourly_tokens(connection: Connection, tenant_id: str, span: Span) -> Report[HourTokens]:
    """Tokens in each hour of the days, oldest first; 0 in silent hours."""
    found = hours_of(connection, tenant_id, span)
    points = [HourTokens(_text(hour.begin), count) for hour, count in found.with_labels()]
    return Report(points, found.counted_at)


def _text(begin: datetime) -> str:
    """An instant as RFC 3339 has it. Offsets had seconds once, and it has no such offsets."""
    offset = begin.utcoffset()
    if not offset or offset % timedelta(minutes=1):
        return f"{begin.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return begin.isoformat()


def _hours() -> Select[*tuple[Any, ...]]:
    hour = hourly_issuance.c
    first, last = sa.bindparam("first", type_=sa.Date), sa.bindparam("last", type_=sa.Date)
    return sa.select(hour.date, hour.hour, hour.issued).where(
        hour.tenant_id == TENANT, hour.date.between(first, last)
    )


_HOURS = with_finer_state(hourly_issuance, _hours(), "date")
