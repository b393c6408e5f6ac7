"""Adding: the statements that add a window of events to the summary tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import CTE, ColumnElement, Connection, FromClause, Select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import Insert as PostgreSQLInsert
from sqlalchemy.dialects.sqlite import Insert as SQLiteInsert

from app.storage.citus import is_citus
from app.storage.tables import issuance_events
from jobs.counting.buckets import Beginning, DayBeginning, HourBeginning, MonthBeginning
from jobs.counting.tables import Kept, SummaryTable, hour_bit

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
    _prepare(connection)
    if connection.dialect.name == "postgresql" and not is_citus(connection):
        events, buckets = connection.execute(add_to_all(summaries, window, kept)).one()
        return events, buckets
    counted = sa.select(sa.func.count()).select_from(issuance_events).where(in_window(window))
    events = connection.execute(counted).scalar_one()
    upsert = (postgresql if connection.dialect.name == "postgresql" else sqlite).Insert
    buckets = 0
    for summary in summaries if events else ():
        added = connection.execute(
            add_to_one(summary, upsert, window, kept),
            execution_options={"preserve_rowcount": True},
        )
        buckets += added.rowcount
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
    if connection.dialect.name == "postgresql":
        connection.execute(_HASHING)


def add_to_one(
    summary: SummaryTable, upsert: Upsert, window: Window, kept: Kept
) -> PostgreSQLInsert | SQLiteInsert:
    """Add the window's events to one summary table.

    One statement, grouped in the database. It works on SQLite, PostgreSQL and a sharded
    PostgreSQL, because every key starts with ``tenant_id``. Its row count is the number of
    buckets touched.
    """
    return _add(summary, upsert, summary.count(in_window(window), kept=kept))


def add_to_all(summaries: Summaries, window: Window, kept: Kept) -> Select[int, int]:
    """Add the window's events to every one of some summary tables, in one statement.

    It selects the number of events and the number of buckets touched. It reads the events once,
    whereas :func:`add_to_one` reads them for each table. SQLite has no grouping sets, and Citus
    cannot distribute a statement that writes several tables.
    """
    sets = _grouping_sets(summaries)
    counted = _counted(sets, window)
    added = [
        _add(summary, PostgreSQLInsert, summary.sum(_own(summary, sets, counted), kept=kept))
        .returning(sa.literal_column("1", sa.Integer))
        .cte(f"added_to_{summary.name}")
        for summary in summaries
    ]
    buckets = [sa.select(sa.func.count()).select_from(one).scalar_subquery() for one in added]
    events = sa.select(
        sa.func.coalesce(sa.cast(sa.func.sum(counted.c.issued), sa.BigInteger), 0)
    ).where(counted.c.missing == _missing(sets, summaries[0]))
    return sa.select(events.scalar_subquery(), sum(buckets[1:], buckets[0]))


def _add(
    summary: SummaryTable, upsert: Upsert, counts: Select[Any]
) -> PostgreSQLInsert | SQLiteInsert:
    statement = upsert(summary.table).from_select(summary.columns, counts)
    row, added = summary.table.c, statement.excluded
    merged = {name: row[name].bitwise_or(added[name]) for name in summary.masks}
    return statement.on_conflict_do_update(
        index_elements=list(summary.keys),
        set_={"issued": row.issued + added.issued} | merged,
    )


# Each beginning that events are counted by, from the finest on.
_BEGINNINGS: dict[type[Beginning], str] = {
    HourBeginning: "hour",
    DayBeginning: "day",
    MonthBeginning: "month",
}
_MASK = "hours"
# For the tables with the same columns of events as keys: the beginning that serves all of them.
_Sets = dict[tuple[str, ...], type[Beginning]]


def _grouping_sets(summaries: Summaries) -> _Sets:
    """The grouping sets: tables with the same keys share one, by the finest of their beginnings."""
    finest, sets = list(_BEGINNINGS), _Sets()
    for summary in summaries:
        keys = tuple(summary.event_keys)
        sets[keys] = min(sets.get(keys, summary.grain), summary.grain, key=finest.index)
    return sets


def _counted(sets: _Sets, window: Window) -> CTE:
    """The window's events, counted by each grouping set."""
    found = issuance_events.c
    names = _columns(sets)
    beginnings = {name: begin for begin, name in _BEGINNINGS.items()}
    parts = [
        beginnings[name](found.issued_at).label(name) if name in beginnings else found[name]
        for name in names
    ]
    bit = hour_bit(found.issued_at).label(_MASK)
    # OFFSET 0 hides the subquery from the planner. Otherwise the planner would expect as many hours
    # as instants, and would sort, because so many groups would not fit in memory.
    chosen = sa.select(*parts, bit).where(in_window(window)).offset(sa.literal_column("0"))
    events = chosen.subquery("events")
    columns = [events.c[name] for name in names]
    groups = (
        sa.tuple_(*(events.c[name] for name in (*keys, _BEGINNINGS[begin])))
        for keys, begin in sets.items()
    )
    values = (
        sa.func.grouping(*columns).label("missing"),
        sa.func.count().label("issued"),
        sa.func.bit_or(events.c[_MASK]).label(_MASK),
    )
    return sa.select(*columns, *values).group_by(sa.func.grouping_sets(*groups)).cte("counted")


def _own(summary: SummaryTable, sets: _Sets, counted: CTE) -> FromClause:
    """The rows that were counted by the table's own grouping set."""
    keys = tuple(summary.event_keys)
    beginning = counted.c[_BEGINNINGS[sets[keys]]].label("issued_at")
    others = (counted.c[name] for name in keys)
    masks = (counted.c[_MASK].label(name) for name in summary.masks)
    selected = sa.select(*others, beginning, counted.c.issued, *masks)
    return selected.where(counted.c.missing == _missing(sets, summary)).subquery("own")


def _columns(sets: _Sets) -> list[str]:
    """The columns of all grouping sets: keys, then beginnings."""
    keys = dict.fromkeys(name for names in sets for name in names)
    return [*keys, *dict.fromkeys(_BEGINNINGS[begin] for begin in sets.values())]


def _missing(sets: _Sets, summary: SummaryTable) -> int:
    """The result of GROUPING() for a table's rows: one bit for each column not grouped by.

    The last column has the bit of value 1.
    """
    keys = tuple(summary.event_keys)
    names = (*keys, _BEGINNINGS[sets[keys]])
    columns = reversed(_columns(sets))
    return sum(1 << place for place, name in enumerate(columns) if name not in names)
