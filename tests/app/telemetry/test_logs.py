"""The log: one line for each unit of work, for machines or for people."""

import io
import json
import logging
import pty
import subprocess
import sys
import threading
from datetime import UTC, datetime

import pytest

from app.config.settings import ROOT
from app.telemetry import logs
from tests.support.settings import child_environ, make_settings


@pytest.fixture
def written():
    """Writes a line with a formatter and returns it."""
    log = logging.Logger("test", logging.DEBUG)

    def write(formatter, level=logging.INFO, name="work", *, error=None, **fields):
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(formatter)
        log.handlers = [handler]
        log.log(level, name, exc_info=error, extra={"fields": fields})
        return stream.getvalue()

    return write


def as_json(line):
    assert line.count("\n") == 1
    return json.loads(line)


def test_a_line_says_when_how_bad_where_and_what(written):
    line = as_json(written(logs.JsonLines(), logging.WARNING, events=3, seconds=0.25))
    when = datetime.fromisoformat(line.pop("time"))
    assert abs((datetime.now(UTC) - when).total_seconds()) < 60
    assert line == {
        "level": "warning",
        "logger": "test",
        "message": "work",
        "events": 3,
        "seconds": 0.25,
    }


def test_fields_without_a_value_are_left_out(written):
    assert "tenant" not in as_json(written(logs.JsonLines(), tenant=None))
    assert "tenant" not in written(logs.TextLines(), tenant=None)


def test_an_error_with_its_traceback_is_one_line_of_json(written):
    try:
        raise ValueError("broken\nin two")
    except ValueError as error:
        line = as_json(written(logs.JsonLines(), error=error))
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ValueError: broken\nin two")


@pytest.mark.parametrize(
    "hostile", ["a\nb", 'a" level="info', "a b", "\u2028", "\x1b[31m", "=", ""]
)
def test_no_value_can_pass_for_another_line_or_field(written, hostile):
    assert as_json(written(logs.JsonLines(), agent=hostile))["agent"] == hostile
    line = written(logs.TextLines(), agent=hostile)
    assert line.endswith(f" work agent={json.dumps(hostile)}\n")
    assert line.isascii()


def test_values_that_json_cannot_hold_are_written_as_text(written):
    assert as_json(written(logs.JsonLines(), where=ROOT))["where"] == str(ROOT)


SECRET = "k7" * 22


@pytest.mark.parametrize("shape", [logs.JsonLines, logs.TextLines])
@pytest.mark.parametrize("prefix", ["agk_", "agk%5F", "agk%5f", "agk%255F"])
def test_a_key_is_masked_wherever_it_is(written, shape, prefix):
    """A key is masked in the message, in fields and in tracebacks."""
    key = prefix + SECRET
    try:
        raise ValueError(f"unexpected {key}") from RuntimeError(key)
    except ValueError as error:
        line = written(shape(), error=error, path=f"/x/{key}?key={key}", many=[key, {"k": key}])
    assert SECRET[:6] not in line
    assert line.count(f"{prefix}***") == 6


@pytest.mark.parametrize("shape", [logs.JsonLines, logs.TextLines])
def test_a_key_beside_half_a_character_is_masked(written, shape):
    """Lines that UTF-8 cannot encode are written another way."""
    assert SECRET not in written(shape(), agent=f"\ud800agk_{SECRET}\ud800")


def test_half_a_character_costs_no_line(written):
    assert "\\ud800" in written(logs.TextLines(), agent="\ud800")
    line = as_json(written(logs.JsonLines(), agent="\ud800"))
    assert line["agent"] == "\ud800"
    assert datetime.fromisoformat(line["time"]).tzinfo is UTC


def test_text_is_for_people(written):
    line = written(logs.TextLines(), logging.ERROR, seconds=0.123456, route="/api/v1/events")
    assert line.endswith(" error    work seconds=0.123 route=/api/v1/events\n")


def test_bound_fields_are_in_every_line_of_the_thread(written):
    """Bound fields are in every log line of this thread until they are unbound."""
    formatter = logs.JsonLines()
    token = logs.bind(request_id="one")
    elsewhere = []
    thread = threading.Thread(target=lambda: elsewhere.append(written(formatter)))
    thread.start()
    thread.join()
    inside = written(formatter)
    logs.unbind(token)
    assert as_json(inside)["request_id"] == "one"
    assert "request_id" not in as_json(elsewhere[0])
    assert "request_id" not in as_json(written(formatter))


PROGRAM = """
import logging
from app.telemetry import logs
from app.config.settings import Settings
logs.configure(Settings.from_environ())
logging.getLogger("app").debug("quiet")
logging.getLogger("app").info("spoken")
logging.getLogger("library").warning("loud")
"""


def output(url, **variables):
    """What the program writes to a pipe."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=child_environ(url, **variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_lines_go_to_stdout_as_json_unless_it_is_a_terminal(sqlite_url):
    assert [json.loads(line)["message"] for line in output(sqlite_url)] == ["spoken", "loud"]


def test_a_terminal_gets_text(sqlite_url):
    ours, theirs = pty.openpty()
    subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=child_environ(sqlite_url),
        stdout=theirs,
        timeout=60,
        check=True,
    )
    with open(theirs, "wb"), open(ours, "rb", buffering=0) as terminal:
        shown = terminal.read(10_000).decode().splitlines()
    assert [line.split()[2:] for line in shown] == [["info", "spoken"], ["warning", "loud"]]


@pytest.mark.parametrize(
    ("variables", "messages"),
    [
        ({"LOG_LEVEL": "WARNING"}, ["loud"]),
        ({"LOG_LEVEL": "debug"}, ["quiet", "spoken", "loud"]),
        ({"LOG_LEVEL": "ERROR"}, []),
    ],
)
@pytest.mark.slow
def test_the_level_is_a_setting(sqlite_url, variables, messages):
    lines = output(sqlite_url, **variables)
    assert [json.loads(line)["message"] for line in lines] == messages


@pytest.mark.slow
def test_the_format_is_a_setting(sqlite_url):
    assert [line.split()[-1] for line in output(sqlite_url, LOG_FORMAT="text")] == [
        "spoken",
        "loud",
    ]


@pytest.mark.parametrize("wrong", ["TRACE", "LOUD", "20"])
def test_an_unknown_level_is_refused_by_name(sqlite_url, wrong):
    with pytest.raises(Exception, match=r"^LOG_LEVEL must be one of DEBUG, INFO, WARNING, ERROR$"):
        make_settings(sqlite_url, LOG_LEVEL=wrong)
