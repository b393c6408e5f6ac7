"""Any interleaving of deliveries, runs, repairs and purges equals the model."""

import shutil
import tempfile
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from threading import Event as Signal

import hypothesis.strategies as st
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy.engine import make_url

from app.errors import RefusedError
from app.intake.events import Event
from app.intake.store import store_events
from app.storage.database import Database
from app.storage.tables import agents as named_agents
from app.storage.tables import (
    daily_agent_issuance,
    daily_issuance,
    dow_hour_total,
    hourly_issuance,
    issuance_events,
    rollup_state,
)
from jobs.counting import backfill as backfilling
from jobs.counting.backfill import backfill, ids_left
from jobs.counting.run import run_rollup
from jobs.counting.tables import FINER_TABLES, SUMMARY_TABLES, kept_days
from jobs.recount.difference import FIRST_MONTH, LAST_MONTH
from jobs.recount.rebuild import rebuild
from jobs.recount.verify import verification
from jobs.retention import delete_old_months, purge_events
from tests.support.recount import recount, stored
from tests.support.upgraded import forget_finer_tables

RETENTION_DAYS = 90
WRONG = [daily_issuance, hourly_issuance, daily_agent_issuance, dow_hour_total]
ids = st.sampled_from([f"e{number}" for number in range(12)])
tenants = st.sampled_from(["org-a", "org-b"])
agents = st.sampled_from(["agent-1", "agent-2"])
instants = st.datetimes(datetime(2026, 1, 30), datetime(2026, 5, 2), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis wants naive bounds
names = st.sampled_from([None, "one", "other"])
deliveries = st.lists(
    st.builds(Event, tenants, ids, agents, instants, names), min_size=1, max_size=8
)


class Model(RuleBasedStateMachine):
    """The service beside a dictionary. Subclasses say where the database comes from."""

    database: Database

    def __init__(self):
        super().__init__()
        self.raw = {}  # what is stored: (tenant, id) → event, in order of arrival
        self.counted = Counter()  # what runs counted, for good
        self.uncounted = set()
        self.corrupted = False
        self.purged = False
        self.behind = False  # a backfill has yet to count some events
        self.retention = {}  # of the finer tables, in days
        self.last = []
        self.named = {}  # (tenant, agent) → the newest that was said, and its instant

    @rule(events=deliveries)
    def deliver(self, events):
        accepted = 0
        for event in events:
            key = (event.tenant_id, event.event_id)
            if key not in self.raw:
                accepted += 1
                self.raw[key] = event
                self.uncounted.add(key)
        assert store_events(self.database, events).accepted == accepted
        self.last = events
        for event in events:
            key = (event.tenant_id, event.agent_id)
            said = (event.issued_at, event.agent_name)
            if said[1] and (key not in self.named or self.named[key][0] < said[0]):
                self.named[key] = said

    @rule()
    def redeliver(self):
        assert store_events(self.database, self.last[::-1]).accepted == len(
            {event[:2] for event in self.last} - self.raw.keys()
        )
        for event in self.last[::-1]:
            if event[:2] not in self.raw:
                self.raw[event[:2]] = event
                self.uncounted.add(event[:2])

    @rule(window_ids=st.integers(1, 20))
    def run(self, window_ids):
        run = run_rollup(
            self.database, window_ids=window_ids, wait_seconds=5, retention=self.retention
        )
        assert (run.outcome, run.events) == ("done", len(self.uncounted))
        for key in self.uncounted:
            event = self.raw[key]
            self.counted[key[0], event.agent_id, event.issued_at] += 1
        self.uncounted.clear()

    @precondition(lambda self: not self.purged)
    @rule(by=st.integers(1, 5), table=st.sampled_from(WRONG))
    def corrupt(self, by, table):
        masks = {"hours": 0} if "hours" in table.c else {}
        worse = sa.update(table).values(issued=table.c.issued + by, **masks)
        if table.name in self.retention:
            worse = worse.where(table.c.date >= self.first_kept(table))
        changed = self.database.write(lambda connection: connection.execute(worse).rowcount)
        self.corrupted = self.corrupted or changed > 0

    @precondition(lambda self: not self.purged)
    @rule()
    def repair(self):
        rebuild(self.database, FIRST_MONTH, LAST_MONTH, retention=self.retention)
        self.corrupted = False

    @precondition(lambda self: not self.purged and not self.corrupted)
    @rule()
    def upgrade(self):
        forget_finer_tables(self.database)
        with self.database.reading() as connection:
            self.behind = ids_left(connection.execute(sa.select(rollup_state)).one()) > 0

    @rule(windows=st.integers(0, 3))
    def fill_back(self, windows):
        stop, left = Signal(), iter([None] * windows)
        done = backfill(
            self.database,
            retention=self.retention,
            stop=stop,
            on_ids=lambda *_: next(left, stop) and stop.set(),
        )
        self.behind = self.behind and not done.finished

    def first_kept(self, table):
        return kept_days(self.retention, datetime.now(UTC)).get(table.name, date.min)

    def kept(self, table, rows):
        if table.name not in self.retention:
            return rows
        first = self.first_kept(table)
        return {key: value for key, value in rows.items() if key[1] >= first}

    @precondition(lambda self: not self.corrupted)
    @rule(table=st.sampled_from([hourly_issuance, daily_agent_issuance]), month=st.integers(2, 5))
    def keep_fewer_months(self, table, month):
        days = (datetime.now(UTC).date() - date(2026, month, 15)).days
        self.retention[table.name] = min(days, self.retention.get(table.name, days))

    @rule()
    def delete_months_past(self):
        delete_old_months(self.database, retention=self.retention)
        for summary in FINER_TABLES:
            days = {key[1] for key in stored(self.database, summary.table)}
            assert min(days, default=date.max) >= self.first_kept(summary.table)

    @precondition(lambda self: self.behind)
    @rule()
    def a_purge_before_the_backfill_is_refused(self):
        with pytest.raises(RefusedError):
            purge_events(self.database, retention_days=RETENTION_DAYS)

    @rule()
    def verify(self):
        with verification(self.database, retention=self.retention) as found:
            drift = list(found.drift)
        assert bool(drift) == self.corrupted

    @precondition(lambda self: not self.corrupted and not self.behind)
    @rule(some=st.sets(ids))
    def age_and_purge(self, some):
        old = datetime.now(UTC) - timedelta(days=RETENTION_DAYS + 1)
        event = issuance_events.c
        aged = sa.update(issuance_events).where(event.event_id.in_(some)).values(received_at=old)
        self.database.write(lambda connection: connection.execute(aged))
        done = purge_events(self.database, retention_days=RETENTION_DAYS, batch_events=3)
        old_ones = {key for key in self.raw if key[1] in some} - self.uncounted
        assert done.events >= len(old_ones)
        with self.database.reading() as connection:
            kept = connection.execute(sa.select(event.tenant_id, event.event_id)).all()
        gone = self.raw.keys() - {tuple(row) for row in kept}
        assert old_ones <= gone
        assert not gone & self.uncounted
        for key in gone:
            del self.raw[key]
        self.purged = self.purged or bool(gone)

    @precondition(lambda self: self.purged)
    @rule()
    def repairing_what_was_purged_is_refused(self):
        with pytest.raises(RefusedError):
            rebuild(self.database, FIRST_MONTH, LAST_MONTH)

    @invariant()
    def every_agent_has_its_newest_name(self):
        with self.database.reading() as connection:
            found = connection.execute(sa.select(named_agents)).all()
        assert {(row[0], row[1]): (row.named_at, row.name) for row in found} == self.named

    @invariant()
    def every_table_equals_the_model(self):
        if self.corrupted:
            return
        behind = {summary.table for summary in FINER_TABLES if self.behind}
        for table, expected in recount(self.counted.elements()).items():
            if table in behind:
                continue
            found = self.kept(table, stored(self.database, table))
            assert found == self.kept(table, expected), table.name
        assert len(SUMMARY_TABLES) == len(recount([]))


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    """A backfill of few events takes several transactions."""
    monkeypatch.setattr(backfilling, "WINDOW_IDS", 3)
    monkeypatch.setattr(backfilling, "PAUSE_SECONDS", 0)


def run_model(machine, examples):
    limits = settings(
        max_examples=examples,
        stateful_step_count=25,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    machine.TestCase.settings = limits
    machine.TestCase().runTest()


EXAMPLES = pytest.mark.parametrize("examples", [8, pytest.param(50, marks=pytest.mark.slow)])


@EXAMPLES
def test_any_interleaving_equals_the_model_on_sqlite(sqlite_template, examples):
    class OnSQLite(Model):
        def __init__(self):
            super().__init__()
            self.folder = Path(tempfile.mkdtemp())
            shutil.copy(sqlite_template, self.folder / "model.db")
            self.database = Database(make_url(f"sqlite:///{self.folder / 'model.db'}"))

        def teardown(self):
            self.database.dispose()
            shutil.rmtree(self.folder)

    run_model(OnSQLite, examples)


@EXAMPLES
def test_any_interleaving_equals_the_model_on_postgresql(reused_database, examples):
    class OnPostgreSQL(Model):
        def __init__(self):
            super().__init__()
            self.database = Database(make_url(reused_database.emptied()))

        def teardown(self):
            self.database.dispose()

    run_model(OnPostgreSQL, examples)
