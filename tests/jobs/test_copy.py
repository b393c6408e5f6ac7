"""``flask db copy``: everything arrives in one transaction, or nothing does."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from sqlalchemy import event as hooks
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from app.auth.api_key_verifier import ApiKeyVerifier
from app.config.settings import ROOT
from app.errors import RefusedError
from app.intake.agent_names import set_names
from app.intake.events import Event
from app.intake.sources.positions import Spot, create
from app.intake.store import store_events
from app.storage.database import Database
from app.storage.failures import is_unavailable
from app.storage.tables import (
    agents,
    api_keys,
    daily_issuance,
    dow_hour_total,
    issuance_events,
    metadata,
    page_sessions,
    rollup_corrections,
    rollup_runs,
    rollup_state,
)
from jobs import copy as copying
from jobs.commands import copy as copy_command
from jobs.copy import Copied, copy_database
from jobs.counting.run import run_rollup
from jobs.counting.sequences import newest_id
from jobs.recount.rebuild import rebuild
from jobs.recount.verify import verification
from jobs.retention import purge_events
from jobs.scheduler import claim_tick
from tests.support.api_keys import created
from tests.support.command_line import (
    PASSWORD,
    Runner,
    assert_one_clear_error,
    interrupt,
    result,
    started,
    wait_until,
)
from tests.support.databases import conninfo
from tests.support.settings import child_environ, environment

# Each copies between two databases; `make test` runs those that are marked quick.
pytestmark = pytest.mark.slow

KINDS = ["sqlite", "postgresql"]
NOTED = ("newest", "newest_tenant_id", "newest_event_id", "newest_upto")
AT = datetime(2026, 4, 1, 10, tzinfo=UTC)
APRIL = date(2026, 4, 1)
# Texts that COPY could take for its own, and texts that sort otherwise by locale or in UTF-16.
HOSTILE = [
    "\\N", "\\.", "\\", "a\\tb", "''", '"', "$1", "%s", ":name", "{}", "--", "NULL", " ", " a ",
    "B", "a", "Z", "\xe9", "e\u0301", "\xa0", "\u2028", "\ufeff", "\uffee", "\U0001f600",
    "\U0010ffff", "x" * 255, "\U0001f600" * 255,
]  # fmt: skip
INSERT = (
    "INSERT INTO issuance_events (tenant_id, event_id, agent_id, issued_at)"
    " VALUES ('org-a', %s, 'agent-1', '2026-04-01T00:00:00Z')"
)


@pytest.fixture
def new(request, tmp_path):
    """Makes databases of a kind, migrated or without tables, and opens them."""
    opened, names = [], []

    def new(kind, *, bare=False):
        if kind == "sqlite":
            path = tmp_path / f"{uuid.uuid4().hex}.db"
            if not bare:
                shutil.copy(request.getfixturevalue("sqlite_template"), path)
            url = f"sqlite:///{path}"
        else:
            factory = request.getfixturevalue("postgresql")
            names.append(factory.create("template0" if bare else None))
            url = factory.at(names[-1])
        opened.append(Database(make_url(url), pool_size=20))
        return opened[-1]

    yield new
    for database in opened:
        database.dispose()
    for name in names:
        request.getfixturevalue("postgresql").drop(name)


@pytest.fixture(params=[KINDS, KINDS[::-1]], ids=" to ".join)
def pair(request, new):
    """A source and a target of the other kind."""
    return [new(kind) for kind in request.param]


def url_of(database):
    return database.engine.url.render_as_string(hide_password=False)


def execute(database, statement):
    database.write(lambda connection: connection.execute(statement))


def issue(database, *names, at=AT, tenant="org-a", agent="agent-1"):
    events = [Event(tenant, name, agent, at) for name in names]
    assert store_events(database, events).accepted == len(names)


def roll_up(database):
    return run_rollup(database, window_ids=1000, wait_seconds=5)


def correct(database):
    """Leave corrections in the journal, of months and of all months together."""
    wrong = sa.update(daily_issuance).where(daily_issuance.c.date >= APRIL)
    execute(database, wrong.values(issued=9))
    execute(database, sa.update(dow_hour_total).values(issued=dow_hour_total.c.issued + 1))
    assert rebuild(database, APRIL, APRIL).correction is not None


def progress_of_a_backfill(database):
    execute(database, sa.update(rollup_state).values(backfilled=1, backfill_end=1))


def purge(database, *names):
    aged = sa.update(issuance_events).where(issuance_events.c.event_id.in_(names))
    execute(database, aged.values(received_at=datetime.now(UTC) - timedelta(days=400)))
    assert purge_events(database, retention_days=300).events == len(names)


def add_key(database):
    created(
        database, now=AT, expires=datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), note="\U0001f600"
    )


def fill(database):
    """Something in every table: hostile ids and names, exact times, a correction, a purged month,
    events that are not counted yet, and a candidate that a run has left."""
    last = datetime(2026, 4, 30, 23, 59, 59, 999999, UTC)
    store_events(database, [Event(text, text, text, last, text) for text in HOSTILE])
    set_names(database, "org-a", {"nobody": None}, datetime(1970, 1, 1, tzinfo=UTC), by="tester")
    add_key(database)
    issue(database, "first", at=datetime(1970, 1, 1, tzinfo=UTC))
    issue(database, "micro", at=datetime(2026, 2, 28, 23, 59, 59, 1, UTC))
    issue(database, "old", "older", at=datetime(2026, 3, 31, tzinfo=UTC))
    roll_up(database)
    correct(database)
    purge(database, "old", "older")
    create(database, Spot("\u2028", "", "okta", "{}"))
    others = ("findings", "usual", "detection_state", "organization_settings")
    others += ("organization_summaries", "organization_summary_state")
    others += ("webhook_endpoints", "webhook_messages", "client_organizations")
    for name in (*others, "erasures", "share_links", "budgets", "page_sessions"):
        execute(database, sa.insert(metadata.tables[name]).values(rows_of_others()[name]))
    issue(database, *(f"pending {number}" for number in range(20)), at=AT + timedelta(days=30))
    left = sa.update(rollup_state).values(candidate=10**6, writers="3/77 4/1")
    execute(database, left.values(last_tick=datetime(2026, 5, 1, 1, 2, 3, 456789, UTC)))


def copy(source, target, **options):
    return copy_database(source, target, **({"wait_seconds": 5} | options))


def contents(database):
    """Every row of every table, but for the sessions of people, which stay behind."""
    with database.reading() as connection:
        return {
            table.name: sorted(map(tuple, connection.execute(sa.select(table))), key=repr)
            for table in copying.TABLES
        }


def as_copied(database):
    """What a copy of the database holds."""
    with database.reading() as connection:
        state = connection.execute(sa.select(rollup_state)).one()._asdict()
    state |= {"candidate": None, "writers": None}
    return contents(database) | {"rollup_state": [tuple(state.values())]}


def at_step(step, work):
    """For ``on_rows``: does the work once, when the copy comes to the step."""
    done = []

    def on_rows(what, _rows, _all):
        if what == step and not done:
            done.append(what)
            work()

    return on_rows


# What arrives


@pytest.mark.parametrize("to", KINDS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.quick
def test_every_table_arrives_and_the_target_goes_on(new, kind, to):
    source, target = new(kind), new(to)
    fill(source)
    expected, events = as_copied(source), len(HOSTILE) + 22
    assert all(expected.values()), "nothing is proven for an empty table"
    assert copy(source, target) == Copied(events, events - 18)
    assert contents(target) == expected
    with target.reading() as connection:
        assert connection.execute(sa.select(page_sessions)).all() == []
    again = Event("org-a", "pending 0", "agent-1", AT)
    assert store_events(target, [again]).duplicates == 1
    issue(target, "new")
    with target.reading() as connection:
        newest = sa.select(issuance_events.c.event_id).order_by(issuance_events.c.id.desc())
        assert connection.scalars(newest.limit(1)).one() == "new"
    assert roll_up(target).events == 21
    with verification(target) as found:
        assert list(found.drift) == []


def test_an_empty_service_is_copied(pair):
    source, target = pair
    assert copy(source, target) == Copied(0, 0)
    assert contents(target) == as_copied(source)
    issue(target, "first")
    assert roll_up(target).events == 1


def test_ids_go_on_beyond_those_of_purged_rows(pair):
    source, target = pair
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


def test_the_last_microsecond_is_copied_in_any_zone(new):
    """The driver's instants end with the year 9999 in the session's zone."""
    source, target, back = new("postgresql"), new("postgresql"), new("sqlite")
    for database in (source, target):
        name = database.engine.url.database
        execute(database, sa.text(f"ALTER DATABASE \"{name}\" SET timezone = 'Pacific/Kiritimati'"))
        database.engine.dispose()
    execute(source, sa.text(INSERT.replace("%s", "'e'").replace("2026-04-01T", "9999-12-31T")))
    copy(source, target)
    copy(target, back)
    assert contents(back)["issuance_events"][0][4].year == 9999


def test_rows_are_compared_in_one_order_in_any_locale(new):
    """Most locales sort "a" before "B", SQLite does not."""
    source, target = new("sqlite"), new("postgresql")
    row = rows_of_others()["rollup_corrections"]
    execute(source, sa.insert(rollup_corrections).values([row | {"table_name": n} for n in "aB"]))
    column = 'rollup_corrections ALTER table_name TYPE text COLLATE "und-x-icu"'
    execute(target, sa.text(f"ALTER TABLE {column}"))
    assert copy(source, target).verified


def test_a_short_statement_timeout_does_not_end_a_copy(new, monkeypatch):
    source, target = new("sqlite"), new("postgresql")
    fill(source)
    name = target.engine.url.database
    execute(target, sa.text(f"ALTER DATABASE \"{name}\" SET statement_timeout = '200ms'"))
    target.engine.dispose()
    write = copying._write

    def slowly(connection, table, rows):
        def slow():
            time.sleep(0.3)
            yield from rows

        write(connection, table, slow() if table is issuance_events else rows)

    monkeypatch.setattr(copying, "_write", slowly)
    assert copy(source, target).verified


def test_progress_goes_up_to_every_row(pair, monkeypatch):
    monkeypatch.setattr(copying, "BATCH_ROWS", 4)
    source, target = pair
    issue(source, *"abcdefghij")
    told = []
    copy(source, target, on_rows=lambda *step: told.append(step))
    # Ten events and the row of state.
    assert told == [
        (work, rows, 11) for work in ("copying", "verifying") for rows in (4, 8, 10, 11)
    ]


MEASURE = """
import sys
from pathlib import Path
from sqlalchemy.engine import make_url
from app.storage.database import Database
from jobs import copy

copy.BATCH_ROWS = 500
chain = [Database(make_url(url)) for url in sys.argv[1:]]
for source, target in zip(chain, chain[1:]):
    events = copy.copy_database(source, target, wait_seconds=5).events
status = Path("/proc/self/status").read_text()
print(events, int(status.split("VmHWM:")[1].split()[0]))  # KiB at the peak
"""
MANY = """
    WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count)
    INSERT INTO issuance_events (tenant_id, event_id, agent_id, issued_at)
    SELECT 'org-a', 'event of a service ' || n, 'agent ' || n, '2026-04-01 00:00:00'
    FROM numbers
"""


def issue_many(database, count):
    """As many events, and rows in a summary table."""
    execute(database, sa.text(MANY).bindparams(count=count))
    run_rollup(database, window_ids=10**6, wait_seconds=5)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux to measure")
def test_memory_stays_flat(new):
    """From SQLite into PostgreSQL, and from there into SQLite.

    Each size has its own process: what one leaves to the garbage collector would add to the next.
    """
    peaks = []
    # The first copy already fills a batch, and the second one has four times as many rows.
    for count in (15_000, 60_000):
        source = new("sqlite")
        issue_many(source, count)
        urls = [*map(url_of, (source, new("postgresql"), new("sqlite")))]
        command = [sys.executable, "-c", MEASURE, *urls]
        environ = child_environ(urls[0])
        shown = subprocess.run(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, check=True)
        events, peak = map(int, shown.stdout.split())
        assert events == count
        peaks.append(peak)
    assert (peaks[1] - peaks[0]) / 1024 < 4, "MiB more for the larger copy"


# What is refused, with nothing changed at the target


def assert_refused(source, target, words):
    before = contents(target)
    with pytest.raises(RefusedError, match=words):
        copy(source, target)
    assert contents(target) == before


def rows_of_others():
    run = {"started_at": AT, "outcome": "done", "host": "h", "pid": 1} | dict.fromkeys(
        ("events", "buckets", "watermark_from", "watermark_to"), 0
    )
    correction = {
        "tenant_id": "t", "correction": 1, "table_name": "x", "month": APRIL,
        "old_total": 1, "new_total": 2, "corrected_at": AT, "corrected_by": "me",
    }  # fmt: skip
    bucket, month = {"tenant_id": "t", "issued": 1}, {"month": APRIL}
    key = {"id": "k", "sha256": "0" * 64, "scopes": "events:write:any", "created_at": AT}
    return {
        "agents": {"tenant_id": "t", "agent_id": "a", "name": "n", "named_at": AT},
        "api_keys": key,
        "issuance_events": {"tenant_id": "t", "event_id": "e", "agent_id": "a", "issued_at": AT},
        "daily_issuance": bucket | {"date": APRIL},
        "dow_hour_activity": bucket | month | {"dow": 1, "hour": 1},
        "monthly_agent_issuance": bucket | month | {"agent_id": "a"},
        "hourly_issuance": bucket | {"date": APRIL, "hour": 1},
        "daily_agent_issuance": bucket | {"date": APRIL, "agent_id": "a", "hours": 2},
        "dow_hour_total": bucket | {"dow": 1, "hour": 1},
        "rollup_runs": run,
        "rollup_corrections": correction,
        "purged_months": month | {"events": 1},
        "source_positions": {"source": "s", "place": "", "kind": "okta", "position": "{}"},
        "findings": {
            "tenant_id": "t", "id": "f", "kind": "spike", "severity": "info", "status": "open",
            "content": "{}",
        } | dict.fromkeys(("begins_at", "ends_at", "opened_at", "detected_at", "updated_at"), AT),
        "usual": {"tenant_id": "t", "due_at": AT, "delay_seconds": 60}
        | dict.fromkeys(("delays", "usuals", "states"), "{}"),
        "detection_state": {"id": 1},
        "organization_settings": {"tenant_id": "t", "changed_at": AT},
        "audit_log": {
            "tenant_id": "t", "changed_at": AT, "actor": "u", "action": "x", "subject": "s",
        },
        "erasures": {"tenant_id": "t", "agent_id": "a", "begun_at": AT},
        "share_links": {
            "id": "l", "tenant_id": "t", "views": "tokens", "days": 7, "created_at": AT,
            "created_by": "u", "expires_at": AT,
        },
        "budgets": {
            "tenant_id": "t", "agent_id": "", "period": "day", "tokens": 1, "set_at": AT,
            "set_by": "u",
        },
        "webhook_endpoints": {
            "tenant_id": "t", "id": "w", "url": "https://example.com/", "format": "standard",
            "min_severity": "info", "cooldown_minutes": 60, "created_at": AT, "created_by": "u",
        },
        "webhook_messages": {
            "tenant_id": "t", "id": "m.w", "endpoint_id": "w", "kind": "test", "status": "waiting",
            "created_at": AT, "expires_at": AT,
        },
        "client_organizations": {
            "client_id": "c", "tenant_id": "t", "people": False, "changed_at": AT,
        },
        "page_sessions": {
            "id": "s", "subject": "u", "scopes": "", "created_at": AT, "expires_at": AT,
        },
        "organization_summaries": {"tenant_id": "t", "open_findings": 1, "days": "", "weeks": ""}
        | dict.fromkeys(("tokens_7d", "tokens_28d", "tokens_13w"), 2)
        | dict.fromkeys(("before_7d", "before_28d", "before_13w"), 1),
        "organization_summary_state": {"id": 1},
    }  # fmt: skip


def test_a_target_with_a_row_in_any_table_is_refused(pair):
    source, target = pair
    issue(source, "one")
    rows = rows_of_others()
    assert rows.keys() == metadata.tables.keys() - {"rollup_state"}
    del rows["page_sessions"]  # people may have signed in
    for name, row in rows.items():
        table = metadata.tables[name]
        execute(target, sa.insert(table).values(row))
        assert_refused(source, target, f"the target is in use, see its table {name}: ")
        execute(target, sa.delete(table))
    assert copy(source, target).verified


@pytest.mark.quick
def test_a_target_whose_jobs_have_started_is_refused(pair):
    source, target = pair
    used = {"last_tick": AT, "last_finished": AT, "counted_upto": 1, "corrections": 1}
    for name, value in used.items():
        execute(target, sa.update(rollup_state).values({name: value}))
        assert_refused(source, target, "the target is in use, see its table rollup_state: ")
        execute(target, sa.update(rollup_state).values({name: None if value is AT else 0}))
    execute(target, sa.delete(rollup_state))
    assert_refused(source, target, "the target is in use, see its table rollup_state: ")


@pytest.mark.parametrize("side", ["source", "target"])
def test_another_schema_on_either_side_is_refused(pair, side):
    old = pair[["source", "target"].index(side)]
    execute(old, sa.text("UPDATE alembic_version SET version_num = '0001'"))
    assert_refused(*pair, f"the {side} has schema 0001, .*: run `flask db upgrade`")


@pytest.mark.parametrize("kind", KINDS)
def test_a_target_without_schema_is_refused(new, kind):
    source, target = new("sqlite"), new(kind, bare=True)
    execute(target, sa.text("CREATE TABLE customers (id int)"))
    with pytest.raises(RefusedError, match=r"the target has schema none.*`flask db upgrade`"):
        copy(source, target)
    assert sa.inspect(target.engine).get_table_names() == ["customers"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_database_is_not_copied_onto_itself(new, kind, tmp_path):
    """By whatever name it goes."""
    source = new(kind)
    if kind == "sqlite":
        os.symlink(source.engine.url.database, tmp_path / "other name.db")
        other = make_url(f"sqlite:///{tmp_path}/other name.db")
    else:
        other = source.engine.url.update_query_dict({"options": "-c search_path=public"})
    for url in (source.engine.url, other):
        target = Database(url)
        assert_refused(source, target, "the target is the source")
        target.dispose()


def test_a_cluster_is_not_a_source(pair, monkeypatch):
    """``tests/test_citus.py`` asks a real one."""
    monkeypatch.setattr(copying, "is_citus", lambda _connection: True)
    assert_refused(*pair, "the source is a cluster")


def test_a_damaged_source_is_refused(pair):
    execute(pair[0], sa.delete(rollup_state))
    assert_refused(*pair, "rollup_state has no row: restore")


def test_a_source_that_does_not_count_is_refused(pair):
    """A refusal must end at the source: a copy would take wrong numbers along."""
    execute(pair[0], sa.update(rollup_state).values(refusal="because"))
    assert_refused(*pair, "because; counting is refused until `flask rollup resume`")


def test_the_newest_counted_event_is_copied(pair):
    """The target's runs compare with the same newest counted event, so counting goes on."""
    source, target = pair
    fill(source)
    roll_up(source)
    assert copy(source, target).verified
    columns = sa.select(*(rollup_state.c[name] for name in NOTED))
    with source.reading() as here, target.reading() as there:
        assert here.execute(columns).one() == there.execute(columns).one()
    issue(target, "after the copy")
    assert roll_up(target).events == 1


def test_a_reader_can_copy_but_not_around_a_policy(new):
    """Rows that a policy hides from the role are an error, and not missing."""
    source, target = new("postgresql"), new("sqlite")
    fill(source)
    role = f"reader_{os.getpid()}"
    with psycopg.connect(conninfo(url_of(source)), autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN")
        try:
            admin.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
            admin.execute(f"GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO {role}")
            reader = Database(source.engine.url.set(username=role))
            admin.execute("ALTER TABLE daily_issuance ENABLE ROW LEVEL SECURITY")
            before = contents(target)
            with pytest.raises(DBAPIError, match="row-level security"):
                copy(reader, target)
            assert contents(target) == before
            admin.execute("ALTER TABLE daily_issuance DISABLE ROW LEVEL SECURITY")
            assert copy(reader, target).verified
            reader.dispose()
        finally:
            admin.execute(f"DROP OWNED BY {role}")
            admin.execute(f"DROP ROLE {role}")
    assert contents(target) == as_copied(source)


@pytest.mark.parametrize("to", KINDS)
def test_a_row_that_arrives_differently_is_found(new, monkeypatch, to):
    """In whichever table; lost, added or altered."""
    source, target = new("sqlite"), new(to)
    fill(source)
    before, write = contents(target), copying._write
    for table in copying.TABLES:

        def lose(connection, into, rows, table=table):
            write(connection, into, iter(list(rows)[:-1] if into is table else rows))

        monkeypatch.setattr(copying, "_write", lose)
        with pytest.raises(RefusedError, match=f"^{table.name} differs at .*nothing was committed"):
            copy(source, target)
        assert contents(target) == before
    for planted in (
        sa.insert(agents).values(tenant_id="t", agent_id="a", name="added", named_at=AT),
        sa.update(agents).where(agents.c.tenant_id == "a").values(name="altered"),
        sa.update(rollup_state).values(writers="3/77"),
    ):

        def plant(connection, into, rows, planted=planted):
            write(connection, into, rows)
            if into is rollup_state:  # the last one
                connection.execute(planted)

        monkeypatch.setattr(copying, "_write", plant)
        with pytest.raises(RefusedError, match="differs at"):
            copy(source, target)
        assert contents(target) == before
    monkeypatch.undo()
    assert copy(source, target).verified


# A source that changes

CHANGES = {
    "issuance_events": lambda source: issue(source, "during"),
    "agents": lambda source: set_names(source, "a", {"a": "renamed"}, AT, by="tester"),
    "api_keys": add_key,
    "rollup_runs": roll_up,
    "rollup_corrections": correct,
    "purged_months": lambda source: purge(source, "micro"),
    "rollup_state": progress_of_a_backfill,
}


def test_a_source_that_changes_is_not_copied(pair):
    source, target = pair
    fill(source)
    before = contents(target)
    for table, change in CHANGES.items():
        done = copy(source, target, on_rows=at_step("copying", lambda c=change: c(source)))
        assert table in done.changed
        assert (done.events, done.watermark, done.writers, done.verified) == (0, 0, [], False)
        assert contents(target) == before
    assert copy(source, target).verified  # once it is left alone
    assert contents(target) == as_copied(source)


def test_a_late_name_that_is_not_the_newest_is_a_change(pair):
    source, target = pair
    for agent, day in (("a", 1), ("b", 9)):
        set_names(source, "org-a", {agent: agent}, AT + timedelta(days=day), by="tester")
    rename = at_step("verifying", lambda: set_names(source, "org-a", {"a": "c"}, AT, by="tester"))
    assert copy(source, target, on_rows=rename).changed == ["agents", "audit_log"]


def test_the_use_of_a_key_is_no_change(pair):
    """Reads go on during a copy, and the first one of a day stores the day."""
    source, target = pair
    _, text = created(source)
    use = at_step("verifying", lambda: ApiKeyVerifier(source, lambda: AT).verify(text, ""))
    assert copy(source, target, on_rows=use).verified
    with source.reading() as mine, target.reading() as theirs:
        days = [each.scalar(sa.select(api_keys.c.last_used)) for each in (mine, theirs)]
    assert days == [AT.date(), None]


def test_a_tick_without_events_is_no_change(pair):
    source, target = pair
    issue(source, "one")
    roll_up(source)

    def tick():
        assert source.write(lambda connection: claim_tick(connection, 15))
        assert roll_up(source).events == 0

    assert copy(source, target, on_rows=at_step("verifying", tick)).verified


@pytest.fixture
def source(new):
    return new("postgresql")


@pytest.fixture
def target(new):
    return new("sqlite")


@pytest.fixture
def writer(source):
    """A connection of an identity provider that inserts by itself."""
    with psycopg.connect(conninfo(url_of(source)), application_name="slow idp") as connection:
        yield connection


def test_an_open_writer_ends_the_copy_after_the_wait(source, target, writer):
    issue(source, "counted")
    roll_up(source)
    writer.execute(INSERT, ["open"])  # draws its id
    issue(source, "committed first")
    before = contents(target)
    done = copy(source, target, wait_seconds=0)
    assert (done.changed, [each.application for each in done.writers]) == ([], ["slow idp"])
    assert contents(target) == before
    writer.commit()
    assert copy(source, target, wait_seconds=0) == Copied(3, 1)


def test_an_open_writer_is_waited_for(source, target, writer):
    writer.execute(INSERT, ["open"])
    ending = threading.Timer(0.3, writer.commit)
    ending.start()
    assert copy(source, target) == Copied(1, 0)
    ending.join()


def test_a_prepared_transaction_ends_the_copy(source, target, writer):
    writer.execute(INSERT, ["prepared"])
    gid = f"copy-{uuid.uuid4().hex}"
    writer.execute(f"PREPARE TRANSACTION '{gid}'")
    writer.commit()
    before = contents(target)
    done = copy(source, target, wait_seconds=0.1)
    assert (done.verified, [each.gid for each in done.writers]) == (False, [gid])
    assert contents(target) == before
    writer.autocommit = True
    writer.execute(f"COMMIT PREPARED '{gid}'")
    assert copy(source, target) == Copied(1, 0)


def test_a_writer_that_opens_during_the_copy_ends_it(source, target, writer):
    """Also before it has drawn an id."""
    locked = at_step("copying", lambda: writer.execute("DELETE FROM issuance_events WHERE false"))
    done = copy(source, target, on_rows=locked)
    assert (done.changed, [each.application for each in done.writers]) == ([], ["slow idp"])


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_an_id_drawn_before_the_snapshot_is_seen_at_the_end(
    source, target, writer, monkeypatch, end
):
    """The writer is open while the snapshot is taken, and has ended before the last look."""
    settle = copying._settled_id

    def settled_then_drawn(*arguments):
        settled = settle(*arguments)
        writer.execute(INSERT, ["between"])
        return settled

    monkeypatch.setattr(copying, "_settled_id", settled_then_drawn)
    done = copy(source, target, on_rows=at_step("verifying", getattr(writer, end)))
    assert (done.changed, done.writers) == (["issuance_events"], [])
    assert contents(target)["issuance_events"] == []


# A copy that ends early


class DiedError(Exception):
    """Stands for the end of the process."""


def test_a_fault_at_any_statement_leaves_the_target_empty(pair, monkeypatch):
    source, target = pair
    fill(source)
    before, write, left = contents(target), copying._write, 0

    def strike(*_):
        nonlocal left
        left -= 1
        if left == 0:
            raise DiedError

    def write_then_strike(*arguments):  # COPY is not among SQLAlchemy's statements
        write(*arguments)
        strike()

    monkeypatch.setattr(copying, "_write", write_then_strike)
    hooks.listen(target.engine, "after_cursor_execute", strike)
    for statement in itertools.count(1):
        left = statement
        try:
            copied = copy(source, target)
        except DiedError:
            assert contents(target) == before
        else:
            break
    left = 0
    assert copied.verified
    assert contents(target) == as_copied(source)
    assert statement > 35


def end_connections(database):
    with psycopg.connect(conninfo(url_of(database))) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@pytest.mark.parametrize(("victim", "step"), [("source", "copying"), ("target", "verifying")])
def test_a_lost_connection_leaves_the_target_empty(new, monkeypatch, victim, step):
    monkeypatch.setattr(copying, "BATCH_ROWS", 10)
    source, target = new("postgresql"), new("postgresql")
    fill(source)
    before = contents(target)
    lost = {"source": source, "target": target}[victim]
    with pytest.raises(DBAPIError) as error:
        copy(source, target, on_rows=at_step(step, lambda: end_connections(lost)))
    assert is_unavailable(error.value)
    assert contents(target) == before
    assert copy(source, target).verified


def test_several_copies_at_once_leave_one(pair):
    source, target = pair
    fill(source)
    start = threading.Barrier(3)

    def attempt(_number):
        start.wait()
        try:
            return "copied" if copy(source, target).verified else "changed"
        except RefusedError as error:
            return error.message.partition(",")[0]

    with ThreadPoolExecutor(3) as pool:
        ends = sorted(pool.map(attempt, range(3)))
    assert ends == ["copied", *["the target is in use"] * 2]
    assert contents(target) == as_copied(source)


def test_a_writer_at_the_target_waits_for_the_copy(pair):
    source, target = pair
    fill(source)
    writing = threading.Thread(target=issue, args=(target, "own"), kwargs={"tenant": "own"})
    assert copy(source, target, on_rows=at_step("copying", writing.start)).verified
    writing.join()
    found = contents(target)["issuance_events"]
    (own,) = (row for row in found if row[1] == "own")
    assert own[0] == max(row[0] for row in found)
    assert [row for row in found if row is not own] == contents(source)["issuance_events"]


def is_under_way(target):
    """Whether a copy has begun to write into the target."""
    if not target.is_postgresql:
        log = f"{target.engine.url.database}-wal"
        return os.path.exists(log) and os.path.getsize(log) > 100_000
    query = "SELECT 1 FROM pg_stat_progress_copy WHERE datname = current_database()"
    with target.reading() as connection:
        return connection.scalar(sa.text(query)) is not None


@pytest.mark.parametrize(
    ("to", "end"),
    [
        ("sqlite", "kill"),
        pytest.param("postgresql", "kill", marks=pytest.mark.slow),
        pytest.param("postgresql", "Ctrl-C", marks=pytest.mark.slow),
    ],
)
def test_a_process_that_ends_leaves_the_target_empty(new, to, end):
    source, target = new("sqlite"), new(to)
    issue_many(source, 20_000)
    before = contents(target)
    with started(
        child_environ(url_of(source)), "flask", "db", "copy", "--to", url_of(target)
    ) as it:
        wait_until(lambda: is_under_way(target))
        if end == "kill":
            it.send_signal(signal.SIGKILL)
            assert it.wait(60) == -signal.SIGKILL
        else:
            assert interrupt(it) == (130, "", "Interrupted: nothing was changed\n")
    assert contents(target) == before


# The command


@pytest.mark.quick
def test_the_command_copies_and_the_service_goes_on(new):
    source, target = new("sqlite"), new("postgresql")
    fill(source)
    events = len(HOSTILE) + 22
    flask = Runner(child_environ(url_of(source)))
    assert result(flask("db", "copy", "--to", url_of(target), "--json")) == {
        "events": events, "watermark": events - 18, "changed": [], "writers": [], "verified": True,
    }  # fmt: skip
    verified = result(Runner(child_environ(url_of(target)))("rollup", "verify", "--json"))
    assert (verified["watermark"], verified["drift"]) == (events - 18, [])


def run_command(source, *arguments, **variables):
    """``flask db copy`` in this process; its exit code, stdout and stderr."""
    environ = environment(url_of(source), **variables)
    done = CliRunner().invoke(copy_command, arguments, env=environ, catch_exceptions=False)
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def test_the_command_says_that_the_source_changed(source, target, writer, monkeypatch):
    """Exit code 75: in words, and as JSON."""
    writer.execute(INSERT, ["open"])
    copy_there = ["--to", url_of(target)]
    done = run_command(source, *copy_there, ROLLUP_WAIT_SECONDS="0")
    assert (done.returncode, done.stdout) == (
        75,
        "nothing was copied: the source changed meanwhile (open transactions)\n",
    )
    assert f"at the source: pid {writer.info.backend_pid} (slow idp)" in done.stderr
    assert done.stderr.endswith("stop the writers and the scheduler, then run this again\n")
    writer.rollback()
    claim = copying._claim

    def claim_beside_ingest(*arguments):
        issue(source, "during")
        claim(*arguments)

    monkeypatch.setattr(copying, "_claim", claim_beside_ingest)
    done = run_command(source, *copy_there, "--json")
    assert done.returncode == 75
    assert json.loads(done.stdout) == {
        "events": 0, "watermark": 0, "changed": ["issuance_events"], "writers": [],
        "verified": False,
    }  # fmt: skip
    monkeypatch.undo()
    done = run_command(source, *copy_there)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "verified: 1 events and every other table; watermark 0\n"


@pytest.mark.quick
def test_a_refusal_is_one_line_and_exit_1(pair):
    source, target = pair
    issue(target, "other")
    done = run_command(source, "--to", url_of(target))
    assert done.returncode == 1
    assert "the target is in use, see its table issuance_events" in assert_one_clear_error(done)


@pytest.mark.parametrize(
    "url",
    [
        pytest.param(f"mysql://operator:{PASSWORD}@127.0.0.1/analytics", id="mysql"),
        pytest.param(f"postgresql+psycopg2://o:{PASSWORD}@127.0.0.1:1/a", id="driver not there"),
        pytest.param(f"postgresql://o:{PASSWORD}@127.0.0.1:port/a", id="bad port"),
        pytest.param(f"postgresql://127.0.0.1:1/a?user=o&password={PASSWORD}", id="in the query"),
        pytest.param(f"postgresql://127.0.0.1:1/a?nonsense={PASSWORD}", id="unknown option"),
        pytest.param(f"postgresql://operator:{PASSWORD}@127.0.0.1:1/a", id="unreachable"),
        pytest.param(PASSWORD, id="no URL"),
        pytest.param("", id="empty"),
        pytest.param("sqlite://", id="in memory"),
        pytest.param("sqlite:////nonexistent/folder/analytics.db", id="no folder"),
        pytest.param("sqlite:////dev/null/analytics.db", id="no place"),
        pytest.param(None, id="no option"),
    ],
)
@pytest.mark.quick
def test_a_bad_target_is_one_line_without_password(target, url):
    done = run_command(target, *([] if url is None else ["--to", url]))
    error = assert_one_clear_error(done)
    assert "--to" in error
    assert PASSWORD not in error
