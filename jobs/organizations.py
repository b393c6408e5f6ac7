"""The task of organizations: keeps ``organization_summaries``, the list of all organizations.

A *pass* sums up every organization, in the order of the ids, some at a time. Each such batch is one
transaction of this task alone, which also notes how far the pass has come. So a pass that is
interrupted goes on where it was. The lock of the state row gives a batch to one process; there is
no lease. A pass begins an hour after the last one, and when another day has become whole.

Only rows that differ are written. The agents of an organization are counted again when its tokens
or the days have changed, because these are the most rows.
"""

import time
from collections.abc import Sequence
from datetime import date, timedelta
from functools import partial
from threading import Event as Signal
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection, FromClause, Row, Select, Subquery
from sqlalchemy.dialects import postgresql, sqlite

from app.dates import kept_from
from app.reports.base import total
from app.reports.organizations import PERIODS, last_whole_day
from app.storage.database import Database
from app.storage.tables import (
    daily_agent_issuance,
    daily_issuance,
    dow_hour_total,
    findings,
    organization_summaries,
    organization_summary_state,
)
from app.storage.types import database_now, days_between
from jobs.counting.state import read_state

INTERVAL = timedelta(hours=1)
# The organizations of one transaction.
BATCH = 200
# A tick ends after so many seconds, and the next one goes on with the pass.
TICK_SECONDS = 30.0
LONGEST_PAUSE_SECONDS = 1.0
WEEK = 7
# A row has the tokens of so many weeks and days, one by one.
WEEKS = 13
DAYS = 28

_ROW = organization_summaries.c
_COUNTS = [f"{name}_{period}" for period in PERIODS for name in ("tokens", "before")]
# The table has 168 rows of an organization at most, however long its history is.
_THERE = dow_hour_total.c.tenant_id


class Pass(NamedTuple):
    """What one tick has done.

    Attributes:
        outcome: ``done`` (the pass has ended), ``stopped`` (by a shutdown, or after some seconds;
            the next tick goes on) or ``taken`` (another process is at it).
        organizations: how many were summed up.
    """

    outcome: str
    organizations: int
    seconds: float


def summarize_organizations(
    database: Database,
    *,
    agent_days: int = 0,
    stop: Signal | None = None,
    tick_seconds: float = TICK_SECONDS,
    batch: int = BATCH,
) -> Pass | None:
    """Go on with the pass, or begin one if it is due; ``None`` if nothing is to be done.

    Args:
        agent_days: for how many days ``daily_agent_issuance`` is kept; 0 for good.

    Raises:
        RefusedError: the state row of the runs is missing.
    """
    began = time.monotonic()
    with database.reading() as connection:
        if not _is_due(*_states(connection)):
            return None
    stop = stop or Signal()
    organizations, outcome = 0, "stopped"
    while not stop.is_set():
        batch_began = time.monotonic()
        found = database.write(partial(_batch, agent_days=agent_days, size=batch))
        if found is None:
            outcome = "taken"
            break
        organizations += found
        if found < batch:
            outcome = "done"
            break
        now = time.monotonic()
        if now > began + tick_seconds:
            break
        # SQLite has one writer at a time. Without a pause, others would hardly get a turn.
        stop.wait(min(now - batch_began, LONGEST_PAUSE_SECONDS))
    return Pass(outcome, organizations, time.monotonic() - began)


def _states(connection: Connection, *, lock: bool = False) -> tuple[Row[Any] | None, Row[Any]]:
    """The row of this task, if it is there and free, and that of the runs, each with the time."""
    own = sa.select(organization_summary_state, database_now().label("now"))
    if lock:
        own = own.with_for_update(skip_locked=True)
    return connection.execute(own).one_or_none(), read_state(connection)


def _is_due(own: Row[Any] | None, runs: Row[Any]) -> bool:
    """Whether a pass is under way, or has to begin; before the first run there is nothing."""
    if runs.last_finished is None:
        return False
    if own is None or own.began_at is None or own.counting is None or own.after is not None:
        return True
    if last_whole_day(runs.last_finished) != last_whole_day(own.counting):
        return True
    # A start in the future means that the clock was set back.
    return not timedelta(0) <= own.now - own.began_at < INTERVAL


def _batch(connection: Connection, *, agent_days: int, size: int) -> int | None:
    """Sum up the next organizations of a pass; returns how many, fewer than ``size`` at its end.

    ``None`` if another process is at it, or has just ended the pass.
    """
    upsert = _upsert(connection)
    connection.execute(upsert(organization_summary_state).values(id=1).on_conflict_do_nothing())
    own, runs = _states(connection, lock=True)
    if own is None or not _is_due(own, runs):
        return None
    after, counting = own.after, own.counting
    noted: dict[str, Any] = {}
    if after is None:
        after, counting = "", runs.last_finished
        noted = {"began_at": own.now, "counting": counting}
    tenants = _tenants(connection, after, size)
    part = _Part(after, tenants[-1] if len(tenants) == size else None, last_whole_day(counting))
    _write_rows(connection, part)
    _delete_rows(connection, part)
    _count_agents(connection, part, _agents_from(runs, agent_days))
    if part.upto is None:
        noted |= {"counted_at": counting, "last_finished": own.now}
    connection.execute(sa.update(organization_summary_state).values(noted | {"after": part.upto}))
    return len(tenants)


class _Part(NamedTuple):
    """The organizations of one transaction, and the last day of their periods.

    ``upto`` is ``None`` at the end of a pass: then all after ``after`` are meant.
    """

    after: str
    upto: str | None
    through: date

    def has(self, tenant: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
        """The condition that an organization is one of them."""
        return sa.and_(tenant > self.after, sa.true() if self.upto is None else tenant <= self.upto)

    def first(self, days: int) -> date:
        """The first of the last ``days`` days."""
        return self.through - timedelta(days=days - 1)


def _upsert(connection: Connection) -> Any:
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert


def _tenants(connection: Connection, after: str, size: int) -> Sequence[str]:
    """The next organizations with counted tokens, from a small table that has all of them."""
    following = sa.select(_THERE).distinct().where(after < _THERE).order_by(_THERE)
    return connection.scalars(following.limit(size)).all()


def _agents_from(runs: Row[Any], agent_days: int) -> date | None:
    """The day from which on the days of agents are complete; ``None`` while any may lack some."""
    if runs.backfilled < runs.backfill_end:
        return None
    kept = kept_from(runs.last_finished.date(), agent_days)
    return max(kept or date.min, runs.agents_from or date.min)


def _write_rows(connection: Connection, part: _Part) -> None:
    """Write the rows that are new or differ; their agents are yet to be counted."""
    found = _rows(part)
    names = found.selected_columns.keys()
    insert = _upsert(connection)(organization_summaries).from_select(names, found)
    new = insert.excluded
    differs = sa.or_(*(_ROW[name].is_distinct_from(new[name]) for name in names))
    same_counts = sa.and_(*(_ROW[name] == new[name] for name in _COUNTS))
    written = {name: new[name] for name in names if name != _ROW.tenant_id.name}
    written["agents_through"] = sa.case((same_counts, _ROW.agents_through))
    connection.execute(
        insert.on_conflict_do_update(index_elements=["tenant_id"], set_=written, where=differs)
    )


def _delete_rows(connection: Connection, part: _Part) -> None:
    """Delete the rows of organizations that are no longer there."""
    there = sa.select(_THERE).where(part.has(_THERE))
    gone = sa.and_(part.has(_ROW.tenant_id), _ROW.tenant_id.not_in(there))
    connection.execute(sa.delete(organization_summaries).where(gone))


def _rows(part: _Part) -> Select[*tuple[Any, ...]]:
    """The rows of the organizations, but for their agents."""
    here = sa.select(_THERE).distinct().where(part.has(_THERE)).subquery("here")
    weeks, days, opened = _weeks(part), _days(part), _open_findings(part)
    day = daily_issuance.c
    last_day = (
        sa.select(day.date)
        .where(day.tenant_id == here.c.tenant_id, day.issued > 0)
        .order_by(day.date.desc())
        .limit(1)
        .scalar_subquery()
    )
    sources: FromClause = here
    for each in (weeks, days, opened):
        sources = sources.outerjoin(each, each.c.tenant_id == here.c.tenant_id)
    return (
        sa.select(
            here.c.tenant_id,
            *(sa.func.coalesce(weeks.c[name], 0).label(name) for name in _COUNTS),
            last_day.label("last_day"),
            sa.func.coalesce(opened.c.open_findings, 0).label("open_findings"),
            sa.func.coalesce(days.c.days, "").label("days"),
            sa.func.coalesce(weeks.c.weeks, "").label("weeks"),
        )
        .select_from(sources)
        .where(sa.true())  # without it, SQLite reads ON CONFLICT as the condition of the join
    )


def _weeks(part: _Part) -> Subquery:
    """The tokens of each period and of the one before, and the weeks; from sums of whole weeks."""
    day = daily_issuance.c
    week = (days_between(day.date, _day(part.through)) // WEEK).label("week")
    sums = (
        sa.select(day.tenant_id, week, total(day.issued).label("issued"))
        .where(
            part.has(day.tenant_id),
            day.date.between(part.first(2 * WEEKS * WEEK), part.through),
            day.issued > 0,
        )
        .group_by(day.tenant_id, week)
        .subquery("sums")
    ).c

    def between(first: int, last: int) -> sa.ColumnElement[int]:
        return total(sa.case((sums.week.between(first, last), sums.issued)))

    counts: list[sa.ColumnElement[int]] = []
    for period, length in PERIODS.items():
        number = length // WEEK
        counts += [
            between(0, number - 1).label(f"tokens_{period}"),
            between(number, 2 * number - 1).label(f"before_{period}"),
        ]
    weeks = _pairs(sa.case((sums.week < WEEKS, _pair(sums.week, sums.issued))))
    statement = sa.select(sums.tenant_id, *counts, weeks.label("weeks"))
    return statement.group_by(sums.tenant_id).subquery("weeks")


def _days(part: _Part) -> Subquery:
    """The tokens of each of the last days."""
    day = daily_issuance.c
    pair = _pair(days_between(day.date, _day(part.through)), day.issued)
    return (
        sa.select(day.tenant_id, _pairs(pair).label("days"))
        .where(
            part.has(day.tenant_id),
            day.date.between(part.first(DAYS), part.through),
            day.issued > 0,
        )
        .group_by(day.tenant_id)
        .subquery("days")
    )


def _open_findings(part: _Part) -> Subquery:
    finding = findings.c
    return (
        sa.select(finding.tenant_id, sa.func.count().label("open_findings"))
        .where(part.has(finding.tenant_id), finding.status == "open")
        .group_by(finding.tenant_id)
        .subquery("opened")
    )


def _day(day: date) -> sa.ColumnElement[date]:
    return sa.literal(day, sa.Date)


def _pair(ago: sa.ColumnElement[int], issued: sa.ColumnElement[int]) -> sa.ColumnElement[str]:
    return sa.cast(ago, sa.Text) + ":" + sa.cast(issued, sa.Text)


def _pairs(pair: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
    return sa.func.aggregate_strings(pair, ",")


def _count_agents(connection: Connection, part: _Part, known_from: date | None) -> None:
    """Count the agents of the organizations whose tokens or days have changed.

    Args:
        known_from: the first day of agents that can be counted; ``None`` for no day.
    """
    changed = sa.select(_ROW.tenant_id).where(
        part.has(_ROW.tenant_id), _ROW.agents_through.is_distinct_from(part.through)
    )
    tenants = connection.scalars(changed).all()
    if not tenants:
        return
    first_days = {f"agents_{period}": part.first(days) for period, days in PERIODS.items()}
    # An organization without agents in the periods is not among the counted ones.
    values: dict[str, Any] = {
        name: None if known_from is None or first < known_from else 0
        for name, first in first_days.items()
    }
    through = None if known_from is None else part.through
    update = sa.update(organization_summaries)
    connection.execute(
        update.where(_ROW.tenant_id.in_(tenants)).values(values | {"agents_through": through})
    )
    own = daily_agent_issuance.c
    last = (
        sa.select(own.tenant_id, own.agent_id, sa.func.max(own.date).label("date"))
        .where(
            own.tenant_id.in_(tenants),
            own.date.between(min(first_days.values()), part.through),
            own.issued > 0,
        )
        .group_by(own.tenant_id, own.agent_id)
        .subquery("last")
    ).c
    counts = {
        name: sa.func.count(sa.case((last.date >= first_days[name], 1))).label(name)
        for name, value in values.items()
        if value is not None
    }
    if counts:
        counted = sa.select(last.tenant_id, *counts.values()).group_by(last.tenant_id)
        found = counted.subquery("counted").c
        connection.execute(
            update.where(_ROW.tenant_id == found.tenant_id).values(
                {name: found[name] for name in counts}
            )
        )
