"""A copy that dies anywhere leaves nothing, or what the next one goes on with."""

import itertools
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import event as hooks
from sqlalchemy.exc import DBAPIError

from app.config.settings import ROOT
from app.errors import RefusedError
from app.storage.failures import is_unavailable
from app.storage.tables import rollup_runs
from jobs import copying
from tests.jobs.copying import copies
from tests.jobs.copying.copies import KINDS, copy, fill, issue, purge, roll_up
from tests.support.command_line import Runner, interrupt, result, started, wait_until
from tests.support.databases import conninfo
from tests.support.settings import child_environ


class DiedError(Exception):
    """Stands for the end of the process."""


class Executioner:
    """Ends a copy right after its ``fatal``-th statement at the target, bulk writes included."""

    def __init__(self, target, monkeypatch):
        self.fatal = self.seen = 0
        self._write = copying.write_rows
        hooks.listen(target.engine, "after_cursor_execute", self._after)
        monkeypatch.setattr(copying, "write_rows", self._bulk)

    def arm(self, fatal):
        self.fatal, self.seen = fatal, 0

    def _bulk(self, *arguments):
        self._write(*arguments)
        self._after()

    def _after(self, *_):
        self.seen += 1
        if self.seen == self.fatal:
            raise DiedError


def is_whole(target):
    return any(row[3] == "copied" for row in copies.contents(target)["rollup_runs"])


def assert_empty_half_or_whole(target):
    found = copies.contents(target)
    assert len(found["rollup_state"]) == (not found["rollup_runs"] or is_whole(target))
    if copies.is_half(target):
        others = found.keys() - {"issuance_events", "rollup_runs"}
        assert not any(found[name] for name in others)


@pytest.mark.parametrize(("kind", "to"), [("sqlite", "postgresql"), ("postgresql", "sqlite")])
def test_a_first_copy_that_dies_at_any_statement_is_gone_on_with(open_new, monkeypatch, kind, to):
    monkeypatch.setattr("jobs.bulk.BATCH_ROWS", 20)
    source = open_new(kind)
    fill(source)
    expected, halves = copies.as_copied(source), 0
    for fatal in itertools.count(1):
        target = open_new(to)
        with monkeypatch.context() as patch:
            executioner = Executioner(target, patch)
            executioner.arm(fatal)
            try:
                copy(source, target)
            except DiedError:
                assert_empty_half_or_whole(target)
                halves += copies.is_half(target)
            whole = executioner.seen < fatal
            executioner.arm(0)
        copy(source, target)
        assert copies.without_mark(target) == expected
        target.dispose()
        if whole:
            break
    assert fatal > 40
    assert halves > 30


def test_a_top_up_that_dies_at_any_statement_is_gone_on_with(source, target, monkeypatch):
    monkeypatch.setattr("jobs.bulk.BATCH_ROWS", 3)
    issue(source, *(f"first {number}" for number in range(7)))
    roll_up(source)
    copy(source, target)
    executioner = Executioner(target, monkeypatch)
    for fatal in itertools.count(1):
        new = [f"new {fatal} {number}" for number in range(5)]
        issue(source, *new, at=f"2026-{fatal % 12 + 1:02}-01T00:00:00Z")
        roll_up(source)
        purge(source, *new[:4])
        executioner.arm(fatal)
        with suppress(DiedError):
            copy(source, target)
        whole = executioner.seen < fatal
        executioner.arm(0)
        copy(source, target)
        assert copies.without_mark(target) == copies.as_copied(source)
        if whole:
            break
    assert fatal > 40


def end_connections(database, pid=None):
    """End one backend of a database, or all that serve it."""
    with psycopg.connect(conninfo(database.engine.url.render_as_string())) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND pid = coalesce(%s, pid)",
            [pid],
        )


@pytest.mark.parametrize(
    ("victim", "step"), [("source", "copying"), ("source", "verifying"), ("target", "verifying")]
)
def test_a_lost_connection_is_an_error_of_the_database_and_costs_nothing(
    open_new, victim, step, monkeypatch
):
    monkeypatch.setattr("jobs.bulk.BATCH_ROWS", 10)
    source, target = open_new("postgresql"), open_new("postgresql")
    fill(source)

    def lose(what, _rows, _all):
        if what == step:
            end_connections({"source": source, "target": target}[victim])

    with pytest.raises(DBAPIError) as lost:
        copy(source, target, on_rows=lose)
    assert is_unavailable(lost.value)
    assert copies.is_half(target)
    copy(source, target)
    assert copies.without_mark(target) == copies.as_copied(source)


def test_a_connection_to_the_target_lost_between_two_batches_is_replaced(open_new, monkeypatch):
    monkeypatch.setattr("jobs.bulk.BATCH_ROWS", 10)
    source, target = open_new("sqlite"), open_new("postgresql")
    fill(source)
    copy(source, target, on_rows=lambda what, *_: what == "copying" and end_connections(target))
    assert copies.without_mark(target) == copies.as_copied(source)


def test_a_connection_lost_within_copy_is_an_error_of_the_database(open_new, monkeypatch):
    source, target = open_new("sqlite"), open_new("postgresql")
    fill(source)
    write = copying.write_rows

    def lose(connection, table, rows):
        def losing():
            yield from rows
            end_connections(target, connection.connection.driver_connection.info.backend_pid)

        write(connection, table, losing())

    with monkeypatch.context() as patch:
        patch.setattr(copying, "write_rows", lose)
        with pytest.raises(DBAPIError) as lost:
            copy(source, target)
    assert is_unavailable(lost.value)
    copy(source, target)
    assert copies.without_mark(target) == copies.as_copied(source)


def test_several_copies_at_once_leave_one_whole_copy(source, target, monkeypatch):
    monkeypatch.setattr("jobs.bulk.BATCH_ROWS", 5)
    fill(source)
    start = threading.Barrier(4)

    def attempt(_number):
        start.wait()
        try:
            return copy(source, target).events
        except RefusedError as error:
            return error.message

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(attempt, range(4)))
    events = len(copies.contents(source)["issuance_events"])
    assert events in results, results
    assert all(result == events or "came between" in result for result in results), results
    assert copies.without_mark(target) == copies.as_copied(source)


def copied_upto(database):
    with database.reading() as connection:
        return connection.scalar(sa.select(sa.func.max(rollup_runs.c.watermark_to))) or 0


EVENTS = 50_000


@pytest.mark.parametrize("to", KINDS)
def test_the_command_killed_again_and_again_is_gone_on_with(open_new, to):
    source, target = open_new("sqlite"), open_new(to)
    issue(source, *map(str, range(EVENTS)))
    roll_up(source)
    source_url, url = (d.engine.url.render_as_string() for d in (source, target))
    environ = child_environ(source_url)
    # Measuring the coverage of processes that are killed costs time and tells nothing.
    environ = {name: value for name, value in environ.items() if not name.startswith("COV")}
    for reached in (1, EVENTS // 2, EVENTS):
        command = [sys.executable, "-m", "flask", "db", "copy", "--to", url]
        child = subprocess.Popen(command, cwd=ROOT, env=environ)
        while copied_upto(target) < reached:
            assert child.poll() is None
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        assert child.wait(60) == -signal.SIGKILL
        assert copies.is_half(target)
    done = Runner(child_environ(source_url))("db", "copy", "--to", url)
    assert done.returncode == 0, done.stderr
    assert copies.without_mark(target) == copies.as_copied(source)


@pytest.mark.parametrize("to", KINDS)
def test_ctrl_c_says_that_what_was_copied_is_kept_and_it_is(open_new, to):
    source, target = open_new("sqlite"), open_new(to)
    issue(source, *map(str, range(EVENTS)))
    roll_up(source)
    source_url, url = (d.engine.url.render_as_string() for d in (source, target))
    environ = child_environ(source_url)
    with started(environ, "flask", "db", "copy", "--to", url) as child:
        wait_until(lambda: copied_upto(target) > 0)
        ended = interrupt(child)
    state = "what was copied is kept; run it again, it goes on from there"
    assert ended == (130, "", f"Interrupted: {state}\n")
    assert copies.is_half(target)
    kept = copied_upto(target)
    again = result(Runner(environ)("db", "copy", "--to", url, "--json"))
    assert again["copied"] <= EVENTS - kept
    assert copies.without_mark(target) == copies.as_copied(source)
