"""A run refuses to count when ids, sequence and events do not fit, and the refusal lasts."""

import json
import threading
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from sqlalchemy import delete, select, text, update

from app.errors import RefusedError
from app.storage.tables import issuance_events, rollup_state
from jobs.counting import watermark
from jobs.retention import purge_events
from jobs.scheduler import purge_tick, tick
from tests.support.databases import conninfo
from tests.support.recount import assert_exact
from tests.support.statements import statements, watched

AT = "2026-04-01T00:00:00Z"
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


def execute(database, statement):
    statement = text(statement) if isinstance(statement, str) else statement
    return database.write(lambda connection: connection.execute(statement).rowcount)


def state(database):
    with database.reading() as connection:
        return connection.execute(select(rollup_state)).one()


def set_sequence(database, newest):
    """Leave the id sequence behind, as a restore without it does."""
    if not database.is_postgresql:
        execute(database, f"UPDATE sqlite_sequence SET seq = {newest}")
    elif newest:
        execute(database, f"SELECT setval('issuance_events_id_seq', {newest})")
    else:
        execute(database, "ALTER SEQUENCE issuance_events_id_seq RESTART")


def insert_with_id(
    database, number, *, tenant="org-a", event=None, agent="a", at="2026-04-01 00:00:00"
):
    """An event with an id from outside, as logical replication and a hand write it."""
    overriding, zone = ("OVERRIDING SYSTEM VALUE", "+00") if database.is_postgresql else ("", "")
    execute(
        database,
        "INSERT INTO issuance_events (id, tenant_id, event_id, agent_id, issued_at)"
        f" {overriding} VALUES ({number}, '{tenant}', '{event or f'by hand {number}'}', '{agent}',"
        f" '{at}{zone}')",
    )


def purge_all(database):
    old = datetime.now(UTC) - timedelta(days=400)
    execute(database, update(issuance_events).values(received_at=old))
    return purge_events(database, retention_days=90).events


def assert_refused_for_good(roll_up, issue, database, flask, words):
    """Every run refuses, whatever comes in, and nothing is counted or purged."""
    before = state(database).counted_upto
    for _ in range(3):
        with pytest.raises(RefusedError, match=words):
            roll_up()
        issue(AT, times=30)
    assert state(database).counted_upto == before
    done = flask("rollup", "run")
    assert (done.returncode, done.stdout) == (1, "")
    assert "flask rollup resume" in done.stderr
    with pytest.raises(RefusedError, match="flask rollup resume"):
        purge_events(database, retention_days=0)


@pytest.fixture
def counted(issue, roll_up, database):
    """Ten counted events; the newest id is the watermark."""
    issue(AT, times=10)
    roll_up()
    return database


def test_a_sequence_left_behind_is_refused_for_good(counted, issue, roll_up, flask):
    """A run refuses a sequence below the watermark, even once new events have lifted it."""
    if counted.is_postgresql:
        set_sequence(counted, 0)
    else:  # there, ids start below only where the newest rows are gone
        purge_all(counted)
        set_sequence(counted, 3)
    assert_refused_for_good(roll_up, issue, counted, flask, "is below the watermark, 10")


def test_a_sequence_that_passed_again_is_refused(counted, issue, roll_up, flask):
    """A sequence that was behind and is lifted before the next run is refused as well."""
    if counted.is_postgresql:
        set_sequence(counted, 0)
    else:
        purge_all(counted)
        set_sequence(counted, 0)
    issue(AT, times=25)
    assert_refused_for_good(roll_up, issue, counted, flask, "below the watermark|have the id 10")


@on_postgresql
def test_a_switchover_is_refused_for_good(issue, roll_up, database, flask):
    """Replicated events whose sequence and state row stayed at their start are refused."""
    for number in range(1, 11):
        insert_with_id(database, number)
    assert_refused_for_good(roll_up, issue, database, flask, "beyond the newest id drawn")


def test_an_id_beyond_the_sequence_is_refused_for_good(issue, roll_up, database, flask):
    """An event whose id is yet to be drawn is refused, even once the sequence has passed it."""
    issue(AT, times=10)
    roll_up()
    insert_with_id(database, 25)
    if not database.is_postgresql:  # SQLite moves its sequence with the row
        assert roll_up().events == 1
        assert assert_exact(database) == 11
        return
    assert_refused_for_good(roll_up, issue, database, flask, "id 25 is beyond the newest id")


def test_an_event_added_below_the_watermark_is_refused(counted, issue, roll_up, flask):
    """An event whose id lies between the newest counted event and the watermark is refused."""
    execute(counted, update(rollup_state).values(counted_upto=20, newest_upto=20))
    set_sequence(counted, 20)
    roll_up()
    insert_with_id(counted, 15)
    assert_refused_for_good(roll_up, issue, counted, flask, "id 15 was added below the watermark")


def test_an_event_added_after_a_full_purge_is_refused(counted, issue, roll_up, flask):
    """Where all counted events are purged, no event may appear below the watermark."""
    assert purge_all(counted) == 10
    assert state(counted).newest is None
    assert roll_up().outcome == "done"
    insert_with_id(counted, 5)
    assert_refused_for_good(roll_up, issue, counted, flask, "id 5 was added below the watermark")


def test_a_lost_newest_event_is_refused_for_good(counted, issue, roll_up, flask):
    """Events of an older backup: the newest counted event is missing, and older ones are there."""
    execute(counted, delete(issuance_events).where(issuance_events.c.id > 7))
    assert_refused_for_good(roll_up, issue, counted, flask, "with id 10, is missing")


def test_events_that_are_all_deleted_refuse_nothing(counted, issue, roll_up):
    """After a TRUNCATE no event below the watermark is uncounted, so new events are counted."""
    execute(counted, delete(issuance_events))
    assert roll_up().outcome == "done"
    issue(AT, times=3)
    assert roll_up().events == 3
    assert state(counted).newest == 13


def test_another_newest_event_is_refused_for_good(counted, issue, roll_up, flask):
    """Another event with the id of the newest counted one comes from another database."""
    newest = issuance_events.c.id == 10
    execute(counted, update(issuance_events).where(newest).values(event_id="other"))
    assert_refused_for_good(roll_up, issue, counted, flask, "is another event now")


@on_postgresql
def test_ids_drawn_in_blocks_are_refused_for_good(issue, roll_up, database):
    """A sequence that drew ids in blocks stays refused: sessions still hold lower ids."""
    column = "ALTER TABLE issuance_events ALTER COLUMN id SET CACHE"
    execute(database, f"{column} 20")
    with pytest.raises(RefusedError, match="restart every writer"):
        roll_up()
    execute(database, f"{column} 1")
    issue(AT)
    with pytest.raises(RefusedError, match="restart every writer"):
        roll_up()


def test_the_state_notes_the_newest_counted_event(issue, roll_up, database):
    """Id, key and watermark of a window change together."""
    events = issue(AT, times=5)
    roll_up(window_ids=2)
    found = state(database)
    noted = (found.newest, found.newest_tenant_id, found.newest_event_id, found.newest_upto)
    assert noted == (5, *events[-1][:2], 5)


def test_gaps_and_rolled_back_ids_are_no_mismatch(issue, roll_up, database):
    """Ids that no event has, in the middle or at the end, do not refuse a run."""
    issue(AT, times=3)
    set_sequence(database, 10)
    assert roll_up().watermark == 10
    assert roll_up().outcome == "done"
    issue(AT, event_id="event-0")  # a duplicate, which draws an id on PostgreSQL
    assert roll_up().outcome == "done"
    issue(AT, times=2)
    assert roll_up().events == 2
    assert_exact(database)


def test_a_purge_of_the_newest_event_is_no_mismatch(counted, issue, roll_up):
    """The purge notes the next older event, or that none is left."""
    old = datetime.now(UTC) - timedelta(days=400)
    some = issuance_events.c.id.in_([1, 9, 10])
    execute(counted, update(issuance_events).where(some).values(received_at=old))
    assert purge_events(counted, retention_days=90, batch_events=3).events == 3
    assert state(counted).newest == 8
    assert roll_up().outcome == "done"
    assert purge_all(counted) == 7
    assert state(counted).newest is None
    issue(AT, times=2)
    assert roll_up().events == 2


def test_a_purge_beside_a_run_is_no_mismatch(counted, roll_up, monkeypatch):
    """A mismatch is checked again under the lock, so a purge meanwhile stores no refusal."""
    check = watermark.newest_candidate

    def purge_first(connection, before):
        monkeypatch.setattr(watermark, "newest_candidate", check)
        assert purge_all(counted) == 10
        with counted.reading() as fresh:
            return check(fresh, before)

    monkeypatch.setattr(watermark, "newest_candidate", purge_first)
    assert roll_up().outcome == "done"
    assert state(counted).refusal is None


def test_the_previous_versions_runs_are_no_mismatch(counted, issue, roll_up):
    """The previous version moves the watermark alone; then the comparison goes less far."""
    issue(AT, times=5)
    counted_by_both = state(counted)._asdict()
    roll_up()
    old = {n: v for n, v in counted_by_both.items() if n.startswith("newest")}
    execute(counted, update(rollup_state).values(old))
    assert roll_up().outcome == "done"
    issue(AT, times=5)
    assert roll_up().events == 5
    assert_exact(counted)


def test_a_refused_run_is_in_the_history_once(counted, roll_up, flask):
    """Status and history show the refusal; the ticks that follow add no rows."""
    execute(counted, delete(issuance_events).where(issuance_events.c.id == 10))
    for _ in range(3):
        with pytest.raises(RefusedError):
            roll_up()
    shown = json.loads(flask("rollup", "status", "--json").stdout)
    assert [run["outcome"] for run in shown["runs"]] == ["failed", "done"]
    assert "with id 10, is missing" in shown["refusal"]
    text_shown = flask("rollup", "status").stdout
    assert "refused        the newest counted event" in text_shown


def test_ticks_count_a_refusal_and_log_its_reason(counted, settings, caplog):
    """The scheduler's run and purge log the reason without a traceback."""
    execute(counted, delete(issuance_events).where(issuance_events.c.id == 10))
    execute(counted, update(rollup_state).values(last_tick=None))
    assert tick(counted, settings, threading.Event()) is None
    purge_tick(counted, settings, threading.Event())
    assert [(r.getMessage(), r.exc_info) for r in caplog.records] == [
        ("rollup", None),
        ("purge", None),
    ]


@on_postgresql
def test_the_check_is_one_look_into_the_index(database, issue, roll_up):
    """A run asks the events table once for its check, and finds the rows by the index."""
    issue(AT, times=20_000)
    roll_up()
    execute(database, "ANALYZE issuance_events")
    asked = []

    def note(_driver, sent, values):
        if "FROM issuance_events" in sent:
            asked.append((sent, values))

    with watched(database, note):
        roll_up()
    ((query, values),) = asked
    with psycopg.connect(conninfo(database.engine.url)) as admin:
        plan = "\n".join(row[0] for row in admin.execute(f"EXPLAIN {query}", values))
    assert "Seq Scan" not in plan
    assert plan.count("ix_issuance_events_id") == 2


def test_a_run_without_new_events_asks_for_them_once(database, issue, roll_up):
    """The check is one statement on both databases."""
    issue(AT, times=10)
    roll_up()
    with statements(database) as sent:
        roll_up()
    assert len([one for one in sent if "FROM issuance_events" in one]) == 1
