"""Retention of the finer tables by whole months: neither written, verified nor rebuilt."""

from datetime import date, datetime, time

import pytest
import sqlalchemy as sa
from sqlalchemy import event as hooks

from app.dates import kept_from, months_from
from app.storage.tables import (
    daily_agent_issuance,
    daily_issuance,
    dow_hour_total,
    hourly_issuance,
    rollup_state,
)
from jobs.counting import tables
from jobs.counting.backfill import backfill
from jobs.counting.state import complete_from, read_state
from jobs.recount.difference import FIRST_MONTH, LAST_MONTH
from jobs.recount.rebuild import rebuild
from jobs.recount.verify import verification
from jobs.retention import delete_old_months
from tests.support.recount import assert_exact, stored
from tests.support.upgraded import forget_finer_tables

RETENTION = {"hourly_issuance": 60, "daily_agent_issuance": 30}
# With "today" as 15 June: hours from April on, days of agents from May on.
TODAY = date(2026, 6, 15)
MONTHS = [date(2026, month, 1) for month in (3, 4, 5, 6)]


@pytest.fixture(autouse=True)
def today(monkeypatch):
    """The database's clock may say any day; here retention counts from TODAY, or a later day."""
    days, now = tables.kept_days, []

    def set_day(day):
        now[:] = [datetime.combine(day, time(12))]

    set_day(TODAY)
    for name in ("counting.run", "counting.backfill", "recount.difference", "retention"):
        monkeypatch.setattr(
            f"jobs.{name}.kept_days", lambda retention, _now: days(retention, now[0])
        )
    return set_day


@pytest.fixture
def issued(issue):
    """Events on the last and the first day of each month."""
    for month in MONTHS:
        issue(f"{month}T00:00:00Z", times=2)
        issue(f"{month}T23:59:59.999999Z", tenant="org-b")
    issue("2026-03-31T23:59:59.999999Z")


def months(database, table):
    return {key[1].replace(day=1) for key in stored(database, table)}


def drift(database, retention=RETENTION):
    with verification(database, retention=retention) as found:
        return list(found.drift)


def test_months_past_are_not_written(issued, roll_up, database):
    """A run adds no old month to the finer tables, and every month to the others."""
    roll_up(retention=RETENTION)
    assert months(database, hourly_issuance) == set(MONTHS[1:])
    assert months(database, daily_agent_issuance) == set(MONTHS[2:])
    assert months(database, daily_issuance) == set(MONTHS)
    assert sum(stored(database, dow_hour_total).values()) == 13
    assert drift(database) == []


def test_months_past_are_neither_verified_nor_rebuilt(issued, roll_up, database):
    """Wrong numbers of old months stay; those of kept months are found and repaired."""
    roll_up()
    old = hourly_issuance.c.date < MONTHS[2]
    spoil = sa.update(hourly_issuance).where(old).values(issued=99)
    database.write(lambda connection: connection.execute(spoil))
    assert {one.key["date"] for one in drift(database)} == {MONTHS[1]}
    rebuild(database, FIRST_MONTH, LAST_MONTH, retention=RETENTION)
    assert drift(database) == []
    left = {key for key, issued in stored(database, hourly_issuance).items() if issued == 99}
    assert {day for _, day, _ in left} == {MONTHS[0], date(2026, 3, 31)}
    rebuild(database, FIRST_MONTH, LAST_MONTH)
    assert_exact(database)


def test_months_past_are_deleted_for_every_tenant(issued, roll_up, database, monkeypatch):
    """Old months are deleted, some tenants at a time; other tables keep theirs."""
    monkeypatch.setattr("jobs.retention.BATCH_TENANTS", 1)
    roll_up()
    assert delete_old_months(database, retention={}) == 0
    assert delete_old_months(database, retention={"hourly_issuance": 0}) == 0
    assert_exact(database)
    # Hours: three of March. Days of agents: three of March, two of April.
    assert delete_old_months(database, retention=RETENTION) == 8
    assert months(database, hourly_issuance) == set(MONTHS[1:])
    assert months(database, daily_agent_issuance) == set(MONTHS[2:])
    assert delete_old_months(database, retention=RETENTION) == 0
    assert drift(database) == []
    assert len(drift(database, retention={})) == 8


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_runs_go_on_while_old_months_are_deleted(issued, issue, roll_up, database):
    """A run counts new events while a transaction that deletes old months is open."""
    roll_up()
    issue(f"{TODAY}T00:00:00Z", times=4)
    outcomes = []

    def run(_connection, _cursor, statement, *_):
        if statement.startswith("DELETE FROM hourly_issuance") and not outcomes:
            outcomes.append(roll_up(retention=RETENTION).outcome)

    hooks.listen(database.engine, "after_cursor_execute", run)
    assert delete_old_months(database, retention=RETENTION) == 8
    hooks.remove(database.engine, "after_cursor_execute", run)
    assert outcomes == ["done"]
    assert drift(database) == []
    assert sum(stored(database, daily_issuance).values()) == 17


def test_a_month_that_ends_while_a_rebuild_compares(issued, roll_up, database, today):
    """The rebuild compares again, and does not bring back a month that was deleted meanwhile."""
    roll_up(retention=RETENTION)
    april = sa.delete(hourly_issuance).where(hourly_issuance.c.date < MONTHS[2])
    database.write(lambda connection: connection.execute(april))
    assert drift(database) != []

    def month_ends(done, _steps):
        if done == len(tables.SUMMARY_TABLES):
            today(date(2026, 7, 15))
            delete_old_months(database, retention=RETENTION)

    rebuild(database, FIRST_MONTH, LAST_MONTH, retention=RETENTION, on_step=month_ends)
    assert months(database, hourly_issuance) == set(MONTHS[2:])
    assert months(database, daily_agent_issuance) == set(MONTHS[3:])
    assert drift(database) == []


def test_a_backfill_leaves_out_months_past(issued, roll_up, database):
    """A backfill writes no month that is not kept."""
    roll_up()
    forget_finer_tables(database)
    backfill(database, retention=RETENTION)
    assert months(database, hourly_issuance) == set(MONTHS[1:])
    assert months(database, daily_agent_issuance) == set(MONTHS[2:])
    assert drift(database) == []


@pytest.mark.parametrize("by", ["run", "backfill", "purge"])
def test_days_that_are_not_kept_are_noted_for_reads(issued, roll_up, database, by):
    """Reads know each table's first day of which nothing is missing, and it never goes back."""
    if by == "run":
        roll_up(retention=RETENTION)
    else:
        roll_up()
        forget_finer_tables(database)
        {"backfill": backfill, "purge": delete_old_months}[by](database, retention=RETENTION)
    noted = sa.select(rollup_state.c.hours_from, rollup_state.c.agents_from)
    with database.reading() as connection:
        assert connection.execute(noted).one() == (MONTHS[1], MONTHS[2])
    delete_old_months(database, retention={"hourly_issuance": 90})
    with database.reading() as connection:
        assert connection.execute(noted).one() == (MONTHS[1], MONTHS[2])
        assert complete_from(read_state(connection)) == MONTHS[2]


def test_a_retention_keeps_whole_months():
    """The month of the oldest day is kept as a whole; 0 keeps everything, as does a long time."""
    assert kept_from(TODAY, 0) is None
    assert kept_from(TODAY, 36_500) is None
    assert kept_from(TODAY, 14) == date(2026, 6, 1)
    assert kept_from(TODAY, 15) == date(2026, 5, 1)
    assert kept_from(TODAY, 800) == date(2024, 4, 1)


def test_months_from_a_month_on():
    """Ranges before the month are left out, and one around it is cut."""
    march, april, may, june = MONTHS
    ranges = [(march, march), (april, june)]
    assert months_from(None, ranges) == ranges
    assert months_from(may, ranges) == [(may, june)]
    assert months_from(march, ranges) == ranges
    assert months_from(date(2026, 7, 1), ranges) == []
