"""Agent names: checked as JSON, stored by tenant and agent; the newest name wins.

A name comes with an event, or a caller sets it. Among names from events the newest by ``issuedAt``
wins, so a late or redelivered event does not restore an old name. A name that a caller sets
replaces every earlier name. The JSON of a name is checked by the same rules as an event's JSON, and
the errors have the same form.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite

from app.errors import ValidationError
from app.ids import ID_PATTERN, Id
from app.intake.events import (
    Batch,
    Event,
    InvalidEvent,
    decode_event,
    prepared,
    refuse_large,
    refuse_nul,
    wrong_member,
)
from app.storage.audit import record_change
from app.storage.database import Database
from app.storage.tables import agents

# ID_PATTERN, but with a character that is not white space. The code checks for white space
# separately, for a clearer error.
_SCHEMA_PATTERN = (
    r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$"
)

Name = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=255,
        pattern=ID_PATTERN,
        description="1 to 255 code points without control characters, not white space alone",
        extra_json_schema={"pattern": _SCHEMA_PATTERN},
    ),
]


TokenLifetime = Annotated[
    int,
    msgspec.Meta(
        ge=1, le=366 * 86_400, description="Seconds for which an agent can keep its token"
    ),
]


@prepared
class NameBody(msgspec.Struct, rename="camel"):
    """The name of an agent, and the lifetime of its tokens in seconds; null takes either back.

    A lifetime that is left out stays as it is. Other members are ignored.
    """

    name: Name | None
    token_lifetime: TokenLifetime | msgspec.UnsetType | None = msgspec.UNSET


@prepared
class AgentBody(msgspec.Struct, rename="camel"):
    """An agent and its name; null takes the name back. Other members are ignored."""

    agent_id: Id
    name: Name | None


B = TypeVar("B", NameBody, AgentBody)


def parse_name(item: bytes, max_bytes: int) -> NameBody:
    """The name and the lifetime in one agent's body of at most ``max_bytes``.

    Raises:
        ValidationError: the body is too long, or the name is missing or invalid.
    """
    refused = Batch()
    try:
        return _parse(item, NameBody, max_bytes)
    except InvalidEvent as problem:
        refused.reject(0, problem)
        raise _refusal(refused, 1) from None


def parse_names(items: Sequence[bytes], max_bytes: int) -> dict[str, str | None]:
    """Names by agent, from one JSON text of at most ``max_bytes`` each. An agent's last name wins.

    Raises:
        ValidationError: some names are invalid; ``details`` lists them.
    """
    names: dict[str, str | None] = {}
    refused = Batch()
    for index, item in enumerate(items):
        try:
            agent = _parse(item, AgentBody, max_bytes)
        except InvalidEvent as problem:
            refused.reject(index, problem)
        else:
            names[agent.agent_id] = agent.name
    if refused.rejected:
        raise _refusal(refused, len(items))
    return names


def _parse(item: bytes, kind: type[B], max_bytes: int) -> B:
    refuse_large(item, max_bytes)
    value: Any = decode_event(item, ("agentId", "name", "tokenLifetime"))
    try:
        body = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise wrong_member(error) from None
    if body.name is not None and not body.name.strip():
        raise InvalidEvent("name", "is blank")
    refuse_nul(item)
    return body


def _refusal(refused: Batch, received: int) -> ValidationError:
    return ValidationError(
        f"{refused.rejected} of {received} names are invalid, so none was stored; correct those in"
        " details.errors",
        {"errors": refused.errors},
    )


Upsert = TypeVar("Upsert", postgresql.Insert, sqlite.Insert)
# By the name of the dialect.
Statements = Mapping[str, postgresql.Insert | sqlite.Insert]


class Named(NamedTuple):
    """The name of an agent at an instant. Tuples sort by key, as they are stored."""

    tenant_id: str
    agent_id: str
    name: str | None
    named_at: datetime


def newest_names(events: Iterable[Event]) -> list[Named]:
    """The newest name of each agent that a batch names, ordered by key.

    Of two names for the same instant the first wins, as the first delivery of an event does.
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
    """Store names from events, unless a newer name is stored. One statement.

    Call it after the insert of the events, in the same transaction. Every writer then takes its
    locks in one order: events before agents, and each by key (``names`` is ordered so). Two
    batches that meet wait for each other instead of deadlocking. Names come last, because many
    batches share the agents: their rows are locked only until the commit.
    """
    if names:
        _store(database, connection, names, _NEWEST)


def set_names(
    database: Database, tenant_id: str, names: Mapping[str, str | None], now: datetime, *, by: str
) -> None:
    """Set the names of a tenant's agents, all or none; ``None`` removes a name.

    An agent may have no events yet. The stored instant never decreases, because the name of an
    event may have an instant a few minutes in the future.

    Args:
        by: the actor, for the audit log. It has one row for all these names.
    """
    rows = [Named(tenant_id, agent_id, name, now) for agent_id, name in sorted(names.items())]

    def work(connection: Connection) -> None:
        _store(database, connection, rows, _LAST)
        record_change(
            connection,
            tenant_id=tenant_id,
            actor=by,
            action="agents.named",
            subject=tenant_id,
            details={"agents": len(rows)},
            at=now,
        )

    if rows:
        database.write(work)


def set_agent(  # noqa: PLR0913 - which agent, the values, by whom and when
    database: Database, tenant_id: str, agent_id: str, body: NameBody, now: datetime, *, by: str
) -> None:
    """Set the name of one agent, and the lifetime of its tokens if the body has one.

    Args:
        by: the actor, for the audit log.
    """
    named = Named(tenant_id, agent_id, body.name, now)
    lifetime = sa.update(agents).where(
        agents.c.tenant_id == tenant_id, agents.c.agent_id == agent_id
    )

    def work(connection: Connection) -> None:
        _store(database, connection, [named], _LAST)
        if body.token_lifetime is not msgspec.UNSET:
            connection.execute(lifetime.values(token_lifetime=body.token_lifetime))
        record_change(
            connection,
            tenant_id=tenant_id,
            actor=by,
            action="agent.changed",
            subject=agent_id,
            details=msgspec.to_builtins(body),
            at=now,
        )

    database.write(work)


def _store(
    database: Database,
    connection: Connection,
    names: Sequence[Named],
    statements: Statements,
) -> None:
    statement = statements[connection.dialect.name]
    if database.is_postgresql:
        database.name_tenants(connection, {each.tenant_id for each in names})
        arrays = map(list, zip(*names, strict=True))
        connection.execute(statement, dict(zip(Named._fields, arrays, strict=True)))
    else:
        connection.execute(statement, [each._asdict() for each in names])


def _unnested() -> postgresql.Insert:
    """PostgreSQL: one statement over four arrays, for any number of rows."""
    texts = postgresql.ARRAY(sa.Text())
    kinds: list[postgresql.ARRAY[Any]] = [texts] * 3
    kinds.append(postgresql.ARRAY(sa.DateTime(timezone=True)))
    arrays = [
        sa.cast(sa.bindparam(field, type_=kind), kind)
        for field, kind in zip(Named._fields, kinds, strict=True)
    ]
    rows = sa.func.unnest(*arrays).table_valued(*Named._fields, name="given").render_derived()
    return postgresql.insert(agents).from_select(Named._fields, sa.select(*rows.c))


def _newest(insert: Upsert) -> Upsert:
    """An upsert in which a name replaces only a name of an earlier instant."""
    given = insert.excluded
    return insert.on_conflict_do_update(
        index_elements=list(agents.primary_key),
        set_={"name": given["name"], "named_at": given["named_at"]},
        where=agents.c.named_at < given["named_at"],
    )


def _last(insert: Upsert, later: Callable[..., sa.ColumnElement[datetime]]) -> Upsert:
    """An upsert in which a name replaces any name.

    Args:
        later: the SQL function that returns the later of two instants.
    """
    given = insert.excluded
    return insert.on_conflict_do_update(
        index_elements=list(agents.primary_key),
        set_={"name": given["name"], "named_at": later(agents.c.named_at, given["named_at"])},
    )


_NEWEST: Statements = {
    "postgresql": _newest(_unnested()),
    "sqlite": _newest(sqlite.insert(agents)),
}
_LAST: Statements = {
    "postgresql": _last(_unnested(), sa.func.greatest),
    "sqlite": _last(sqlite.insert(agents), sa.func.max),
}
