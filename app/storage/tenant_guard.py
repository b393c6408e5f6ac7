"""A second fence between tenants: a statement that forgets its tenant is never sent.

Every read takes its tenant as an argument; this checks, for each statement on a tenant's
connection, that it was used. It reads the statement's structure, so it holds on both
databases and needs nothing from them.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Engine, FromClause, Select
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, BooleanClauseList
from sqlalchemy.sql.selectable import AliasedReturnsRows, FromGrouping, Join

COLUMN = "tenant_id"
# Tables that are nobody's; any other has to be read by its tenant.
SHARED = ("rollup_state", "alembic_version")
CATALOG = "pg_catalog"
_FENCED = "fenced"


class FenceError(AssertionError):
    """A statement that might show one tenant another's rows: a bug, never sent."""


def around(engine: Engine) -> Engine:
    """The engine with the fence around its connections, each of which a tenant is admitted to."""
    fenced = engine.execution_options(**{_FENCED: True})
    sa.event.listen(fenced, "before_execute", _check_execution)
    sa.event.listen(fenced, "before_cursor_execute", _check_cursor)
    return fenced


def admit(connection: Connection, tenant_id: str | None) -> None:
    """Say whose reads a connection is for from now on."""
    connection.info[COLUMN] = tenant_id  # its options would cost more than its checks


def check_read(connection: Connection, statement: object, parameters: Mapping[str, Any]) -> None:
    """As :func:`check`, for whoever a fenced connection is for; nothing on any other one.

    Raises:
        FenceError: the statement might show another's rows.
    """
    if connection.get_execution_options().get(_FENCED):
        check(statement, parameters, connection.info[COLUMN])


def _check_execution(
    connection: Connection, statement: Any, many: Any, parameters: dict[str, Any], _options: Any
) -> None:
    if many:
        raise FenceError("a read has one set of parameters")
    check_read(connection, statement, parameters)


def _check_cursor(
    _connection: Connection, _cursor: Any, statement: str, _values: Any, context: Any, _many: bool
) -> None:
    if context.compiled is None:  # not one that _check_execution has seen
        check_text(statement)


def check(statement: object, parameters: Mapping[str, Any], tenant_id: str | None) -> None:
    """Refuse a statement that reads a tenant's table without that tenant's predicate.

    Each SELECT in it, at any depth, must compare the ``tenant_id`` of each such table that it
    reads with ``tenant_id``, in a condition that holds for all its rows. Without a tenant no
    such table may be read at all.

    Raises:
        FenceError: it does not, it writes, or it is text, which cannot be judged.
    """
    if not isinstance(statement, sa.Select | sa.CompoundSelect):
        raise FenceError("only a SELECT may run on a tenant's connection")
    for bind in _tenant_binds(statement):
        if tenant_id is None or parameters.get(bind.key, bind.effective_value) != tenant_id:
            raise FenceError("a statement is for another tenant than the request")


def check_text(statement: str) -> None:
    """Refuse text that goes to the driver as it is, but for what is needed on SQLite: beginning a
    transaction, and SQLAlchemy's look at the schema.

    Raises:
        FenceError: it is anything else.
    """
    if statement != "BEGIN" and not statement.startswith("PRAGMA"):
        raise FenceError("text cannot be judged on a tenant's connection")


@lru_cache(maxsize=256)
def _tenant_binds(statement: sa.SelectBase) -> list[BindParameter[Any]]:
    """What the tables of ``statement`` compare their tenant with.

    Kept by the statement's identity: the reads are built once, and walking through one takes
    longer than the rest of sending it.
    """
    binds = []
    for element in visitors.iterate(statement):
        if isinstance(element, sa.UpdateBase):
            raise FenceError("only a SELECT may run on a tenant's connection")
        if _is_text(element):
            raise FenceError("text cannot be judged on a tenant's connection")
        if isinstance(element, Select):
            binds += [_tenant_bind(element, table) for table in _tenant_tables(element)]
    return binds


def _is_text(element: object) -> bool:
    """Whether SQL is given as text there, which might say anything."""
    if isinstance(element, sa.ColumnClause):
        return bool(element.is_literal)
    if isinstance(element, Select):
        return bool(element._prefixes or element._suffixes or element._statement_hints)
    return isinstance(element, sa.TextClause)


def _tenant_tables(select: Select[Any]) -> Iterator[FromClause]:
    for source in select.get_final_froms():
        for table in _tables(source):
            if COLUMN in table.c:
                yield table


def _tables(source: FromClause) -> Iterator[FromClause]:
    """The tables of a FROM, under their aliases. Subqueries are SELECTs of their own."""
    inner: Any = source
    while isinstance(inner, AliasedReturnsRows | FromGrouping):
        inner = inner.element
    if isinstance(inner, Join):
        yield from _tables(inner.left)
        yield from _tables(inner.right)
    elif isinstance(inner, sa.TableClause):
        if COLUMN not in inner.c and inner.name not in SHARED and inner.schema != CATALOG:
            raise FenceError(f"{source} does not say whose it is")
        yield source


def _tenant_bind(select: Select[Any], table: FromClause) -> BindParameter[Any]:
    """The value of the condition ``table.tenant_id = :value`` that all rows have to meet."""
    for condition in _conjuncts(select.whereclause):
        if (
            isinstance(condition, BinaryExpression)
            and condition.operator is operators.eq
            and condition.left is table.c[COLUMN]
            and isinstance(condition.right, BindParameter)
        ):
            return condition.right
    raise FenceError(f"{table} is read without its tenant")


def _conjuncts(condition: ColumnElement[Any] | None) -> Iterator[ColumnElement[Any]]:
    """The conditions that all have to hold."""
    if isinstance(condition, BooleanClauseList) and condition.operator is operators.and_:
        for part in condition.clauses:
            yield from _conjuncts(part)
    elif condition is not None:
        yield condition
