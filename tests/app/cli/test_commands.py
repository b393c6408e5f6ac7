"""The command line: its arguments, its output and its exit codes."""

import socket
from collections.abc import Iterator
from pathlib import Path

import jwt
import psycopg
import pytest
from flask.testing import FlaskClient

from tests.support.command_line import (
    PASSWORD,
    Runner,
    assert_one_clear_error,
    event,
    line,
    result,
)
from tests.support.databases import PostgreSQL, conninfo
from tests.support.settings import KEY, child_environ


@pytest.fixture
def sqlite_flask(sqlite_url: str) -> Runner:
    """For rules that no database has a part in."""
    return Runner(child_environ(sqlite_url))


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without any tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
    else:
        postgresql: PostgreSQL = request.getfixturevalue("postgresql")
        name = postgresql.create("template0")
        yield postgresql.at(name)
        postgresql.drop(name)


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


# tokens mint


def test_mint_prints_one_token_that_the_service_accepts(
    sqlite_flask: Runner, client: FlaskClient
) -> None:
    arguments = ("--organization", "org-a", "--scope", "events:write", "--scope", "x:y")
    done = sqlite_flask("tokens", "mint", *arguments, "--expires", "90")
    assert (done.returncode, done.stderr) == (0, "")
    token = done.stdout.removesuffix("\n")
    claims = jwt.decode(token, KEY, algorithms=["HS256"])
    assert claims.keys() >= {"sub", "client_id", "scope", "jti", "iat", "exp", "organization_id"}
    assert claims["organization_id"] == "org-a"
    assert claims["scope"] == "events:write x:y"
    assert claims["exp"] - claims["iat"] == 90
    headers = {"Authorization": f"Bearer {token}"}
    read = client.get("/api/v1/analytics/tokens", headers=headers)
    assert (read.status_code, read.get_json()["tenantId"]) == (200, "org-a")
    written = client.post("/api/v1/events", headers=headers, json=event())
    assert (written.status_code, written.get_json()["accepted"]) == (202, 1)


def test_mint_grants_no_scope_unasked(sqlite_flask: Runner, client: FlaskClient) -> None:
    token = sqlite_flask("tokens", "mint", "--organization", "org-a").stdout.strip()
    headers = {"Authorization": f"Bearer {token}"}
    assert client.get("/api/v1/analytics/agents", headers=headers).status_code == 200
    assert client.post("/api/v1/events", headers=headers, json=event()).status_code == 403


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([], id="no organization"),
        pytest.param(["--organization", ""], id="empty organization"),
        pytest.param(["--organization", "a\nb"], id="control character"),
        pytest.param(["--organization", "x" * 256], id="256 code points"),
        pytest.param(["--organization", "org-a", "--expires", "0"], id="expires at once"),
        pytest.param(["--organization", "org-a", "--expires", "-1"], id="expired"),
        pytest.param(["--organization", "org-a", "--expires", "soon"], id="expires soon"),
        pytest.param(["--organization", "org-a", "--expires", "9" * 30], id="expires never"),
    ],
)
def test_mint_refuses_bad_arguments_in_one_line(sqlite_flask: Runner, arguments: list[str]) -> None:
    assert_one_clear_error(sqlite_flask("tokens", "mint", *arguments))


# db


def test_schema_goes_up_down_and_up(empty_url: str) -> None:
    flask = Runner(child_environ(empty_url))
    assert_one_clear_error(flask("db", "check"))
    assert flask("db", "upgrade").returncode == 0
    current = flask("db", "current")
    assert (current.returncode, "(head)" in current.stdout) == (0, True)
    assert flask("db", "check").returncode == 0
    assert flask("db", "downgrade", "base").returncode == 0
    assert_one_clear_error(flask("db", "check"))
    assert flask("db", "upgrade").returncode == 0
    assert flask("rollup", "run").returncode == 0


def test_an_unknown_revision_is_refused_in_one_line(flask: Runner) -> None:
    assert "no-such" in assert_one_clear_error(flask("db", "upgrade", "no-such"))
    assert "no-such" in assert_one_clear_error(flask("db", "downgrade", "no-such"))


COMMANDS = {
    "events import": ["events", "import", "-"],
    "rollup run": ["rollup", "run"],
    "rollup status": ["rollup", "status", "--json"],
    "demo load": ["demo", "load"],
    "db current": ["db", "current"],
    "db check": ["db", "check"],
    "db upgrade": ["db", "upgrade"],
    "db downgrade": ["db", "downgrade"],
    "db copy": ["db", "copy", "--to", "sqlite:////dev/null/copy.db"],
    "rollup verify": ["rollup", "verify", "--json"],
    "rollup rebuild": ["rollup", "rebuild", "--from", "2026-04", "--to", "2026-04", "--json"],
    "events purge": ["events", "purge", "--json"],
}


@pytest.mark.parametrize("command", list(COMMANDS.values())[:4], ids=list(COMMANDS)[:4])
def test_a_database_without_tables_is_named_in_one_line(empty_url: str, command: list[str]) -> None:
    error = assert_one_clear_error(Runner(child_environ(empty_url))(*command, stdin=line()))
    assert error.endswith(" (the schema is missing or out of date; run `flask db upgrade`)")


SCHEMA = " (the schema may be out of date; check it with `flask db current`)"


def test_a_missing_column_is_reported_as_an_old_schema(flask: Runner) -> None:
    """A missing column is reported in one line as a schema that is not current."""
    assert flask("db", "downgrade", "0001").returncode == 0
    assert assert_one_clear_error(flask("rollup", "run")).endswith(SCHEMA)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_an_unreachable_database_is_one_line_of_error(closed_port: int, command: list[str]) -> None:
    """An unreachable database is reported in one line without its password."""
    url = f"postgresql://operator:{PASSWORD}@127.0.0.1:{closed_port}/analytics"
    error = assert_one_clear_error(Runner(child_environ(url))(*command, stdin=line()))
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
        pytest.param("sqlite:////nonexistent/folder/analytics.db", id="no folder"),
        pytest.param("sqlite:////dev/null/analytics.db", id="no place"),
    ],
)
def test_a_bad_database_url_is_one_line_of_error(url: str) -> None:
    """An invalid database URL is reported in one line without its password."""
    error = assert_one_clear_error(Runner(child_environ(url))("rollup", "status"))
    assert PASSWORD not in error


# rollup


def test_rollup_counts_once_and_status_tells(flask: Runner) -> None:
    assert flask("events", "import", "-", stdin=line("e1") + line("e2")).returncode == 0
    before = result(flask("rollup", "status", "--json"))
    assert before["pending"] == 2
    assert before["lag_seconds"] > 0
    first = result(flask("rollup", "run", "--json"))
    assert (first["outcome"], first["events"]) == ("done", 2)
    assert result(flask("rollup", "run", "--json"))["events"] == 0
    after = result(flask("rollup", "status", "--json"))
    assert after["pending"] == 0
    assert after["watermark"] > before["watermark"]
    assert after["last_finished"] is not None
    human = flask("rollup", "status")
    assert (human.returncode, human.stderr) == (0, "")
    assert all(word in human.stdout for word in ("watermark", "pending", "lag", "last"))


def test_status_lists_the_last_runs(flask: Runner) -> None:
    assert flask("events", "import", "-", stdin=line()).returncode == 0
    assert flask("rollup", "run").returncode == 0
    (run,) = result(flask("rollup", "status", "--json"))["runs"]
    assert (run["outcome"], run["events"]) == ("done", 1)
    assert run["started_at"] is not None


def test_a_run_held_up_by_a_writer_exits_75(
    postgresql_url: str,
) -> None:
    """A run held up by an open transaction exits with 75, and the next run counts the events."""
    flask = Runner(child_environ(postgresql_url, ROLLUP_WAIT_SECONDS="1"))
    with psycopg.connect(conninfo(postgresql_url)) as writer:
        writer.execute(
            "INSERT INTO issuance_events (tenant_id, event_id, agent_id, issued_at) "
            "VALUES ('org-a', 'e1', 'a1', now())"
        )
        held_up = flask("rollup", "run")
        assert held_up.returncode == 75
        assert "Traceback" not in held_up.stderr
    assert result(flask("rollup", "run", "--json"))["events"] == 1


@pytest.mark.parametrize(
    "command",
    [["db", "current"], ["db", "check"], ["tokens", "mint", "--organization", "o"]],
    ids=" ".join,
)
def test_whatever_prints_a_result_prints_it_as_json_too(
    sqlite_flask: Runner, command: list[str]
) -> None:
    assert result(sqlite_flask(*command, "--json"))
