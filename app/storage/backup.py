"""Backup: a verified copy of the database in one file, made while everything runs.

SQLite writes the copy itself (``VACUUM INTO``), from one snapshot. Its online backup would start
again at every write. PostgreSQL's copy is made by ``pg_dump``, from one snapshot as well. Both hold
events, summary tables and watermark of one moment.

The copy is written under another name in the same folder, verified, synced, and then renamed. So
the file is complete or missing, and an older file stays until then.
"""

import os
import re
import sqlite3
import subprocess  # nosec B404  # each call gives its reason, to S603
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg.conninfo import make_conninfo
from sqlalchemy import text

from app.config.settings import child_environ
from app.errors import RefusedError, UnavailableError
from app.storage.citus import is_citus
from app.storage.database import Database
from app.storage.schema import current_revision
from app.storage.tables import metadata

# pg_dump gives up when a migration holds a table for longer.
LOCK_WAIT = "30s"
# While pg_dump works, the server must answer a new connection, or the backup ends.
PROBE_EVERY_SECONDS, PROBE_SECONDS = 10, 5
# As on the service's own connections: a host that vanished ends the backup.
_KEEPALIVES = {
    "connect_timeout": PROBE_SECONDS,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}


@dataclass(frozen=True)
class Backup:
    """A verified backup file."""

    file: str
    bytes: int
    revision: str


def backup(database: Database, file: Path, *, overwrite: bool = False) -> Backup:
    """Write a verified backup of the database into ``file``.

    Args:
        overwrite: replace an existing file.

    Raises:
        RefusedError: the file exists or is in use, a program is missing, or the copy is not sound.
        UnavailableError: the database does not answer any more.
    """
    _refuse_target(database, file, overwrite=overwrite)
    with database.reading() as connection:
        revision = current_revision(connection)
        if revision is None:
            raise RefusedError("the database has no schema: run `flask db upgrade` first")
        if is_citus(connection):
            raise RefusedError("the database is a cluster: make a backup of each node instead")
    with _new_file(file, overwrite=overwrite) as copy:
        if database.is_postgresql:
            _dump(database, copy)
        else:
            _vacuum_into(database, copy, revision)
    return Backup(str(file), file.stat().st_size, revision)


def _refuse_target(database: Database, file: Path, *, overwrite: bool) -> None:
    if file.is_dir():
        raise RefusedError(f"{file} is a folder: name a file")
    if file.exists() and not file.is_file():
        raise RefusedError(f"{file} is not a regular file: name another file")
    if not file.parent.is_dir():
        raise RefusedError(f"the folder {file.parent} does not exist: create it first")
    # A write-ahead log that belongs to another file would be applied to the copy.
    beside = [file.with_name(file.name + suffix) for suffix in ("-wal", "-journal")]
    own = database.engine.url.database
    if not database.is_postgresql and own:
        names = {Path(own + suffix).resolve() for suffix in ("", "-wal", "-shm", "-journal")}
        same = file.exists() and Path(own).exists() and file.samefile(own)
        if same or file.resolve() in names:
            raise RefusedError(f"{file} is the database itself: name another file")
    if any(path.exists() for path in beside):
        raise RefusedError(f"{file} is a database in use: name another file")
    if not overwrite and os.path.lexists(file):
        raise RefusedError(f"{file} exists: name another file, or replace it with --overwrite")


@contextmanager
def _new_file(file: Path, *, overwrite: bool) -> Iterator[Path]:
    """A new file beside ``file``, which takes its place at the end, or is deleted on an error.

    Only its owner can read it, because it holds every organization's events.
    """
    descriptor, name = tempfile.mkstemp(
        prefix=f".{file.name[:100]}.", suffix=".part", dir=file.parent
    )
    copy = Path(name)
    try:
        yield copy
        os.fsync(descriptor)
        if overwrite:
            copy.replace(file)
        else:
            _rename_new(copy, file)
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        os.close(descriptor)
        copy.unlink(missing_ok=True)


def _rename_new(copy: Path, file: Path) -> None:
    """Rename, unless another process has created ``file`` meanwhile."""
    try:
        os.link(copy, file)
    except FileExistsError:
        raise RefusedError(f"{file} was created meanwhile: name another file") from None
    except (OSError, NotImplementedError):  # a file system without hard links
        copy.rename(file)


def _vacuum_into(database: Database, copy: Path, revision: str) -> None:
    with closing(database.engine.raw_connection()) as connection:
        connection.cursor().execute("VACUUM INTO ?", (str(copy),))
    # Immutable: to look at the copy must not create files beside it.
    uri = f"file:{quote(str(copy.resolve()))}?mode=ro&immutable=1"
    with closing(sqlite3.connect(uri, uri=True)) as written:
        found = written.execute("PRAGMA integrity_check(1)").fetchone()[0]
        version = written.execute("SELECT version_num FROM alembic_version").fetchone()
        state = written.execute("SELECT count(*) FROM rollup_state").fetchone()
    if found != "ok" or version != (revision,) or state != (1,):
        raise RefusedError(f"the copy is not sound ({found}), so it was deleted; check the disk")


def _dump(database: Database, copy: Path) -> None:
    conninfo, environ = _connection(database)
    _require_recent_pg_dump(database)
    words = ["--format=custom", "--no-password", f"--lock-wait-timeout={LOCK_WAIT}"]
    command = ["pg_dump", *words, f"--file={copy}", f"--dbname={conninfo}"]
    child = subprocess.Popen(  # noqa: S603 - no shell, and the words are ours
        command,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with child:  # closes its pipe
        try:
            errors = _finish(child, database)
        finally:
            child.kill()
    if child.returncode:
        raise RefusedError(f"pg_dump failed: {_first_error(errors)}")
    _verify_dump(copy)


def _finish(child: "subprocess.Popen[str]", database: Database) -> str:
    """Wait for pg_dump while the server answers; returns its errors."""
    while True:
        try:
            return child.communicate(timeout=PROBE_EVERY_SECONDS)[1]
        except subprocess.TimeoutExpired:
            _require_answer(database)


def _require_answer(database: Database) -> None:
    """Raise if the server accepts a connection and then says nothing for some seconds."""
    conninfo, _ = _connection(database)
    password = database.engine.url.password
    try:
        psycopg.connect(conninfo, password=password).close()
    except psycopg.errors.ConnectionTimeout:
        raise UnavailableError(
            "the database does not answer any more, so the backup ended; nothing was written"
        ) from None
    except psycopg.OperationalError:
        return  # the server answered; pg_dump reports what is wrong


def _connection(database: Database) -> tuple[str, dict[str, str]]:
    """The connection for programs of PostgreSQL: a conninfo without the password, and variables.

    Every user of the host can read the arguments of a process.
    """
    words, options = database.engine.dialect.create_connect_args(database.engine.url)
    password = options.pop("password", None)
    options.pop("context", None)  # the driver's own, which no other program knows
    options = {"application_name": "agentidp-analytics backup", **_KEEPALIVES, **options}
    variables = {} if password is None else {"PGPASSWORD": str(password)}
    return make_conninfo(*words, **options), child_environ(variables)


def _require_recent_pg_dump(database: Database) -> None:
    with database.reading() as connection:
        server = int(connection.scalar(text("SHOW server_version_num")) or 0) // 10_000
    shown = _run("pg_dump", "--version")
    found = re.search(r"\) (\d+)", shown)
    if found is not None and int(found[1]) < server:
        raise RefusedError(
            f"pg_dump is of version {found[1]}, older than the server, {server}: install the client"
            f" programs of PostgreSQL {server}, for example postgresql-client-{server}"
        )


def _verify_dump(copy: Path) -> None:
    """Read the dump to its end, and require the data of every table."""
    _run("pg_restore", "--file=/dev/null", str(copy))
    listed = set(re.findall(r"TABLE DATA \S+ (\S+)", _run("pg_restore", "--list", str(copy))))
    missing = {str(table.name) for table in metadata.sorted_tables} - listed
    if missing:
        raise RefusedError(
            f"the copy lacks tables, so it was deleted: {', '.join(sorted(missing))}. Is the schema"
            " current? See `flask db current`"
        )


def _run(*command: str) -> str:
    """Run a program of PostgreSQL, which connects to nothing; returns what it prints."""
    try:
        done = subprocess.run(  # noqa: S603 - no shell, and the words are ours
            command, capture_output=True, text=True, check=False, timeout=86_400
        )
    except FileNotFoundError:
        raise RefusedError(
            f"{command[0]} is missing: install the client programs of PostgreSQL, for example"
            " postgresql-client, and put them on PATH"
        ) from None
    if done.returncode:
        raise RefusedError(f"{command[0]} failed: {_first_error(done.stderr)}")
    return done.stdout


def _first_error(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if line.strip()]
    error = next((line for line in lines if "error:" in line), lines[0] if lines else "no reason")
    hint = ". Run it as the owner of the tables" if "permission denied" in error else ""
    return error.removeprefix("pg_dump: error: ").removeprefix("pg_restore: error: ") + hint
