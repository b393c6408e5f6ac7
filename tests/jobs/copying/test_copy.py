"""A copy holds what its source does, goes on exactly, and can be topped up."""

import time

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from app.errors import RefusedError
from app.storage.tables import issuance_events, metadata, rollup_runs, rollup_state
from jobs import copying
from jobs.counting.sequences import newest_id
from jobs.recount.verify import verification
from tests.jobs.copying import copies
from tests.jobs.copying.copies import KINDS, copy, correct, execute, fill, issue, purge, roll_up
from tests.support.recount import assert_exact


def drift(database):
    with verification(database) as found:
        return list(found.drift)


def test_every_table_is_copied_as_it_is(source, target):
    fill(source)
    found = copies.as_copied(source)
    assert [name for name, rows in found.items() if not rows] == [], "nothing is proven for these"
    copied = copy(source, target)
    assert copies.without_mark(target) == found
    assert (copied.copied, copied.events) == (len(found["issuance_events"]),) * 2
    assert (copied.behind, copied.writers) == (0, [])


@pytest.mark.parametrize("kind", KINDS)
def test_a_database_without_tables_is_given_the_schema(source, open_new, kind):
    fill(source)
    bare = open_new(kind, bare=True)
    copy(source, bare)
    assert copies.without_mark(bare) == copies.as_copied(source)


def test_an_empty_service_is_copied_too(source, target):
    assert copy(source, target).events == 0
    assert copies.without_mark(target) == copies.as_copied(source)
    issue(target, "first")
    assert roll_up(target).events == 1


def test_ids_are_drawn_beyond_the_sources_newest_also_when_its_row_is_gone(source, target):
    issue(source, *"abcde")
    roll_up(source)
    purge(source, *"de")
    copy(source, target)
    for column in (issuance_events.c.id, rollup_runs.c.id):
        with source.reading() as mine, target.reading() as theirs:
            assert newest_id(theirs, column) >= newest_id(mine, column)
    issue(target, "f")
    with target.reading() as connection:
        assert connection.scalar(sa.select(sa.func.max(issuance_events.c.id))) == 6


def test_the_target_goes_on_exactly_where_the_source_was(source, target):
    issue(source, "counted", "counted too")
    roll_up(source)
    issue(source, "pending", at="2026-04-01T10:00:00Z")
    copy(source, target)
    assert drift(target) == []
    with pytest.raises(AssertionError):
        issue(target, "counted")  # a redelivery is recognised
    issue(target, "new")
    assert roll_up(target).events == 2
    assert assert_exact(target) == 4
    assert drift(target) == []


def test_what_a_run_left_at_the_source_is_not_waited_for_at_the_target(source, target):
    issue(source, "counted")
    roll_up(source)
    left = sa.update(rollup_state).values(candidate=1000, writers="-1/77 3/4")
    execute(source, left)
    copy(source, target)
    with target.reading() as connection:
        state = connection.execute(sa.select(rollup_state)).one()
    assert (state.candidate, state.writers, state.watermark) == (None, None, 1)


def test_copying_again_brings_what_has_come_since_and_what_has_changed(source, target):
    fill(source)
    issue(source, "to purge", at="2026-03-01T00:00:00Z")
    copy(source, target)
    issue(source, "new", "newer")
    roll_up(source)
    correct(source)
    purge(source, "to purge", "first")
    issue(source, "newest")
    copied = copy(source, target)
    assert copied.copied == 3
    assert copies.without_mark(target) == copies.as_copied(source)
    # And with nothing new.
    assert copy(source, target).copied == 0
    assert copies.without_mark(target) == copies.as_copied(source)


def test_one_copy_stays_one_row_in_the_history(source, target):
    fill(source)
    copy(source, target)
    copy(source, target)
    with target.reading() as connection:
        rows = connection.execute(sa.select(rollup_runs).order_by(rollup_runs.c.id)).all()
    assert [row.outcome for row in rows] == ["done", "copied"]
    assert (rows[-1].events, rows[-1].watermark_to) == (
        len(copies.HOSTILE) + 22,
        len(copies.HOSTILE) + 24,
    )
    assert rows[-1].finished_at >= rows[-1].started_at


def test_a_copy_can_be_copied(source, target, open_new):
    fill(source)
    copy(source, target)
    third = open_new("sqlite")
    copy(target, third)
    assert copies.without_mark(third) == copies.as_copied(target)
    copy(target, third)
    assert copies.without_mark(third) == copies.as_copied(target)


def test_ingest_runs_purges_and_repairs_during_the_copy_change_nothing_in_it(source, target):
    fill(source)
    before = copies.as_copied(source)
    steps = []

    def meanwhile(what, _rows, _all):
        if what not in steps:
            steps.append(what)
            issue(source, f"during {what}", at="2026-05-01T00:00:00Z")
            roll_up(source)
            correct(source)
        if what == "verifying":
            purge(source, "first")

    copied = copy(source, target, on_rows=meanwhile)
    assert steps == ["copying", "verifying"]
    assert copied.behind == 2
    assert copies.without_mark(target) == before
    assert drift(target) == []
    again = copy(source, target)
    assert (again.copied, again.behind) == (2, 0)
    assert copies.without_mark(target) == copies.as_copied(source)


def test_progress_is_told_up_to_the_whole(source, target, monkeypatch):
    monkeypatch.setattr("jobs.bulk.BATCH_ROWS", 4)
    issue(source, *"abcdefghij")
    told = []
    copy(source, target, on_rows=lambda *step: told.append(step))
    assert told == [
        *(("copying", rows, 10) for rows in (4, 8, 10)),
        *(("verifying", rows, 10) for rows in (4, 8, 10)),
    ]
    told.clear()
    copy(source, target, on_rows=lambda *step: told.append(step))
    assert told == [("checking", rows, 10) for rows in (4, 8, 10)]


@pytest.mark.parametrize("table", list(metadata.tables))
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_that_does_not_arrive_as_it_was_is_found_and_its_table_named(
    open_new, monkeypatch, table, kind
):
    source, target = open_new("sqlite"), open_new(kind)
    fill(source)
    write = copying.write_rows

    def lose(connection, into, rows):
        rows = list(rows)
        write(connection, into, rows[:-1] if into.name == table else rows)

    monkeypatch.setattr(copying, "write_rows", lose)
    with pytest.raises(RefusedError, match=f"^{table} differs"):
        copy(source, target)
    assert copies.is_half(target)
    monkeypatch.undo()
    if table != "issuance_events":
        copy(source, target)
        assert copies.without_mark(target) == copies.as_copied(source)


def test_half_a_copy_is_not_counted_and_is_gone_on_with(source, target, monkeypatch):
    fill(source)
    with monkeypatch.context() as patch:
        patch.setattr("jobs.copying._Copy.complete", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            copy(source, target)
    assert copies.is_half(target)
    with pytest.raises(RefusedError, match="copy"):
        roll_up(target)
    assert copy(source, target).copied == 0
    assert copies.without_mark(target) == copies.as_copied(source)


def test_an_event_of_the_last_microsecond_is_copied_whatever_the_zones_are(open_new):
    """The driver's instants end with the year 9999 in the session's zone."""
    source, target = open_new("postgresql"), open_new("postgresql")
    for database in (source, target):
        name = make_url(database.engine.url).database
        execute(database, sa.text(f"ALTER DATABASE \"{name}\" SET timezone = 'Pacific/Kiritimati'"))
        database.engine.dispose()
    end = sa.text(
        "INSERT INTO issuance_events (tenant_id, event_id, agent_id, issued_at)"
        " VALUES ('t', 'e', 'a', '9999-12-31T23:59:59.999999Z')"
    )
    execute(source, end)
    back = open_new("sqlite")
    copy(source, target)
    copy(target, back)
    with back.reading() as connection:
        (row,) = connection.execute(sa.select(issuance_events)).all()
    assert row.issued_at.isoformat() == "9999-12-31T23:59:59.999999+00:00"


def test_a_short_statement_timeout_does_not_end_a_copy(open_new, monkeypatch):
    source, target = open_new("sqlite"), open_new("postgresql")
    fill(source)
    name = target.engine.url.database
    execute(target, sa.text(f"ALTER DATABASE \"{name}\" SET statement_timeout = '300ms'"))
    target.engine.dispose()
    write = copying.write_rows

    def slowly(connection, table, rows):
        def slow():
            time.sleep(0.4)
            yield from rows

        write(connection, table, slow())

    monkeypatch.setattr(copying, "write_rows", slowly)
    copy(source, target)
    assert copies.without_mark(target) == copies.as_copied(source)
