"""The base of reports. A report is one indexed statement on one summary table, for one tenant.

Every statement also selects when the last rollup run finished, so that numbers and their age come
from one snapshot. Statements are built once. Points have the member names of the API.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import chain
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection, Select

from app.errors import UnavailableError
from app.storage.driver import Reading, fetch, fetch_batches
from app.storage.tables import rollup_state
from app.storage.types import as_utc

P = TypeVar("P")

Count = Annotated[int, msgspec.Meta(ge=0)]
Month = Annotated[str, msgspec.Meta(pattern="^[0-9]{4}-(0[1-9]|1[0-2])$")]

TENANT = sa.bindparam("tenant_id", type_=sa.Text)

NO_STATE = "reports are unavailable: rollup_state has no row; restore the database from a backup"
BATCH = 2000  # points; so that no step keeps the interpreter for long
_ESCAPE = "\\"


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
    state, rows = read_with_totals(connection, statement, **parameters)
    return Report(rows, as_utc(state[0]))


def read_with_totals(
    connection: Connection, statement: Reading, **parameters: Any
) -> tuple[Sequence[Any], list[Any]]:
    """The state's row of a statement, with the totals at its end, and the other rows.

    Raises:
        UnavailableError: the state row is missing.
    """
    found = fetch(connection, statement, parameters)
    return _checked(found[0] if found else None), list(found[1:])


class Batches:
    """The rows of a report that may be too long for the memory, a batch at a time.

    A row has the values of a point. Each iteration sends the statement again. On a connection with
    a snapshot (:meth:`~app.storage.database.Database.snapshot_for`) each one finds the same rows.

    Raises:
        UnavailableError: at the first batch, if the state row is missing.
    """

    def __init__(self, connection: Connection, statement: Reading, **parameters: Any) -> None:
        self._read = partial(fetch_batches, connection, statement, parameters)
        self.counted_at: datetime | None = None

    def __iter__(self) -> Iterator[list[Sequence[Any]]]:
        """Batches of at most BATCH rows; after the first one, ``counted_at`` is set."""
        batches = self._read(BATCH)
        state, *first = next(batches, [None])
        self.counted_at = as_utc(_checked(state)[0])
        for rows in filter(None, chain([first], batches)):
            yield [row[1:] for row in rows]


def _checked(row: Sequence[Any] | None) -> Sequence[Any]:
    """The first row of a statement, which must be that of the state.

    Raises:
        UnavailableError: the state row is missing.
    """
    if row is None or row[1] is not None:
        raise UnavailableError(NO_STATE)
    return row


def with_state(
    rows: Select[*tuple[Any, ...]], *order: str, totals: Select[*tuple[Any, ...]] | None = None
) -> Reading:
    """A statement that returns the state row first, then ``rows`` with an empty column in front.

    The state is in a row of its own, because a column would repeat it in each row.

    Args:
        rows: a SELECT whose first column is never null; in the row of the state it is null.
        order: names of columns, with ``-`` in front for descending order. The first one puts the
            state's row before the others.
        totals: a SELECT of one row. Its columns are the last ones, and empty outside of the
            state's row.
    """
    found = rows.subquery("found")
    finished = rollup_state.c.last_finished
    state = sa.select(finished, *(_nothing(column).label(column.name) for column in found.c))
    empty = []
    if totals is not None:
        whole = totals.subquery("totals")
        state = state.add_columns(*whole.c).join_from(rollup_state, whole, sa.true())
        empty = [_nothing(column) for column in whole.c]
    both = sa.union_all(state, sa.select(_nothing(finished), *found.c, *empty))
    return both.order_by(*_ordering(both.selected_columns, order))


def contains(text: str) -> str:
    """A pattern for :func:`like` that finds ``text`` anywhere; no character is a wildcard."""
    # On bytes, lower() changes ASCII letters only.
    folded = text.encode().lower().decode()
    for special in (_ESCAPE, "%", "_"):
        folded = folded.replace(special, _ESCAPE + special)
    return f"%{folded}%"


def like(*columns: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """Whether one of the columns is like ``pattern``; the case of ASCII letters is ignored.

    The columns are ``COLLATE "C"``, so lower() changes ASCII letters only, on PostgreSQL as on
    SQLite.
    """
    pattern = sa.bindparam("pattern", type_=sa.Text)
    return sa.or_(*(sa.func.lower(one).like(pattern, escape=_ESCAPE) for one in columns))


def total(column: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    """The sum of a column; 0 without rows."""
    # On PostgreSQL the sum of big integers is a decimal; the cast keeps it an integer.
    return sa.cast(sa.func.coalesce(sa.func.sum(column), 0), sa.BigInteger)


def _nothing(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return sa.type_coerce(sa.null(), column.type)


def _ordering(
    columns: sa.ColumnCollection[str, sa.ColumnElement[Any]], names: tuple[str, ...]
) -> Iterator[sa.ColumnElement[Any]]:
    for name in names:
        column = columns[name.removeprefix("-")]
        ordered = column.desc() if name.startswith("-") else column.asc()
        yield ordered.nulls_first()  # the state's row
