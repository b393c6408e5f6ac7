"""Output for a terminal only: bars on stderr, colours on stdout."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.config.settings import colours_wanted
from app.intake.importer import SQLITE_CHUNK_EVENTS
from app.storage.database import Database
from app.storage.tables import daily_issuance, issuance_events, rollup_runs
from tests.support.command_line import Runner, line, on_terminal
from tests.support.settings import child_environ

RED, YELLOW, PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[0m"


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """No database has a part in it."""
    return sqlite_url


@pytest.fixture
def environ(database_url: str) -> dict[str, str]:
    return {
        name: value for name, value in child_environ(database_url).items() if name != "NO_COLOR"
    }


@pytest.fixture
def some_events(
    issue: Callable[..., object], database: Database, sqlite_template: Path, tmp_path: Path
) -> Path:
    """Old events that are stored and not counted, a file with others, and an empty database."""
    issue("2020-04-01T00:00:00Z", times=5)
    received = sa.literal_column("'2020-04-01 00:00:00.000000'")
    aged = sa.update(issuance_events).values(received_at=received)
    database.write(lambda connection: connection.execute(aged))
    shutil.copy(sqlite_template, tmp_path / "copy.db")
    path = tmp_path / "events.ndjson"
    path.write_bytes(b"".join(line(f"e{number}") for number in range(5)))
    return path


LONG_WORK = {
    "importing": "events import FILE",
    "copying": "db copy --to sqlite:///FOLDER/copy.db",
    "counting": "rollup run",
    "verifying": "rollup verify",
    "rebuilding": "rollup rebuild --from 2020-04 --to 2020-04",
    "purging": "events purge",
}


def arguments_of(label: str, file: Path) -> list[str]:
    text = LONG_WORK[label].replace("FILE", str(file)).replace("FOLDER", str(file.parent))
    return [*text.split(), "--json"]


@pytest.mark.parametrize("label", LONG_WORK)
@pytest.mark.slow
def test_long_work_draws_a_bar_where_stderr_is_a_terminal(
    environ: dict[str, str], some_events: Path, roll_up: Callable[..., object], label: str
) -> None:
    if label == "purging":
        roll_up()
    shown = on_terminal(environ, *arguments_of(label, some_events), streams=["stderr"])
    assert shown.returncode == 0
    assert re.search(rf"{label}  \[[# -]+\]", shown.screen)
    assert ("100%" in shown.screen) == (label != "purging")
    # The last of it is a line's end, and a cursor that can be seen.
    assert shown.screen.endswith("\x1b[?25h\r\n")
    assert len(shown.stdout.splitlines()) == 1
    assert json.loads(shown.stdout)


@pytest.mark.parametrize("label", LONG_WORK)
def test_without_a_terminal_there_is_nothing_on_stderr(
    environ: dict[str, str], some_events: Path, label: str
) -> None:
    done = Runner(environ)(*arguments_of(label, some_events))
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1
    assert json.loads(done.stdout)


@pytest.mark.slow
def test_a_terminal_for_stdout_alone_gets_no_bar(
    environ: dict[str, str], some_events: Path
) -> None:
    shown = on_terminal(environ, "events", "import", str(some_events), streams=["stdout"])
    assert shown.screen == "5 events: 5 stored, 0 duplicates, 0 refused\r\n"
    assert shown.stderr == ""


@pytest.mark.slow
def test_events_from_a_pipe_are_counted_in_place_of_bytes(
    environ: dict[str, str], some_events: Path
) -> None:
    ours, theirs = os.pipe()
    os.write(theirs, some_events.read_bytes())
    os.close(theirs)
    with open(ours) as pipe:
        shown = on_terminal(environ, "events", "import", "-", streams=["stderr"], stdin=pipe)
    assert re.search(r"importing  \[[# -]+\]  5\b", shown.screen)


@pytest.mark.slow
def test_a_line_never_runs_into_a_bar(environ: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson"
    path.write_bytes(b"".join(line(f"e{n}") for n in range(SQLITE_CHUNK_EVENTS)) + b"nonsense\n")
    shown = on_terminal(environ, "events", "import", str(path), streams=["stderr"])
    assert shown.returncode == 1
    assert "importing" in shown.screen.partition(str(path))[0]
    assert f"\r\x1b[K{path}:{SQLITE_CHUNK_EVENTS + 1}: " in shown.screen


@pytest.fixture
def drifted(
    issue: Callable[..., object], roll_up: Callable[..., object], database: Database
) -> None:
    """A number that is wrong, and a run of each outcome in the history."""
    issue("2020-04-01T00:00:00Z")
    roll_up()
    wrong = sa.update(daily_issuance).values(issued=7)
    database.write(lambda connection: connection.execute(wrong))
    with database.reading() as connection:
        run = connection.execute(sa.select(rollup_runs)).one()._asdict()
    del run["id"]
    runs = [run | {"outcome": outcome} for outcome in ("failed", "held_up", "running")]
    database.write(lambda connection: connection.execute(sa.insert(rollup_runs), runs))


@pytest.mark.usefixtures("drifted")
class TestColours:
    @pytest.mark.slow
    def test_status_shows_an_outcome_other_than_done(self, environ: dict[str, str]) -> None:
        screen = on_terminal(environ, "rollup", "status", streams=["stdout"]).screen
        assert f"  {RED}failed  {PLAIN}  1 events" in screen
        assert f"  {YELLOW}held_up {PLAIN}  1 events" in screen
        assert f"  {YELLOW}running {PLAIN}  1 events" in screen
        assert "  done      1 events" in screen
        assert screen.count(PLAIN) == 3

    def test_verify_shows_drift(self, environ: dict[str, str]) -> None:
        shown = on_terminal(environ, "rollup", "verify", streams=["stdout"])
        assert (shown.returncode, shown.stderr) == (1, "")
        drift, summary = shown.screen.splitlines()
        assert drift.startswith(f"{RED}daily_issuance ")
        assert drift.endswith(f"stored 7, recounted 1{PLAIN}")
        assert summary == "1 buckets differ, events up to 1"

    @pytest.mark.slow
    def test_drift_has_lines_of_its_own_beside_the_bar(self, environ: dict[str, str]) -> None:
        screen = on_terminal(environ, "rollup", "verify", streams=["stdout", "stderr"]).screen
        assert f"\r\x1b[K{RED}daily_issuance" in screen
        assert screen.endswith("\r\x1b[K1 buckets differ, events up to 1\r\n")

    @pytest.mark.parametrize("command", ["status", "verify"])
    @pytest.mark.slow
    def test_no_color_switches_them_off(self, environ: dict[str, str], command: str) -> None:
        for value, wanted in (("", True), ("1", False), ("0", False)):
            colourful = environ | {"NO_COLOR": value}
            shown = on_terminal(colourful, "rollup", command, streams=["stdout"])
            assert ("\x1b[3" in shown.screen) == wanted, value

    @pytest.mark.parametrize("command", ["status", "verify"])
    @pytest.mark.slow
    def test_there_are_none_without_a_terminal(self, environ: dict[str, str], command: str) -> None:
        done = Runner(environ)("rollup", command)
        assert "\x1b" not in done.stdout + done.stderr
        beside = on_terminal(environ, "rollup", command, streams=["stderr"])
        assert "\x1b" not in beside.stdout


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [({}, True), ({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": "0"}, False)],
)
def test_any_value_but_an_empty_one_means_no_colour(environ: dict[str, str], wanted: bool) -> None:
    assert colours_wanted(environ) == wanted
