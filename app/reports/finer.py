"""Reads of the finer tables: hourly_issuance and daily_agent_issuance.

These tables are kept for some months only, and an upgrade adds them empty. So a read makes sure
that every day that it needs is kept and complete. Otherwise it is refused, because its numbers
would be too low.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Select, Table

from app.errors import UnavailableError, ValidationError
from app.reports.base import TENANT, read_with_totals, with_state
from app.reports.days import Days
from app.storage.complete_days import COMPLETE_FROM, incomplete_days
from app.storage.driver import Reading
from app.storage.tables import daily_agent_issuance, hourly_issuance, rollup_state

T = TypeVar("T")

_DAY = timedelta(days=1)


# While the tables are being filled, any day may be incomplete.
FILLING = date.max


class Kept(NamedTuple):
    """The first UTC day that each finer table keeps; ``None`` for all days."""

    hours: date | None = None
    agents: date | None = None

    def since(self, table: Table[Any]) -> date | None:
        return self.hours if table is hourly_issuance else self.agents


class Span(NamedTuple):
    """The days of a report, and what is kept."""

    days: Days
    kept: Kept = Kept()


class Missing(NamedTuple):
    """A report that cannot be read, and why, in words for a page."""

    reason: str


def or_missing(read: Callable[[], T]) -> T | Missing:
    """A report, or why its days cannot be read, so that a page can show its other reports."""
    try:
        return read()
    except (ValidationError, UnavailableError) as error:
        return Missing(error.message)


def with_finer_state(
    table: Table[Any],
    rows: Select[*tuple[Any, ...]],
    *order: str,
    more: Sequence[ColumnElement[Any]] = (),
    totals: Select[*tuple[Any, ...]] | None = None,
) -> Reading:
    """As :func:`~app.reports.base.with_state`, for rows of a finer table.

    The last column of the state's row is the day from which on every day of the table is complete.
    It is null if all are. The columns of ``more`` are before it, or else those of ``totals``, which
    is a SELECT of one row.
    """
    state = sa.select(*more, unsure_before(table))
    if totals is not None:
        sums, end = totals.subquery("sums"), state.subquery("end")
        state = sa.select(*sums.c, *end.c).join_from(sums, end, sa.true())
    return with_state(rows, *order, totals=state)


def unsure_before(table: Table[Any]) -> sa.ColumnElement[date | None]:
    """The day from which on every day of a table is complete, in the state row; null for all."""
    state = rollup_state.c
    filling = (state.backfilled < state.backfill_end, sa.literal(FILLING, sa.Date))
    return sa.case(filling, else_=COMPLETE_FROM[table]).label("unsure_before")


def first_readable(
    connection: Connection, table: Table[Any], span: Span, unsure: date | None, tenant_id: str
) -> date:
    """The first of the days from which on all are kept and complete; the next day without one.

    For pages, which show these days instead of none.

    Args:
        unsure: the column :func:`unsure_before` of the state's row.
    """
    days, kept = span.days, span.kept.since(table)
    first = days.first if kept is None else max(days.first, days.first_from(kept))
    if unsure == FILLING:
        values = {"tenant_id": tenant_id, "first": days.utc_first, "last": days.utc_last}
        latest = connection.execute(_LATEST_INCOMPLETE[table], values).scalar()
        unsure = None if latest is None else latest + _DAY
    return first if unsure is None else max(first, days.first_from(unsure))


def read_finer(
    connection: Connection,
    statement: Reading,
    table: Table[Any],
    span: Span,
    **parameters: Any,
) -> tuple[Sequence[Any], list[Any]]:
    """The state's row and the rows of a statement from :func:`with_finer_state`.

    Its parameters include ``tenant_id``. The first and the last UTC day are added to them.

    Raises:
        ValidationError: a day is no longer kept, or can never be complete.
        UnavailableError: a day is not complete yet, or the state row is missing.
    """
    days = span.days
    require_kept(days, span.kept.since(table))
    values = parameters | {"first": days.utc_first, "last": days.utc_last}
    state, rows = read_with_totals(connection, statement, **values)
    unsure = state[-1]
    if unsure is None or days.utc_first >= unsure:
        return state, rows
    require_complete(connection, table, days, values["tenant_id"], filling=unsure == FILLING)
    # What was incomplete at the first time may have been filled since.
    return read_with_totals(connection, statement, **values)


def can_be_read(
    connection: Connection,
    tenant_id: str,
    table: Table[Any],
    span: Span,
    unsure: date | None = None,
) -> bool:
    """Whether every day is kept and complete, for days that a report can also do without.

    Args:
        unsure: the last column of the state's row, as :func:`with_finer_state` says.
    """
    days = span.days
    try:
        require_kept(days, span.kept.since(table))
        if unsure is not None and days.utc_first < unsure:
            require_complete(connection, table, days, tenant_id, filling=unsure == FILLING)
    except (ValidationError, UnavailableError):
        return False
    return True


def require_kept(days: Days, kept_from: date | None) -> None:
    """Refuse days of which a part is no longer kept.

    Raises:
        ValidationError: it names the first day that can be read.
    """
    if kept_from is not None and days.utc_first < kept_from:
        raise _too_early(
            days.first_from(kept_from), "earlier days are no longer kept in this detail"
        )


def require_complete(
    connection: Connection, table: Table[Any], days: Days, tenant_id: str, *, filling: bool
) -> None:
    """Refuse days of which one is incomplete.

    Raises:
        UnavailableError: the tables are still being filled.
        ValidationError: a day was deleted, or its raw events were before it could be filled.
    """
    parameters = {"tenant_id": tenant_id, "first": days.utc_first, "last": days.utc_last}
    latest = connection.execute(_LATEST_INCOMPLETE[table], parameters).scalar()
    if latest is None:
        return
    first = days.first_from(latest + _DAY)
    if filling:
        raise UnavailableError(
            "the tables of this report are still being filled after an upgrade; try again later,"
            f" or from {first} on",
            {"firstDay": f"{first}"},
        )
    raise _too_early(first, "earlier days, or their events, were deleted before")


def _too_early(first: date, reason: str) -> ValidationError:
    details = {"parameter": "from", "firstDay": f"{first}"}
    return ValidationError(f"from must be {first} or later: {reason}", details)


def _latest_incomplete(table: Table[Any]) -> Select[date | None]:
    first, last = sa.bindparam("first", type_=sa.Date), sa.bindparam("last", type_=sa.Date)
    found = incomplete_days(table, first, last, TENANT).subquery("incomplete")
    return sa.select(sa.func.max(found.c.date))


_LATEST_INCOMPLETE: Mapping[Table[Any], Select[date | None]] = {
    table: _latest_incomplete(table) for table in (hourly_issuance, daily_agent_issuance)
}
