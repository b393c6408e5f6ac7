"""Writers at the source whose transactions stay open while it is copied: PostgreSQL only."""

import threading
import time

import psycopg
import pytest

from app.errors import RefusedError
from jobs import copying
from tests.jobs.copying import copies
from tests.jobs.copying.copies import copy, issue, roll_up
from tests.support.databases import conninfo
from tests.support.recount import assert_exact

INSERT = (
    "INSERT INTO issuance_events (tenant_id, event_id, agent_id, issued_at)"
    " VALUES ('org-a', %s, 'agent-1', '2026-04-01T00:00:00Z')"
)


@pytest.fixture
def source(open_new):
    return open_new("postgresql")


@pytest.fixture
def writer(source):
    """A connection of an identity provider that inserts by itself."""
    url = source.engine.url.render_as_string()
    with psycopg.connect(conninfo(url), application_name="slow idp") as connection:
        yield connection


def test_a_lower_id_that_commits_later_is_brought_by_the_next_copy(source, target, writer):
    issue(source, "counted")
    roll_up(source)
    writer.execute(INSERT, ["open"])  # draws its id
    issue(source, "committed first")
    first = copy(source, target, wait_seconds=0)
    assert (first.copied, first.upto, first.behind) == (1, 1, 1)
    (named,) = first.writers
    assert named.application == "slow idp"
    writer.commit()
    second = copy(source, target)
    assert (second.copied, second.behind, second.writers) == (2, 0, [])
    assert copies.without_mark(target) == copies.as_copied(source)
    roll_up(target)
    assert assert_exact(target) == 3


def test_a_writer_that_ends_during_the_wait_is_waited_for(source, target, writer):
    writer.execute(INSERT, ["open"])
    issue(source, "committed first")
    ending = threading.Timer(0.5, writer.commit)
    ending.start()
    copied = copy(source, target)
    ending.join()
    assert (copied.copied, copied.behind, copied.writers) == (2, 0, [])


def test_a_writer_that_opens_after_the_start_is_named(source, target, writer):
    issue(source, "one")

    def open_one(what, *_):
        if what == "verifying":
            writer.execute(INSERT, ["open"])

    copied = copy(source, target, on_rows=open_one)
    assert (copied.copied, copied.behind) == (1, 0)
    assert [named.application for named in copied.writers] == ["slow idp"]


def test_a_run_that_counts_further_than_the_copy_has_waited_is_followed(
    source, target, writer, monkeypatch
):
    """The snapshot's own watermark is safe, whoever was open before."""
    wait = copying._safe_candidate
    writer.execute(INSERT, ["open"])
    issue(source, "one")

    def counted_meanwhile(*arguments):
        safe = wait(*arguments)
        writer.commit()
        issue(source, "two")
        assert roll_up(source).events == 3
        return safe

    monkeypatch.setattr(copying, "_safe_candidate", counted_meanwhile)
    copied = copy(source, target, wait_seconds=0)
    assert (copied.copied, copied.upto, copied.watermark) == (3, 3, 3)
    assert copies.without_mark(target) == copies.as_copied(source)


def test_a_copy_that_waits_less_than_the_one_before_still_holds_its_events(source, target, writer):
    issue(source, "one", "two")
    assert copy(source, target).upto == 2
    writer.execute(INSERT, ["open"])
    issue(source, "three")
    again = copy(source, target, wait_seconds=0)
    assert (again.copied, again.upto, again.events) == (0, 2, 2)
    writer.rollback()
    assert copy(source, target).copied == 1
    assert copies.without_mark(target) == copies.as_copied(source)


def test_what_is_written_at_a_topped_up_target_lies_beyond_ids_that_are_still_open(
    source, target, writer
):
    writer.execute(INSERT, ["open"])
    copy(source, target, wait_seconds=0)
    issue(target, "own")
    writer.commit()
    with pytest.raises(RefusedError, match="events of its own"):
        copy(source, target)


def test_copies_beside_writers_end_up_equal(source, target):
    stop = threading.Event()

    def write(name):
        for number in range(60):
            url = source.engine.url.render_as_string()
            with psycopg.connect(conninfo(url)) as connection:
                connection.execute(INSERT, [f"{name} {number}"])
                time.sleep(0.002)
                if number % 7 == 0:
                    connection.rollback()

    def count():
        while not stop.is_set():
            roll_up(source)

    writers = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    counter = threading.Thread(target=count)
    for thread in (*writers, counter):
        thread.start()
    copied = 0
    while any(thread.is_alive() for thread in writers):
        copied += copy(source, target, wait_seconds=0.01).copied
    stop.set()
    counter.join()
    last = copy(source, target)
    assert (last.behind, last.writers) == (0, [])
    assert copied > 0
    assert copied + last.copied == last.events == 3 * (60 - 9)
    assert copies.without_mark(target) == copies.as_copied(source)
    roll_up(target)
    assert assert_exact(target) == last.events
