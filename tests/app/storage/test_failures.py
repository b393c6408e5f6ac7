"""Which failures of a statement end the work on everything, and which only that on one thing."""

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from app.errors import UnavailableError
from app.storage.database import Database
from app.storage.failures import concerns_all
from app.storage.locks import LockedError
from tests.support.settings import make_settings


@pytest.fixture
def failure(postgresql_url):
    """The error of a statement on PostgreSQL."""
    database = Database(make_settings(postgresql_url).database_url)

    def run(statement, settings):
        with database.snapshot() as connection:
            for name, value in settings.items():
                connection.execute(sa.select(sa.func.set_config(name, value, True)))
            connection.execute(sa.text(statement))

    def failure(statement, **settings):
        with pytest.raises(DBAPIError) as caught:
            run(statement, settings)
        return caught.value

    yield failure
    database.dispose()


def test_a_statement_that_fails_alone_concerns_no_other(failure):
    """By a value, or by a time limit."""
    assert not concerns_all(failure("SELECT 1 / 0"))
    assert not concerns_all(failure("SELECT pg_sleep(60)", statement_timeout="50ms"))


def test_a_database_that_is_not_ready_concerns_all(failure):
    """The session was ended, there is no schema or another one, or it is a standby."""
    assert concerns_all(failure("SELECT pg_terminate_backend(pg_backend_pid())"))
    assert concerns_all(failure("SELECT 1 FROM no_such_table"))
    assert concerns_all(failure("SELECT no_such_column FROM rollup_state"))
    assert concerns_all(failure("DELETE FROM rollup_state", transaction_read_only="on"))


def test_a_missing_privilege_concerns_all(failure):
    assert concerns_all(failure("SELECT 1 FROM rollup_state", role="pg_monitor"))


def test_a_lock_and_a_full_pool_concern_all():
    assert concerns_all(LockedError([]))
    assert concerns_all(UnavailableError("busy"))
    assert concerns_all(sa.exc.TimeoutError())
    assert not concerns_all(ValueError())
