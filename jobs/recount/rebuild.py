"""Rebuild: repair the summary tables of some months from the raw events.

The difference is computed first, beside everything else, and then *added* in one short
transaction under the state lock. Adding is right whatever was counted in between, since
runs only add, too. Rebuilds take turns: one that finds that another has changed numbers
since its own difference was computed computes it anew.
"""

import getpass
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import partial

import sqlalchemy as sa
from sqlalchemy import Column, ColumnElement, Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

from app.errors import RefusedError
from app.storage.citus import is_citus
from app.storage.database import Database
from app.storage.tables import rollup_corrections, rollup_state
from app.storage.types import database_now
from jobs.counting.buckets import MonthOf
from jobs.counting.state import read_state
from jobs.counting.tables import ROLLUPS, Rollup
from jobs.recount.difference import Scope, difference, scope

ATTEMPTS = 5
# Each table's difference, then the transaction that adds them all.
STEPS = len(ROLLUPS) + 1

OnStep = Callable[[int, int], None]


@dataclass(frozen=True)
class Rebuilt:
    """How many buckets were corrected, and the correction's number in the journal, if any."""

    buckets: int
    correction: int | None


def rebuild(
    database: Database,
    first: date,
    last: date,
    *,
    on_step: OnStep = lambda _done, _all: None,
) -> Rebuilt:
    """Make the months from ``first`` to ``last`` equal to a recount.

    Args:
        on_step: told how many steps are done, of how many; never under the state lock.

    Raises:
        RefusedError: raw events of a month were purged, so it cannot be recounted.
    """
    compute = partial(_compute, first=first, last=last, on_step=on_step)
    for _ in range(ATTEMPTS):
        rebuilt = database.read_then_write(compute, partial(_apply, first=first, last=last))
        if rebuilt is not None:
            on_step(STEPS, STEPS)
            return rebuilt
    raise RefusedError("other rebuilds keep changing numbers; try again")


def _compute(connection: Connection, *, first: date, last: date, on_step: OnStep) -> int:
    """Leave each table's difference in a temporary one; the number of corrections so far."""
    # A cluster has no one snapshot: there, runs wait.
    before: int = read_state(connection, lock=is_citus(connection)).corrections
    months = _rebuildable(connection, first, last)
    for done, rollup in enumerate(ROLLUPS):
        on_step(done, STEPS)
        deltas = _deltas(rollup)
        deltas.create(connection, checkfirst=False)
        found = difference(rollup, months.ranges).subquery()
        keys = [found.c[name] for name in rollup.keys]
        rows = sa.select(*keys, found.c.recounted - found.c.stored)
        connection.execute(sa.insert(deltas).from_select([*rollup.keys, "delta"], rows))
    on_step(len(ROLLUPS), STEPS)
    return before


def _apply(connection: Connection, before: int, *, first: date, last: date) -> Rebuilt | None:
    """Add the differences; ``None`` when another rebuild came between."""
    if read_state(connection, lock=True).corrections != before:
        return None
    # Again: a purge may have come between, before or after the difference was computed.
    _rebuildable(connection, first, last)
    buckets = 0
    for rollup in ROLLUPS:
        deltas = _deltas(rollup)
        buckets += connection.execute(sa.select(sa.func.count()).select_from(deltas)).scalar_one()
        _add_empty(connection, rollup, deltas)
        _write_journal(connection, rollup, deltas, before + 1)
        _add_deltas(connection, rollup, deltas)
    if not buckets:
        return Rebuilt(0, None)
    connection.execute(sa.update(rollup_state).values(corrections=before + 1))
    return Rebuilt(buckets, before + 1)


def _rebuildable(connection: Connection, first: date, last: date) -> Scope:
    months = scope(connection, first, last)
    if months.purged:
        names = ", ".join(f"{month:%Y-%m}" for month in months.purged)
        raise RefusedError(f"raw events were purged, these months cannot be rebuilt: {names}")
    return months


def _deltas(rollup: Rollup) -> Table:
    """The temporary table of one summary table's differences."""
    keys = [Column(name, rollup.table.c[name].type, nullable=False) for name in rollup.keys]
    name = f"difference_{rollup.table.name}"
    delta = Column("delta", sa.BigInteger, nullable=False)
    return Table(name, sa.MetaData(), *keys, delta, prefixes=["TEMPORARY"])


def _add_empty(connection: Connection, rollup: Rollup, deltas: Table) -> None:
    """The buckets that are missing, as zero."""
    upsert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert
    # SQLite would take the ON of ON CONFLICT for a join's, were there no WHERE before it.
    empty = sa.select(*(deltas.c[name] for name in rollup.keys), sa.literal(0)).where(sa.true())
    missing = upsert(rollup.table).from_select([*rollup.keys, "issued"], empty)
    connection.execute(missing.on_conflict_do_nothing())


def _write_journal(connection: Connection, rollup: Rollup, deltas: Table, number: int) -> None:
    """One row for each tenant and month whose total changes, written before it does.

    Each has a bucket by now, if an empty one.
    """
    table, month = rollup.table, _month(rollup, deltas).label("month")
    changed = (
        sa.select(deltas.c.tenant_id, month, sa.func.sum(deltas.c.delta).label("delta"))
        .group_by(deltas.c.tenant_id, month)
        .subquery("changed")
    )
    same = sa.and_(
        table.c.tenant_id == changed.c.tenant_id, _month(rollup, table) == changed.c.month
    )
    old = sa.func.sum(table.c.issued)
    values = {
        "tenant_id": table.c.tenant_id,
        "correction": sa.literal(number),
        "table_name": sa.literal(table.name),
        "month": changed.c.month,
        "old_total": old,
        "new_total": old + changed.c.delta,
        "corrected_at": database_now(),
        "corrected_by": sa.literal(_author()),
    }
    rows = (
        sa.select(*(value.label(name) for name, value in values.items()))
        .select_from(table.join(changed, same))
        .group_by(table.c.tenant_id, changed.c.month, changed.c.delta)
    )
    connection.execute(sa.insert(rollup_corrections).from_select(list(values), rows))


def _add_deltas(connection: Connection, rollup: Rollup, deltas: Table) -> None:
    """Add each difference to its bucket; those that are zero disappear."""
    table, names = rollup.table, rollup.keys
    same = sa.and_(*(table.c[name] == deltas.c[name] for name in names))
    issued = table.c.issued + deltas.c.delta
    connection.execute(sa.update(table).values(issued=issued).where(same))
    touched = sa.tuple_(*(table.c[name] for name in names)).in_(
        sa.select(*(deltas.c[name] for name in names))
    )
    connection.execute(sa.delete(table).where(table.c.issued == 0, touched))


def _author() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _month(rollup: Rollup, source: Table) -> ColumnElement[date]:
    return source.c.month if "month" in rollup.keys else MonthOf(source.c.date)
