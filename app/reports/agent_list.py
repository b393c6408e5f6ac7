"""Agent list: the agents of some days with their tokens, their change and their days, one page.

The list is one statement, for any number of days. It sums the tokens of all agents, as
``app.reports.agent_periods`` says, and looks up the days of the page's agents only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import CTE, Connection, Select

from app.errors import UnavailableError, ValidationError
from app.reports.agent_days import divided
from app.reports.agent_kinds import SHOWN, days_of_tenant, kinds_of_agents
from app.reports.agent_periods import MOST, bind, gate_cte, parameters, used_agents
from app.reports.base import TENANT, contains, total
from app.reports.days import Days
from app.reports.finer import Span, can_be_read, read_finer, with_finer_state
from app.reports.usage import NamedUsage, top_named
from app.storage.driver import Reading
from app.storage.tables import (
    daily_agent_issuance,
)
from app.storage.types import as_utc

SORTS = ("tokens", "name", "change", "seen")
HEAVY_SHARE = 0.8  # of all tokens; above this share an agent is heavy
# With fewer tokens, or with one agent, a large share is ordinary.
HEAVY_TOKENS, HEAVY_AGENTS = 100, 2
_SEPARATOR = ":"


@dataclass(frozen=True)
class Wanted:
    """Which agents of a list: those of a page.

    ``text``: a part of the name or the id; ASCII letters match in any case. ``show``: one of SHOWN.
    ``sort``: one of SORTS: most tokens, most growth or latest day first, or by name.
    """

    limit: int
    offset: int = 0
    text: str | None = None
    show: str = SHOWN[0]
    sort: str = SORTS[0]


@dataclass(frozen=True)
class ListedAgent:
    """An agent of a list.

    ``rank``: 1 has the most tokens; ``None`` without tokens on the days. ``whole``: its tokens on
    the whole counted days, and ``before`` on the days that these are compared with; ``None`` if
    they are not. ``days``: its tokens on each day. ``last``: the last of them with tokens.
    """

    agent_id: str
    name: str | None
    rank: int | None
    count: int
    share: float
    whole: int
    before: int | None
    days: list[int]
    last: date | None
    is_heavy: bool
    is_rising: bool
    is_new: bool
    is_quiet: bool

    @property
    def change(self) -> float | None:
        """The growth as a share of ``before``; ``None`` if there is nothing to compare."""
        return (self.whole - self.before) / self.before if self.before else None


@dataclass(frozen=True)
class Largest:
    """The agent with the most tokens; ``share_before`` is ``None`` if nothing is compared."""

    agent_id: str
    name: str | None
    tokens: int
    share: float
    share_before: float | None


class Sizes(NamedTuple):
    """How many agents a list has: ``all`` with tokens on the days, and of each other kind.

    ``known`` also counts those with tokens on the compared days only.
    """

    all: int = 0
    rising: int = 0
    new: int = 0
    quiet: int = 0
    unnamed: int = 0
    known: int = 0


_NO_SIZES = Sizes()


@dataclass(frozen=True)
class AgentList:
    """A page of a list of agents, with numbers of the whole list.

    ``found``: how many agents match the search and ``show``. ``total``: the tokens of all.
    ``is_compared``: whether the other days could be read. ``is_long``: there are more than MOST
    agents a month, so that instead of a list there are the largest ones of the last month, in
    ``top``. ``problem``: why there are no numbers.
    """

    agents: list[ListedAgent]
    found: int = 0
    sizes: Sizes = _NO_SIZES
    total: int = 0
    largest: Largest | None = None
    is_compared: bool = False
    is_long: bool = False
    top: Sequence[NamedUsage] = ()
    problem: str | None = None
    counted_at: datetime | None = None

    @property
    def limit(self) -> int:
        """The largest number of agents a month of which a list is made."""
        return MOST

    @property
    def is_known(self) -> bool:
        """Whether the numbers of the whole list are known."""
        return self.problem is None and not self.is_long


def agent_list(  # noqa: PLR0913 - a page, and what it is compared with
    connection: Connection,
    tenant_id: str,
    span: Span,
    wanted: Wanted,
    *,
    compared: Days | None = None,
    counted_at: datetime | None = None,
) -> AgentList:
    """A page of the agents with tokens on the days, or of those that are quiet.

    Args:
        compared: as many other days. Whole counted days are compared with the same ones of these.
        counted_at: when the run finished that has counted the days.
    """
    days, whole = span.days, span.days.whole(counted_at)
    other = None if compared is None or not whole else compared.leading(whole)
    if other and span.kept.agents and other.utc_first < span.kept.agents:
        other = None
    values = parameters(days, whole, other) | {
        "tenant_id": tenant_id,
        "show": wanted.show,
        "sort": wanted.sort,
        "limit": wanted.limit,
        "offset": wanted.offset,
        "pattern": None if wanted.text is None else contains(wanted.text),
    }
    try:
        state, rows = read_finer(
            connection,
            _LIST,
            daily_agent_issuance,
            span,
            checked_from=None if other is None else other.utc_first,
            **values,
        )
    except (ValidationError, UnavailableError) as error:
        return AgentList([], problem=error.message)
    # Of days that are not complete the statement has read none.
    is_compared = other is not None and can_be_read(
        Span(other, span.kept), daily_agent_issuance, state
    )
    found = _list(days, state, rows, is_compared=is_compared)
    if not found.is_long:
        return found
    month = days.utc_last.replace(day=1)
    top = top_named(connection, tenant_id, month=month, limit=wanted.limit)
    return replace(found, top=top.points)


def _list(days: Days, state: Sequence[Any], rows: list[Any], *, is_compared: bool) -> AgentList:
    sums = state[-len(_Totals._fields) - 2 : -2]
    totals, sizes = _Totals(*sums), Sizes(*sums[: len(Sizes._fields)])
    listed = [_Row(*row[1 : len(_Row._fields) + 1]) for row in rows]
    own: dict[int, dict[int, tuple[int, int]]] = {}
    for row in listed:
        if row.day is not None and row.own is not None:
            issued, _, hours = row.own.partition(_SEPARATOR)
            own.setdefault(row.position, {})[row.day.toordinal()] = int(issued), int(hours)
    has_heavy = sizes.all >= HEAVY_AGENTS and totals.tokens >= HEAVY_TOKENS
    found = []
    for row in listed:
        if row.agent_id is not None:
            share = row.issued / totals.tokens if totals.tokens else 0.0
            counts = divided(own.get(row.position, {}), days.begins)
            found.append(
                ListedAgent(
                    row.agent_id,
                    row.name,
                    row.rank if row.issued else None,
                    row.issued,
                    share,
                    row.whole,
                    row.before if is_compared else None,
                    counts,
                    _last(days, counts),
                    is_heavy=has_heavy and share > HEAVY_SHARE,
                    is_rising=bool(row.is_rising),
                    is_new=bool(row.is_new),
                    is_quiet=bool(row.is_quiet),
                )
            )
    return AgentList(
        found,
        found=totals.found,
        sizes=sizes,
        total=totals.tokens,
        largest=_largest(totals, is_compared=is_compared),
        is_compared=is_compared,
        is_long=bool(totals.is_long),
        counted_at=as_utc(state[0]),
    )


def _last(days: Days, counts: list[int]) -> date | None:
    return next(
        (day for day, count in zip(reversed(list(days)), reversed(counts), strict=True) if count),
        None,
    )


def _largest(totals: "_Totals", *, is_compared: bool) -> Largest | None:
    if totals.largest_id is None:
        return None
    is_known = is_compared and totals.tokens_before > 0
    return Largest(
        totals.largest_id,
        totals.largest_name,
        totals.largest_tokens,
        totals.largest_tokens / totals.tokens,
        totals.largest_before / totals.tokens_before if is_known else None,
    )


class _Row(NamedTuple):
    """A row of the statement: an agent of the page, or one of its days behind it.

    ``own``: the tokens on the day and the mask of their hours, as text, so that both are one
    look-up.
    """

    position: int
    agent_id: str | None
    name: str | None
    rank: int
    issued: int
    whole: int
    before: int
    is_rising: int
    is_new: int
    is_quiet: int
    day: date | None
    own: str | None


class _Totals(NamedTuple):
    """The columns of the state's row before those of completeness()."""

    all: int
    rising: int
    new: int
    quiet: int
    unnamed: int
    known: int
    found: int
    tokens: int
    tokens_before: int
    is_long: int
    largest_id: str | None
    largest_name: str | None
    largest_tokens: int
    largest_before: int


def _is_wanted(row: Any) -> sa.ColumnElement[bool]:
    show = bind("show", sa.Text)
    kinds = (row.is_used, row.is_rising, row.is_new, row.is_quiet, row.is_unnamed)
    is_shown = sa.case(*((show == name, kind) for name, kind in zip(SHOWN, kinds, strict=True)))
    return sa.and_(is_shown == 1, row.is_found == 1)


def _order(row: Any) -> tuple[sa.ColumnElement[Any], ...]:
    sort = bind("sort", sa.Text)

    def by(name: str, value: Any) -> sa.ColumnElement[Any]:
        return sa.case((sort == name, value))

    change = sa.case((row.before > 0, sa.cast(row.whole - row.before, sa.Float) / row.before))
    return (
        by("name", sa.func.lower(row.name)).asc().nulls_last(),
        by("change", change).desc().nulls_last(),
        by("seen", row.last).desc().nulls_last(),
        by("seen", sa.case((row.late == row.last, 1), else_=0)).desc().nulls_last(),
        row.issued.desc(),
        sa.case((row.issued == 0, row.before)).desc().nulls_last(),
        row.agent_id,
    )


def _totals(kinds: CTE, gate: CTE) -> Select[*tuple[Any, ...]]:
    row, first = kinds.c, kinds.alias("first").c
    flags = (row.is_used, row.is_rising, row.is_new, row.is_quiet, row.is_unnamed)
    sums = sa.select(
        *(total(flag).label(name) for flag, name in zip(flags, SHOWN, strict=True)),
        sa.func.count(row.agent_id).label("known"),
        total(sa.case((_is_wanted(row), 1), else_=0)).label("found"),
        total(row.issued).label("tokens"),
        total(row.before).label("tokens_before"),
    ).subquery("counted")
    largest = (
        sa.select(first.agent_id, first.name, first.issued, first.before)
        .where(first.rank == 1, first.issued > 0)
        .subquery("largest")
    )
    joined = sums.join(gate, sa.true()).outerjoin(largest, sa.true())
    return sa.select(
        *sums.c,
        gate.c.is_long,
        largest.c.agent_id.label("largest_id"),
        largest.c.name.label("largest_name"),
        largest.c.issued.label("largest_tokens"),
        largest.c.before.label("largest_before"),
    ).select_from(joined)


def _statement() -> Reading:
    gate = gate_cte()
    kinds = kinds_of_agents(used_agents(gate), gate)
    row = kinds.c
    position = sa.func.row_number().over(order_by=_order(row)).label("position")
    columns = (row.agent_id, row.name, row.rank, row.issued, row.whole, row.before)
    page = (
        sa.select(position, *columns, row.is_rising, row.is_new, row.is_quiet)
        .where(_is_wanted(row))
        .order_by(position)
        .limit(bind("limit", sa.Integer))
        .offset(bind("offset", sa.BigInteger))
        .cte("page")
    )
    day, own = days_of_tenant("day", bind("first"), bind("last")), daily_agent_issuance.c
    both = sa.cast(own.issued, sa.Text) + _SEPARATOR + sa.cast(own.hours, sa.Text)
    found = sa.select(both).where(
        own.tenant_id == TENANT, own.date == day.c.date, own.agent_id == page.c.agent_id
    )

    def nothing(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        return sa.type_coerce(sa.null(), column.type)

    others = [column for column in page.c if column.name != "position"]
    own_days = sa.select(
        page.c.position,
        *map(nothing, others),
        day.c.date,
        found.correlate(day, page).scalar_subquery(),
    ).join_from(page, day, sa.true())
    whole = sa.select(
        *page.c,
        sa.cast(sa.null(), sa.Date).label("day"),
        sa.cast(sa.null(), sa.Text).label("own"),
    )
    rows = sa.select(sa.union_all(whole, own_days).subquery("both"))
    return with_finer_state(
        daily_agent_issuance, rows, "position", "day", totals=_totals(kinds, gate)
    )


_LIST = _statement()
