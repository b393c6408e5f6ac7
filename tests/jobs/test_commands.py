"""The job's commands as an operator runs them."""

import json
import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from sqlalchemy import select, text, update

from app.storage.tables import (
    daily_issuance,
    dow_hour_total,
    issuance_events,
    rollup_runs,
    rollup_state,
)
from tests.support.command_line import Runner
from tests.support.databases import conninfo
from tests.support.recount import assert_exact
from tests.support.settings import child_environ


def spoil(database):
    wrong = update(daily_issuance).values(issued=7)
    database.write(lambda connection: connection.execute(wrong))


def history(database):
    with database.reading() as connection:
        return connection.execute(select(rollup_runs).order_by(rollup_runs.c.id)).all()


def test_verify_rebuild_verify(issue, roll_up, database, flask):
    issue("2026-04-01T00:00:00Z", times=2)
    roll_up()
    assert flask("rollup", "verify").stdout == "0 buckets differ, events up to 2\n"
    spoil(database)
    drift = flask("rollup", "verify", "--json")
    assert drift.returncode == 1
    assert json.loads(drift.stdout) == {
        "watermark": 2,
        "not_verifiable": [],
        "drift": [
            {
                "table": "daily_issuance",
                "key": {"tenant_id": "org-a", "date": "2026-04-01"},
                "stored": 7,
                "recounted": 2,
            }
        ],
    }
    assert "stored 7, recounted 2" in flask("rollup", "verify").stdout
    assert flask("rollup", "verify", "--from", "2026-05").returncode == 0
    rebuilt = flask("rollup", "rebuild", "--from", "2026-04", "--to", "2026-04", "--json")
    assert json.loads(rebuilt.stdout) == {"buckets": 1, "correction": 1}
    assert flask("rollup", "verify").returncode == 0
    assert_exact(database)
    status = flask("rollup", "status")
    assert "daily_issuance  org-a  2026-04  7 → 2" in status.stdout
    (correction,) = json.loads(flask("rollup", "status", "--json").stdout)["corrections"]
    assert (correction["old_total"], correction["new_total"]) == (7, 2)


def test_status_shows_a_correction_of_all_months(issue, roll_up, database, flask):
    """The journal names no month for a table of all months together."""
    issue("2026-04-01T00:00:00Z", times=2)
    roll_up()
    wrong = update(dow_hour_total).values(issued=7)
    database.write(lambda connection: connection.execute(wrong))
    assert flask("rollup", "rebuild", "--from", "2026-04", "--to", "2026-04").returncode == 0
    assert "dow_hour_total  org-a  all months  7 → 2" in flask("rollup", "status").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", "--from", "2026-13"],
        ["verify", "--from", "26-01"],
        ["verify", "--from", "2026-05", "--to", "2026-04"],
        ["rebuild", "--from", "2026-05", "--to", "2026-04"],
        ["rebuild", "--from", "2026-05"],
        ["rebuild", "--from", "1969-12", "--to", "2026-04"],
    ],
    ids=" ".join,
)
def test_months_that_are_none_are_refused(sqlite_url, arguments):
    refused = Runner(child_environ(sqlite_url))("rollup", *arguments)
    assert refused.returncode != 0
    assert refused.stdout == ""
    assert "Traceback" not in refused.stderr


def test_purge_deletes_what_is_past_retention(issue, roll_up, database, flask):
    issue("2026-04-01T00:00:00Z", times=3)
    roll_up()
    old = datetime.now(UTC) - timedelta(days=8)
    aged = update(issuance_events).values(received_at=old)
    database.write(lambda connection: connection.execute(aged))
    purged = flask("events", "purge", "--json", EVENT_RETENTION_DAYS="7")
    assert json.loads(purged.stdout) == {"events": 3, "finished": True, "buckets": 0}
    verified = flask("rollup", "verify")
    assert (verified.returncode, verified.stdout) == (
        0,
        "2026-04 cannot be verified: raw events were purged\n0 buckets differ, events up to 3\n",
    )
    refused = flask("rollup", "rebuild", "--from", "2026-04", "--to", "2026-04")
    assert refused.returncode == 1
    assert "2026-04" in refused.stderr


def test_only_runs_with_work_are_in_the_history(issue, roll_up, database):
    """The history holds a run that counted events, and no empty run."""
    issue("2026-04-01T00:00:00Z", times=5)
    roll_up(window_ids=2)
    roll_up()
    (row,) = history(database)
    assert (row.outcome, row.events, row.watermark_from, row.watermark_to) == ("done", 5, 0, 5)
    assert row.started_at <= row.finished_at
    assert row.pid > 0


def test_a_failed_run_is_in_the_history_with_its_error(issue, roll_up, database):
    issue("2026-04-01T00:00:00Z")
    database.write(lambda c: c.execute(text("ALTER TABLE daily_issuance RENAME TO gone")))
    with pytest.raises(Exception, match="daily_issuance"):
        roll_up()
    (row,) = history(database)
    assert (row.outcome, row.events) == ("failed", 0)
    assert "daily_issuance" in row.error


def test_a_killed_runs_windows_stay_in_the_history(issue, roll_up, database, monkeypatch):
    issue("2026-04-01T00:00:00Z", times=5)
    monkeypatch.setattr("jobs.counting.run._Progress._finish", lambda self: None)
    roll_up()
    (row,) = history(database)
    assert (row.outcome, row.events, row.finished_at) == ("running", 5, None)


def test_status_names_the_writer_that_holds_things_up(postgresql_url):
    flask = Runner(child_environ(postgresql_url, ROLLUP_WAIT_SECONDS="0"))
    with psycopg.connect(conninfo(postgresql_url), application_name="slow idp") as writer:
        writer.execute(
            "INSERT INTO issuance_events (tenant_id, event_id, agent_id, issued_at)"
            " VALUES ('t', 'e', 'a', now())"
        )
        held_up = flask("rollup", "run")
        assert held_up.returncode == 75
        assert f"pid {writer.info.backend_pid} (slow idp)" in held_up.stderr
        status = json.loads(flask("rollup", "status", "--json").stdout)
        assert status["writers"][0]["application"] == "slow idp"
        (named,) = re.findall(r"held up by (.*)", flask("rollup", "status").stdout)
        assert re.fullmatch(rf"pid {writer.info.backend_pid} \(slow idp\) since .*\+00:00", named)
        assert [run["outcome"] for run in status["runs"]] == ["held_up"]
    assert flask("rollup", "run").returncode == 0


def test_a_locked_state_row_is_named_and_exits_75(issue, postgresql_url, monkeypatch):
    """A run that waits for a forgotten lock in vain names its holder, and exits with 75."""
    monkeypatch.setattr("jobs.counting.run.MIN_LOCK_SECONDS", 0.2)
    flask = Runner(child_environ(postgresql_url, ROLLUP_WAIT_SECONDS="0"))
    with psycopg.connect(conninfo(postgresql_url), application_name="psql") as other:
        other.execute("SELECT 1 FROM rollup_state FOR UPDATE")
        held_up = flask("rollup", "run")
        assert held_up.returncode == 75
        assert "held up: 0 events" in held_up.stdout
        named = rf"held up by pid {other.info.backend_pid} \(psql\), open for [0-9]+ s\n"
        assert re.fullmatch(named, held_up.stderr)
        refused = flask("events", "purge")
        assert refused.returncode == 0  # there is nothing to delete
        status = json.loads(flask("rollup", "status", "--json").stdout)
        assert [run["outcome"] for run in status["runs"]] == ["held_up"]
    assert flask("rollup", "run").returncode == 0


def test_a_locked_sqlite_file_is_held_up(sqlite_url, tmp_path, monkeypatch):
    """A run that waits for another SQLite transaction in vain is held up as well."""
    monkeypatch.setattr("jobs.counting.run.MIN_LOCK_SECONDS", 0.2)
    flask = Runner(child_environ(sqlite_url, ROLLUP_WAIT_SECONDS="0"))
    with closing(sqlite3.connect(tmp_path / "analytics.db", isolation_level=None)) as shell:
        shell.execute("BEGIN IMMEDIATE")
        assert flask("rollup", "run").returncode == 75
        shell.execute("ROLLBACK")
    assert flask("rollup", "run").returncode == 0


def test_a_run_by_hand_is_no_tick_of_the_scheduler(issue, roll_up, flask):
    issue("2026-04-01T00:00:00Z")
    roll_up()
    shown = flask("rollup", "status").stdout
    assert "last tick      never\n" in shown
    assert "last finished  never" not in shown


def test_status_counts_pending_events_and_their_age(issue, database, flask):
    issue("2026-04-01T00:00:00Z", times=4)
    old = datetime.now(UTC) - timedelta(hours=1)
    aged = update(issuance_events).values(received_at=old)
    database.write(lambda connection: connection.execute(aged))
    status = json.loads(flask("rollup", "status", "--json").stdout)
    assert status["pending"] == 4
    assert 3600 <= status["lag_seconds"] < 3700


def finish_ago(database, **age):
    ago = datetime.now(UTC) - timedelta(**age)
    finished = update(rollup_state).values(last_finished=ago)
    database.write(lambda connection: connection.execute(finished))


def receive_ago(database, **age):
    aged = update(issuance_events).values(received_at=datetime.now(UTC) - timedelta(**age))
    database.write(lambda connection: connection.execute(aged))


def test_status_exits_1_when_counting_is_behind(issue, roll_up, database, flask):
    """--max-lag: an old pending event, an old last run, no run at all, or a refusal."""
    status = ("rollup", "status", "--max-lag")
    never = flask(*status, "5m")
    assert (never.returncode, never.stderr) == (1, "behind: no run has finished yet\n")
    assert "watermark      0" in never.stdout
    roll_up()
    assert flask(*status, "5m").returncode == 0
    issue("2026-04-01T00:00:00Z")
    receive_ago(database, minutes=4)
    assert flask(*status, "5m").returncode == 0
    assert "an event has been waiting for 24" in flask(*status, "3m").stderr
    roll_up()
    finish_ago(database, hours=2)
    assert flask(*status, "3h").returncode == flask(*status, "1d").returncode == 0
    late = flask(*status, "7100s", "--json")
    assert late.returncode == 1
    assert "behind: the last run finished 72" in late.stderr
    assert json.loads(late.stdout)["finished_seconds"] >= 7200
    refused = update(rollup_state).values(refusal="because")
    database.write(lambda connection: connection.execute(refused))
    assert flask(*status, "1d").stderr == "behind: counting is refused: because\n"
    assert flask("rollup", "status").returncode == 0


@pytest.mark.parametrize("duration", ["", "m", "5 m", "-1", "5x", "1e3", "5m5", "\u0665m"])
def test_a_duration_that_is_none_is_refused(sqlite_url, duration):
    """--max-lag takes whole numbers with s, m, h or d."""
    refused = Runner(child_environ(sqlite_url))("rollup", "status", "--max-lag", duration)
    assert refused.returncode == 2
    assert "must be a duration like" in refused.stderr
