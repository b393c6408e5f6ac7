"""Agents in periods: the tokens of each agent on some days, and on those they are compared with.

The sums are SQL on daily_agent_issuance, and on monthly_agent_issuance for the months that lie
wholly in a period. With more than MOST agents a month none of these rows is read.
"""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import CTE, Select

from app.reports.agent_days import DAY_HOURS, mask_before, parts
from app.reports.base import TENANT, total
from app.reports.days import Days
from app.reports.finer import completeness
from app.storage.tables import daily_agent_issuance, monthly_agent_issuance

MOST = 10_000  # agents a month; the sums of more would take seconds
QUIET_DAYS = 7
_DAY = timedelta(days=1)

# The rows are summed in periods: the days up to the last QUIET_DAYS that are whole, the others that
# are whole, those that are not, and the whole days that all of these are compared with.
EARLY, LATE, REST, BEFORE = range(4)
# A period is read as whole months, the whole UTC days around these, and parts of UTC days. This is
# the number of such spans of days. Two periods are too short for months.
_SPANS = {EARLY: 2, LATE: 1, REST: 1, BEFORE: 2}
_EDGES = 2 * len(_SPANS)  # at most: each period begins in one UTC day and ends in another
_NEVER, _NO_END = date.min, date.max


class _Span(NamedTuple):
    """The first and the last day, or month; without any, the first is after the last."""

    first: date = _NO_END
    last: date = _NEVER


def parameters(days: Days, whole: int, other: Days | None) -> dict[str, Any]:
    """The parameters of a statement with :func:`used_agents`.

    Args:
        whole: how many of the days are wholly counted.
        other: as many other days, if any.
    """
    counted, recent = days.begins[whole], days.begins[max(len(days) - QUIET_DAYS, 0)]
    cut = min(counted, recent)
    periods = {
        EARLY: (days.begin, cut),
        LATE: (cut, counted),
        REST: (counted, days.end),
        BEFORE: (other.begin, other.end) if other else (0, 0),
    }
    midnight = days.end % DAY_HOURS
    first, last = days.utc_first.replace(day=1), days.utc_last.replace(day=1)
    months = 12 * (last.year - first.year) + last.month - first.month + 1
    values: dict[str, Any] = {
        "is_judged": int(other is not None and counted > recent),
        "compared_from": other.utc_first if other else _NO_END,
        "whole_days": whole,
        "after_midnight": mask_before(DAY_HOURS) - mask_before(midnight or DAY_HOURS),
        "before_first": mask_before(days.begin % DAY_HOURS),
        "first_month": first,
        "last_month": last,
        "most": MOST * months,
    }
    edges: list[tuple[int, date, int, int]] = []
    for period, (begin, end) in periods.items():
        months_, spans, parts_ = _pieces(begin, end, most=_SPANS[period])
        values |= {f"months_from_{period}": months_.first, f"months_to_{period}": months_.last}
        for number, span in enumerate(spans):
            values |= {f"from_{period}_{number}": span.first, f"to_{period}_{number}": span.last}
        edges += [(period, *part) for part in parts_]
    for number in range(_EDGES):
        edge = edges[number] if number < len(edges) else (REST, _NO_END, 0, 0)
        names = (f"edge_{name}_{number}" for name in ("period", "date", "begin", "end"))
        values |= dict(zip(names, edge, strict=True))
    return values


def _pieces(
    begin: int, end: int, *, most: int
) -> tuple[_Span, list[_Span], list[tuple[date, int, int]]]:
    """A period of UTC hours in pieces: its whole months, ``most`` spans of whole days, and edges.

    An edge is a UTC day with the masks of the hours before its part of the period begins and ends.
    """
    (first, early), (last, late) = divmod(begin, DAY_HOURS), divmod(end, DAY_HOURS)
    edges = []
    if first == last and early < late:
        edges = [(first, early, late)]
    elif first < last:
        edges = [(first, early, DAY_HOURS)] if early else []
        edges += [(last, 0, late)] if late else []
    parts_ = [
        (date.fromordinal(day), mask_before(start), mask_before(stop)) for day, start, stop in edges
    ]
    first += 1 if early else 0
    if first >= last:
        return _Span(), [_Span()] * most, parts_
    begins, ends = date.fromordinal(first), date.fromordinal(last - 1)
    # The last month is read as days, also where it is whole: no month may follow it.
    after = ends.replace(day=1)
    month = begins if begins.day == 1 or begins >= after else _next_month(begins)
    if most == 1 or month >= after:
        return _Span(), [_Span(begins, ends), *[_Span()] * (most - 1)], parts_
    around = [_Span(begins, month - _DAY) if begins < month else _Span(), _Span(after, ends)]
    return _Span(month, after - _DAY), around, parts_


def _next_month(day: date) -> date:
    return (day.replace(day=1) + 31 * _DAY).replace(day=1)


def bind(name: str, type_: Any = sa.Date) -> sa.BindParameter[Any]:
    """A parameter of the statement; a day unless it has another type."""
    return sa.bindparam(name, type_=type_)


def gate_cte() -> CTE:
    """One row: whether there are more agents than a list reads, by their number a month.

    And whether a day that the days are compared with is incomplete, so that none of them is read.
    """
    usage = monthly_agent_issuance.c
    agents = sa.select(usage.agent_id).where(
        usage.tenant_id == TENANT,
        usage.month.between(bind("first_month"), bind("last_month")),
        usage.issued > 0,
    )
    most = bind("most", sa.BigInteger)
    found = agents.limit(most + 1).subquery("used")
    is_long = sa.case((sa.func.count(found.c.agent_id) > most, 1), else_=0)
    _, incomplete = completeness(daily_agent_issuance)
    latest = sa.select(incomplete).scalar_subquery()
    is_unsure = sa.case((latest >= bind("compared_from"), 1), else_=0)
    return sa.select(is_long.label("is_long"), is_unsure.label("is_unsure")).cte("gate")


def _is_left_out(gate: CTE, period: Any) -> sa.ColumnElement[bool]:
    """Whether a period is not read."""
    return sa.or_(gate.c.is_long == 1, sa.and_(period == BEFORE, gate.c.is_unsure == 1))


def _until(last: str, gate: CTE, period: int) -> sa.ColumnElement[Any]:
    """The last day or month to read: none if the period is left out."""
    left_out = _is_left_out(gate, sa.literal(period, sa.Integer))
    end = sa.case((left_out, sa.literal(_NEVER, sa.Date)), else_=bind(last))
    return sa.select(end).scalar_subquery()


def _sums(gate: CTE) -> Iterator[Select[*tuple[Any, ...]]]:
    """The tokens of agents in each piece of each period, and their last days in it.

    ``late``: the last UTC day on which the agent had tokens after the zone's midnight.
    """
    own, month = daily_agent_issuance.c, monthly_agent_issuance.c
    late = own.hours.bitwise_and(bind("after_midnight", sa.Integer)) != 0
    for period, spans in _SPANS.items():
        which = sa.literal(period, sa.Integer).label("period")
        for number in range(spans):
            begin, end = (
                bind(f"from_{period}_{number}"),
                _until(f"to_{period}_{number}", gate, period),
            )
            yield (
                sa.select(
                    which,
                    own.agent_id,
                    total(own.issued).label("issued"),
                    sa.func.max(own.date).label("last"),
                    sa.func.max(sa.case((late, own.date))).label("late"),
                )
                .where(own.tenant_id == TENANT, own.date >= begin, own.date <= end, own.issued > 0)
                .group_by(own.agent_id)
            )
        if spans > 1:
            begin, end = bind(f"months_from_{period}"), _until(f"months_to_{period}", gate, period)
            yield (
                sa.select(
                    which,
                    month.agent_id,
                    total(month.issued).label("issued"),
                    sa.func.max(month.month).label("last"),
                    sa.cast(sa.null(), sa.Date).label("late"),
                )
                .where(
                    month.tenant_id == TENANT,
                    month.month >= begin,
                    month.month <= end,
                    month.issued > 0,
                )
                .group_by(month.agent_id)
            )
    yield _edges(gate)


def _edges(gate: CTE) -> Select[*tuple[Any, ...]]:
    """The tokens in parts of UTC days."""
    never = sa.literal(_NEVER, sa.Date)
    dates = [bind(f"edge_date_{number}") for number in range(_EDGES)]
    found = (
        sa.select(
            bind(f"edge_period_{number}", sa.Integer).label("period"),
            sa.case(
                (_is_left_out(gate, bind(f"edge_period_{number}", sa.Integer)), never),
                else_=dates[number],
            ).label("date"),
            bind(f"edge_begin_{number}", sa.Integer).label("before_begin"),
            bind(f"edge_end_{number}", sa.Integer).label("before_end"),
        )
        for number in range(_EDGES)
    )
    # With a limit, SQLite does not repeat all of what follows for each of them.
    edges = sa.union_all(*found).limit(_EDGES).subquery("edges")
    own, edge = daily_agent_issuance.c, edges.c
    inside = own.hours.bitwise_and(edge.before_end) - own.hours.bitwise_and(edge.before_begin)
    late = inside.bitwise_and(bind("after_midnight", sa.Integer)) != 0
    columns = (own.agent_id, own.issued, own.hours, edge.before_begin, edge.before_end)
    rows = (
        sa.select(edge.period, own.date, sa.case((late, own.date)).label("late"), *columns)
        .join_from(edges, daily_agent_issuance, edge.date == own.date)
        # PostgreSQL would otherwise read all days, because it does not know how few these are.
        .where(own.tenant_id == TENANT, own.date.in_(dates))
    )
    row = parts(rows.subquery("rows"), "period", "date", "late").subquery("part").c
    return sa.select(row.period, row.agent_id, row.issued, row.date, row.late).where(row.issued > 0)


def used_agents(gate: CTE) -> CTE:
    """The agents with tokens in any period: their tokens in each, and their last days."""
    row = sa.union_all(*_sums(gate)).subquery("sums").c

    def of(first: int, last: int) -> sa.ColumnElement[Any]:
        return total(sa.case((row.period.between(first, last), row.issued), else_=0))

    is_here = row.period != BEFORE
    return (
        sa.select(
            row.agent_id,
            of(EARLY, REST).label("issued"),
            of(EARLY, LATE).label("whole"),
            of(LATE, REST).label("recent"),
            of(BEFORE, BEFORE).label("before"),
            sa.func.max(sa.case((is_here, row.last))).label("last"),
            sa.func.max(sa.case((is_here, row.late))).label("late"),
        )
        .group_by(row.agent_id)
        .cte("used")
    )
