"""What a copy refuses, in words, with nothing changed at the target."""

import os
from dataclasses import replace
from datetime import UTC, date, datetime

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import insert
from sqlalchemy.exc import DBAPIError

from app.errors import RefusedError
from app.storage.database import Database
from app.storage.tables import issuance_events, metadata, rollup_state
from jobs import copymark
from tests.jobs.copying import copies
from tests.jobs.copying.copies import (
    KINDS,
    copy,
    correct,
    execute,
    fill,
    issue,
    open_url,
    purge,
    roll_up,
)
from tests.support.databases import conninfo

AT = datetime(2026, 4, 1, tzinfo=UTC)


def assert_refused(source, target, words):
    before = copies.contents(target)
    with pytest.raises(RefusedError, match=words):
        copy(source, target)
    assert copies.contents(target) == before


@pytest.fixture
def copied(source, target):
    """A source with some events, and its copy."""
    issue(source, "one", "two")
    issue(source, "other", at="2026-05-01T00:00:00Z")
    roll_up(source)
    copy(source, target)


# The target is the source


def test_a_sqlite_file_is_not_copied_onto_itself_by_whatever_name(open_new, tmp_path):
    source = open_new("sqlite")
    issue(source, "one")
    os.symlink(source.engine.url.database, tmp_path / "other name.db")
    for path in (source.engine.url.database, f"{tmp_path}/other name.db"):
        target = open_url(f"sqlite:///{path}")
        assert_refused(source, target, "the target is the source")
        target.dispose()


def test_a_postgresql_database_is_not_copied_onto_itself_by_whatever_name(open_new):
    source = open_new("postgresql")
    url = source.engine.url
    other = url.update_query_dict({"application_name": "other", "options": "-c search_path=public"})
    for same in (url, other):
        target = Database(same)
        assert_refused(source, target, "the target is the source")
        target.dispose()


# The target holds something else


def rows_of_others():
    event = {"tenant_id": "t", "event_id": "e", "agent_id": "a", "issued_at": AT}
    run = {"started_at": AT, "outcome": "done", "host": "h", "pid": 1} | dict.fromkeys(
        ("events", "buckets", "watermark_from", "watermark_to"), 0
    )
    correction = {
        "tenant_id": "t", "correction": 1, "table_name": "x", "month": date(2026, 4, 1),
        "old_total": 1, "new_total": 2, "corrected_at": AT, "corrected_by": "me",
    }  # fmt: skip
    bucket = {"tenant_id": "t", "issued": 1}
    month = {"month": date(2026, 4, 1)}
    return {
        "agents": {"tenant_id": "t", "agent_id": "a", "name": "n", "named_at": AT},
        "issuance_events": event,
        "daily_issuance": bucket | {"date": date(2026, 4, 1)},
        "dow_hour_activity": bucket | month | {"dow": 1, "hour": 1},
        "monthly_agent_issuance": bucket | month | {"agent_id": "a"},
        "rollup_runs": run,
        "rollup_corrections": correction,
        "purged_months": month | {"events": 1},
    }


@pytest.mark.parametrize("table", sorted(metadata.tables.keys() - {"rollup_state"}))
def test_a_row_that_no_copy_has_brought_is_other_data(target, open_new, table):
    source = open_new("sqlite")
    issue(source, "one")
    execute(target, insert(metadata.tables[table]).values(rows_of_others()[table]))
    assert_refused(source, target, f"holds other data, in {table}")


@pytest.mark.parametrize("kind", KINDS)
def test_tables_of_something_else_are_left_alone(open_new, kind):
    source, target = open_new("sqlite"), open_new(kind, bare=True)
    execute(target, sa.text("CREATE TABLE customers (id int)"))
    with pytest.raises(RefusedError, match="the schema of the target is another"):
        copy(source, target)
    assert sa.inspect(target.engine).get_table_names() == ["customers"]


def test_the_source_of_another_copy_is_not_taken_for_this_one(copied, target, open_new):
    other = open_new("sqlite")
    issue(other, "one", "two")
    issue(other, "three", at="2026-05-01T00:00:00Z")
    roll_up(other)
    assert_refused(other, target, "event 1 differs")


def test_a_younger_service_is_not_taken_for_the_source(copied, target, open_new):
    younger = open_new("sqlite")
    issue(younger, "one")
    assert_refused(younger, target, "events beyond it")


def test_numbers_whose_events_are_purged_on_both_sides_are_not_replaced_by_others(
    copied, source, target, open_new
):
    purge(source, "one", "two", "other")
    copy(source, target)
    stranger = open_new("sqlite")
    names = [f"event {number}" for number in range(9)]
    issue(stranger, *names, at="2026-01-01T00:00:00Z")
    roll_up(stranger)
    purge(stranger, *names)
    assert_refused(stranger, target, "other days")
    copy(source, target)


def test_a_source_that_has_lost_events_which_are_not_counted_is_refused(source, target):
    issue(source, "one", "two")
    copy(source, target)
    execute(source, sa.delete(issuance_events).where(issuance_events.c.id == 2))
    assert_refused(source, target, "event 2 differs")


# The target has been used


def test_own_events_are_not_mixed_with_the_sources(copied, source, target):
    issue(target, "own")
    issue(source, "of the source", "another")
    assert_refused(source, target, "events of its own")


def test_own_runs_are_not_overwritten(source, target):
    issue(source, "counted")
    roll_up(source)
    issue(source, "pending")
    copy(source, target)
    assert roll_up(target).events == 1
    assert_refused(source, target, "runs of its own")


def test_own_corrections_are_not_overwritten(copied, source, target):
    correct(target)
    assert_refused(source, target, "corrections of its own")


def test_own_purges_are_not_undone(copied, source, target):
    purge(target, "two")
    assert_refused(source, target, "event 2 differs")


def test_own_changes_of_an_event_are_not_overwritten(copied, source, target):
    execute(target, sa.update(issuance_events).values(agent_id="other"))
    assert_refused(source, target, "event 1 differs")


def test_a_run_that_found_nothing_to_count_is_no_use(copied, source, target):
    assert roll_up(target).events == 0
    issue(source, "new")
    assert copy(source, target).copied == 1
    assert copies.without_mark(target) == copies.as_copied(source)


@pytest.mark.parametrize("kind", KINDS)
def test_events_that_come_in_at_half_a_copy_are_found_and_kept(open_new, kind):
    source, target = open_new("sqlite"), open_new(kind)
    fill(source)

    def write(what, *_):
        if what == "copying":
            issue(target, "own", tenant_id="own")

    with pytest.raises(RefusedError, match="issuance_events differs at id="):
        copy(source, target, on_rows=write)
    assert copies.is_half(target)
    assert_refused(source, target, "events of its own")


def test_a_target_that_changes_between_the_look_and_the_claim_is_refused(copied, source, target):
    with target.reading() as connection:
        seen = copymark.find_mark(connection)
    other = replace(seen, host="elsewhere")
    before = copies.contents(target)
    for step in (
        lambda connection: copymark.claim(connection, other, 10),
        lambda connection: copymark.move(connection, other, 10),
    ):
        with pytest.raises(RefusedError, match="came between"):
            target.write(step)
    assert copies.contents(target) == before
    issue(target, "own")
    with pytest.raises(RefusedError, match="events of its own"):
        target.write(lambda connection: copymark.claim(connection, seen, 10))
    assert not copies.is_half(target)


# Schemas and states


@pytest.mark.parametrize("side", ["source", "target"])
def test_another_schema_on_either_side_is_refused(source, target, side):
    issue(source, "one")
    old = {"source": source, "target": target}[side]
    execute(old, sa.text("UPDATE alembic_version SET version_num = '0001'"))
    assert_refused(source, target, f"the schema of the {side} is 0001, this version needs")


def test_a_source_without_any_schema_is_refused_and_the_target_stays_bare(open_new):
    source, target = open_new("sqlite", bare=True), open_new("sqlite", bare=True)
    with pytest.raises(RefusedError, match="the schema of the source is another"):
        copy(source, target)
    assert sa.inspect(target.engine).get_table_names() == []


def test_half_a_copy_is_no_source(source, target):
    execute(source, sa.delete(rollup_state))
    assert_refused(source, target, "rollup_state has no row")


def test_a_target_that_is_not_utf8_is_refused(postgresql, open_new):
    name = postgresql.create("template0")
    postgresql.drop(name)
    postgresql.administer(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    target = open_url(postgresql.at(name))
    with pytest.raises(RefusedError, match="UTF8"):
        copy(open_new("sqlite"), target)
    target.dispose()
    postgresql.drop(name)


# What a role may see


@pytest.fixture
def reader(open_new):
    """A role that may read everything, but for the rows that a policy keeps from it."""
    source = open_new("postgresql")
    fill(source)
    name = f"reader_{os.getpid()}"
    admin = psycopg.connect(conninfo(source.engine.url.render_as_string()), autocommit=True)
    admin.execute(f"CREATE ROLE {name} LOGIN")
    admin.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}")
    admin.execute(f"GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO {name}")
    restricted = open_url(source.engine.url.set(username=name).render_as_string())
    yield admin, restricted
    restricted.dispose()
    admin.execute(f"DROP OWNED BY {name}")
    admin.execute(f"DROP ROLE {name}")
    admin.close()


def test_a_role_that_reads_everything_can_copy(reader, open_new):
    _, source = reader
    target = open_new("sqlite")
    copy(source, target)
    assert copies.without_mark(target) == copies.as_copied(source)


def test_rows_that_a_policy_hides_are_an_error_and_not_missing(reader, open_new):
    admin, source = reader
    admin.execute("ALTER TABLE daily_issuance ENABLE ROW LEVEL SECURITY")
    target = open_new("sqlite")
    with pytest.raises(DBAPIError, match="row-level security"):
        copy(source, target)
    assert copies.is_half(target)
