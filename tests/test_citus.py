"""The service on a cluster of Citus: its tables, and where the work of its statements is done."""

import re
from contextlib import contextmanager
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import psycopg
import pytest
import sqlalchemy as sa

from app.intake.events import Event
from app.intake.store import store_events
from app.reports import activity, agent_list, hours, status, trend, usage
from app.reports import agents as directory
from app.reports.agent_list import Wanted
from app.reports.days import Days
from app.reports.finer import Span
from app.storage.citus import distribute
from app.storage.database import Database
from jobs.copy import copy_database
from jobs.counting.run import run_rollup
from jobs.counting.tables import SUMMARY_TABLES
from jobs.recount.rebuild import rebuild
from jobs.recount.verify import verification
from jobs.retention import purge_events
from tests.support.citus import SHARDS, citus_database, required_url, spread
from tests.support.databases import conninfo, migrate
from tests.support.recount import assert_exact
from tests.support.settings import make_settings
from tests.support.statements import watched

pytestmark = pytest.mark.slow

TENANTS = [f"org-{number}" for number in range(12)]
DAY = date(2026, 4, 1)
SPREAD = "SELECT table_name::text, citus_table_type, shard_count FROM citus_tables"


@pytest.fixture(scope="module")
def citus_url():
    with citus_database(required_url()) as url:
        yield url


@pytest.fixture(scope="module")
def database(citus_url):
    spread(citus_url)
    database = Database(make_settings(citus_url).database_url)
    yield database
    database.dispose()


@pytest.fixture
def bare_url():
    with citus_database(required_url()) as url:
        yield url


def issue(database, prefix):
    events = [
        Event(tenant, f"{prefix}-{number}", f"agent-{number % 3}", at, "a name")
        for tenant in TENANTS
        for number, at in enumerate([datetime(2026, 4, day, day, tzinfo=UTC) for day in (1, 2, 9)])
    ]
    return store_events(database, events)


def roll_up(database):
    return run_rollup(database, window_ids=1_000, wait_seconds=5)


def drifts(database):
    with verification(database) as found:
        return list(found.drift)


@contextmanager
def plans(database):
    """How the statements within are planned that touch a spread table: text and plan."""
    found = []

    def explain(driver, text, values):
        if text.split()[0] in ("SELECT", "INSERT", "UPDATE", "DELETE"):
            with psycopg.ClientCursor(driver) as cursor:
                lines = cursor.execute(f"EXPLAIN (VERBOSE, COSTS OFF) {text}", values).fetchall()
            plan = "\n".join(line for (line,) in lines)
            if "Citus" in plan:
                found.append((text, plan))

    with watched(database, explain):
        yield found


def tasks(plan):
    """How many shards are asked; of several steps the last."""
    return int(re.findall(r"Task Count: (\d+)", plan)[-1])


def of_events(found):
    """Those that read what was issued, by the table that they write to."""
    return {
        text.split()[2] if text.startswith("INSERT") else text.split()[0]: plan
        for text, plan in found
        if "FROM issuance_events" in text
    }


def test_tables_are_distributed_and_the_state_is_replicated(database):
    """Tables with a tenant are distributed, and the state is a reference table at every node."""
    with database.reading() as connection:
        found = {row[0]: row[1:] for row in connection.execute(sa.text(SPREAD))}
    assert found == {
        "issuance_events": ("distributed", SHARDS),
        "daily_issuance": ("distributed", SHARDS),
        "dow_hour_activity": ("distributed", SHARDS),
        "monthly_agent_issuance": ("distributed", SHARDS),
        "hourly_issuance": ("distributed", SHARDS),
        "daily_agent_issuance": ("distributed", SHARDS),
        "dow_hour_total": ("distributed", SHARDS),
        "rollup_corrections": ("distributed", SHARDS),
        "agents": ("distributed", SHARDS),
        "findings": ("distributed", SHARDS),
        "usual": ("distributed", SHARDS),
        "organization_settings": ("distributed", SHARDS),
        "budgets": ("distributed", SHARDS),
        "erasures": ("distributed", SHARDS),
        "organization_summaries": ("distributed", SHARDS),
        "rollup_state": ("reference", 1),
    }


def test_tables_that_hold_rows_already_are_spread_with_them(bare_url):
    migrate(bare_url)
    database = Database(make_settings(bare_url).database_url)
    issue(database, "before")
    for _ in range(2):
        database.write(lambda connection: distribute(connection, SHARDS))
    issue(database, "after")
    assert roll_up(database).events == 6 * len(TENANTS)
    assert_exact(database)
    database.dispose()


def test_tables_of_a_later_version_are_spread_when_they_come(bare_url):
    database = Database(make_settings(bare_url).database_url)
    for revision in ("0001", "head"):
        migrate(bare_url, revision)
        database.write(lambda connection: distribute(connection, SHARDS))
    with database.reading() as connection:
        found = {row[0]: row[2] for row in connection.execute(sa.text(SPREAD))}
    assert found["agents"] == SHARDS
    database.dispose()


@pytest.mark.quick
def test_an_event_is_kept_once_and_duplicates_are_told(database):
    assert issue(database, "twice").accepted == 3 * len(TENANTS)
    assert issue(database, "twice").duplicates == 3 * len(TENANTS)
    roll_up(database)
    assert_exact(database)


def test_a_run_counts_inside_the_shards(database):
    """A run counts in every shard and pulls nothing to the coordinator."""
    issue(database, "run")
    with plans(database) as found:
        assert roll_up(database).outcome == "done"
    counted = of_events(found)
    assert set(counted) == {"SELECT", *(summary.name for summary in SUMMARY_TABLES)}
    for plan in counted.values():
        assert tasks(plan) == SHARDS
        assert "pull to coordinator" not in plan
        assert "Subplan" not in plan
    assert_exact(database)


def test_a_read_asks_one_shard_once(database):
    roll_up(database)
    with plans(database) as found, database.reading() as connection:
        tenant = TENANTS[0]
        trend.token_trend(connection, tenant, last=DAY, days=30)
        activity.agent_activity(connection, tenant, last=DAY, months=None)
        activity.agent_activity(connection, tenant, last=DAY, months=1)
        usage.agent_usage(connection, tenant, month=DAY, limit=5)
        for sort in directory.SORTS:
            directory.agents_page(connection, tenant, limit=5, sort=sort)
            directory.agents_page(connection, tenant, limit=5, text="a", sort=sort)
        span = Span(Days(DAY, DAY, ZoneInfo("Asia/Tokyo")))
        hours.hourly_tokens(connection, tenant, span)
        trend.agent_tokens(connection, tenant, "a", span)
        usage.usage_of_days(connection, tenant, span, limit=5)
        agent_list.agent_list(connection, tenant, span, Wanted(5, text="a"))
        activity.week_of_days(connection, tenant, span)
        status.status(connection, tenant)
    # The status is two reads; the first one has no tenant.
    assert len(found) == 15
    for _, plan in found:
        assert tasks(plan) == 1
        assert "Subplan" not in plan


def test_verify_recounts_in_every_shard_and_rebuild_repairs(database):
    issue(database, "verify")
    roll_up(database)
    harm = sa.text("UPDATE daily_issuance SET issued = issued + 5 WHERE tenant_id < 'org-5'")
    lose = sa.text("DELETE FROM monthly_agent_issuance WHERE tenant_id = 'org-1'")
    for statement in (harm, lose):
        database.write(lambda connection, statement=statement: connection.execute(statement))
    with plans(database) as found:
        assert drifts(database)
    recounts = [plan for text, plan in found if "FROM issuance_events" in text]
    independent = [summary for summary in SUMMARY_TABLES if summary.source is None]
    assert [tasks(plan) for plan in recounts] == [SHARDS] * len(independent)
    assert rebuild(database, DAY, DAY).buckets
    assert drifts(database) == []
    assert rebuild(database, DAY, DAY).buckets == 0
    assert_exact(database)


def test_a_purge_deletes_in_every_shard(bare_url):
    spread(bare_url)
    database = Database(make_settings(bare_url).database_url)
    issue(database, "old")
    roll_up(database)
    aged = sa.text("UPDATE issuance_events SET received_at = now() - interval '9 days'")
    database.write(lambda connection: connection.execute(aged))
    issue(database, "young")
    with plans(database) as found:
        assert purge_events(database, retention_days=8).events == 3 * len(TENANTS)
    (deleted,) = (plan for text, plan in found if text.startswith("DELETE FROM issuance_events"))
    assert tasks(deleted) == SHARDS
    assert roll_up(database).events == 3 * len(TENANTS)
    database.dispose()


def test_a_copy_fills_a_cluster_and_none_is_taken_from_one(bare_url, sqlite_url):
    source = Database(make_settings(sqlite_url).database_url)
    target = Database(make_settings(bare_url).database_url)
    spread(bare_url)
    issue(source, "copied")
    roll_up(source)
    assert copy_database(source, target, wait_seconds=1).events == 3 * len(TENANTS)
    issue(target, "next")
    assert roll_up(target).events == 3 * len(TENANTS)
    assert_exact(target)
    with pytest.raises(Exception, match="the source is a cluster"):
        copy_database(target, source, wait_seconds=1)
    source.dispose()
    target.dispose()


def test_an_open_writer_at_the_coordinator_is_waited_for(database, citus_url):
    roll_up(database)
    with psycopg.connect(conninfo(citus_url)) as writer:
        writer.execute(
            "INSERT INTO issuance_events (tenant_id, event_id, agent_id, issued_at)"
            " VALUES ('org-0', 'slow', 'a', '2026-04-01Z')"
        )
        issue(database, "beside")
        assert run_rollup(database, window_ids=1_000, wait_seconds=0.2).outcome == "held_up"
    assert roll_up(database).outcome == "done"
    assert_exact(database)
