"""The command line: what an operator types, reads, and gets as exit code."""

import gzip
import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import psycopg
import pytest
from flask.testing import FlaskClient

from tests.conftest import KEY, Flasks, PostgreSQL, child_environ, conninfo

MORNING = "2024-04-01T09:00:00Z"
PASSWORD = "hunter2-of-the-operator"


def event(event_id: str = "e1", **members: Any) -> dict[str, Any]:
    """An event's members; a member given as ``...`` is left out."""
    whole = {"id": event_id, "organizationId": "org-a", "agentId": "a1", "issuedAt": MORNING}
    return {name: value for name, value in (whole | members).items() if value is not ...}


def line(event_id: str = "e1", **members: Any) -> bytes:
    return json.dumps(event(event_id, **members)).encode() + b"\n"


def assert_one_clear_error(done: Any) -> str:
    """No success, no traceback, nothing on stdout; click may put its usage before the line."""
    assert done.returncode not in (0, 75)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    *usage, error = [text for text in done.stderr.splitlines() if text]
    assert all(text.startswith(("Usage: ", "Try ")) for text in usage), done.stderr
    assert error.lower().startswith("error: ")
    return error


def result(done: Any) -> Any:
    """The one JSON document on stdout of a command that succeeded quietly."""
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1
    return json.loads(done.stdout)


@pytest.fixture
def sqlite_flask(sqlite_url: str) -> Flasks:
    """For rules that no database has a part in."""
    return Flasks(child_environ(sqlite_url))


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


# events import


def test_import_takes_several_files_gzip_and_standard_input(flask: Flasks, tmp_path: Path) -> None:
    plain, packed = tmp_path / "a.ndjson", tmp_path / "b.ndjson.gz"
    plain.write_bytes(line("e1") + line("e2"))
    packed.write_bytes(gzip.compress(line("e2") + line("e3")))
    files = (str(plain), str(packed), "-")
    totals = result(flask("events", "import", "--json", *files, stdin=gzip.compress(line("e4"))))
    assert totals == {"received": 5, "accepted": 4, "duplicates": 1, "refused": 0}
    again = flask("events", "import", "-", *files[:2], stdin=line("e4"))
    assert (again.returncode, again.stderr) == (0, "")
    assert result(flask("rollup", "run", "--json"))["events"] == 4


def test_import_reads_csv_for_an_organization(flask: Flasks) -> None:
    data = f"issuedAt,id,agentId\r\n{MORNING},e1,a1\r\n{MORNING},e2,a1\r\n".encode()
    options = ("--format", "csv", "--organization", "org-a", "--json")
    assert result(flask("events", "import", "-", *options, stdin=data))["accepted"] == 2


def test_import_names_file_and_line_of_what_it_refuses_and_stores_the_rest(
    flask: Flasks, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.ndjson", tmp_path / "second.ndjson"
    first.write_bytes(line("e1") + b"nonsense\n" + line("e2"))
    second.write_bytes(b"\n" + line("e3", agentId="") + line("e4"))
    for accepted in (3, 0):
        done = flask("events", "import", str(first), str(second), "--json")
        assert done.returncode == 1
        assert json.loads(done.stdout) == {
            "received": 5,
            "accepted": accepted,
            "duplicates": 3 - accepted,
            "refused": 2,
        }
        nonsense, agentless = done.stderr.splitlines()
        assert nonsense.startswith(f"{first}:2: ")
        assert agentless.startswith(f"{second}:2: ")
        assert "agentId" in agentless


ID_PROBLEMS: dict[str, Any] = {
    "missing": ...,
    "null": None,
    "a number": 1,
    "a boolean": True,
    "a list": ["e1"],
    "an object": {},
    "empty": "",
    "256 code points": "x" * 256,
    "a newline": "a\nb",
    "unit separator": "a\x1f",
    "delete": "a\x7f",
    "C1 first": "\x80a",
    "next line": "a\x85b",
    "C1 last": "a\x9f",
}
INSTANT_PROBLEMS: dict[str, Any] = {
    "missing": ...,
    "null": None,
    "a number": 1711962000,
    "empty": "",
    "a word": "yesterday",
    "no offset": "2024-04-01T09:00:00",
    "a date only": "2024-04-01",
    "no seconds": "2024-04-01T09:00Z",
    "no colon in the offset": "2024-04-01T09:00:00+0000",
    "hours only in the offset": "2024-04-01T09:00:00+00",
    "seconds in the offset": "2024-04-01T09:00:00+00:00:30",
    "an offset of 24 hours": "2024-04-01T09:00:00+24:00",
    "an offset of 60 minutes": "2024-04-01T09:00:00+01:60",
    "a zone's name": "2024-04-01T09:00:00 UTC",
    "the basic format": "20240401T090000Z",
    "a week date": "2024-W14-1T09:00:00Z",
    "a comma": "2024-04-01T09:00:00,5Z",
    "a dot without digits": "2024-04-01T09:00:00.Z",
    "digits of another script": "\u0662\u0660\u0662\u0664-04-01T09:00:00Z",
    "space around": f" {MORNING} ",
    "a newline behind": f"{MORNING}\n",
    "30 February": "2024-02-30T09:00:00Z",
    "29 February of a common year": "2023-02-29T09:00:00Z",
    "hour 24": "2024-04-01T24:00:00Z",
    "minute 60": "2024-04-01T09:60:00Z",
    "month 13": "2024-13-01T09:00:00Z",
    "before 1970": "1969-12-31T23:59:59.999999Z",
    "before 1970 by its offset": "1970-01-01T00:00:00+00:01",
    "before all time": "0001-01-01T00:00:00+23:59",
    "year 0": "0000-01-01T00:00:00Z",
    "after all time": "9999-12-31T23:59:59-23:59",
    "an hour ahead": (datetime.now(UTC) + timedelta(hours=1)).isoformat(),
}
BAD = {
    f"{field}: {problem}": (line("bad", **{field: value}), field)
    for field in ("id", "organizationId", "agentId")
    for problem, value in ID_PROBLEMS.items()
} | {
    f"issuedAt: {problem}": (line("bad", issuedAt=value), "issuedAt")
    for problem, value in INSTANT_PROBLEMS.items()
}
BAD |= {
    f"line: {problem}": (text.strip() + b"\n", "")
    for problem, text in {
        "words": b"nonsense",
        "cut": line("bad")[:-3],
        "a number": b"1",
        "a string": b'"e1"',
        "null": b"null",
        "a list": b"[" + line("bad").strip() + b"]",
        "no members": b"{}",
        "single quotes": b"{'id': 'e1'}",
        "NUL in an id": line("a\x00b"),
        "half a surrogate pair in an id": line("a\ud800"),
        "2 MiB": b"x" * 2**21,
        "invalid UTF-8": line("bad").replace(b"bad", b"b\xffd"),
        "nested deeply": b"[" * 100_000,
    }.items()
}


def test_import_names_every_line_that_is_no_event(flask: Flasks, tmp_path: Path) -> None:
    file = tmp_path / "bad.ndjson"
    file.write_bytes(b"".join(bad + line(f"good-{n}") for n, (bad, _) in enumerate(BAD.values())))
    done = flask("events", "import", str(file), "--json")
    assert done.returncode == 1
    messages: dict[int, str] = {}
    for text in done.stderr.splitlines():
        number, message = text.removeprefix(f"{file}:").split(": ", 1)
        messages[int(number)] = message
    unnamed = {
        problem: messages.get(number)
        for number, (problem, (_, field)) in zip(
            range(1, 2 * len(BAD), 2), BAD.items(), strict=True
        )
        if field not in messages.get(number, "nothing was said")
    }
    assert unnamed == {}
    assert sorted(messages) == list(range(1, 2 * len(BAD), 2))
    assert json.loads(done.stdout)["accepted"] == len(BAD)


def test_import_of_a_truncated_gzip_fails_clearly_and_the_whole_file_mends_it(
    flask: Flasks, tmp_path: Path
) -> None:
    whole = gzip.compress(b"".join(line(f"e{number}") for number in range(500)))
    file = tmp_path / "events.ndjson.gz"
    file.write_bytes(whole[:-200])
    done = flask("events", "import", str(file))
    assert done.returncode not in (0, 75)
    assert "Traceback" not in done.stderr
    (error,) = done.stderr.splitlines()
    assert str(file) in error
    file.write_bytes(whole)
    totals = result(flask("events", "import", str(file), "--json"))
    assert totals["accepted"] + totals["duplicates"] == 500
    assert result(flask("rollup", "run", "--json"))["events"] == 500


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["{tmp}/nowhere.ndjson"], id="unknown file"),
        pytest.param(["{tmp}"], id="folder"),
        pytest.param([], id="no file"),
        pytest.param(["-", "--format", "xml"], id="unknown format"),
        pytest.param(["-", "--organization", ""], id="empty organization"),
        pytest.param(["-", "--organization", "a\tb"], id="control character in organization"),
        pytest.param(["-", "--organization", "x" * 256], id="long organization"),
    ],
)
def test_import_refuses_bad_arguments_in_one_line(
    sqlite_flask: Flasks, tmp_path: Path, arguments: list[str]
) -> None:
    given = [argument.format(tmp=tmp_path) for argument in arguments]
    error = assert_one_clear_error(sqlite_flask("events", "import", *given, stdin=line()))
    assert "{tmp}" not in "".join(arguments) or str(tmp_path) in error


# tokens mint


def test_mint_prints_one_token_that_the_service_accepts(
    sqlite_flask: Flasks, client: FlaskClient
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


def test_mint_grants_no_scope_unasked(sqlite_flask: Flasks, client: FlaskClient) -> None:
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
def test_mint_refuses_bad_arguments_in_one_line(sqlite_flask: Flasks, arguments: list[str]) -> None:
    assert_one_clear_error(sqlite_flask("tokens", "mint", *arguments))


# db


def test_schema_goes_up_down_and_up(empty_url: str) -> None:
    flask = Flasks(child_environ(empty_url))
    assert_one_clear_error(flask("db", "check"))
    assert flask("db", "upgrade").returncode == 0
    current = flask("db", "current")
    assert (current.returncode, "(head)" in current.stdout) == (0, True)
    assert flask("db", "check").returncode == 0
    assert flask("db", "downgrade", "base").returncode == 0
    assert_one_clear_error(flask("db", "check"))
    assert flask("db", "upgrade").returncode == 0
    assert flask("rollup", "run").returncode == 0


def test_an_unknown_revision_is_refused_in_one_line(flask: Flasks) -> None:
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
}


@pytest.mark.parametrize("command", list(COMMANDS.values())[:4], ids=list(COMMANDS)[:4])
def test_a_database_without_tables_is_named_in_one_line(empty_url: str, command: list[str]) -> None:
    assert_one_clear_error(Flasks(child_environ(empty_url))(*command, stdin=line()))


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_an_unreachable_database_is_named_in_one_line_without_its_password(
    closed_port: int, command: list[str]
) -> None:
    url = f"postgresql://operator:{PASSWORD}@127.0.0.1:{closed_port}/analytics"
    error = assert_one_clear_error(Flasks(child_environ(url))(*command, stdin=line()))
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
def test_a_bad_database_url_is_refused_in_one_line_without_its_password(url: str) -> None:
    error = assert_one_clear_error(Flasks(child_environ(url))("rollup", "status"))
    assert PASSWORD not in error


# rollup


def test_rollup_counts_once_and_status_tells(flask: Flasks) -> None:
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


def test_status_lists_the_last_runs(flask: Flasks) -> None:
    assert flask("events", "import", "-", stdin=line()).returncode == 0
    assert flask("rollup", "run").returncode == 0
    (run,) = result(flask("rollup", "status", "--json"))["runs"]
    assert (run["outcome"], run["events"]) == ("done", 1)
    assert run["started_at"] is not None


def test_a_run_held_up_by_an_open_transaction_exits_75_and_the_next_resumes(
    postgresql_url: str,
) -> None:
    flask = Flasks(child_environ(postgresql_url, ROLLUP_WAIT_SECONDS="1"))
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
    sqlite_flask: Flasks, command: list[str]
) -> None:
    assert result(sqlite_flask(*command, "--json"))
