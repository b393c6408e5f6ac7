"""Reads of the finer tables: hourly_issuance and daily_agent_issuance.

These tables are kept for some months only, and an upgrade adds them empty. So a read makes sure
that every day that it needs is kept and complete. Otherwise it is refused, because its numbers
would be too low.
"""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection, Select, Table

from app.errors import UnavailableError, ValidationError
from app.reports.base import TENANT, read_with_totals, with_state
from app.reports.days import Days
from app.storage.complete_days import COMPLETE_FROM, incomplete_days
from app.storage.driver import Reading
from app.storage.tables import daily_agent_issuance, hourly_issuance, rollup_state

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


def with_finer_state(table: Table[Any], rows: Select[*tuple[Any, ...]], *order: str) -> Reading:
    """As :func:`~app.reports.base.with_state`, for rows of a finer table.

    The last column of the state's row is the day from which on every day of the table is complete.
    It is null if all are.
    """
    state = rollup_state.c
    filling = (state.backfilled < state.backfill_end, sa.literal(FILLING, sa.Date))
    unsure_before = sa.case(filling, else_=COMPLETE_FROM[table]).label("unsure_before")
    return with_state(rows, *order, totals=sa.select(unsure_before))


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
    _require_kept(days, span.kept.since(table))
    values = parameters | {"first": days.utc_first, "last": days.utc_last}
    state, rows = read_with_totals(connection, statement, **values)
    unsure = state[-1]
    if unsure is None or days.utc_first >= unsure:
        return state, rows
    _require_complete(connection, table, days, values, filling=unsure == FILLING)
    # What was incomplete at the first time may have been filled since.
    return read_with_totals(connection, statement, **values)


def _require_kept(days: Days, kept_from: date | None) -> None:
    """Refuse days of which a part is no longer kept.

    Raises:
        ValidationError: it names the first day that can be read.
    """
    if kept_from is not None and days.utc_first < kept_from:
        raise _too_early(
            days.first_from(kept_from), "earlier days are no longer kept in this detail"
        )


def _require_complete(
    connection: Connection, table: Table[Any], days: Days, values: dict[str, Any], *, filling: bool
) -> None:
    """Refuse days of which one is incomplete.

    Raises:
        UnavailableError: the tables are still being filled.
        ValidationError: a day was deleted, or its raw events were before it could be filled.
    """
    parameters = {name: values[name] for name in ("tenant_id", "first", "last")}
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
