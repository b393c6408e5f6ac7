"""Agents' days: an agent's tokens on UTC days, and how the days of a time zone divide them.

A row of daily_agent_issuance has the tokens of an agent on a UTC day, and a mask of the hours in
which it was issued any. Where a day of a time zone begins within a UTC day, the tokens are divided
there. This is exact if the agent was active on one side only. Otherwise they are divided in
proportion to its active hours. So the days of a zone add up to all its tokens.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from sqlalchemy import ColumnElement, Select, Subquery, case, select
from sqlalchemy.sql.base import ReadOnlyColumnCollection

DAY_HOURS = 24


def mask_before(hour: int) -> int:
    """The bits of the hours of a day before ``hour``."""
    return (1 << hour) - 1


def issued_before(issued: int, hours: int, hour: int) -> int:
    """How many tokens of a UTC day were issued before an hour; ``hours`` is the mask."""
    early = hours & mask_before(hour)
    if early in (0, hours):
        return issued if early else 0
    return issued * early.bit_count() // hours.bit_count()


def divided(rows: Mapping[int, tuple[int, int]], begins: Sequence[int]) -> list[int]:
    """The tokens of an agent on each day of a zone.

    Args:
        rows: tokens and mask of each UTC day, by its ordinal.
        begins: the first hour of each day, and the end of the last, as in ``Days``.
    """

    def before(number: int, ordinal: int) -> int:
        hour = min(max(number - ordinal * DAY_HOURS, 0), DAY_HOURS)
        return issued_before(*rows.get(ordinal, (0, 0)), hour)

    return [
        sum(
            before(end, ordinal) - before(begin, ordinal)
            for ordinal in range(begin // DAY_HOURS, -(-end // DAY_HOURS))
        )
        for begin, end in pairwise(begins)
    ]


def parts(rows: Subquery, *kept: str) -> Select[*tuple[Any, ...]]:
    """The part of each row of agents' days that lies between two hours, as SQL.

    Args:
        rows: ``agent_id``, ``issued``, ``hours``, and the masks of the hours before the beginning
            (``before_begin``) and before the end (``before_end``).
        kept: names of further columns of ``rows``, which are kept.
    """
    row = rows.c
    early = select(
        *(row[name] for name in kept),
        row.agent_id,
        row.issued,
        row.hours,
        row.hours.bitwise_and(row.before_begin).label("begin"),
        row.hours.bitwise_and(row.before_end).label("end"),
    ).subquery("early")
    # The numbers of bits are columns of a subquery, because their terms are many.
    row = early.c
    counted = select(
        *row,
        _bit_count(row.hours).label("active"),
        _bit_count(row.begin).label("active_begin"),
        _bit_count(row.end).label("active_end"),
    ).subquery("counted")
    row = counted.c
    part = _before(row, row.end, row.active_end) - _before(row, row.begin, row.active_begin)
    return select(row.agent_id, part.label("issued"), *(row[name] for name in kept))


def _before(
    row: ReadOnlyColumnCollection[str, Any], early: ColumnElement[int], active: ColumnElement[int]
) -> ColumnElement[int]:
    # Not issued * active // row.active, which may exceed a big integer.
    share = (row.issued // row.active) * active + (row.issued % row.active) * active // row.active
    return case((early == 0, 0), (early == row.hours, row.issued), else_=share)


def _bit_count(mask: ColumnElement[int]) -> ColumnElement[int]:
    bits = [mask.bitwise_rshift(hour).bitwise_and(1) for hour in range(DAY_HOURS)]
    return sum(bits[1:], bits[0])
