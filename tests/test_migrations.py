"""Migrations up, down and up again, and the constraints of the schema, on both databases."""

import hashlib
import threading
import time
from datetime import UTC, date, datetime

import psycopg
import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from app.storage import schema
from app.storage.database import Database
from app.storage.locks import LockedError
from app.storage.schema import MIGRATIONS, lost_by_downgrade
from app.storage.tables import agents, dow_hour_total, issuance_events, metadata, rollup_state
from jobs.counting.backfill import backfill
from jobs.counting.run import run_rollup
from jobs.recount.verify import verification
from tests.support.command_line import Runner
from tests.support.databases import conninfo, downgrade, migrate
from tests.support.deployment import deployed
from tests.support.recount import assert_exact, stored
from tests.support.settings import child_environ, make_settings

INSERT = text(
    "INSERT INTO issuance_events (tenant_id, event_id, agent_id, issued_at)"
    " VALUES (:tenant, :event, :agent, :at) ON CONFLICT DO NOTHING"
)
GOOD = {"tenant": "t", "event": "e", "agent": "a", "at": "2026-04-01 00:00:00"}


def tables(database):
    return set(inspect(database.engine).get_table_names()) - {"alembic_version"}


def insert(database, **values):
    database.write(lambda connection: connection.execute(INSERT, GOOD | values))


def rows(database):
    with database.reading() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(issuance_events))


@pytest.mark.quick
def test_up_down_up_leaves_the_same_schema(database_url, flask):
    database = Database(make_settings(database_url).database_url)
    assert tables(database) == set(metadata.tables)
    migrate(database_url, "base")
    assert tables(database) == set()
    migrate(database_url)
    assert tables(database) == set(metadata.tables)
    database.dispose()
    checked = flask("db", "check")
    assert checked.returncode == 0, checked.stderr


def test_an_upgrade_that_breaks_off_changes_nothing(database_url, flask):
    migrate(database_url, "base")
    database = Database(make_settings(database_url).database_url)
    database.write(lambda connection: connection.execute(text("CREATE TABLE agents (x integer)")))
    assert "already exists" in flask("db", "upgrade").stderr
    assert tables(database) == {"agents"}
    database.write(lambda connection: connection.execute(text("DROP TABLE agents")))
    assert flask("db", "upgrade").returncode == 0
    assert tables(database) == set(metadata.tables)
    database.dispose()


def described(database):
    """Each table's columns: type, whether null is refused, whether a value may be left out."""
    found = inspect(database.engine)
    return {
        table: {
            column["name"]: (str(column["type"]), not column["nullable"], may_be_left_out(column))
            for column in found.get_columns(table)
        }
        for table in tables(database)
    }


def may_be_left_out(column):
    return bool(column["nullable"] or column["default"] or column.get("identity"))


# The jobs of 0.1.0 must fail on 0007. Its web reads none of these.
CONTRACTED = {
    ("0007", "rollup_state"): ("watermark", "last_started"),
    ("0007", "rollup_corrections"): ("month",),
}


def test_each_migration_keeps_the_previous_version_working(database_url):
    """They expand; what contracts comes with a later release, and is let through here by name."""
    migrate(database_url, "base")
    database = Database(make_settings(database_url).database_url)
    before = {}
    steps = [step.revision for step in ScriptDirectory(MIGRATIONS).walk_revisions()]
    for revision in reversed(steps):
        migrate(database_url, revision)
        after = described(database)
        for table, columns in before.items():
            for column in CONTRACTED.get((revision, table), ()):
                del columns[column]
            assert columns.items() <= after[table].items(), revision
            added = after[table].keys() - columns.keys()
            added -= set(RENAMED.values())
            assert all(after[table][name][2] for name in added), revision
        before = after
    assert before.keys() == set(metadata.tables)
    database.dispose()


FROZEN = {
    "0001_events_and_rollups.py": (
        "794be3e7cb48e507f55ba43400f492a7dfea7be2b25d839833d73dea91a900c1"
    ),
    "0002_history_and_corrections.py": (
        "3d8f591649d52ceee8378dd61e648cc84a19d11a64ce160f1fb37fd99e48b1ea"
    ),
    "0003_agents.py": ("b7b3d043f8a5ce33fae324eda8cd1299e143ff4e7326f1895d7a09c9cae8ba82"),
}


@pytest.mark.parametrize("name", FROZEN)
def test_a_released_migration_is_frozen(name):
    """Databases in use have run it as it is."""
    digest = hashlib.sha256((MIGRATIONS / "versions" / name).read_bytes()).hexdigest()
    assert digest == FROZEN[name], f"{name} is released: undo the change, add a new migration"


# A row for every table. A migration that adds a table or a column adds it here.
AT = "2026-04-01 09:00:00.000000"
ROWS = {
    "issuance_events": {
        "tenant_id": "t", "event_id": "e", "agent_id": "a", "issued_at": AT, "received_at": AT,
    },
    "daily_issuance": {"tenant_id": "t", "date": "2026-04-01", "issued": 2**40},
    "dow_hour_activity": {
        "tenant_id": "t", "month": "2026-04-01", "dow": 3, "hour": 9, "issued": 2**40,
    },
    "monthly_agent_issuance": {
        "tenant_id": "t", "month": "2026-04-01", "agent_id": "a", "issued": 2**40,
    },
    "hourly_issuance": {"tenant_id": "t", "date": "2026-04-01", "hour": 9, "issued": 2**40},
    "daily_agent_issuance": {
        "tenant_id": "t", "date": "2026-04-01", "agent_id": "a", "issued": 2**40,
        "hours": 2**24 - 1,
    },
    "dow_hour_total": {"tenant_id": "t", "dow": 3, "hour": 9, "issued": 2**40},
    "rollup_state": {
        "id": 1, "counted_upto": 7, "candidate": 9, "writers": "w", "last_tick": AT,
        "last_finished": AT, "corrections": 2, "newest": 1, "newest_tenant_id": "t",
        "newest_event_id": "e", "newest_upto": 7, "refusal": "because", "backfilled": 6,
        "backfill_end": 7, "hours_from": "2026-04-01", "agents_from": "2026-04-01",
    },
    "rollup_runs": {
        "started_at": AT, "finished_at": AT, "outcome": "failed", "events": 1, "buckets": 3,
        "watermark_from": 6, "watermark_to": 7, "error": "\xe9", "host": "h", "pid": 4711,
    },
    "rollup_corrections": {
        "tenant_id": "t", "correction": 2, "table_name": "daily_issuance", "month": "2026-04-01",
        "old_total": 1, "new_total": 2**40, "corrected_at": AT, "corrected_by": "c",
    },
    "purged_months": {"month": "2025-12-01", "events": 5},
    "agents": {
        "tenant_id": "t", "agent_id": "a", "name": "\U0001f600", "named_at": AT,
        "token_lifetime": 900,
    },
    "api_keys": {
        "id": "k", "tenant_id": "t", "sha256": "0" * 64, "scopes": "events:write", "note": "n",
        "created_at": AT, "expires_at": AT, "revoked_at": AT, "last_used": "2026-04-01",
    },
    "source_positions": {
        "source": "s", "place": "p", "kind": "follow", "position": "{}", "version": 3,
        "claimed_at": AT, "read_at": AT, "newest_at": AT, "accepted": 2**40, "duplicates": 1,
        "skipped": 2, "refused": 3, "error": "\xe9", "failed_at": AT,
    },
    "findings": {
        "tenant_id": "t", "id": "f", "kind": "spike", "severity": "warning", "status": "resolved",
        "agent_id": "a", "begins_at": AT, "ends_at": AT, "opened_at": AT, "detected_at": AT,
        "updated_at": AT, "resolved_at": AT, "resolution": "ended", "content": "{}",
        "acknowledged_at": AT, "acknowledged_by": "u", "acknowledged_severity": "warning",
        "note": "\xe9", "version": 3,
    },
    "usual": {
        "tenant_id": "t", "judged_through": "2026-04-01", "changed_from": "2026-04-01",
        "due_at": AT, "delay_seconds": 60, "delays": "{}", "usuals": "{}", "states": "{}",
    },
    "detection_state": {
        "id": 1, "turn": 2, "claimed_until": AT, "noted_upto": 2**40, "noted_correction": 3,
        "measured_upto": 2**40, "measured_at": AT, "last_finished": AT,
    },
    "organization_settings": {
        "tenant_id": "t", "days_off": "{}", "price": "{}", "token_lifetime": 900,
        "changed_at": AT,
    },
    "audit_log": {
        "tenant_id": "t", "changed_at": AT, "actor": "u", "action": "key.created",
        "subject": "k", "details": "{}",
    },
    "erasures": {"tenant_id": "t", "agent_id": "a", "replacement": "r", "begun_at": AT},
    "share_links": {
        "id": "l", "tenant_id": "t", "views": "tokens", "days": 7, "created_at": AT,
        "created_by": "u", "expires_at": AT, "revoked_at": AT, "opened": 2**40,
        "last_opened_at": AT,
    },
    "webhook_endpoints": {
        "tenant_id": "t", "id": "w", "url": "https://example.com/", "format": "standard",
        "kinds": "spike silence", "min_severity": "info", "cooldown_minutes": 60,
        "quiet_from": "22:00", "quiet_to": "06:00", "quiet_zone": "Europe/Berlin",
        "digest": "weekly", "rotation": 2,
        "rotated_at": AT, "created_at": AT, "created_by": "u", "disabled_at": AT,
        "disabled_reason": "gone", "turn": 2**40, "claimed_until": AT, "failures": 1,
        "paused_until": AT,
    },
    "webhook_messages": {
        "tenant_id": "t", "id": "f.3.w", "endpoint_id": "w", "kind": "finding.opened",
        "severity": "info", "finding_id": "f", "version": 3, "content": "{}",
        "finding_status": "open", "detected_at": AT, "updated_at": AT, "resolved_at": AT,
        "resolution": "ended", "document": "{}", "body": "{}", "status": "waiting",
        "created_at": AT, "next_at": AT, "expires_at": AT, "attempts": 1, "last_status": 500,
        "error": "timeout", "done_at": AT,
    },
    "budgets": {
        "tenant_id": "t", "agent_id": "a", "period": "month", "tokens": 2**40, "set_at": AT,
        "set_by": "u",
    },
    "client_organizations": {"client_id": "c", "tenant_id": "t", "people": True, "changed_at": AT},
    "page_sessions": {
        "id": "s", "tenant_id": "t", "subject": "u", "scopes": "analytics:admin",
        "organizations": "[]", "created_at": AT, "expires_at": AT, "renew_at": AT,
        "claimed_until": AT, "issued_at": AT, "sid": "p", "sealed": "x", "form": "y",
    },
    "organization_summaries": {
        "tenant_id": "t", "tokens_7d": 2**40, "tokens_28d": 2**40, "tokens_13w": 2**40,
        "before_7d": 1, "before_28d": 2, "before_13w": 3, "agents_7d": 4, "agents_28d": 5,
        "agents_13w": 6, "agents_through": "2026-04-01", "last_day": "2026-04-01",
        "open_findings": 7, "days": "0:1", "weeks": "0:1",
    },
    "organization_summary_state": {
        "id": 1, "began_at": AT, "after": "t", "counting": AT, "counted_at": AT,
        "last_finished": AT,
    },
}  # fmt: skip


# Columns of the released schema that a migration renames, so that its jobs fail, and their tables.
RENAMED = {"watermark": "counted_upto", "last_started": "last_tick"}
ROWS["rollup_state"] |= {old: ROWS["rollup_state"][new] for old, new in RENAMED.items()}


def fill(database):
    """Put each row into its table, as far as the schema has table and columns; what is stored."""
    columns = {
        table: [name for name in described(database)[table] if name in ROWS[table]]
        for table in tables(database)
    }

    def put(connection):
        connection.execute(text("DELETE FROM rollup_state"))
        for table, names in columns.items():
            values = ", ".join(f":{name}" for name in names)
            statement = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({values})"
            connection.execute(text(statement), {name: ROWS[table][name] for name in names})

    database.write(put)
    return columns


def read(database, columns):
    with database.reading() as connection:
        return {
            table: connection.execute(text(f"SELECT {', '.join(names)} FROM {table}")).all()
            for table, names in columns.items()
        }


@pytest.mark.parametrize("revision", ["0001", "0002", "0003"])
def test_an_upgrade_keeps_every_row(database_url, revision):
    """A released version is upgraded with rows in all its tables."""
    migrate(database_url, "base")
    migrate(database_url, revision)
    database = Database(make_settings(database_url).database_url)
    columns = fill(database)
    before = read(database, columns)
    assert all(len(rows) == 1 for rows in before.values())
    migrate(database_url)
    columns["rollup_state"] = [RENAMED.get(name, name) for name in columns["rollup_state"]]
    assert read(database, columns) == before
    assert tables(database) == ROWS.keys()
    database.dispose()


def test_an_upgrade_notes_the_newest_counted_event(database_url):
    """A filled database of the previous version knows its newest counted event afterwards."""
    migrate(database_url, "base")
    migrate(database_url, "0003")
    database = Database(make_settings(database_url).database_url)
    for event in ("first", "counted", "pending"):
        insert(database, event=event)
    database.write(
        lambda connection: connection.execute(text("UPDATE rollup_state SET watermark = 2"))
    )
    migrate(database_url)
    assert noted(database) == (2, "t", "counted", 2, None)
    run = run_rollup(database, window_ids=10, wait_seconds=5)
    assert (run.events, run.outcome) == (1, "done")
    assert noted(database) == (3, "t", "pending", 3, None)
    database.dispose()


def noted(database):
    columns = "newest, newest_tenant_id, newest_event_id, newest_upto, refusal"
    with database.reading() as connection:
        return connection.execute(text(f"SELECT {columns} FROM rollup_state")).one()


DAYS = ["2026-03-31T23:00:00Z", "2026-04-01T00:00:00Z", "2026-04-07T23:00:00Z"]


@pytest.mark.parametrize("revision", ["0003", "0006"])
def test_an_upgrade_fills_the_tables_that_it_adds(database_url, revision):
    """The week of all months is filled at once, the finer tables by a backfill beside runs."""
    migrate(database_url, "base")
    migrate(database_url, revision)
    database = Database(make_settings(database_url).database_url)
    for number, day in enumerate(DAYS):
        insert(database, event=f"counted-{number}", at=f"{day[:10]} {day[11:19]}{offset(database)}")
    insert(database, event="pending", at=f"2026-04-02 05:00:00{offset(database)}")
    counted = [("2026-03-01", 2, 23), ("2026-04-01", 3, 0), ("2026-04-01", 2, 23)]

    def count(connection):
        """As a run of the released version has counted three events."""
        put = connection.exec_driver_sql
        for day in ("2026-03-31", "2026-04-01", "2026-04-07"):
            put(f"INSERT INTO daily_issuance VALUES ('t', '{day}', 1)")
        for month, dow, hour in counted:
            put(f"INSERT INTO dow_hour_activity VALUES ('t', '{month}', {dow}, {hour}, 1)")
        for month, issued in (("2026-03-01", 1), ("2026-04-01", 2)):
            put(f"INSERT INTO monthly_agent_issuance VALUES ('t', '{month}', 'a', {issued})")
        put("UPDATE rollup_state SET watermark = 3")
        put("INSERT INTO purged_months VALUES ('2025-12-01', 5)")

    database.write(count)
    migrate(database_url)
    assert stored(database, dow_hour_total) == {("t", 2, 23): 2, ("t", 3, 0): 1}
    with database.reading() as connection:
        state = connection.execute(sa.select(rollup_state)).one()
    assert (state.counted_upto, state.backfilled, state.backfill_end) == (3, 0, 3)
    assert state.hours_from == state.agents_from == date(2026, 1, 1)
    run = run_rollup(database, window_ids=10, wait_seconds=5)
    assert (run.events, run.outcome) == (1, "done")
    with verification(database) as found:
        assert list(found.drift) == []
    assert backfill(database).events == 3
    assert assert_exact(database) == 4
    database.dispose()


def offset(database):
    return "+00" if database.is_postgresql else ""


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT last_started FROM rollup_state",
        "SELECT watermark FROM rollup_state",
        "UPDATE rollup_state SET watermark = 9",
    ],
)
def test_jobs_of_the_first_release_fail(database, statement):
    """Their ticks, runs, purges and rebuilds begin with these columns, so none counts anything."""
    with pytest.raises(DBAPIError):
        database.write(lambda connection: connection.execute(text(statement)))


def test_corrections_without_a_month_survive_a_downgrade(database_url):
    """A correction of the week of all months gets a month in the older schema, and loses it."""
    database = Database(make_settings(database_url).database_url)
    row = ROWS["rollup_corrections"] | {"table_name": "dow_hour_total", "month": None}
    names = ", ".join(row)
    values = ", ".join(f":{name}" for name in row)
    put = text(f"INSERT INTO rollup_corrections ({names}) VALUES ({values})")
    database.write(lambda connection: connection.execute(put, row))
    before = read(database, {"rollup_corrections": list(row)})
    downgrade(database_url, "0006")
    older = read(database, {"rollup_corrections": ["month", "old_total"]})["rollup_corrections"]
    assert [(str(month), total) for month, total in older] == [("1970-01-01", 1)]
    migrate(database_url)
    assert read(database, {"rollup_corrections": list(row)}) == before
    database.dispose()


@pytest.mark.parametrize("revision", ["0001", "0002", "0003"])
def test_a_downgrade_names_every_row_that_it_deletes(database_url, revision):
    """The rows that a downgrade announces are those that are missing afterwards."""
    database = Database(make_settings(database_url).database_url)
    before = set(fill(database))
    with database.reading() as connection:
        lost = lost_by_downgrade(connection, revision)
    assert [lost.pop(name) for name in ("rollup_state.refusal", "agents.token_lifetime")] == [1, 1]
    downgrade(database_url, revision)
    gone = before - tables(database)
    assert dict.fromkeys(gone - {"purged_months"}, 1) == lost
    database.dispose()


def test_a_downgrade_to_base_names_every_table(database_url):
    """The way back to an empty database names all events and numbers."""
    database = Database(make_settings(database_url).database_url)
    fill(database)
    with database.reading() as connection:
        lost = lost_by_downgrade(connection, "base")
    assert lost.keys() - {"rollup_state.refusal", "agents.token_lifetime"} == ROWS.keys() - {
        "rollup_state",
        "purged_months",
    }
    migrate(database_url, "base")
    assert tables(database) == set()
    database.dispose()


def test_purged_months_survive_a_downgrade(database_url, flask):
    """After a downgrade and an upgrade it is still known which months cannot be recounted."""
    database = Database(make_settings(database_url).database_url)
    columns = fill(database)
    months = read(database, {"purged_months": columns["purged_months"]})
    downgrade(database_url, "0001")
    assert "purged_months" not in tables(database)
    migrate(database_url, "0001")  # an upgrade that is not needed changes nothing
    migrate(database_url)
    assert read(database, {"purged_months": columns["purged_months"]}) == months
    assert tables(database) == set(metadata.tables)
    assert flask("db", "check").returncode == 0
    database.dispose()


@pytest.mark.quick
def test_columns_and_keys_are_those_of_the_models(database):
    found = inspect(database.engine)
    for name, table in metadata.tables.items():
        columns = {c["name"]: c["nullable"] for c in found.get_columns(name)}
        assert columns == {c.name: c.nullable for c in table.c}, name
        key = found.get_pk_constraint(name)["constrained_columns"]
        unique = [u["column_names"] for u in found.get_unique_constraints(name)]
        assert [c.name for c in table.primary_key] in [key, *unique], name


def test_events_are_found_by_id(database):
    found = inspect(database.engine)
    indexed = [index["column_names"] for index in found.get_indexes("issuance_events")]
    key = found.get_pk_constraint("issuance_events")["constrained_columns"]
    assert ["id"] in [key, *indexed]


@pytest.mark.parametrize("column", ["tenant", "event", "agent"])
@pytest.mark.quick
def test_a_poisonous_id_is_refused_by_the_database(database, column):
    for value in ("", "x" * 256, "a\x01", "\x1f", "a\x7f", "\x80", "\x85", "a\x9f", None):
        with pytest.raises(IntegrityError):
            insert(database, **{column: value})
    assert rows(database) == 0


def test_a_good_id_is_taken_by_the_database(database):
    values = ["x" * 255, "\U0001f600" * 255, "~", "\xa0", "]-[^x", "a b"]
    for value in values:
        insert(database, tenant=value, event=value, agent=value)
    assert rows(database) == len(values)


NO_TIMES = ["1969-12-31 23:59:59", "10000-01-01 00:00:00", "infinity", "-infinity",
            "2026-02-31 00:00:00", "", "0001-01-01 00:00:00 BC"]  # fmt: skip
NOT_UTC = ["2026-04-01T00:00:00Z", "2026-04-01", "2026-04-01 24:00:00", "2026-04-01 23:59:60",
           "2026-04-01 00:00:00+05:30", "2026-04-01 00:00:00.1", 5,
           b"2026-04-01 00:00:00"]  # fmt: skip


def test_a_time_no_bucket_can_hold_is_refused_by_the_database(database):
    for value in NO_TIMES:
        at = f"{value}+00" if value and database.is_postgresql else value
        with pytest.raises(DBAPIError):
            insert(database, at=at.replace("infinity+00", "infinity"))
    assert rows(database) == 0


def test_sqlite_refuses_times_that_are_not_its_utc_text(sqlite_url):
    database = Database(make_settings(sqlite_url).database_url)
    for value in NOT_UTC:
        with pytest.raises(IntegrityError):
            insert(database, at=value)
    database.dispose()


NAMED = {
    "tenant_id": "t",
    "agent_id": "a",
    "name": "n",
    "named_at": datetime(2026, 4, 1, tzinfo=UTC),
}


def name_agent(database, **values):
    database.write(lambda connection: connection.execute(sa.insert(agents), NAMED | values))


@pytest.mark.parametrize("column", ["tenant_id", "agent_id", "name"])
def test_a_poisonous_name_is_refused_by_the_database(database, column):
    for value in ("", "x" * 256, "a\x01b", "a\x1f", "a\x7f", "a\x85"):
        with pytest.raises(IntegrityError):
            name_agent(database, **{column: value})


def test_a_good_name_or_none_is_taken_by_the_database(database):
    for number, value in enumerate([None, "x" * 255, "\U0001f600" * 255, "~", "\xa0", "]-[^x"]):
        name_agent(database, name=value, agent_id=f"{number}")


@pytest.mark.parametrize("year", [1969, 1])
def test_a_name_said_before_1970_is_refused_by_the_database(database, year):
    with pytest.raises(IntegrityError):
        name_agent(database, named_at=datetime(year, 12, 31, tzinfo=UTC))


def test_an_id_is_drawn_by_the_database_alone(postgresql_url):
    database = Database(make_settings(postgresql_url).database_url)
    with pytest.raises(DBAPIError, match="GENERATED ALWAYS"):
        database.write(
            lambda connection: connection.execute(
                text(
                    "INSERT INTO issuance_events (id, tenant_id, event_id, agent_id, issued_at)"
                    " VALUES (5, 't', 'e', 'a', now())"
                )
            )
        )
    database.dispose()


def test_ids_sort_by_code_point_in_every_table(database):
    if database.is_postgresql:
        collations = text(
            "SELECT DISTINCT collation_name FROM information_schema.columns"
            " WHERE table_schema = 'public' AND column_name LIKE '%\\_id'"
        )
        with database.reading() as connection:
            assert connection.scalars(collations).all() == ["C"]
    for tenant in ("b", "B", "a", "Z", "\xe9", "\U0001f600", "\uffee"):
        insert(database, tenant=tenant)
    ordered = sa.select(issuance_events.c.tenant_id).order_by(issuance_events.c.tenant_id)
    with database.reading() as connection:
        found = connection.scalars(ordered).all()
    assert found == sorted(found)


def test_a_database_that_is_not_utf8_is_refused(postgresql, flask, postgresql_url):
    name = postgresql.create()
    postgresql.drop(name)
    postgresql.administer(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    refused = flask("db", "upgrade", DATABASE_URL=postgresql.at(name))
    postgresql.drop(name)
    assert refused.returncode == 1
    assert "UTF8" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_tables_that_are_updated_have_room_for_it_in_place(postgresql_url):
    database = Database(make_settings(postgresql_url).database_url)
    options = text(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND reloptions @> '{fillfactor=70}'"
    )
    with database.reading() as connection:
        tables = set(connection.scalars(options))
    rollups = {name for name, table in metadata.tables.items() if "issued" in table.c}
    assert tables == {*rollups, "agents", "findings", "source_positions", "webhook_endpoints"}
    database.dispose()


@pytest.fixture
def hurry(monkeypatch):
    """Migrations that wait for a second in all."""
    for name, seconds in {"LOCK_SECONDS": 0.2, "PAUSE_SECONDS": 0.1, "PATIENCE_SECONDS": 1}.items():
        monkeypatch.setattr(schema, name, seconds)


# Ways for a role with little rights to stand in the way of a migration.
OBSTACLES = {
    "an open insert": [
        "BEGIN",
        "INSERT INTO issuance_events (tenant_id, event_id, agent_id, issued_at)"
        " VALUES ('t', 'e', 'a', now())",
    ],
    "an advisory lock": ["SELECT pg_advisory_lock(6021977140051)"],
}


@pytest.mark.parametrize("statements", OBSTACLES.values(), ids=OBSTACLES)
def test_a_writer_cannot_hold_a_migration_up(postgresql, hurry, statements):
    """A migration names the writer whose lock it waits for, and soon gives up or succeeds."""
    with deployed(postgresql) as deployment:
        database = deployment.database("owner")
        migrate(deployment.url("owner"), "0002")
        writer = deployment.connect("idp", application_name="keycloak")
        for statement in statements:
            writer.execute(statement)
        flask = Runner(child_environ(deployment.url("owner")))
        done = flask("db", "upgrade")
        if "BEGIN" not in statements:  # migrations lock no more than they need
            assert done.returncode == 0, done.stderr

        def lock(connection):
            connection.execute(text("LOCK TABLE issuance_events"))

        told = []
        if "BEGIN" in statements:
            with pytest.raises(LockedError, match=r"pid [0-9]+ \(keycloak\), open for"):
                schema.change_schema(database, lock, advisory=0, on_wait=told.append)
            assert f"pid {writer.info.backend_pid} " in told[0]
            writer.execute("ROLLBACK")
        schema.change_schema(database, lock, advisory=0, on_wait=told.append)


def test_a_migration_waits_until_a_lock_is_released(postgresql_url, monkeypatch):
    """A migration tries again until the lock is released; others pass meanwhile."""
    monkeypatch.setattr(schema, "LOCK_SECONDS", 0.2)
    migrate(postgresql_url, "base")
    migrate(postgresql_url, "0001")
    flask = Runner(child_environ(postgresql_url))
    with psycopg.connect(conninfo(postgresql_url), autocommit=True) as writer:
        for statement in ["BEGIN", "LOCK TABLE rollup_state IN ROW EXCLUSIVE MODE"]:
            writer.execute(statement)
        release = threading.Thread(target=release_once_awaited, args=(postgresql_url, writer))
        release.start()
        done = flask("db", "upgrade")
        release.join()
    assert done.returncode == 0, done.stderr
    assert "waiting: a lock is held by pid" in done.stderr


def release_once_awaited(url, writer):
    """Roll a transaction back half a second after somebody waits for its locks."""
    waiting = "SELECT 1 FROM pg_locks WHERE NOT granted"
    with psycopg.connect(conninfo(url), autocommit=True) as watching:
        give_up = time.monotonic() + 60
        while not watching.execute(waiting).fetchall() and time.monotonic() < give_up:
            time.sleep(0.01)
    time.sleep(0.5)
    writer.execute("ROLLBACK")
