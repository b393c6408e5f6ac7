"""SQL functions of our own give the same on both databases."""

import pytest
import sqlalchemy as sa

from app.storage.types import joined, numbers


@pytest.mark.parametrize("values", [[7], [0, 3, 2**31, 2**61], list(range(400))], ids=len)
def test_joined_numbers_come_back(database, values):
    row = sa.union_all(*(sa.select(sa.literal(n, sa.BigInteger).label("n")) for n in values))
    place, number = row.subquery().c.n, row.subquery().c.n
    with database.reading() as connection:
        found = connection.scalar(sa.select(joined(place)))
        both = connection.execute(sa.select(joined(number), joined(number * 2))).one()
    assert sorted(numbers(found)) == values
    assert [2 * n for n in numbers(both[0])] == list(numbers(both[1]))


def test_nothing_joined_is_no_number(database):
    nothing = sa.select(sa.literal(1, sa.BigInteger).label("n")).where(sa.false()).subquery()
    with database.reading() as connection:
        assert list(numbers(connection.scalar(sa.select(joined(nothing.c.n))))) == []
