"""``flask db copy`` as an operator types it and reads it."""

import socket

import psycopg
import pytest
from sqlalchemy import delete

from app.storage.tables import rollup_state
from tests.jobs.copying import copies
from tests.jobs.copying.copies import KINDS, fill, issue, roll_up
from tests.support.command_line import (
    PASSWORD,
    Runner,
    assert_one_clear_error,
    on_terminal,
    result,
)
from tests.support.databases import conninfo
from tests.support.settings import child_environ


def url_of(database):
    return database.engine.url.render_as_string(hide_password=False)


@pytest.fixture
def flask(source):
    """Commands on the source."""
    return Runner(child_environ(url_of(source), ROLLUP_WAIT_SECONDS="0"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_is_verified_and_the_service_goes_on_from_it(flask, source, open_new, kind):
    fill(source)
    events = len(copies.contents(source)["issuance_events"])
    target = open_new(kind, bare=True)
    first = result(flask("db", "copy", "--to", url_of(target), "--json"))
    assert first == {
        "copied": events, "events": events, "upto": events + 2, "watermark": events - 18,
        "behind": 0, "writers": [], "verified": True,
    }  # fmt: skip
    again = flask("db", "copy", "--to", url_of(target))
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout == (
        f"verified: {events} events, 0 of them copied now, and every other table;"
        f" watermark {events - 18}\n"
    )
    moved = Runner(child_environ(url_of(target)))
    assert moved("db", "check").returncode == 0
    assert "copied" in moved("rollup", "status").stdout
    assert result(moved("rollup", "run", "--json"))["events"] == 20
    verified = moved("rollup", "verify", "--json")
    assert (verified.returncode, '"drift":[]' in verified.stdout) == (0, True)


def test_more_that_has_come_in_is_exit_75_and_says_what_to_do(open_new):
    source, target = open_new("postgresql"), open_new("sqlite")
    flask = Runner(child_environ(url_of(source), ROLLUP_WAIT_SECONDS="0"))
    issue(source, "counted")
    roll_up(source)
    with psycopg.connect(conninfo(url_of(source)), application_name="slow idp") as writer:
        writer.execute(
            "INSERT INTO issuance_events (tenant_id, event_id, agent_id, issued_at)"
            " VALUES ('t', 'e', 'a', now())"
        )
        issue(source, "behind")
        pid = writer.info.backend_pid
        done = flask("db", "copy", "--to", url_of(target))
    assert done.returncode == 75
    assert done.stdout.startswith("verified: 1 events, 1 of them copied now")
    assert f"pid {pid} (slow idp)" in done.stderr
    assert "since, 1 of them to be seen: stop the writers" in done.stderr
    assert result(flask("db", "copy", "--to", url_of(target), "--json"))["copied"] == 2


def test_a_refusal_is_one_line_and_exit_1(flask, source, target):
    issue(target, "other")
    done = flask("db", "copy", "--to", url_of(target))
    assert done.returncode == 1
    assert "holds other data" in assert_one_clear_error(done)
    done = flask("db", "copy", "--to", url_of(source))
    assert done.returncode == 1
    assert "the target is the source" in assert_one_clear_error(done)


def test_half_a_copy_at_the_source_is_one_line(flask, source, target):
    source.write(lambda connection: connection.execute(delete(rollup_state)))
    assert "copy" in assert_one_clear_error(flask("db", "copy", "--to", url_of(target)))


def test_without_a_target_nothing_is_done(sqlite_url):
    assert "--to" in assert_one_clear_error(Runner(child_environ(sqlite_url))("db", "copy"))


@pytest.fixture
def closed_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_an_unreachable_target_is_named_without_its_password(sqlite_url, closed_port):
    url = f"postgresql://operator:{PASSWORD}@127.0.0.1:{closed_port}/analytics"
    error = assert_one_clear_error(Runner(child_environ(sqlite_url))("db", "copy", "--to", url))
    assert "--to: " in error
    assert PASSWORD not in error


@pytest.mark.parametrize(
    "url",
    [
        pytest.param(f"mysql://operator:{PASSWORD}@127.0.0.1/analytics", id="mysql"),
        pytest.param(f"postgresql+psycopg2://o:{PASSWORD}@127.0.0.1:1/a", id="driver not there"),
        pytest.param(f"postgresql://o:{PASSWORD}@127.0.0.1:port/a", id="bad port"),
        pytest.param(f"postgresql://127.0.0.1:1/a?user=o&password={PASSWORD}", id="in the query"),
        pytest.param(f"postgresql://127.0.0.1:1/a?nonsense={PASSWORD}", id="unknown option"),
        pytest.param(PASSWORD, id="no URL"),
        pytest.param("", id="empty"),
        pytest.param("sqlite://", id="in memory"),
        pytest.param("sqlite:////nonexistent/folder/analytics.db", id="no folder"),
        pytest.param("sqlite:////dev/null/analytics.db", id="no place"),
    ],
)
def test_a_bad_target_is_refused_in_one_line_that_names_the_option(sqlite_url, url):
    error = assert_one_clear_error(Runner(child_environ(sqlite_url))("db", "copy", "--to", url))
    assert "--to" in error
    assert PASSWORD not in error


def test_progress_is_shown_where_there_is_a_terminal(open_new):
    source, target = open_new("sqlite"), open_new("sqlite")
    fill(source)
    environ = child_environ(url_of(source))
    shown = on_terminal(environ, "db", "copy", "--to", url_of(target), streams=["stderr"])
    assert shown.stdout.startswith("verified: ")
    assert shown.screen.index("copying") < shown.screen.index("verifying")
    assert shown.screen.count("100%") >= 2
