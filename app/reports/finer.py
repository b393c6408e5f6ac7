"""Reads of the finer tables: hourly_issuance and daily_agent_issuance.

These tables are kept for some months only, and an upgrade adds them empty. So a read makes sure
that every day that it needs is kept and complete. Otherwise it is refused, because its numbers
would be too low.
"""

from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Select, Table

from app.errors import UnavailableError, ValidationError
from app.reports.base import TENANT, read_with_totals, with_state
from app.reports.days import Days
from app.storage.complete_days import COMPLETE_FROM, incomplete_days
from app.storage.driver import Reading
from app.storage.tables import hourly_issuance, rollup_state

T = TypeVar("T")

_DAY = timedelta(days=1)


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

    The last columns of the state's row are those of :func:`completeness`. The columns of ``more``
    are before them, or else those of ``totals``, which is a SELECT of one row.
    """
    state = sa.select(*more, *completeness(table))
    if totals is not None:
        sums, end = totals.subquery("sums"), state.subquery("end")
        state = sa.select(*sums.c, *end.c).join_from(sums, end, sa.true())
    return with_state(rows, *order, totals=state)


def completeness(table: Table[Any]) -> tuple[ColumnElement[Any], ColumnElement[date | None]]:
    """Whether tables are being filled, and the latest incomplete day, in the state's row.

    The days from the parameter ``checked_from`` to ``last`` are looked at, and only while some may
    be incomplete. It is the statement that reads the rows, so both are of the same instant.
    """
    state = rollup_state.c
    first, last = (sa.bindparam(name, type_=sa.Date) for name in ("checked_from", "last"))
    found = incomplete_days(table, first, last, TENANT).subquery("incomplete_days")
    latest = sa.select(sa.func.max(found.c.date)).scalar_subquery()
    is_filling = state.backfilled < state.backfill_end
    is_unsure = sa.or_(is_filling, first < COMPLETE_FROM[table])
    return is_filling.label("is_filling"), sa.case((is_unsure, latest)).label("incomplete")


def complete_from(state: Sequence[Any]) -> date | None:
    """The first day after the latest incomplete one; ``None`` if all checked days are complete.

    Args:
        state: a row that ends with the columns of :func:`completeness`.
    """
    incomplete: date | None = state[-1]
    return None if incomplete is None else incomplete + _DAY


def first_readable(span: Span, table: Table[Any], state: Sequence[Any]) -> date:
    """The first of the days from which on all are kept and complete; the next day without one.

    For pages, which show these days instead of none.

    Args:
        state: as :func:`complete_from` has it.
    """
    days, found = span.days, [span.days.first]
    found += map(days.first_from, filter(None, (span.kept.since(table), complete_from(state))))
    return max(found)


def read_finer(
    connection: Connection,
    statement: Reading,
    table: Table[Any],
    span: Span,
    *,
    checked_from: date | None = None,
    **parameters: Any,
) -> tuple[Sequence[Any], list[Any]]:
    """The state's row and the rows of a statement from :func:`with_finer_state`.

    Its parameters include ``tenant_id``. The first and the last UTC day are added to them.

    Args:
        checked_from: an earlier UTC day. Days from it on are checked as well, and then the state's
            row tells what is known of these.

    Raises:
        ValidationError: a day is no longer kept, or can never be complete.
        UnavailableError: a day is not complete yet, or the state row is missing.
    """
    days, kept = span.days, span.kept.since(table)
    require_kept(days, kept)
    checked = min(checked_from or days.utc_first, days.utc_first)
    values = parameters | {
        "first": days.utc_first,
        "last": days.utc_last,
        "checked_from": checked if kept is None else max(checked, kept),
    }
    state, rows = read_with_totals(connection, statement, **values)
    is_filling, incomplete = state[-2:]
    if incomplete is not None and incomplete >= days.utc_first:
        raise _incomplete(days.first_from(incomplete + _DAY), is_filling=is_filling)
    return state, rows


def can_be_read(span: Span, table: Table[Any], state: Sequence[Any]) -> bool:
    """Whether every day is kept and complete, for days that a report can also do without.

    Args:
        state: as :func:`complete_from` has it.
    """
    first, kept, complete = span.days.utc_first, span.kept.since(table), complete_from(state)
    return all(day is None or first >= day for day in (kept, complete))


def require_kept(days: Days, kept_from: date | None) -> None:
    """Refuse days of which a part is no longer kept.

    Raises:
        ValidationError: it names the first day that can be read.
    """
    if kept_from is not None and days.utc_first < kept_from:
        raise _too_early(
            days.first_from(kept_from), "earlier days are no longer kept in this detail"
        )


def _incomplete(first: date, *, is_filling: bool) -> UnavailableError | ValidationError:
    """Why days before ``first`` cannot be read: not yet, or no longer."""
    if is_filling:
        return UnavailableError(
            "the tables of this report are still being filled after an upgrade; try again later,"
            f" or from {first} on",
            {"firstDay": f"{first}"},
        )
    return _too_early(first, "earlier days, or their events, were deleted before")


def _too_early(first: date, reason: str) -> ValidationError:
    details = {"parameter": "from", "firstDay": f"{first}"}
    return ValidationError(f"from must be {first} or later: {reason}", details)
