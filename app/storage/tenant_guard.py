"""The tenant guard: refuses a statement that reads without its tenant, before it is sent.

Every read takes its tenant as an argument. The guard checks each statement on a tenant's connection
for that argument. It inspects the structure of the statement, so it works on both databases without
their help.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Engine, FromClause, Select
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, BooleanClauseList
from sqlalchemy.sql.selectable import AliasedReturnsRows, FromGrouping, Join

COLUMN = "tenant_id"
# Tables without a tenant. A read of any other table must name its tenant.
SHARED = ("rollup_state", "alembic_version", "organization_summary_state")
# The only table of tenants that an operator's connection reads for all of them.
OF_OPERATORS = "organization_summaries"
CATALOG = "pg_catalog"
_GUARDED = "guarded"
_OPERATOR = "operator"
# The texts that begin the transactions of reads.
_BEGIN = ("BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ")


class TenantGuardError(AssertionError):
    """A statement that might show one tenant another tenant's rows: a bug. It was not sent."""


def guard(engine: Engine) -> Engine:
    """A variant of the engine whose connections are guarded; :func:`admit` sets their tenant."""
    guarded = engine.execution_options(**{_GUARDED: True})
    sa.event.listen(guarded, "before_execute", _check_execution)
    sa.event.listen(guarded, "before_cursor_execute", _check_cursor)
    return guarded


def admit(connection: Connection, tenant_id: str | None, *, operator: bool = False) -> None:
    """Set the tenant that may read on a connection from now on.

    Args:
        operator: ``OF_OPERATORS`` may be read without a tenant, and no other table of tenants.
    """
    # In the connection's info, because setting execution options costs more than the checks.
    connection.info[COLUMN] = tenant_id
    connection.info[_OPERATOR] = operator


def check_read(connection: Connection, statement: object, parameters: Mapping[str, Any]) -> None:
    """Apply :func:`check` with the tenant of a guarded connection; do nothing on others.

    Raises:
        TenantGuardError: the statement might show the rows of another tenant.
    """
    if connection.get_execution_options().get(_GUARDED):
        check(statement, parameters, connection.info[COLUMN], operator=connection.info[_OPERATOR])


def _check_execution(
    connection: Connection, statement: Any, many: Any, parameters: dict[str, Any], _options: Any
) -> None:
    if many:
        raise TenantGuardError("a read has one set of parameters")
    check_read(connection, statement, parameters)


def _check_cursor(
    _connection: Connection, _cursor: Any, statement: str, _values: Any, context: Any, _many: bool
) -> None:
    if context.compiled is None:  # _check_execution has not seen this statement
        check_text(statement)


def check(
    statement: object,
    parameters: Mapping[str, Any],
    tenant_id: str | None,
    *,
    operator: bool = False,
) -> None:
    """Refuse a statement that reads a table of tenants without the tenant's predicate.

    Each SELECT in it, at any depth, must compare ``tenant_id`` of each such table with the tenant.
    The comparison must hold for all its rows. Without a tenant, no such table can be read, except
    ``OF_OPERATORS`` by an operator.

    Raises:
        TenantGuardError: a predicate is missing, or the statement writes, or it is text, which
            cannot be checked.
    """
    if not isinstance(statement, sa.Select | sa.CompoundSelect):
        raise TenantGuardError("only a SELECT may run on a tenant's connection")
    for bind in _tenant_binds(statement, operator=operator):
        if tenant_id is None or parameters.get(bind.key, bind.effective_value) != tenant_id:
            raise TenantGuardError("the statement reads another tenant than the request's")


def check_text(statement: str) -> None:
    """Refuse statements that are plain text, except those that begin a transaction.

    On SQLite, SQLAlchemy also sends pragmas that inspect the schema.

    Raises:
        TenantGuardError: the text is anything else.
    """
    if statement not in _BEGIN and not statement.startswith("PRAGMA"):
        raise TenantGuardError("a statement as text cannot be checked on a tenant's connection")


@lru_cache(maxsize=256)
def _tenant_binds(statement: sa.SelectBase, *, operator: bool) -> list[BindParameter[Any]]:
    """The values that the tables of ``statement`` compare their tenant with.

    The result is cached by the identity of the statement. Reports are built once, and inspecting
    one takes longer than all other work to send it.
    """
    binds = []
    for element in _elements(statement):
        if isinstance(element, sa.UpdateBase):
            raise TenantGuardError("only a SELECT may run on a tenant's connection")
        if _is_text(element):
            raise TenantGuardError("a statement as text cannot be checked on a tenant's connection")
        if isinstance(element, Select):
            binds += [
                _tenant_bind(element, table)
                for table in _tenant_tables(element)
                if not (operator and _is_of_operators(table))
            ]
    return binds


def _elements(statement: sa.SelectBase) -> Iterator[Any]:
    """Every element of a statement, once, even if it is in several places.

    Many places may refer to one subquery, and they to others. So the places are many more.
    """
    seen: dict[int, Any] = {}  # it also keeps the elements, so that no other has the same id
    rest: list[Any] = [statement]
    while rest:
        element = rest.pop()
        if id(element) not in seen:
            seen[id(element)] = element
            yield element
            rest += element.get_children()


def _is_text(element: object) -> bool:
    """Whether an element holds SQL as text, which may contain anything."""
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
    """The tables of a FROM clause, by their aliases. A subquery is checked as another SELECT."""
    inner: Any = source
    while isinstance(inner, AliasedReturnsRows | FromGrouping):
        inner = inner.element
    if isinstance(inner, Join):
        yield from _tables(inner.left)
        yield from _tables(inner.right)
    elif isinstance(inner, sa.TableClause):
        if COLUMN not in inner.c and inner.name not in SHARED and inner.schema != CATALOG:
            raise TenantGuardError(f"{source} has no tenant_id and is not a shared table")
        yield source


def _is_of_operators(table: FromClause) -> bool:
    """Whether a table, which may have an alias, is the one of operators."""
    inner: Any = table
    while isinstance(inner, AliasedReturnsRows | FromGrouping):
        inner = inner.element
    return bool(inner.name == OF_OPERATORS and inner.schema is None)


def _tenant_bind(select: Select[Any], table: FromClause) -> BindParameter[Any]:
    """The value in the condition ``table.tenant_id = :value``, which holds for all rows."""
    for condition in _conjuncts(select.whereclause):
        if (
            isinstance(condition, BinaryExpression)
            and condition.operator is operators.eq
            and condition.left is table.c[COLUMN]
            and isinstance(condition.right, BindParameter)
        ):
            return condition.right
    raise TenantGuardError(f"{table} is read without its tenant")


def _conjuncts(condition: ColumnElement[Any] | None) -> Iterator[ColumnElement[Any]]:
    """The parts of a condition that are joined by AND."""
    if isinstance(condition, BooleanClauseList) and condition.operator is operators.and_:
        for part in condition.clauses:
            yield from _conjuncts(part)
    elif condition is not None:
        yield condition
