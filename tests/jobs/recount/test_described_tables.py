"""Counting, verify and rebuild follow the description of any summary table."""

from datetime import date

import pytest
import sqlalchemy as sa

from jobs.counting import adding, tables
from jobs.counting import run as counting
from jobs.counting.buckets import HourBeginning, IssuedDow, IssuedHour, IssuedOn
from jobs.counting.tables import DATE, SUMMARY_TABLES, Period, SummaryTable
from jobs.recount import rebuild as rebuilding
from jobs.recount import verify as verifying
from jobs.recount.rebuild import rebuild
from jobs.recount.verify import verification

MARCH, APRIL = date(2026, 3, 1), date(2026, 4, 1)
METADATA = sa.MetaData()


def table(name, *columns):
    keys = [sa.Column(column, kind, primary_key=True) for column, kind in columns]
    tenant = sa.Column("tenant_id", sa.Text, primary_key=True)
    return sa.Table(name, METADATA, tenant, *keys, sa.Column("issued", sa.BigInteger))


# Its period is a day, in a column that is called neither month nor date.
BY_DAY = SummaryTable(
    table("issued_by_day", ("on_day", sa.Date), ("hour", sa.SmallInteger)),
    HourBeginning,
    period=Period("on_day", DATE.month, DATE.end),
    on_day=IssuedOn,
    hour=IssuedHour,
)
# It has no period: every bucket spans all months, and is a sum over its source.
TOTAL = SummaryTable(
    table("issued_by_hour_of_week", ("dow", sa.SmallInteger), ("hour", sa.SmallInteger)),
    HourBeginning,
    period=None,
    source=SUMMARY_TABLES[1],
    dow=IssuedDow,
    hour=IssuedHour,
)
ALL = (*SUMMARY_TABLES, BY_DAY, TOTAL)


def rows(database, summary):
    with database.reading() as connection:
        return sorted(tuple(row) for row in connection.execute(sa.select(summary.table)))


def drift(database, *months):
    with verification(database, *months) as found:
        return [(one.table, one.stored, one.recounted) for one in found.drift]


@pytest.fixture
def described(database, monkeypatch):
    """The database with two more summary tables, which runs, verify and rebuild know."""
    for module in (counting, rebuilding, verifying):
        monkeypatch.setattr(module, "SUMMARY_TABLES", ALL)
    monkeypatch.setattr(rebuilding, "STEPS", len(ALL) + 1)
    # Table by table, as on a cluster.
    monkeypatch.setattr(adding, "is_citus", lambda _connection: True)
    database.write(METADATA.create_all)
    yield database
    database.write(METADATA.drop_all)


def test_other_periods_are_counted_verified_and_rebuilt(described, issue, roll_up):
    """A run fills the tables; verify finds planted drift; rebuild repairs exactly that."""
    issue("2026-03-31T23:59:59Z", times=3)
    issue("2026-04-01T00:00:00Z", times=2)
    issue("2026-04-01T00:30:00Z", tenant="org-b")
    roll_up()
    whole = [rows(described, summary) for summary in ALL]
    assert drift(described) == []

    for summary in (BY_DAY, TOTAL):
        spoil = sa.update(summary.table).values(issued=summary.table.c.issued + 5)
        described.write(lambda connection, spoil=spoil: connection.execute(spoil))
    assert len(drift(described)) == len(rows(described, BY_DAY)) + len(rows(described, TOTAL))
    # The day of March lies outside of April; the totals belong to every month.
    assert {name for name, *_ in drift(described, APRIL, APRIL)} == {BY_DAY.name, TOTAL.name}
    assert ("issued_by_day", 8, 3) not in drift(described, APRIL, APRIL)

    rebuild(described, MARCH, APRIL)
    assert [rows(described, summary) for summary in ALL] == whole
    assert drift(described) == []


def test_a_total_follows_its_repaired_source(described, issue, roll_up):
    """Rebuild compares a table with its source after the source itself is repaired."""
    issue("2026-04-01T09:00:00Z", times=4)
    roll_up()
    whole = [rows(described, summary) for summary in ALL]
    activity = SUMMARY_TABLES[1]
    described.write(lambda connection: connection.execute(sa.delete(activity.table)))
    described.write(lambda connection: connection.execute(sa.delete(TOTAL.table)))
    rebuild(described, APRIL, APRIL)
    assert [rows(described, summary) for summary in ALL] == whole


def test_a_table_needs_a_period_or_a_source():
    """Without either, a table could not be recounted once raw events are purged."""
    with pytest.raises(ValueError, match="neither a period nor a source"):
        SummaryTable(tables.daily_issuance, HourBeginning, period=None)
