"""Masks of hours are verified, and rebuilt beside runs."""

from datetime import date

import pytest
import sqlalchemy as sa

from app.storage.tables import daily_agent_issuance, rollup_corrections
from jobs.recount import rebuild as rebuilding
from jobs.recount.rebuild import rebuild
from jobs.recount.verify import Drift, verification
from tests.support.recount import assert_exact, stored

APRIL = date(2026, 4, 1)
KEY = {"tenant_id": "org-a", "date": APRIL, "agent_id": "agent-1"}


@pytest.fixture
def counted(issue, roll_up, database):
    """An agent that was issued tokens in the hours 0, 9 and 23."""
    for hour in (0, 9, 23):
        issue(f"2026-04-01T{hour:02}:00:00Z", times=2)
        roll_up()
    return database


def spoil(database, **values):
    statement = sa.update(daily_agent_issuance).values(values)
    database.write(lambda connection: connection.execute(statement))


def drift(database):
    with verification(database) as found:
        return list(found.drift)


def test_runs_merge_the_hours(counted):
    """Each run adds its hours to those of earlier runs."""
    mask = 1 | 1 << 9 | 1 << 23
    assert stored(counted, daily_agent_issuance) == {tuple(KEY.values()): (6, mask)}


@pytest.mark.parametrize("wrong", [0, 1, 2**24 - 1])
def test_a_wrong_mask_is_found_and_replaced(counted, flask, wrong):
    """Hours too few or too many are drift, though the number of tokens is right."""
    spoil(counted, hours=wrong)
    mask = 1 | 1 << 9 | 1 << 23
    assert drift(counted) == [Drift("daily_agent_issuance", KEY, 6, 6, wrong, mask)]
    shown = flask("rollup", "verify")
    assert shown.returncode == 1
    assert f"hours stored {wrong}, recounted {mask}" in shown.stdout
    assert rebuild(counted, APRIL, APRIL).buckets == 1
    assert drift(counted) == []
    assert_exact(counted)
    with counted.reading() as connection:
        row = connection.execute(sa.select(rollup_corrections)).one()
    assert (row.table_name, row.old_total, row.new_total) == ("daily_agent_issuance", 6, 6)


@pytest.mark.parametrize("hour", [5, 9])
def test_hours_counted_while_a_rebuild_compares_are_kept(
    counted, issue, roll_up, monkeypatch, hour
):
    """A rebuild takes wrong hours away, but none that a run has counted meanwhile."""
    spoil(counted, hours=1 << 5 | 1 << 6)
    compute = rebuilding._compute

    def busy_meanwhile(connection, **options):
        computed = compute(connection, **options)
        issue(f"2026-04-01T{hour:02}:30:00Z", times=7)
        assert roll_up().events == 7
        return computed

    monkeypatch.setattr(rebuilding, "_compute", busy_meanwhile)
    rebuild(counted, APRIL, APRIL)
    assert drift(counted) == []
    assert assert_exact(counted) == 13
