"""The directory of agents: what a tenant calls them, and when each was issued tokens.

Events say names along with what they are for, and callers set them. Of what events say the
newest wins, whenever it arrives: an event that is late, or delivered once more, brings no old
name back. What a caller sets wins over all that was said before.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection, Select
from sqlalchemy.dialects import postgresql, sqlite

from app.ids import Id
from app.intake.events import Event
from app.reports.base import TENANT, Count, Month, Point, Report, read_report, with_state
from app.storage.database import Database
from app.storage.tables import agents, monthly_agent_issuance

Upsert = TypeVar("Upsert", postgresql.Insert, sqlite.Insert)
Statements = Mapping[bool, postgresql.Insert | sqlite.Insert]

_ESCAPE = "\\"


class Agent(Point, frozen=True):
    """What one agent is called, and the tokens it was issued in all, up to the last count."""

    agent_id: Id
    name: Id | None
    first_month: Month | None
    last_month: Month | None
    token_count: Count


class Named(NamedTuple):
    """What an agent was called at an instant; tuples sort by key, the order they are stored in."""

    tenant_id: str
    agent_id: str
    name: str | None
    named_at: datetime


def newest_names(events: Iterable[Event]) -> list[Named]:
    """What a batch calls its agents, ordered by key: one for each agent that it names.

    Of two said for the same instant the first wins, as the first delivery of an event does.
    """
    newest: dict[tuple[str, str], Event] = {}
    for event in events:
        if event.agent_name is None:
            continue
        key = (event.tenant_id, event.agent_id)
        if key not in newest or newest[key].issued_at < event.issued_at:
            newest[key] = event
    return [Named(*key, newest[key].agent_name, newest[key].issued_at) for key in sorted(newest)]


def add_names(database: Database, connection: Connection, names: Sequence[Named]) -> None:
    """Store the names that events said, but for those that are not the newest. One statement.

    Call it after the events' own insert, in the same transaction: whoever stores events then
    takes its locks in one order, events before agents and each by key (``names`` is ordered
    so), and two batches that meet wait for each other instead of deadlocking. It comes last
    so that agents, which many batches share, are locked for the commit alone.
    """
    if names:
        _store(database, connection, names, _NEWEST)


def set_names(
    database: Database, tenant_id: str, names: Mapping[str, str | None], now: datetime
) -> None:
    """Call a tenant's agents so from ``now`` on, all of them or none; ``None`` takes a name back.

    An agent need not have issued anything. The instant of a name never goes back: an event may
    have said one for a few minutes from now.
    """
    rows = [Named(tenant_id, agent_id, name, now) for agent_id, name in sorted(names.items())]
    if rows:
        database.write(lambda connection: _store(database, connection, rows, _LAST))


def agents_page(
    connection: Connection, tenant_id: str, *, after: str, limit: int, text: str | None
) -> Report[Agent]:
    """The agents that have a name or have issued tokens, by id; at most ``limit``.

    Months and totals are the monthly rollup's. One statement, whose cost follows the number of
    the tenant's rows there, whatever the page.

    Args:
        after: the id after which to begin; empty for the first page.
        text: what the name or the id contains, whatever the case of ASCII letters.
    """
    parameters = {"tenant_id": tenant_id, "after": after, "limit": limit}
    if text is None:
        found = read_report(connection, _PAGE, **parameters)
    else:
        found = read_report(connection, _SEARCH, **parameters, pattern=_pattern(text))
    points = [
        Agent(agent_id, name, _month(first), _month(last), count)
        for _, agent_id, name, first, last, count in found.points
    ]
    return Report(points, found.counted_at)


def _month(day: date | None) -> str | None:
    return None if day is None else f"{day:%Y-%m}"


def _pattern(text: str) -> str:
    """For LIKE: ``text`` anywhere, in which no character is a wildcard."""
    # Of bytes, lower() folds the letters of ASCII alone.
    folded = text.encode().lower().decode()
    for special in (_ESCAPE, "%", "_"):
        folded = folded.replace(special, _ESCAPE + special)
    return f"%{folded}%"


def _store(
    database: Database,
    connection: Connection,
    names: Sequence[Named],
    statements: Statements,
) -> None:
    statement = statements[database.is_postgresql]
    if database.is_postgresql:
        database.name_written(connection, {each.tenant_id for each in names})
        arrays = map(list, zip(*names, strict=True))
        connection.execute(statement, dict(zip(Named._fields, arrays, strict=True)))
    else:
        connection.execute(statement, [each._asdict() for each in names])


def _unnested() -> postgresql.Insert:
    """PostgreSQL: one statement over four arrays, whatever the number of rows."""
    texts = postgresql.ARRAY(sa.Text())
    kinds: list[postgresql.ARRAY[Any]] = [texts] * 3
    kinds.append(postgresql.ARRAY(sa.DateTime(timezone=True)))
    arrays = [
        sa.cast(sa.bindparam(field, type_=kind), kind)
        for field, kind in zip(Named._fields, kinds, strict=True)
    ]
    rows = sa.func.unnest(*arrays).table_valued(*Named._fields, name="said").render_derived()
    return postgresql.insert(agents).from_select(Named._fields, sa.select(*rows.c))


def _newest(insert: Upsert) -> Upsert:
    """What is said replaces what was said for an earlier instant."""
    said = insert.excluded
    return insert.on_conflict_do_update(
        index_elements=list(agents.primary_key),
        set_={"name": said["name"], "named_at": said["named_at"]},
        where=agents.c.named_at < said["named_at"],
    )


def _last(insert: Upsert, later: Callable[..., sa.ColumnElement[datetime]]) -> Upsert:
    """What is said replaces whatever there is; ``later`` chooses between two instants."""
    said = insert.excluded
    return insert.on_conflict_do_update(
        index_elements=list(agents.primary_key),
        set_={"name": said["name"], "named_at": later(agents.c.named_at, said["named_at"])},
    )


def _both() -> sa.Subquery:
    """Names and counted months, one below the other. Put together by agent they are what a FULL
    JOIN would find, which SQLite has only of late."""
    agent, usage = agents.c, monthly_agent_issuance.c
    after = sa.bindparam("after", type_=sa.Text)
    no_month, none_issued = sa.cast(sa.null(), sa.Date), sa.literal(0, sa.BigInteger)
    named = sa.select(
        agent.agent_id, agent.name, no_month.label("month"), none_issued.label("issued")
    ).where(agent.tenant_id == TENANT, agent.agent_id > after, agent.name.is_not(None))
    counted = sa.select(
        usage.agent_id, sa.cast(sa.null(), agent.name.type), usage.month, usage.issued
    ).where(usage.tenant_id == TENANT, usage.agent_id > after, usage.issued > 0)
    return sa.union_all(named, counted).subquery("both")


def _agents(*, search: bool) -> Select[*tuple[Any, ...]]:
    """A page of the directory; ``search``: of those whose name or id is like ``pattern``.

    Both are ``COLLATE "C"``, in which PostgreSQL's lower(), as SQLite's, knows the case of
    ASCII's letters alone.
    """
    both = _both().c
    name = sa.func.max(both.name)
    found = sa.select(
        both.agent_id,
        name.label("name"),
        sa.func.min(both.month).label("first"),
        sa.func.max(both.month).label("last"),
        # The sum of big integers is a decimal on PostgreSQL; a count stays an integer.
        sa.cast(sa.func.sum(both.issued), sa.BigInteger).label("issued"),
    ).group_by(both.agent_id)
    if search:
        pattern = sa.bindparam("pattern", type_=sa.Text)
        texts = (sa.func.lower(name), sa.func.lower(both.agent_id))
        found = found.having(sa.or_(*(text.like(pattern, escape=_ESCAPE) for text in texts)))
    return found.order_by(both.agent_id).limit(sa.bindparam("limit", type_=sa.Integer))


_PAGE = with_state(_agents(search=False), "agent_id")
_SEARCH = with_state(_agents(search=True), "agent_id")
# By whether they are for PostgreSQL.
_NEWEST: Statements = {True: _newest(_unnested()), False: _newest(sqlite.insert(agents))}
_LAST: Statements = {
    True: _last(_unnested(), sa.func.greatest),
    False: _last(sqlite.insert(agents), sa.func.max),
}
