"""Verify finds every drift and rebuild repairs it, while writers and runs go on."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime

import pytest
from sqlalchemy import delete, insert, select, update

from app.errors import RefusedError
from app.storage.tables import (
    daily_issuance,
    dow_hour_activity,
    dow_hour_total,
    issuance_events,
    monthly_agent_issuance,
    purged_months,
    rollup_corrections,
    rollup_state,
)
from jobs.counting.tables import SUMMARY_TABLES
from jobs.recount import rebuild as rebuilding
from jobs.recount.lost import LostEventsError
from jobs.recount.rebuild import Rebuilt, rebuild
from jobs.recount.verify import Drift, verification
from tests.support.recount import assert_exact, stored

MARCH, APRIL, MAY = (date(2026, month, 1) for month in (3, 4, 5))


def execute(database, statement):
    database.write(lambda connection: connection.execute(statement))


def drift(database, first=None, last=None):
    with verification(database, first, last) as found:
        return list(found.drift)


def journal(database):
    query = select(
        rollup_corrections.c["tenant_id", "table_name", "month", "old_total", "new_total"]
    ).order_by(rollup_corrections.c.correction, rollup_corrections.c.table_name)
    with database.reading() as connection:
        return [tuple(row) for row in connection.execute(query)]


@pytest.fixture
def counted(issue, roll_up, database):
    """Three days of three months, counted."""
    for day in ("2026-03-31", "2026-04-01", "2026-05-01"):
        issue(f"{day}T10:00:00Z", times=2)
        issue(f"{day}T11:00:00Z", tenant="org-b", agent="other")
    roll_up()
    return database


def corrupt(database):
    """Every way in which numbers can be wrong: too many, too few, missing, invented."""
    april = daily_issuance.c.date == APRIL
    execute(database, update(daily_issuance).where(april).values(issued=100))
    execute(database, delete(monthly_agent_issuance).where(monthly_agent_issuance.c.month == MAY))
    invented = {"tenant_id": "ghost", "month": MARCH, "dow": 3, "hour": 7, "issued": 9}
    execute(database, insert(dow_hour_activity).values(invented))


def test_right_numbers_have_no_drift(counted):
    assert drift(counted) == []


@pytest.mark.quick
def test_every_wrong_number_is_named_with_both_values(counted):
    corrupt(counted)
    assert drift(counted) == [
        Drift("daily_issuance", {"tenant_id": "org-a", "date": APRIL}, 100, 2),
        Drift("daily_issuance", {"tenant_id": "org-b", "date": APRIL}, 100, 1),
        Drift(
            "dow_hour_activity",
            {"tenant_id": "ghost", "month": MARCH, "dow": 3, "hour": 7},
            9,
            0,
        ),
        Drift(
            "monthly_agent_issuance",
            {"tenant_id": "org-a", "month": MAY, "agent_id": "agent-1"},
            0,
            2,
        ),
        Drift(
            "monthly_agent_issuance",
            {"tenant_id": "org-b", "month": MAY, "agent_id": "other"},
            0,
            1,
        ),
        Drift("dow_hour_total", {"tenant_id": "ghost", "dow": 3, "hour": 7}, 0, 9),
    ]


def test_only_the_months_asked_for_are_verified(counted):
    corrupt(counted)
    # The week of all months is compared as a whole with its months.
    week = "dow_hour_total"
    assert {found.table for found in drift(counted, MARCH, MARCH)} == {"dow_hour_activity", week}
    assert {found.table for found in drift(counted, APRIL, APRIL)} == {"daily_issuance", week}
    assert len(drift(counted, APRIL, MAY)) == 5


def test_events_that_are_not_counted_yet_are_no_drift(counted, issue):
    issue("2026-04-01T10:00:00Z", times=5)
    assert drift(counted) == []


def test_a_purged_month_is_not_verifiable_and_no_drift(counted):
    corrupt(counted)
    execute(counted, insert(purged_months).values(month=APRIL, events=1))
    execute(counted, delete(issuance_events))
    with verification(counted, APRIL, APRIL) as found:
        assert (found.scope.ranges, found.scope.purged) == ([], [APRIL])
        # It differs from its months, which need no raw events.
        assert [one.table for one in found.drift] == ["dow_hour_total"]
    assert {found.key.get("month", MARCH) for found in drift(counted)} <= {MARCH, MAY}


@pytest.mark.quick
def test_rebuild_makes_everything_equal_to_a_recount(counted):
    corrupt(counted)
    assert rebuild(counted, MARCH, MAY) == Rebuilt(5, 1)
    assert drift(counted) == []
    assert_exact(counted)


def test_rebuild_leaves_other_months_alone(counted):
    corrupt(counted)
    rebuild(counted, APRIL, APRIL)
    assert {found.table for found in drift(counted)} == {
        "dow_hour_activity",
        "monthly_agent_issuance",
    }


@pytest.mark.quick
def test_every_total_that_changed_is_in_the_journal(counted):
    corrupt(counted)
    rebuild(counted, MARCH, MAY)
    assert sorted(journal(counted)) == sorted(
        [
            ("org-a", "daily_issuance", APRIL, 100, 2),
            ("org-b", "daily_issuance", APRIL, 100, 1),
            ("ghost", "dow_hour_activity", MARCH, 9, 0),
            ("org-a", "monthly_agent_issuance", MAY, 0, 2),
            ("org-b", "monthly_agent_issuance", MAY, 0, 1),
        ]
    )


def test_the_week_of_all_months_follows_its_months(counted):
    """It is compared as a whole, also with purged months; its corrections have no month."""
    execute(counted, insert(purged_months).values(month=APRIL, events=1))
    wrong = dow_hour_total.c.issued + 5
    execute(counted, update(dow_hour_total).where(dow_hour_total.c.hour == 11).values(issued=wrong))
    assert {found.table for found in drift(counted, MAY, MAY)} == {"dow_hour_total"}
    assert [(one.stored, one.recounted) for one in drift(counted)] == [(6, 1)] * 3
    assert rebuild(counted, MAY, MAY).buckets == 3
    assert journal(counted) == [("org-b", "dow_hour_total", None, 18, 3)]
    assert drift(counted) == []
    assert_exact(counted)


def test_a_rebuild_without_drift_writes_nothing(counted):
    assert rebuild(counted, MARCH, MAY) == Rebuilt(0, None)
    assert journal(counted) == []


def test_a_purged_month_is_refused_by_name_and_nothing_changes(counted):
    corrupt(counted)
    execute(counted, insert(purged_months).values(month=APRIL, events=1))
    before = drift(counted)
    with pytest.raises(RefusedError, match=r"2026-04$"):
        rebuild(counted, MARCH, MAY)
    assert drift(counted) == before


def test_a_purge_while_the_difference_is_computed_is_noticed(counted, monkeypatch):
    corrupt(counted)
    compute = rebuilding._compute

    def purged_meanwhile(connection, **months):
        before = compute(connection, **months)
        thread = threading.Thread(
            target=execute,
            args=(counted, insert(purged_months).values(month=APRIL, events=1)),
        )
        thread.start()
        thread.join()
        return before

    monkeypatch.setattr(rebuilding, "_compute", purged_meanwhile)
    with pytest.raises(RefusedError, match="2026-04"):
        rebuild(counted, APRIL, APRIL)


def test_ingest_and_runs_between_difference_and_repair_are_kept(
    counted, issue, roll_up, monkeypatch
):
    corrupt(counted)
    compute = rebuilding._compute

    def busy_meanwhile(connection, **months):
        before = compute(connection, **months)
        issue("2026-04-01T10:00:00Z", times=7)
        assert roll_up().events == 7
        return before

    monkeypatch.setattr(rebuilding, "_compute", busy_meanwhile)
    rebuild(counted, MARCH, MAY)
    assert assert_exact(counted) == 16


def test_two_rebuilds_at_once_correct_once(counted):
    corrupt(counted)
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda _: rebuild(counted, MARCH, MAY), range(2)))
    assert sorted(result.buckets for result in results) == [0, 5]
    assert_exact(counted)


def test_rebuild_beside_runs_and_writers_stays_exact(counted, issue, roll_up):
    def write():
        for day in range(1, 29):
            issue(datetime(2026, 4, day, tzinfo=UTC), times=20)

    def count():
        for _ in range(10):
            roll_up(window_ids=50)

    corrupt(counted)
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(work) for work in (write, write, count)]
        while not all(job.done() for job in jobs):
            rebuild(counted, MARCH, MAY)
        for job in jobs:
            job.result()
    rebuild(counted, MARCH, MAY)
    roll_up()
    assert_exact(counted)


def test_readers_see_the_old_number_or_the_new_one(counted):
    execute(counted, update(daily_issuance).values(issued=50))
    seen, stop = set(), threading.Event()

    def read():
        while not stop.is_set():
            seen.update(stored(counted, daily_issuance).values())

    reader = threading.Thread(target=read)
    reader.start()
    rebuild(counted, MARCH, MAY)
    stop.set()
    reader.join()
    assert seen <= {50, 1, 2}


def test_a_rebuild_refuses_lost_raw_events(counted):
    """Fewer raw events than every independent table counts: the raw events are lost."""
    execute(counted, delete(issuance_events))
    with pytest.raises(LostEventsError, match="2 of org-a in 2026-04, 1 of org-b in 2026-04"):
        rebuild(counted, APRIL, APRIL)
    assert stored(counted, daily_issuance)["org-a", APRIL] == 2
    assert journal(counted) == []
    assert rebuild(counted, APRIL, APRIL, force=True).buckets == 12
    assert ("org-a", APRIL) not in stored(counted, daily_issuance)


def test_a_few_lost_events_of_one_tenant_are_noticed(counted):
    """One lost event of one tenant refuses the rebuild, and nothing changes."""
    few = (issuance_events.c.tenant_id == "org-b") & (issuance_events.c.id > 6)
    execute(counted, delete(issuance_events).where(few))
    with pytest.raises(LostEventsError, match=r"counts: 1 of org-b in 2026-05\."):
        rebuild(counted, MARCH, MAY)
    assert rebuild(counted, MARCH, APRIL) == Rebuilt(0, None)


@pytest.mark.parametrize("table", [one.table for one in SUMMARY_TABLES if one.source is None])
def test_where_the_tables_disagree_a_recount_decides(counted, table):
    """A table that was changed by hand is repaired, up or down."""
    for wrong in (table.c.issued + 5, table.c.issued - 1):
        execute(counted, update(table).values(issued=wrong))
        assert rebuild(counted, MARCH, MAY).buckets == 6
    assert_exact(counted)


def test_uncounted_events_are_no_lost_events(counted, issue):
    """More raw events than the tables count are added, also where the tables agree."""
    issue("2026-04-01T10:00:00Z", times=4)
    execute(counted, update(rollup_state).values(counted_upto=13))
    assert rebuild(counted, MARCH, MAY).buckets == 6
    assert_exact(counted)


def test_the_rebuild_command_needs_force_for_lost_events(counted, flask):
    """The command names the loss and exits 1; --force makes the numbers equal to what is left."""
    execute(counted, delete(issuance_events))
    months = ("rollup", "rebuild", "--from", "2026-03", "--to", "2026-05")
    refused = flask(*months)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "9 in all" in refused.stderr
    assert "--force" in refused.stderr
    assert flask(*months, "--force").returncode == 0
    assert stored(counted, daily_issuance) == {}
