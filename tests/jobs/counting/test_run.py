"""A run counts every committed event once: plain cases, on both databases."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete, event, select, update
from sqlalchemy.exc import DBAPIError

from app.errors import RefusedError
from app.storage.tables import daily_issuance, issuance_events, rollup_state
from jobs.counting import adding, run
from jobs.counting.tables import SUMMARY_TABLES
from jobs.scheduler import claim_tick
from tests.support.recount import assert_exact
from tests.support.statements import statements


def watermark(database):
    with database.reading() as connection:
        return connection.scalar(select(rollup_state.c.counted_upto))


def test_an_empty_run_and_then_the_first_event_ever(issue, roll_up, trend):
    assert roll_up().events == 0
    issue("2026-04-01T00:00:00Z")
    assert roll_up().events == 1
    assert trend(last="2026-04-01", days=1) == [1]


def test_a_redelivered_event_counts_once(issue, roll_up, trend):
    issue("2026-04-01T00:00:00Z", event_id="one")
    roll_up()
    issue("2026-04-01T00:00:00Z", event_id="one")
    assert roll_up().events == 0
    assert trend(last="2026-04-01", days=1) == [1]


def test_of_two_deliveries_with_one_id_the_first_wins(issue, roll_up, trend):
    issue("2026-04-01T00:00:00Z", event_id="one")
    issue("2026-04-02T00:00:00Z", event_id="one")
    roll_up()
    assert trend(last="2026-04-02", days=2) == [1, 0]


def test_a_late_event_reaches_its_old_bucket(issue, roll_up, trend):
    issue("2026-04-02T00:00:00Z")
    roll_up()
    issue("2025-01-01T00:00:00Z", times=2)
    roll_up()
    assert trend(last="2025-01-01", days=1) == [2]
    assert trend(last="2026-04-02", days=1) == [1]


def test_a_run_with_nothing_new_changes_nothing_but_its_time(issue, roll_up, database):
    issue("2026-04-01T00:00:00Z", times=3)
    first, second = roll_up(), roll_up()
    assert (second.events, second.buckets, second.watermark) == (0, 0, first.watermark)
    assert_exact(database)


def test_a_run_reports_the_events_and_buckets_it_touched(issue, roll_up):
    issue("2026-04-01T00:00:00Z", times=3)
    issue("2026-04-02T00:00:00Z")
    run = roll_up()
    # One agent's month; two days, hours, cells, cells of all months and days of an agent.
    assert (run.events, run.buckets) == (4, 11)


def test_tables_can_be_added_to_one_by_one_as_citus_needs_it(issue, roll_up, database, monkeypatch):
    monkeypatch.setattr(adding, "is_citus", lambda _: True)
    for agent in "ab":
        issue("2026-04-01T00:00:00Z", agent=agent, times=3)
        issue("2026-04-02T07:00:00Z", agent=agent)
    run = roll_up()
    assert (run.events, run.buckets) == (8, 14)
    issue("2026-03-31T23:59:59.999999Z", times=2)
    run = roll_up()
    assert (run.events, run.buckets) == (2, 6)
    assert assert_exact(database) == 10


@pytest.mark.parametrize("window_ids", [1, 3, 1000])
def test_windows_of_any_size_give_the_same_numbers(issue, roll_up, database, window_ids):
    for day in range(7):
        issue(datetime(2026, 4, 1, tzinfo=UTC) + timedelta(days=day), times=day)
    assert roll_up(window_ids=window_ids).events == 21
    assert_exact(database)


def test_two_runs_at_once_count_everything_once(issue, roll_up, database):
    for day in range(1, 29):
        issue(f"2026-04-{day:02}T00:00:00Z", times=50)
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: roll_up(window_ids=37), range(8)))
    assert sum(run.events for run in runs) == 28 * 50
    assert_exact(database)


@contextmanager
def dying(database, statement):
    """The process dies after so many statements that are to write."""
    seen = 0

    def die(_connection, _cursor, _text, _parameters, context, _many):
        nonlocal seen
        seen += context.execution_options["begin"] == "write"
        if seen == statement:
            raise ConnectionError("the process died")

    event.listen(database.engine, "after_cursor_execute", die)
    try:
        yield
    finally:
        event.remove(database.engine, "after_cursor_execute", die)


@pytest.mark.parametrize("fails", [False, True])
def test_work_that_can_wait_is_told_while_a_window_is_added(issue, roll_up, monkeypatch, fails):
    issue("2026-04-01T00:00:00Z")
    told = []

    def add(*arguments):
        told.append(run.NOT_ADDING.is_set())
        if fails:
            raise RuntimeError("no window today")
        return adding.add_window(*arguments)

    monkeypatch.setattr(run, "add_window", add)
    with pytest.raises(RuntimeError) if fails else nullcontext():
        roll_up()
    assert told == [False]
    assert run.NOT_ADDING.is_set()


def test_a_run_that_dies_counts_all_or_nothing(issue, roll_up, database):
    """A run that dies at any statement has counted all of its events or none."""
    for statement in itertools.count(1):
        issue("2026-04-01T00:00:00Z", times=5)
        try:
            with dying(database, statement):
                roll_up()
        except ConnectionError:
            assert_exact(database, counted_only=True)
            roll_up()
            assert_exact(database)
        else:
            break
    assert statement > 5 + len(SUMMARY_TABLES)  # it died at each of them
    assert_exact(database)


def test_a_deleted_newest_event_does_not_give_its_id_away(issue, roll_up, database):
    issue("2026-04-01T00:00:00Z", times=2)
    roll_up()
    database.write(lambda connection: connection.execute(delete(issuance_events)))
    issue("2026-04-01T00:00:00Z", times=3)
    assert roll_up().events == 3


def test_events_below_the_watermark_are_refused(issue, roll_up, database):
    """A run refuses events below the watermark, as a wrong restore leaves them."""
    issue("2026-04-01T00:00:00Z")
    ahead = update(rollup_state).values(counted_upto=1000)
    database.write(lambda connection: connection.execute(ahead))
    with pytest.raises(RefusedError, match="below the watermark, 1000"):
        roll_up()
    assert watermark(database) == 1000


def test_a_count_that_overflows_fails_the_run(issue, roll_up, database):
    """A count that overflows fails the run, and the run stores nothing."""
    full = daily_issuance.insert().values(
        tenant_id="org-a", date=datetime(2026, 4, 1, tzinfo=UTC).date(), issued=2**63 - 1
    )
    database.write(lambda connection: connection.execute(full))
    issue("2026-04-01T00:00:00Z")
    with pytest.raises(DBAPIError):
        roll_up()
    assert watermark(database) == 0
    with database.reading() as connection:
        assert connection.scalar(select(daily_issuance.c.issued)) == 2**63 - 1


def test_the_backlog_does_not_change_the_statement_count(issue, roll_up, database):
    """A run takes the same number of statements for any backlog."""
    counts = []
    for times in (1, 500):
        issue("2026-04-01T00:00:00Z", times=times)
        with statements(database) as executed:
            roll_up()
        counts.append(len(executed))
    assert counts[0] == counts[1]


def test_a_lost_state_row_is_refused_rather_than_never_counted(issue, roll_up, database):
    issue("2026-04-01T00:00:00Z")
    database.write(lambda connection: connection.execute(delete(rollup_state)))
    with pytest.raises(RefusedError, match="rollup_state"):
        roll_up()
    with pytest.raises(RefusedError, match="rollup_state"):
        database.write(lambda connection: claim_tick(connection, 1))
