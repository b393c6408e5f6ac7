"""The base of reports. A report is one indexed statement on one summary table, for one tenant.

Every statement also selects when the last rollup run finished, so that numbers and their age come
from one snapshot. Statements are built once. Points have the member names of the API.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection, Select

from app.errors import UnavailableError
from app.storage.driver import Reading, fetch
from app.storage.tables import rollup_state
from app.storage.types import as_utc

P = TypeVar("P")

Count = Annotated[int, msgspec.Meta(ge=0)]
Month = Annotated[str, msgspec.Meta(pattern="^[0-9]{4}-(0[1-9]|1[0-2])$")]

TENANT = sa.bindparam("tenant_id", type_=sa.Text)


@dataclass(frozen=True)
class Report(Generic[P]):
    """Points, and when the run that counted them finished (``None`` before the first run)."""

    points: list[P]
    counted_at: datetime | None


STALE_INTERVALS = 3  # numbers are stale if no run has finished for so many intervals


class Freshness(NamedTuple):
    """The age of a report's numbers; ``counted_at`` is ``None`` before the first run."""

    counted_at: datetime | None
    age_seconds: int
    stale: bool
    interval_seconds: int


def freshness(counted_at: datetime | None, now: datetime, interval_seconds: int) -> Freshness:
    """The age of numbers that a run counted, where runs start every ``interval_seconds``."""
    if counted_at is None:
        return Freshness(None, 0, stale=False, interval_seconds=interval_seconds)
    age = max(int((now - counted_at).total_seconds()), 0)
    return Freshness(counted_at, age, age > STALE_INTERVALS * interval_seconds, interval_seconds)


class Point(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """One item of a report."""


def read_report(connection: Connection, statement: Reading, **parameters: Any) -> Report[Any]:
    """The rows of a statement from :func:`with_state`; the first column of each is empty.

    Raises:
        UnavailableError: the state row is missing.
    """
    found = fetch(connection, statement, parameters)
    if not found or found[0][1] is not None:
        raise UnavailableError(
            "reports are unavailable: rollup_state has no row; restore the database from a backup"
        )
    return Report(list(found[1:]), as_utc(found[0][0]))


def with_state(rows: Select[*tuple[Any, ...]], *order: str) -> Reading:
    """A statement that returns the state row first, then ``rows`` with an empty column in front.

    The state is in a row of its own, because a column would repeat it in each row.

    Args:
        rows: a SELECT whose first column is never null; in the row of the state it is null.
        order: names of columns, with ``-`` in front for descending order. The first one puts the
            state's row before the others.
    """
    found = rows.subquery("found")
    finished = rollup_state.c.last_finished
    state = sa.select(finished, *(_nothing(column).label(column.name) for column in found.c))
    both = sa.union_all(state, sa.select(_nothing(finished), *found.c))
    return both.order_by(*_ordering(both.selected_columns, order))


def _nothing(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return sa.type_coerce(sa.null(), column.type)


def _ordering(
    columns: sa.ColumnCollection[str, sa.ColumnElement[Any]], names: tuple[str, ...]
) -> Iterator[sa.ColumnElement[Any]]:
    for name in names:
        column = columns[name.removeprefix("-")]
        ordered = column.desc() if name.startswith("-") else column.asc()
        yield ordered.nulls_first()  # the state's row
