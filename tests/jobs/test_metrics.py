"""The scheduler's metrics for Prometheus."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from prometheus_client import REGISTRY
from sqlalchemy import delete, text, update
from sqlalchemy.engine import make_url

from app.storage.database import Database
from app.storage.tables import issuance_events, rollup_state, webhook_messages
from jobs import metrics
from jobs.findings.task import judge_findings
from jobs.scheduler import purge_tick, tick
from tests.support.settings import make_settings

INSERT = text(
    "INSERT INTO issuance_events (tenant_id, event_id, agent_id, issued_at)"
    " VALUES ('org-a', 'open', 'agent', '2026-04-01T00:00:00Z')"
)


def scraped(database):
    """The standing, by name."""
    found = metrics.StandingCollector(database).collect()
    return {one.name.removeprefix("analytics_"): one.samples[0].value for one in found}


@pytest.fixture
def counted():
    """How much a counter has grown since the test began."""

    def value(name, **labels):
        return REGISTRY.get_sample_value(f"analytics_{name}", labels) or 0.0

    names = ("rollup_runs_total", "purge_runs_total")
    outcomes = {*metrics.OUTCOMES, "stopped"}
    before = {(name, one): value(name, outcome=one) for name in names for one in outcomes}
    sums = {name: value(name) for name in ("rollup_run_events_sum", "purge_events_total")}

    def counted(name, outcome=None):
        if outcome is None:
            return value(name) - sums[name]
        return value(name, outcome=outcome) - before[name, outcome]

    return counted


def test_the_standing_follows_what_is_pending_and_counted(issue, roll_up, database):
    issue("2026-04-01T00:00:00Z", times=3)
    old = update(issuance_events).where(issuance_events.c.event_id == "event-0")
    received = datetime.now(UTC) - timedelta(minutes=10)
    database.write(lambda connection: connection.execute(old.values(received_at=received)))
    before = scraped(database)
    assert before.pop("rollup_lag_seconds") == pytest.approx(600, abs=30)
    assert before == {
        "database_up": 1,
        "rollup_watermark": 0,
        "rollup_pending_events": 3,
        "rollup_refused": 0,
        "rollup_backfill_ids": 0,
        "rollup_oldest_writer_seconds": 0,
    }
    watermark = roll_up().watermark
    after = scraped(database)
    finished = after.pop("rollup_last_finished_timestamp_seconds")
    assert finished == pytest.approx(datetime.now(UTC).timestamp(), abs=30)
    assert watermark > 0
    assert after == {
        "database_up": 1,
        "rollup_watermark": watermark,
        "rollup_pending_events": 0,
        "rollup_lag_seconds": 0,
        "rollup_refused": 0,
        "rollup_backfill_ids": 0,
        "rollup_oldest_writer_seconds": 0,
    }
    refused = update(rollup_state).values(refusal="because")
    database.write(lambda connection: connection.execute(refused))
    assert scraped(database)["rollup_refused"] == 1


def test_the_oldest_open_writer_has_an_age(postgresql_url):
    database = Database(make_url(postgresql_url))
    with database.engine.connect() as writer:
        writer.execute(INSERT)
        time.sleep(0.5)
        assert 0.5 <= scraped(database)["rollup_oldest_writer_seconds"] < 30
        writer.rollback()
    assert scraped(database)["rollup_oldest_writer_seconds"] == 0
    database.dispose()


@pytest.mark.parametrize(
    "url", ["postgresql+psycopg://u:p@127.0.0.1:9/a", "sqlite:////no/such/file"]
)
def test_a_scrape_says_that_the_database_is_away(url):
    database = Database(make_url(url))
    assert scraped(database) == {"database_up": 0}
    database.dispose()


def test_scrapes_take_one_connection_however_many_there_are(database, monkeypatch):
    collector, go_on, asked = metrics.StandingCollector(database), threading.Event(), []

    def slow(connection):
        asked.append(connection)
        go_on.wait(30)
        return original(connection)

    original = metrics.standing
    monkeypatch.setattr(metrics, "standing", slow)
    with ThreadPoolExecutor(4) as threads, ExitStack() as at_the_end:
        at_the_end.callback(go_on.set)
        scrapes = [threads.submit(lambda: list(collector.collect())) for _ in range(4)]
        time.sleep(0.5)
        assert len(asked) == database.engine.pool.checkedout() == 1
        go_on.set()
        assert all(scrape.result() for scrape in scrapes)


def test_runs_are_counted_by_how_they_ended(issue, database, settings, counted):
    issue("2026-04-01T00:00:00Z", times=3)
    tick(database, settings, threading.Event())
    assert counted("rollup_runs_total", "done") == 1
    assert counted("rollup_run_events_sum") == 3

    stop = threading.Event()
    stop.set()
    issue("2026-04-01T00:00:00Z", event_id="later")
    due(database)
    tick(database, settings, stop)
    assert counted("rollup_runs_total", "held_up") == 1

    database.write(lambda c: c.execute(text("ALTER TABLE daily_issuance RENAME TO gone")))
    due(database)
    tick(database, settings, threading.Event())
    assert counted("rollup_runs_total", "failed") == 1

    database.write(lambda connection: connection.execute(delete(rollup_state)))
    tick(database, settings, threading.Event())
    assert counted("rollup_runs_total", "refused") == 1
    assert counted("rollup_runs_total", "done") == 1


def due(database):
    statement = update(rollup_state).values(last_tick=None)
    database.write(lambda connection: connection.execute(statement))


def test_purges_are_counted_by_how_they_ended(issue, roll_up, database, database_url, counted):
    issue("2026-04-01T00:00:00Z", times=3)
    roll_up()
    old = update(issuance_events).values(received_at=datetime.now(UTC) - timedelta(days=2))
    database.write(lambda connection: connection.execute(old))
    settings, stop = make_settings(database_url, EVENT_RETENTION_DAYS="1"), threading.Event()
    stop.set()
    purge_tick(database, settings, stop)
    assert counted("purge_runs_total", "stopped") == 1
    assert counted("purge_events_total") == 0
    stop.clear()
    purge_tick(database, settings, stop)
    assert counted("purge_runs_total", "done") == 1
    assert counted("purge_events_total") == 3
    database.write(lambda c: c.execute(text("ALTER TABLE rollup_runs RENAME TO gone")))
    purge_tick(database, settings, stop)
    assert counted("purge_runs_total", "failed") == 1


def test_a_job_that_waits_in_vain_for_a_connection_is_counted(database_url, settings):
    database = Database(make_url(database_url), pool_size=1, overflow=0)
    database.engine.pool._timeout = 0.1
    name = "analytics_database_connection_timeouts_total"
    before = REGISTRY.get_sample_value(name)
    with database.reading():
        assert tick(database, settings, threading.Event()) is None
    assert REGISTRY.get_sample_value(name) == before + 1
    database.dispose()


def test_findings_are_counted_by_kind():
    """A pass counts its outcome, its organizations, and what it opened."""
    names = {
        "findings_runs_total": {"outcome": "done"},
        "findings_organizations_total": {},
        "findings_opened_total": {"kind": "spike"},
        "findings_run_duration_seconds_count": {},
    }

    def values():
        return [
            REGISTRY.get_sample_value(f"analytics_{name}", labels) or 0.0
            for name, labels in names.items()
        ]

    before = values()
    metrics.count_judging("done", 7, {"spike": 2}, suspect=3, seconds=0.5)
    metrics.count_judging("taken")
    grown = [after - earlier for earlier, after in zip(before, values(), strict=True)]
    assert grown == [1, 7, 2, 1]
    assert REGISTRY.get_sample_value("analytics_findings_suspect_silences") == 3


def test_a_scrape_says_how_far_findings_are_judged(issue, roll_up, database):
    """Nothing is finished before the first pass, and nothing is due after it."""

    def scraped_findings():
        found = metrics.FindingsCollector(database).collect()
        return {one.name.removeprefix("analytics_findings_"): one.samples[0].value for one in found}

    issue("2026-04-01T00:00:00Z")
    roll_up()
    assert scraped_findings() == {"last_finished_timestamp_seconds": 0, "due_organizations": 0}
    judge_findings(
        database, make_settings(database.engine.url.render_as_string(hide_password=False))
    )
    after = scraped_findings()
    assert after["last_finished_timestamp_seconds"] == pytest.approx(time.time(), abs=30)
    assert after["due_organizations"] == 0


def test_a_scrape_says_what_waits_in_the_outbox(database):
    """A message that is to be sent later waits, and is not late."""

    def scraped_outbox():
        found = metrics.OutboxCollector(database).collect()
        return {one.name.removeprefix("analytics_webhook_"): one.samples[0].value for one in found}

    def put(minutes, following):
        at = datetime.now(UTC) - timedelta(minutes=minutes)
        values = {"tenant_id": "t", "id": str(minutes), "endpoint_id": "w", "kind": "test"}
        times = {"created_at": at, "next_at": following, "expires_at": at}
        row = values | times | {"status": "waiting"}
        database.write(lambda connection: connection.execute(sa.insert(webhook_messages), row))

    assert scraped_outbox() == {
        "waiting_messages": 0, "oldest_waiting_seconds": 0, "resting_endpoints": 0
    }  # fmt: skip
    put(60, datetime.now(UTC) + timedelta(hours=1))
    put(5, datetime.now(UTC) - timedelta(minutes=1))
    after = scraped_outbox()
    assert after["waiting_messages"] == 2
    assert after["oldest_waiting_seconds"] == pytest.approx(300, abs=30)


def test_deliveries_are_counted_by_outcome():
    def value():
        labels = {"outcome": "parked"}
        return REGISTRY.get_sample_value("analytics_webhook_messages_total", labels)

    before = value()
    metrics.count_deliveries({"parked": 2, "delivered": 1})
    assert value() == before + 2
