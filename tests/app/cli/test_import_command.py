"""``flask events import`` as an operator runs it."""

import gzip
import io
import json
import os
import resource
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.intake.importer import Importer
from tests.support.command_line import MORNING, Runner, assert_one_clear_error, line, result
from tests.support.settings import child_environ


@pytest.fixture
def sqlite_flask(sqlite_url: str) -> Runner:
    """For rules that no database has a part in."""
    return Runner(child_environ(sqlite_url))


def test_import_takes_several_files_gzip_and_standard_input(flask: Runner, tmp_path: Path) -> None:
    plain, packed = tmp_path / "a.ndjson", tmp_path / "b.ndjson.gz"
    plain.write_bytes(line("e1") + line("e2"))
    packed.write_bytes(gzip.compress(line("e2") + line("e3")))
    files = (str(plain), str(packed), "-")
    totals = result(flask("events", "import", "--json", *files, stdin=gzip.compress(line("e4"))))
    assert totals == {"received": 5, "accepted": 4, "duplicates": 1, "refused": 0}
    again = flask("events", "import", "-", *files[:2], stdin=line("e4"))
    assert (again.returncode, again.stderr) == (0, "")
    assert result(flask("rollup", "run", "--json"))["events"] == 4


def test_import_reads_csv_for_an_organization(flask: Runner) -> None:
    data = f"issuedAt,id,agentId\r\n{MORNING},e1,a1\r\n{MORNING},e2,a1\r\n".encode()
    options = ("--format", "csv", "--organization", "org-a", "--json")
    assert result(flask("events", "import", "-", *options, stdin=data))["accepted"] == 2


def test_import_names_refused_lines_and_stores_the_rest(flask: Runner, tmp_path: Path) -> None:
    """The import names file and line of each refused event and stores the others."""
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


def test_import_names_every_line_that_is_no_event(flask: Runner, tmp_path: Path) -> None:
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


def test_import_of_a_truncated_gzip_fails_in_one_line(flask: Runner, tmp_path: Path) -> None:
    """A truncated gzip file fails clearly, and the whole file then stores every event once."""
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


def test_a_damaged_file_is_named_and_the_others_are_read(flask: Runner, tmp_path: Path) -> None:
    """A damaged file is named; the others are read, totals are printed, and the exit code is 1."""
    packed = gzip.compress(line("b1") + line("b2"))
    contents = {
        "a.ndjson": line("a1"),
        "cut.ndjson.gz": gzip.compress(line("c1")) + packed[:-20],
        "header.gz": packed[:5],
        "garbage.gz": packed + b"garbage",
        "odd": ("{}".encode("utf-16"))[:-1],
        "z.ndjson": line("z1") + line("z2"),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    paths = [str(tmp_path / name) for name in contents]
    done = flask("events", "import", *paths, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout) == {
        "received": 6,
        "accepted": 6,
        "duplicates": 0,
        "refused": 0,
    }
    errors = done.stderr.splitlines()
    assert [error.partition(": ")[0] for error in errors] == ["Error"] * 4
    assert [path in error for path, error in zip(paths[1:5], errors, strict=True)] == [True] * 4


def test_a_file_that_cannot_be_opened_is_named(
    sqlite_flask: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is gone when its turn comes is named, and the others are read."""
    first, gone, last = (tmp_path / name for name in ("first", "gone", "last"))
    for path in (first, gone, last):
        path.write_bytes(line(path.name))
    usual = Importer.load

    def load(importer: Importer, source: str, file: io.BufferedReader) -> None:
        gone.unlink(missing_ok=True)
        usual(importer, source, file)

    monkeypatch.setattr(Importer, "load", load)
    done = sqlite_flask("events", "import", *map(str, (first, gone, last)), "--json")
    assert (done.returncode, json.loads(done.stdout)["accepted"]) == (1, 2)
    assert str(gone) in done.stderr
    assert "Traceback" not in done.stderr


def test_more_files_are_read_than_may_be_open(sqlite_flask: Runner, tmp_path: Path) -> None:
    """Files are opened one after the other, so their number has no limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    paths = [tmp_path / f"{number}.ndjson" for number in range(100)]
    for path in paths:
        path.write_bytes(line(path.stem))
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 50, hard))
    try:
        done = sqlite_flask("events", "import", *map(str, paths), "--json")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert result(done)["accepted"] == 100


@pytest.mark.parametrize(
    ("content", "file_format", "code"),
    [
        pytest.param(b"", "ndjson", 0, id="empty"),
        pytest.param(b"\n\n", "ndjson", 0, id="blank lines"),
        pytest.param(b"", "csv", 1, id="empty CSV"),
        pytest.param(b"id,organizationId,agentId,issuedAt\n", "csv", 0, id="a CSV header alone"),
        pytest.param(line(), "csv", 1, id="JSON as CSV"),
        pytest.param(b"id,organizationId,agentId,issuedAt\n", "ndjson", 1, id="CSV as JSON"),
        pytest.param(b"\0" * 1000, "ndjson", 1, id="zeros"),
        pytest.param(b"<events></events>", "csv", 1, id="XML"),
    ],
)
def test_a_file_without_events_is_named(
    sqlite_flask: Runner, tmp_path: Path, content: bytes, file_format: str, code: int
) -> None:
    """A file without an event is named on stderr; exit 1 unless it has the format, and is empty."""
    path = tmp_path / "file"
    path.write_bytes(content)
    os.utime(path, (0, 0))  # a last line without its end is awaited while a file is new
    done = sqlite_flask("events", "import", str(path), "--format", file_format)
    assert done.returncode == code
    (named,) = done.stderr.splitlines()
    assert named.startswith(f"{path}:")


def test_a_limit_of_an_event_is_that_of_a_line(sqlite_flask: Runner) -> None:
    """`MAX_EVENT_BYTES` is the limit of an imported line."""
    data = line("e1", note="x" * 900) + line("e2", note="x" * 1100) + line("e3")
    done = sqlite_flask("events", "import", "-", stdin=data, MAX_EVENT_BYTES="1024")
    assert done.returncode == 1
    assert done.stderr == "<stdin>:2: is larger than 1024 bytes\n"
    assert done.stdout.startswith("3 events: 2 stored")


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
    sqlite_flask: Runner, tmp_path: Path, arguments: list[str]
) -> None:
    given = [argument.format(tmp=tmp_path) for argument in arguments]
    error = assert_one_clear_error(sqlite_flask("events", "import", *given, stdin=line()))
    assert "{tmp}" not in "".join(arguments) or str(tmp_path) in error
