"""The checks at the start: the version of PostgreSQL, and poolers in front of it."""

import os
import pwd
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager, suppress

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from app.errors import SettingsError
from app.storage import engines
from app.storage.database import Database
from app.storage.failures import unavailable_message
from app.storage.schema import refuse_other_schema
from app.waits import Waits
from tests.support.command_line import Runner, assert_one_clear_error
from tests.support.processes import free_port
from tests.support.settings import child_environ, make_settings

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
START_SECONDS = 30


def test_an_old_postgresql_is_refused(postgresql_url, monkeypatch):
    """A version before 14 is refused, at the start and by each command."""
    settings = make_settings(postgresql_url)
    refuse_other_schema(settings)
    monkeypatch.setattr(engines, "MIN_VERSION", 99)
    with pytest.raises(SettingsError, match=r"leads to PostgreSQL 1[0-9]; upgrade it to 99"):
        refuse_other_schema(settings)
    done = Runner(child_environ(postgresql_url))("db", "upgrade")
    assert "DATABASE_URL leads to PostgreSQL" in assert_one_clear_error(done)


def test_a_database_without_schema_says_what_to_run(database_url, database):
    """A command on a database without a schema says how to make one."""
    drop = text("DROP TABLE rollup_state")
    database.write(lambda connection: connection.execute(drop))
    done = Runner(child_environ(database_url))("rollup", "run")
    assert "run `flask db upgrade`" in assert_one_clear_error(done)


def test_a_direct_connection_shares_no_session(database):
    """Without a pooler no session is shared."""
    assert not database.shares_sessions()


@contextmanager
def pgbouncer(url, folder, mode, size):
    """A pgbouncer in front of the database; yields the URL through it."""
    if PGBOUNCER is None:
        pytest.skip("needs pgbouncer")
    port = free_port()
    config = folder / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n* = host={make_url(url).query['host']} user=postgres\n[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        f"pool_mode = {mode}\ndefault_pool_size = {size}\n"
    )
    as_root = {}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        as_root = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        os.chmod(config, 0o644)
        for one in (folder, *folder.parents[:3]):
            os.chmod(one, one.stat().st_mode | 0o055)
    log = (folder / "pgbouncer.log").open("wb")
    child = subprocess.Popen([PGBOUNCER, config], stdout=log, stderr=log, **as_root)
    try:
        give_up = time.monotonic() + START_SECONDS
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert time.monotonic() < give_up, (folder / "pgbouncer.log").read_text()
            time.sleep(0.05)
        through = make_url(url).set(host="127.0.0.1", port=port, query={})
        yield through.render_as_string(hide_password=False)
    finally:
        child.terminate()
        child.wait(START_SECONDS)
        log.close()


@pytest.mark.parametrize("size", [1, 5])
def test_a_pooler_in_transaction_mode_is_refused(postgresql_url, tmp_path, size):
    """The service does not start behind a pooler that gives a session to several connections."""
    with (
        pgbouncer(postgresql_url, tmp_path, "transaction", size) as url,
        pytest.raises(SettingsError, match="pooler in transaction mode"),
    ):
        refuse_other_schema(make_settings(url))


def test_a_pooler_in_session_mode_is_accepted(postgresql_url, tmp_path):
    """A pooler that keeps a session for its connection is accepted."""
    with pgbouncer(postgresql_url, tmp_path, "session", 5) as url:
        refuse_other_schema(make_settings(url))
        database = Database(make_settings(url).database_url)
        assert database.write(lambda connection: connection.scalar(text("SELECT 1"))) == 1
        database.dispose()


def test_a_small_session_pool_is_503_in_time(postgresql_url, tmp_path):
    """A connection that finds no session in the pooler ends as a silent one does."""
    with pgbouncer(postgresql_url, tmp_path, "session", 1) as url:
        web = Database(make_settings(url).database_url, waits=Waits(2))
        with web.reading():
            began = time.monotonic()
            with pytest.raises(OperationalError) as ended:
                web.reading()
            assert time.monotonic() - began < START_SECONDS
        assert "does not answer" in unavailable_message(ended.value)
        web.dispose()
