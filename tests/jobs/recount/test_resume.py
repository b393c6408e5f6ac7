"""`flask rollup resume` verifies and repairs, and only then ends a refusal to count."""

import json
from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest
from sqlalchemy import delete, insert, select, update

from app.errors import RefusedError
from app.storage.tables import (
    daily_issuance,
    issuance_events,
    purged_months,
    rollup_state,
)
from jobs.counting.run import run_rollup
from jobs.recount import resume as resuming
from jobs.recount.lost import LostEventsError
from jobs.recount.resume import resume
from jobs.recount.verify import verification
from jobs.retention import purge_events
from tests.jobs.counting.test_refusals import (
    AT,
    execute,
    insert_with_id,
    on_postgresql,
    purge_all,
    set_sequence,
    state,
)
from tests.support.databases import conninfo
from tests.support.deployment import deployed
from tests.support.recount import assert_exact, recount, stored

APRIL = date(2026, 4, 1)


def refuse(roll_up):
    with pytest.raises(RefusedError):
        roll_up()


def drift(database):
    with verification(database) as found:
        return list(found.drift)


def assert_counting_again(database, issue, roll_up, events):
    """The numbers are exact, and go on to be."""
    roll_up()
    assert drift(database) == []
    issue(AT, times=7)
    assert roll_up().events == 7
    assert assert_exact(database) == events + 7
    assert state(database).refusal is None


@pytest.fixture
def counted(issue, roll_up, database):
    """Ten counted events; the newest id is the watermark."""
    issue(AT, times=10)
    roll_up()
    return database


@on_postgresql
@pytest.mark.quick
def test_events_that_were_never_counted_are_counted(counted, issue, roll_up):
    """New events with ids below the watermark are added; those above it are the next run's."""
    set_sequence(counted, 0)
    issue(AT, times=4)
    refuse(roll_up)
    issue(AT, times=12)  # the sequence passes the watermark
    done = resume(counted)
    assert done.refusal is not None
    assert "below the watermark" in done.refusal
    assert done.buckets == 6
    assert_counting_again(counted, issue, roll_up, 26)


@on_postgresql
def test_a_sequence_moved_too_late_is_repaired(counted, issue, roll_up):
    """Events that came in before the sequence was moved by hand are counted by a resume."""
    set_sequence(counted, 0)
    issue(AT, times=3)
    set_sequence(counted, 30)
    assert resume(counted).buckets == 6
    assert_counting_again(counted, issue, roll_up, 13)


@on_postgresql
def test_a_sequence_left_behind_is_moved(counted, issue, roll_up):
    """Resume moves the sequence beyond watermark and events, and never back."""
    set_sequence(counted, 0)
    insert_with_id(counted, 40)
    refuse(roll_up)
    assert resume(counted).buckets == 0
    issue(AT)
    with counted.reading() as connection:
        newest = (
            connection.execute(select(issuance_events.c.id).order_by(issuance_events.c.id.desc()))
            .scalars()
            .all()
        )
    assert newest[:2] == [41, 40]
    assert_counting_again(counted, issue, roll_up, 12)


@on_postgresql
def test_an_open_writer_delays_a_resume(counted, issue, roll_up, flask, monkeypatch):
    """An id below the watermark that is drawn and not committed must end first."""
    monkeypatch.setattr(resuming, "WAIT_SECONDS", 0.1)
    set_sequence(counted, 0)
    with psycopg.connect(conninfo(counted.engine.url), application_name="slow") as writer:
        writer.execute(
            "INSERT INTO issuance_events (tenant_id, event_id, agent_id, issued_at)"
            " VALUES ('org-a', 'slow', 'a', '2026-04-01T00:00:00Z')"
        )
        refuse(roll_up)
        held_up = flask("rollup", "resume")
        assert held_up.returncode == 1
        assert "a lock is held by pid" in held_up.stderr
        assert "(slow)" in held_up.stderr
        assert state(counted).refusal is not None
    assert resume(counted).buckets == 6
    assert_counting_again(counted, issue, roll_up, 11)


def test_lost_events_keep_counting_refused(counted, roll_up, flask, issue):
    """Where raw events are missing that all tables count, resume explains and refuses."""
    execute(counted, delete(issuance_events).where(issuance_events.c.id > 4))
    issue(AT, times=3)
    refuse(roll_up)
    refused = flask("rollup", "resume")
    assert refused.returncode == 1
    assert "6 of org-a in 2026-04" in refused.stderr
    assert "--accept-loss" in refused.stderr
    refuse(roll_up)
    assert stored(counted, daily_issuance) == {("org-a", APRIL): 10}


def test_an_accepted_loss_keeps_the_numbers(counted, roll_up, flask, issue):
    """With --accept-loss the numbers stay, the month counts as purged, and new events count."""
    execute(counted, delete(issuance_events).where(issuance_events.c.id > 4))
    issue(AT, times=3)
    refuse(roll_up)
    done = flask("rollup", "resume", "--accept-loss", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["buckets"] == 0
    assert roll_up().events == 3
    assert stored(counted, daily_issuance) == {("org-a", APRIL): 13}
    with verification(counted) as found:
        assert (list(found.drift), found.scope.purged) == ([], [APRIL])
    resume(counted)  # the totals of the purged month add up


def test_an_accepted_loss_counts_all_other_events(counted, roll_up, flask, issue):
    """Each table equals a recount of the kept events and the lost ones, which stay counted."""
    issue(AT, times=2, tenant="org-c")
    issue("2026-05-01T00:00:00Z", times=2)
    roll_up()
    gone = (issuance_events.c.tenant_id == "org-a") & (issuance_events.c.id > 5)
    with counted.reading() as connection:
        lost = connection.execute(select(issuance_events).where(gone)).all()
    assert execute(counted, delete(issuance_events).where(gone)) == 7
    for number in (6, 7, 8):
        insert_with_id(counted, number, tenant="org-b")
    insert_with_id(counted, 9, tenant="org-b", agent="other", at="2026-05-31 23:00:00")
    insert_with_id(counted, 10, at="2026-06-01 07:00:00")
    refuse(roll_up)
    done = flask("rollup", "resume", "--accept-loss", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["buckets"], found["uncounted"]) == (18, 0)
    assert "5 of org-a in 2026-04, 2 of org-a in 2026-05" in found["lost"]
    assert "these numbers stay" in done.stderr
    with counted.reading() as connection:
        events = [*connection.execute(select(issuance_events)), *lost]
    expected = recount((event.tenant_id, event.agent_id, event.issued_at) for event in events)
    assert {table: stored(counted, table) for table in expected} == expected
    assert resume(counted).refusal is None  # the totals add up
    issue(AT, times=3)
    assert roll_up().events == 3
    assert stored(counted, daily_issuance)["org-a", APRIL] == 13


def test_lost_events_that_new_ones_replaced_are_noticed(counted, roll_up, flask):
    """As many uncounted events as lost ones in a tenant's month: resume names the lost ones."""
    execute(counted, delete(issuance_events).where(issuance_events.c.id > 6))
    for number in (7, 8, 9, 10):
        insert_with_id(counted, number, at="2026-04-02 10:00:00")
    insert_with_id(counted, 0, tenant="org-b")
    refuse(roll_up)
    refused = flask("rollup", "resume")
    assert refused.returncode == 1
    assert "4 of org-a in 2026-04" in refused.stderr
    assert stored(counted, daily_issuance) == {("org-a", APRIL): 10}
    done = flask("rollup", "resume", "--accept-loss")
    assert done.returncode == 0
    assert "at least 4 events" in done.stderr
    assert stored(counted, daily_issuance) == {("org-a", APRIL): 10, ("org-b", APRIL): 1}
    assert resume(counted).buckets == 0


def test_more_new_events_than_lost_ones_hide_none(counted, roll_up):
    """Lost events are named although the month has more uncounted ones."""
    execute(counted, delete(issuance_events).where(issuance_events.c.id > 6))
    for number in (-2, -1, 0, 7, 8, 10):
        insert_with_id(counted, number, agent="new")
    refuse(roll_up)
    with pytest.raises(LostEventsError) as raised:
        resume(counted)
    assert raised.value.lost.events == 4
    done = resume(counted, accept_loss=True)
    assert (done.buckets, done.uncounted) == (0, 6)
    assert resume(counted).uncounted == 0  # it is settled


def test_a_restore_of_both_parts_ends_in_exact_numbers(counted, roll_up, issue, flask):
    """Once the lost events are back, resume ends the refusal without an option."""
    with counted.reading() as connection:
        rows = [row._asdict() for row in connection.execute(select(issuance_events))]
    gone = issuance_events.c.id > 4
    execute(counted, delete(issuance_events).where(gone))
    refuse(roll_up)
    for row in rows[4:]:
        insert_with_id(counted, row["id"], event=row["event_id"], agent=row["agent_id"])
    refuse(roll_up)
    assert flask("rollup", "resume").returncode == 0
    assert_counting_again(counted, issue, roll_up, 10)


@pytest.mark.quick
def test_numbers_changed_by_hand_are_repaired(counted, roll_up, issue):
    """Where the tables disagree, the recount decides, and resume ends the refusal."""
    newest = issuance_events.c.id == 10
    execute(counted, update(issuance_events).where(newest).values(event_id="other"))
    execute(counted, update(daily_issuance).values(issued=99))
    refuse(roll_up)
    assert resume(counted).buckets == 1
    assert_counting_again(counted, issue, roll_up, 10)


def test_a_purged_month_must_add_up(counted, issue, roll_up, flask):
    """Uncounted events of a purged month cannot be added: resume names the numbers."""
    old = datetime.now(UTC) - timedelta(days=400)
    few = issuance_events.c.id <= 3
    execute(counted, update(issuance_events).where(few).values(received_at=old))
    assert purge_events(counted, retention_days=90).events == 3
    execute(counted, update(rollup_state).values(counted_upto=12, newest_upto=12))
    set_sequence(counted, 12)
    insert_with_id(counted, 11)
    refuse(roll_up)
    refused = flask("rollup", "resume")
    assert refused.returncode == 1
    assert "10 events are counted, 8 are kept and 3 were purged" in refused.stderr
    refuse(roll_up)
    assert flask("rollup", "resume", "--accept-loss").returncode == 0
    assert roll_up().outcome == "done"
    assert resume(counted).refusal is None


def test_a_resume_after_a_full_purge_counts_on(counted, issue, roll_up):
    """With no raw event left, resume proves the totals, and later events are counted."""
    purge_all(counted)
    set_sequence(counted, 3)
    refuse(roll_up)
    assert resume(counted).refusal is not None
    issue("2026-05-01T00:00:00Z", times=2)
    assert roll_up().events == 2
    with counted.reading() as connection:
        assert connection.execute(select(purged_months)).all() == [(APRIL, 10)]


def test_a_resume_without_a_refusal_only_verifies(counted, flask):
    """Nothing changes, and the command says so."""
    done = flask("rollup", "resume")
    assert (done.returncode, done.stdout) == (0, "counting was not refused: 0 buckets corrected\n")


@on_postgresql
def test_a_sequence_in_blocks_keeps_counting_refused(counted, roll_up, flask):
    """Resume ends no refusal whose cause is still there."""
    column = "ALTER TABLE issuance_events ALTER COLUMN id SET CACHE"
    execute(counted, f"{column} 20")
    refuse(roll_up)
    assert flask("rollup", "resume").returncode == 1
    refuse(roll_up)
    execute(counted, f"{column} 1")
    assert flask("rollup", "resume").returncode == 0
    assert roll_up().outcome == "done"


@pytest.mark.slow
def test_only_the_owner_may_move_the_sequence(postgresql):
    """The error for the role of the jobs says to run resume as the owner."""
    with deployed(postgresql) as deployment:
        owner, jobs = deployment.connect("owner"), deployment.database("job")
        for number in range(3):
            owner.execute(
                "INSERT INTO issuance_events (tenant_id, event_id, agent_id, issued_at)"
                f" VALUES ('org-a', '{number}', 'a', '2026-04-01T00:00:00Z')"
            )
        run_rollup(jobs, window_ids=100, wait_seconds=5)
        owner.execute("ALTER SEQUENCE issuance_events_id_seq RESTART")
        with pytest.raises(RefusedError, match="below the watermark"):
            run_rollup(jobs, window_ids=100, wait_seconds=5)
        with pytest.raises(RefusedError, match="as the owner of the tables"):
            resume(jobs)
        assert resume(deployment.database("owner")).refusal is not None
        assert run_rollup(jobs, window_ids=100, wait_seconds=5).outcome == "done"


def test_a_month_without_raw_events_is_resumed_as_purged(counted):
    """The error holds the number of lost events; a month that counts as purged is not compared."""
    execute(counted, delete(issuance_events))
    with pytest.raises(LostEventsError) as raised:
        resume(counted)
    assert raised.value.lost.events == 10
    execute(counted, insert(purged_months).values(month=APRIL, events=10))
    assert resume(counted).buckets == 0
