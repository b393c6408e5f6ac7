"""The list of all organizations with their tokens, for operators: a page, the totals, all rows.

``jobs.organizations`` keeps the table of the list. It is the only table that is read for all
organizations at once: see ``Database.reading_organizations``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection, Select, Subquery

from app.ids import Id
from app.reports.base import BATCH, Batches, Count, Point, contains, like, total
from app.reports.summary import Fraction
from app.storage.tables import organization_summaries, organization_summary_state
from app.storage.types import as_utc

# The days of each period.
PERIODS = {"7d": 7, "28d": 28, "13w": 91}
SORTS = ("tokens", "change", "agents", "lastDay", "openFindings", "id")
ORDERS = ("desc", "asc")
# Of this period the table has weeks, of the others days.
_BY_WEEK = "13w"
_WEEK = 7

SortValue = int | float | date | str


class Organization(Point, frozen=True):
    """An organization and its tokens in a period.

    ``previous_token_count``: the tokens of the period before. ``change``: the growth since, as a
    share of it; null if it is 0. ``share``: the part of the tokens of all organizations.
    ``active_agents``: the agents with tokens; null if their days are not kept or not filled.
    ``last_day``: the last day with tokens, which may be today. ``sparkline``: the tokens of each
    day of the period, or of each week of ``13w``.
    """

    tenant_id: Id
    token_count: Count
    previous_token_count: Count
    change: float | None
    share: Fraction
    active_agents: Count | None
    last_day: date | None
    open_findings: Count
    sparkline: list[Count]


class OrganizationTotals(Point, frozen=True):
    """All organizations together, whether they are on the page or not."""

    organizations: Count
    active_organizations: Count
    token_count: Count
    previous_token_count: Count
    change: float | None
    active_agents: Count | None
    open_findings: Count


class OrganizationPlace(NamedTuple):
    """The place of an organization in an order: the value that is sorted by, then its id."""

    value: SortValue
    tenant_id: str


@dataclass(frozen=True)
class OrganizationsWanted:
    """Which organizations, of which period, in which order.

    Attributes:
        text: a part of the id; ASCII letters match in any case.
        order: ``desc`` or ``asc``; equal ones are by id, and empty values are last in both.
    """

    period: str = "7d"
    sort: str = SORTS[0]
    order: str = ORDERS[0]
    text: str | None = None


class OrganizationDays(NamedTuple):
    """The first and the last day of a period, and when its tokens were counted."""

    first: date | None
    last: date | None
    counted_at: datetime | None


class OrganizationsPage(NamedTuple):
    """A page of the list.

    Attributes:
        found: how many organizations match the search.
        next_after: the next page's ``after``, if there is one.
    """

    days: OrganizationDays
    totals: OrganizationTotals
    found: int
    organizations: list[Organization]
    next_after: OrganizationPlace | None


def last_whole_day(counted_at: datetime) -> date:
    """The last day that was over at a count; a period ends with it."""
    return counted_at.date() - timedelta(days=1)


def organization_days(connection: Connection, period: str) -> OrganizationDays:
    """The days of the list; all are ``None`` before the first list is complete."""
    counted_at = as_utc(connection.scalar(_COUNTED_AT))
    if counted_at is None:
        return OrganizationDays(None, None, None)
    last = last_whole_day(counted_at)
    return OrganizationDays(last - timedelta(days=PERIODS[period] - 1), last, counted_at)


def organizations_page(
    connection: Connection,
    wanted: OrganizationsWanted,
    *,
    limit: int,
    after: OrganizationPlace | None = None,
) -> OrganizationsPage:
    """Some organizations and the totals of all, from one statement.

    It reads the whole table, which has one row for each organization. So its cost does not depend
    on the order, the search or the page.

    Args:
        connection: from ``Database.reading_organizations``.
        after: the place after which the page begins.
    """
    days = organization_days(connection, wanted.period)
    parameters: dict[str, Any] = {"limit": limit + 1}
    if wanted.text is not None:
        parameters["pattern"] = contains(wanted.text)
    if after is not None:
        parameters |= {"value": after.value, "after": after.tenant_id}
    statement = _page(
        wanted.period,
        wanted.sort,
        wanted.order,
        is_search=wanted.text is not None,
        has_cursor=after is not None,
    )
    rows = connection.execute(statement, parameters).all()
    first = rows[0]
    totals = OrganizationTotals(
        first.all_organizations,
        first.all_active,
        first.all_tokens,
        first.all_before,
        first.all_change,
        first.all_agents,
        first.all_open,
    )
    listed = [row for row in rows if row.tenant_id is not None]
    next_after = None
    if len(listed) > limit:
        last = listed[limit - 1]
        next_after = OrganizationPlace(last.value, last.tenant_id)
    shown = [_organization(row, wanted.period) for row in listed[:limit]]
    return OrganizationsPage(days, totals, first.found, shown, next_after)


class OrganizationRows(Batches):
    """All organizations that match, in batches of the members of ``Organization`` but the last.

    Each iteration sends the statement again: use it on a snapshot.
    """

    def __init__(self, connection: Connection, wanted: OrganizationsWanted) -> None:
        parameters = {} if wanted.text is None else {"pattern": contains(wanted.text)}
        statement = _every(
            wanted.period, wanted.sort, wanted.order, is_search=wanted.text is not None
        )
        super().__init__(connection, statement, **parameters)
        self.counted_at = organization_days(connection, wanted.period).counted_at

    def __iter__(self) -> Iterator[list[Sequence[Any]]]:
        yield from self._read(BATCH)


def _organization(row: Any, period: str) -> Organization:
    by_week = period == _BY_WEEK
    length = PERIODS[period] // (_WEEK if by_week else 1)
    return Organization(
        row.tenant_id,
        row.tokens,
        row.before,
        row.change,
        row.share,
        row.agents,
        row.last_day,
        row.open_findings,
        _sparkline(row.weeks if by_week else row.days, length),
    )


def _sparkline(pairs: str, length: int) -> list[int]:
    """The numbers of the last days or weeks, the oldest first."""
    numbers = [0] * length
    for pair in filter(None, pairs.split(",")):
        ago, _, issued = pair.partition(":")
        if int(ago) < length:
            numbers[-1 - int(ago)] = int(issued)
    return numbers


_COUNTED_AT = sa.select(organization_summary_state.c.counted_at)
_LISTED = organization_summaries.c


class _Columns(NamedTuple):
    """The columns of one period."""

    tokens: sa.ColumnElement[int]
    before: sa.ColumnElement[int]
    agents: sa.ColumnElement[Any]

    @classmethod
    def of(cls, period: str, row: Any = _LISTED) -> "_Columns":
        return cls(row[f"tokens_{period}"], row[f"before_{period}"], row[f"agents_{period}"])

    @property
    def change(self) -> sa.ColumnElement[Any]:
        return _change(self.tokens, self.before)


def _change(tokens: sa.ColumnElement[int], before: sa.ColumnElement[int]) -> sa.ColumnElement[Any]:
    """The growth as a share of ``before``; null if that is 0."""
    return _double(tokens - before) / _double(sa.func.nullif(before, 0))


def _double(number: sa.ColumnElement[Any]) -> sa.ColumnElement[float]:
    return sa.cast(number, sa.Double)


def _totals(period: str, *, is_search: bool) -> Subquery:
    column = _Columns.of(period)
    everyone = sa.func.count(_LISTED.tenant_id)
    matches = sa.case((like(_LISTED.tenant_id), 1)) if is_search else sa.literal(1)
    # If the agents of one are unknown, those of all are.
    agents = sa.case((sa.func.count(column.agents) == everyone, total(column.agents)))
    sums = sa.select(
        everyone.label("all_organizations"),
        sa.func.count(matches).label("found"),
        sa.func.count(sa.case((column.tokens > 0, 1))).label("all_active"),
        total(column.tokens).label("all_tokens"),
        total(column.before).label("all_before"),
        agents.label("all_agents"),
        total(_LISTED.open_findings).label("all_open"),
    ).subquery("sums")
    change = _change(sums.c.all_tokens, sums.c.all_before).label("all_change")
    return sa.select(*sums.c, change).subquery("totals")


def _value(period: str, sort: str, order: str) -> sa.ColumnElement[Any]:
    """What is sorted by. Empty values are replaced, so that they are last and can be compared."""
    is_descending = order == ORDERS[0]
    column = _Columns.of(period)
    # No change is less than -1.
    last_change = sa.literal(-2.0 if is_descending else 1e308, sa.Double)
    last_agents = sa.literal(-1 if is_descending else 2**62, sa.BigInteger)
    last_last_day = sa.literal(date.min if is_descending else date.max, sa.Date)
    values: dict[str, sa.ColumnElement[Any]] = {
        "tokens": column.tokens,
        "change": sa.func.coalesce(column.change, last_change),
        "agents": sa.func.coalesce(column.agents, last_agents),
        "lastDay": sa.func.coalesce(_LISTED.last_day, last_last_day),
        "openFindings": _LISTED.open_findings,
        "id": _LISTED.tenant_id,
    }
    return values[sort]


def _ordered(
    value: sa.ColumnElement[Any], tenant_id: sa.ColumnElement[str], order: str
) -> tuple[sa.ColumnElement[Any], ...]:
    return (value.desc() if order == ORDERS[0] else value.asc()), tenant_id.asc()


def _members(period: str, row: Any, totals: Subquery) -> tuple[sa.ColumnElement[Any], ...]:
    """The members of an organization but its sparkline."""
    column, every = _Columns.of(period, row), totals.c.all_tokens
    share = sa.case((every > 0, _double(column.tokens) / _double(every)), else_=0.0)
    return (
        row.tenant_id,
        column.tokens.label("tokens"),
        column.before.label("before"),
        column.change.label("change"),
        share.label("share"),
        column.agents.label("agents"),
        row.last_day,
        row.open_findings,
    )


@cache
def _page(
    period: str, sort: str, order: str, *, is_search: bool, has_cursor: bool
) -> Select[*tuple[Any, ...]]:
    """A page and the totals. The rows are sorted by the narrow columns of an index.

    It is built once for each combination, since the tenant guard remembers what it has seen.
    """
    value = _value(period, sort, order)
    places = sa.select(_LISTED.tenant_id, value.label("value"))
    if is_search:
        places = places.where(like(_LISTED.tenant_id))
    if has_cursor:
        last = sa.bindparam("value", type_=value.type)
        beyond = value < last if order == ORDERS[0] else value > last
        after = _LISTED.tenant_id > sa.bindparam("after", type_=sa.Text)
        places = places.where(sa.or_(beyond, sa.and_(value == last, after)))
    page = (
        places.order_by(*_ordered(value, _LISTED.tenant_id, order))
        .limit(sa.bindparam("limit", type_=sa.Integer))
        .subquery("page")
    )
    totals, row = _totals(period, is_search=is_search), organization_summaries.alias("listed")
    return (
        sa.select(
            *_members(period, row.c, totals), row.c.days, row.c.weeks, page.c.value, *totals.c
        )
        .select_from(
            totals.outerjoin(page, sa.true()).outerjoin(row, row.c.tenant_id == page.c.tenant_id)
        )
        .order_by(*_ordered(page.c.value, page.c.tenant_id, order))
    )


@cache
def _every(period: str, sort: str, order: str, *, is_search: bool) -> Select[*tuple[Any, ...]]:
    totals = _totals(period, is_search=False)
    statement = sa.select(*_members(period, _LISTED, totals)).select_from(
        organization_summaries.join(totals, sa.true())
    )
    if is_search:
        statement = statement.where(like(_LISTED.tenant_id))
    return statement.order_by(*_ordered(_value(period, sort, order), _LISTED.tenant_id, order))
