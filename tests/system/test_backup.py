"""A backup, restored, goes on exactly where it was taken."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime

import psycopg
import pytest
from sqlalchemy.engine import make_url

from app.errors import RefusedError
from app.intake.events import Event
from app.intake.store import store_events
from app.storage.database import Database
from jobs.counting.run import run_rollup
from tests.support.databases import conninfo
from tests.support.postgresql import Server
from tests.support.recount import assert_exact
from tests.support.settings import make_settings

AT = datetime(2026, 4, 1, tzinfo=UTC)


def issue_on(database, names):
    return store_events(database, [Event("org-a", name, "agent-1", AT) for name in names])


def run(database):
    return run_rollup(database, window_ids=1000, wait_seconds=5)


@pytest.fixture
def second_server():
    server = Server().start()
    yield server
    server.remove()


def test_a_dump_restored_into_a_new_cluster_goes_on_exactly(postgresql_url, second_server):
    source = Database(make_url(postgresql_url))
    issue_on(source, ["counted", "counted too"])
    run(source)
    issue_on(source, ["not counted yet"])
    source.dispose()
    dump = second_server.tool("pg_dump", "--format=custom", conninfo(postgresql_url))
    target = second_server.url("postgres")
    second_server.tool("pg_restore", f"--dbname={conninfo(target)}", stdin=dump)
    restored = Database(make_url(target))
    assert issue_on(restored, ["counted", "new"]).duplicates == 1
    assert run(restored).events == 2
    assert assert_exact(restored) == 4
    restored.dispose()


def test_a_backup_of_a_sqlite_file_in_use_goes_on_exactly(sqlite_url, tmp_path):
    source = Database(make_settings(sqlite_url).database_url)
    issue_on(source, ["counted"])
    run(source)
    issue_on(source, ["not counted yet"])  # in the write-ahead log, not in the file
    with (
        closing(sqlite3.connect(make_url(sqlite_url).database)) as live,
        closing(sqlite3.connect(tmp_path / "copy.db")) as copy,
    ):
        live.backup(copy)  # what the shell's `.backup` does
    issue_on(source, ["after the backup"])
    source.dispose()
    restored = Database(make_url(f"sqlite:///{tmp_path / 'copy.db'}"))
    assert issue_on(restored, ["counted", "new"]).duplicates == 1
    assert run(restored).events == 2
    assert assert_exact(restored) == 3
    restored.dispose()


def test_events_without_their_rollups_are_refused(postgresql_url):
    """The state row from one backup, the events from an older one."""
    source = Database(make_url(postgresql_url))
    issue_on(source, ["one", "two"])
    run(source)
    with psycopg.connect(conninfo(postgresql_url)) as connection:
        connection.execute("TRUNCATE issuance_events RESTART IDENTITY")
    issue_on(source, ["one"])
    with pytest.raises(RefusedError, match="different backups"):
        run(source)
    source.dispose()
