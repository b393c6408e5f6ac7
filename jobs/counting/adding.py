"""Adding: the statements that add a window of events to the summary tables.

Tables whose keys have the same columns of events share a *count*: the window's events, counted by
these columns and by the finest beginning that one of the tables needs. So a window is counted
twice, by tenant and hour, and by tenant, agent and day. Every table is added from its count.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, FromClause, Select
from sqlalchemy.dialects.postgresql import Insert as PostgreSQLInsert
from sqlalchemy.dialects.sqlite import Insert as SQLiteInsert

from app.storage.citus import is_citus
from app.storage.tables import issuance_events
from jobs.counting.buckets import Beginning, DayBeginning, HourBeginning, MonthBeginning
from jobs.counting.tables import Kept, SummaryTable, count_events

# Enough memory to group a window by hashing.
_HASHING = sa.select(
    *(
        sa.func.set_config(name, value, True)
        for name, value in (("enable_sort", "off"), ("hash_mem_multiplier", "8"), ("jit", "off"))
    )
)

Upsert = type[PostgreSQLInsert] | type[SQLiteInsert]
Summaries = Sequence[SummaryTable]


@dataclass(frozen=True)
class Window:
    """The events with ``after < id <= upto``."""

    after: int
    upto: int


def add_window(
    connection: Connection, summaries: Summaries, window: Window, kept: Kept
) -> tuple[int, int]:
    """Add a window to some summary tables; returns its events and the buckets touched."""
    if connection.dialect.name == "sqlite":
        return _add_from_temporary_tables(connection, summaries, window, kept)
    _prepare(connection)
    if is_citus(connection):
        return _add_in_turn(connection, summaries, window, kept)
    events, buckets = connection.execute(add_to_all(summaries, window, kept)).one()
    return events, buckets


def in_window(window: Window) -> ColumnElement[bool]:
    """The condition that an event lies in ``window``."""
    return sa.and_(
        issuance_events.c.id > sa.bindparam("after", window.after),
        issuance_events.c.id <= sa.bindparam("upto", window.upto),
    )


def _prepare(connection: Connection) -> None:
    """Make PostgreSQL group by hashing until the transaction ends.

    Its statistics describe columns, not expressions over them. So by default it expects nearly as
    many buckets as events, sorts a million events, and takes twice as long. One grouping may use
    32 MB at the default ``work_mem``; the rest goes to disk.
    """
    connection.execute(_HASHING)


def add_to_all(summaries: Summaries, window: Window, kept: Kept) -> Select[int, int]:
    """Add the window's events to every one of some summary tables, in one statement.

    It selects the number of events and the number of buckets touched.
    """
    shared = {
        keys: (count.events.cte(_name(keys)), count.by)
        for keys, count in counts(summaries, window).items()
    }
    added = [
        add(
            summary,
            PostgreSQLInsert,
            *shared[tuple(summary.event_keys)],
            kept=kept,
            # These tables get the most rows. In order, they touch one page after the other.
            ordered=summary.finer,
        )
        .returning(sa.literal_column("1", sa.Integer))
        .cte(f"added_to_{summary.name}")
        for summary in summaries
    ]
    buckets = [sa.select(sa.func.count()).select_from(one).scalar_subquery() for one in added]
    events, _ = next(iter(shared.values()))
    return sa.select(_number(events).scalar_subquery(), sum(buckets[1:], buckets[0]))


def _add_from_temporary_tables(
    connection: Connection, summaries: Summaries, window: Window, kept: Kept
) -> tuple[int, int]:
    """Add to one table after the other. SQLite writes one table in a statement."""
    shared, stored = {}, []
    for keys, count in counts(summaries, window).items():
        stored.append(count.events.into(_name(keys), temporary=True))
        connection.execute(stored[-1])
        shared[keys] = (stored[-1].table, count.by)
    buckets = 0
    for summary in summaries:
        added = add(summary, SQLiteInsert, *shared[tuple(summary.event_keys)], kept=kept)
        buckets += _rows(connection, added)
    events = connection.execute(_number(stored[0].table)).scalar_one()
    for one in stored:
        one.table.drop(connection, checkfirst=False)
    return events, buckets


def _add_in_turn(
    connection: Connection, summaries: Summaries, window: Window, kept: Kept
) -> tuple[int, int]:
    """Add to one table after the other, each from its own count.

    Citus cannot distribute a statement that writes several tables. It can distribute these, because
    every key starts with ``tenant_id``.
    """
    counted = sa.select(sa.func.count()).select_from(issuance_events).where(in_window(window))
    events = connection.execute(counted).scalar_one()
    buckets = 0
    for summary in summaries if events else ():
        count = counts([summary], window)[tuple(summary.event_keys)]
        own = count.events.subquery("counted")
        buckets += _rows(connection, add(summary, PostgreSQLInsert, own, count.by, kept=kept))
    return events, buckets


class Count(NamedTuple):
    """Events, counted by a kind of beginning: see ``count_events``."""

    events: Select[Any]
    by: type[Beginning]


# From the finest on.
_BEGINNINGS: tuple[type[Beginning], ...] = (HourBeginning, DayBeginning, MonthBeginning)


def counts(summaries: Summaries, window: Window) -> dict[tuple[str, ...], Count]:
    """The counts that serve some summary tables, by their columns of events."""
    sharing: dict[tuple[str, ...], list[SummaryTable]] = {}
    for summary in summaries:
        sharing.setdefault(tuple(summary.event_keys), []).append(summary)
    found = {}
    for keys, served in sharing.items():
        by = min((one.grain for one in served), key=_BEGINNINGS.index)
        masks = dict.fromkeys(name for one in served for name in one.masks)
        found[keys] = Count(count_events(keys, by, masks, in_window(window)), by)
    return found


def add(  # noqa: PLR0913 - the parts of one statement
    summary: SummaryTable,
    upsert: Upsert,
    counted: FromClause,
    by: type[Beginning],
    *,
    kept: Kept,
    ordered: bool = False,
) -> PostgreSQLInsert | SQLiteInsert:
    """Add a count to a summary table; its row count is the number of buckets touched.

    Args:
        ordered: add the rows in the order of their keys.
    """
    rows = summary.sum(counted, by, kept=kept)
    if ordered:
        rows = rows.order_by(*(rows.selected_columns[name] for name in summary.keys))
    # Without a WHERE, SQLite would read the ON of ON CONFLICT as the condition of a join.
    statement = upsert(summary.table).from_select(summary.columns, rows.where(sa.true()))
    row, added = summary.table.c, statement.excluded
    merged = {name: row[name].bitwise_or(added[name]) for name in summary.masks}
    return statement.on_conflict_do_update(
        index_elements=list(summary.keys),
        set_={"issued": row.issued + added.issued} | merged,
    )


def _name(keys: tuple[str, ...]) -> str:
    return f"counted_by_{'_and_'.join(keys)}"


def _number(counted: FromClause) -> Select[int]:
    """The number of events in a count."""
    return sa.select(sa.func.coalesce(sa.cast(sa.func.sum(counted.c.issued), sa.BigInteger), 0))


def _rows(connection: Connection, added: PostgreSQLInsert | SQLiteInsert) -> int:
    return connection.execute(added, execution_options={"preserve_rowcount": True}).rowcount
