"""Reads that go straight to the driver return the same as SQLAlchemy's, errors included."""

from contextlib import closing
from datetime import date

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, StatementError

from app.reports import base as queries
from app.reports import trend
from app.storage.database import Database
from app.storage.driver import fetch, fetch_batches
from app.storage.failures import is_unavailable
from app.storage.tables import daily_issuance
from app.storage.tenant_guard import TenantGuardError
from tests.support.settings import TENANT, make_settings
from tests.support.statements import statements

APRIL = {"tenant_id": TENANT, "first": date(2026, 4, 1), "last": date(2026, 4, 30)}
THEIRS = APRIL | {"tenant_id": "org-b"}


def through_sqlalchemy(connection, statement, parameters):
    return [tuple(row) for row in connection.execute(statement, parameters)]


@pytest.fixture
def counted(issue, roll_up):
    for day in (1, 2, 30):
        issue(f"2026-04-{day:02}T00:00:00Z", times=day)
    roll_up()


@pytest.mark.usefixtures("counted")
def test_rows_are_those_of_sqlalchemy(database):
    with database.reading_for(TENANT) as connection:
        found = fetch(connection, trend._TREND, APRIL)
        assert [count for _, _, count in found] == [None, 1, 2, 30]
        state, *days = [tuple(row) for row in found]
        expected, *expected_days = through_sqlalchemy(connection, trend._TREND, APRIL)
        assert days == expected_days
        assert queries.as_utc(state[0]) == expected[0] is not None


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("size", [1, 3, 4, 5])
def test_rows_in_batches_are_the_same(database, size):
    """Batches have the rows of the statement in order, and may be left unread."""
    with database.snapshot_for(TENANT) as connection:
        expected = [tuple(row) for row in fetch(connection, trend._TREND, APRIL)]
        for _ in range(2):
            batches = list(fetch_batches(connection, trend._TREND, APRIL, size))
            assert [len(rows) for rows in batches[:-1]] == [size] * (len(batches) - 1)
            days = [tuple(row)[2] for rows in batches for row in rows]
            assert days == [row[2] for row in expected]
            with closing(fetch_batches(connection, trend._TREND, APRIL, 1)) as unread:
                assert len(next(unread)) == 1
        with pytest.raises(TenantGuardError):
            next(fetch_batches(connection, trend._TREND, THEIRS, size))


def test_an_error_in_batches_is_sqlalchemys(on_postgresql):
    """An error is SQLAlchemy's at the first batch and at a later one."""
    parts = sa.select(sa.func.generate_series(2, 0, -1).label("n")).subquery()
    each = sa.select(1 / parts.c.n)
    for size in (1, 5):
        with on_postgresql.snapshot() as connection, pytest.raises(DBAPIError, match="division"):
            list(fetch_batches(connection, sa.union_all(each, each), {}, size))


@pytest.mark.usefixtures("counted")
def test_the_guard_checks_before_the_driver(database):
    with statements(database) as sent, database.reading_for(TENANT) as connection:
        with pytest.raises(TenantGuardError, match="reads another tenant"):
            fetch(connection, trend._TREND, THEIRS)
        with pytest.raises(TenantGuardError, match="without its tenant"):
            fetch(connection, queries.with_state(sa.select(daily_issuance.c.issued)), APRIL)
    assert sent == []
    with database.reading_for("org-b") as connection:
        assert len(fetch(connection, trend._TREND, THEIRS)) == 1  # the state's alone


@pytest.mark.parametrize(
    "given",
    [{"tenant_id": TENANT}, APRIL | {"last": "x"}],
    ids=["left out", "of another type"],
)
def test_a_wrong_parameter_is_an_error(database, given):
    with database.reading_for(TENANT) as connection, pytest.raises(StatementError):
        fetch(connection, trend._TREND, given)


@pytest.fixture
def on_postgresql(postgresql_url):
    database = Database(make_settings(postgresql_url).database_url)
    yield database
    database.dispose()


def test_an_error_is_sqlalchemys_and_keeps_values_to_itself(on_postgresql):
    parts = sa.select(1 / sa.bindparam("nothing", type_=sa.Integer))
    with on_postgresql.reading() as connection:
        with pytest.raises(DBAPIError, match="division by zero") as raised:
            fetch(connection, sa.union_all(parts, parts), {"nothing": 0})
        assert raised.value.params is None
        assert not raised.value.connection_invalidated
        assert connection.scalar(sa.text("SELECT 1")) == 1


def test_a_session_that_the_server_ended_is_told_and_replaced(on_postgresql):
    ending = sa.text("SELECT pg_terminate_backend(:pid, 60000)")
    with on_postgresql.reading() as connection:
        pid = connection.scalar(sa.text("SELECT pg_backend_pid()"))
        on_postgresql.write(lambda other: other.execute(ending, {"pid": pid}))
        with pytest.raises(DBAPIError) as lost:
            fetch(connection, trend._TREND, APRIL)
    assert is_unavailable(lost.value)
    assert lost.value.connection_invalidated
    with on_postgresql.reading() as connection:
        assert fetch(connection, trend._TREND, APRIL)
