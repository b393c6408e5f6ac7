"""Lost raw events: the summary tables count them, and they are not there.

Each independent summary table counts every event; one from which retention deletes months does not
count as such. If these tables agree on a tenant's month, and
fewer raw events are left than they count, then raw events are lost, and the numbers are right. If
the tables disagree, a number was changed by hand, and the recount decides.

A resume is stricter, because after a refusal events may be uncounted. As many uncounted events as
lost ones leave the total of a month as it is. So it takes events for lost if the tables agree on
the month, and any bucket of it has fewer raw events than it counts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Column, ColumnElement, Connection, Select, Table

from app.dates import months_back
from app.errors import RefusedError
from app.storage.tables import Id, purged_months
from jobs.counting.backfill import ids_left
from jobs.counting.state import note_incomplete, read_state
from jobs.counting.tables import SUMMARY_TABLES, SummaryTable
from jobs.recount.difference import deltas_of

# So many tenants' months are named in an error.
NAMED = 3

# The tenants' months with lost events: their number at least, and how many the month has too few.
_LOST = Table(
    "lost_events",
    sa.MetaData(),
    Column("tenant_id", Id, nullable=False),
    Column("month", sa.Date, nullable=False),
    Column("events", sa.BigInteger, nullable=False),
    Column("missing", sa.BigInteger, nullable=False),
    prefixes=["TEMPORARY"],
)


@dataclass(frozen=True)
class Lost:
    """Raw events of some tenants' months that are lost, although they are counted.

    ``found``: names them. ``events``: their number, at least. ``uncounted``: the number of events,
    at least, that are left in the same tenants' months and are not counted.
    """

    found: str
    events: int
    uncounted: int


class LostEventsError(RefusedError):
    """Raw events of some months are lost."""

    def __init__(self, message: str, lost: Lost) -> None:
        super().__init__(message)
        self.lost = lost


def refuse_lost_events(connection: Connection, *, strict: bool = False) -> None:
    """Refuse to add the differences if raw events are lost.

    Raises:
        LostEventsError: they are lost.
    """
    lost = _lost_events(connection, strict=strict)
    if lost is not None:
        raise LostEventsError(
            f"{lost.found}. Restore events and tables from one backup; --force makes the numbers"
            " equal to the events that are left",
            lost,
        )


def keep_numbers(connection: Connection) -> Lost | None:
    """Take the tenants' months with lost events out of the differences.

    These months then count as purged.
    """
    lost = _lost_events(connection, strict=True)
    if lost is None:
        return None
    pairs = sa.select(_LOST.c.tenant_id, _LOST.c.month)
    for _, deltas, month in _recounted_from_events():
        lost_here = sa.tuple_(deltas.c.tenant_id, month).in_(pairs)
        connection.execute(sa.delete(deltas).where(lost_here))
    events = sa.cast(sa.func.sum(_LOST.c.missing), sa.BigInteger)
    months = sa.select(_LOST.c.month, events).group_by(_LOST.c.month)
    connection.execute(sa.insert(purged_months).from_select(["month", "events"], months))
    state = read_state(connection)
    if ids_left(state):  # a backfill will not find the lost events
        last = connection.execute(sa.select(sa.func.max(_LOST.c.month))).scalar_one()
        note_incomplete(connection, state, months_back(last, -1))
    return lost


def _lost_events(connection: Connection, *, strict: bool) -> Lost | None:
    """Store the tenants' months with lost events in a temporary table, and sum them up.

    A table's total of a month is the number of raw events less the sum of its differences. So the
    tables agree where these sums are equal; the sum of a table without a difference is zero.

    Args:
        strict: events are lost if any bucket has too few, otherwise if the month has too few.
    """
    independent = list(_sums_of_months())
    sums = sa.union_all(*independent).subquery("sums")
    fewest, most = sa.func.min(sums.c.delta), sa.func.max(sums.c.delta)
    agree = sa.and_(fewest == most, sa.or_(sa.func.count() == len(independent), most == 0))
    fallen = sa.func.min(sums.c.fallen)
    found = (
        sa.select(
            sums.c.tenant_id,
            sums.c.month,
            sa.cast(-fallen, sa.BigInteger),
            sa.cast(-most, sa.BigInteger),
        )
        .group_by(sums.c.tenant_id, sums.c.month)
        .having(agree, fallen < 0 if strict else most < 0)
    )
    _LOST.create(connection, checkfirst=False)
    connection.execute(sa.insert(_LOST).from_select([column.name for column in _LOST.c], found))
    return _summed_up(connection)


def _summed_up(connection: Connection) -> Lost | None:
    row = _LOST.c
    months, events, missing = connection.execute(
        sa.select(
            sa.func.count(),
            sa.cast(sa.func.sum(row.events), sa.BigInteger),
            sa.cast(sa.func.sum(row.missing), sa.BigInteger),
        )
    ).one()
    if not months:
        return None
    first = sa.select(_LOST).order_by(row.month, row.tenant_id).limit(NAMED)
    names = [
        f"{each.events} of {each.tenant_id} in {each.month:%Y-%m}"
        for each in connection.execute(first)
    ]
    if months > NAMED:
        names.append(f"{events} in all")
    found = f"raw events are lost that every summary table counts: {', '.join(names)}"
    return Lost(found, events, events - missing)


def _recounted_from_events() -> Iterator[tuple[SummaryTable, Table, ColumnElement[date]]]:
    """The tables that are recounted from raw events: their differences, and the month of each."""
    for summary in SUMMARY_TABLES:
        deltas = deltas_of(summary)
        month = summary.month(deltas)
        if summary.source is None and month is not None:
            yield summary, deltas, month


def _sums_of_months() -> Iterator[Select[Any]]:
    """The differences of each independent table, summed for each tenant and month.

    ``fallen`` is the sum of those where raw events are missing.
    """
    for summary, deltas, month in _recounted_from_events():
        if summary.finer:
            continue
        delta = deltas.c.delta
        columns = {
            "tenant_id": deltas.c.tenant_id,
            "month": month,
            "delta": sa.func.sum(delta),
            "fallen": sa.func.sum(sa.case((delta < 0, delta), else_=0)),
        }
        named = (column.label(name) for name, column in columns.items())
        yield sa.select(*named).group_by(deltas.c.tenant_id, month)
