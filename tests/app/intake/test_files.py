"""Files to import: lines that are whole, also while the file is written."""

import gzip
import io
import os
import threading
import time
from pathlib import Path

import pytest

from app.intake import files
from app.intake.files import open_lines, skip_line
from tests.support.settings import EVENT_BYTES


def read(path: Path) -> list[bytes]:
    with path.open("rb") as file:
        return list(open_lines(file, EVENT_BYTES, lambda _: None))


def age(path: Path, seconds: float) -> None:
    """Let the file look as if it was last written so long ago."""
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_last_line_without_its_end_is_read(tmp_path: Path) -> None:
    """The last line of a file that does not change is whole."""
    path = tmp_path / "events"
    path.write_bytes(b"one\ntwo")
    age(path, 60)
    assert read(path) == [b"one\n", b"two"]


def test_a_part_of_a_last_line_is_not_read(tmp_path: Path) -> None:
    """The end of a line is awaited while the file still grows."""
    path = tmp_path / "events"
    path.write_bytes(b"one\nagent-1")

    def write() -> None:
        for part in (b"2", b"3", b"\n"):
            time.sleep(0.3)
            with path.open("ab") as file:
                file.write(part)

    writer = threading.Thread(target=write)
    writer.start()
    lines = read(path)
    writer.join()
    assert lines == [b"one\n", b"agent-123\n"]


def test_a_line_whose_end_never_comes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait for the end of a last line is limited, and a part of a line is never read."""
    monkeypatch.setattr(files, "GROWTH_SECONDS", 0.3)
    monkeypatch.setattr(files, "SETTLED_SECONDS", 3600)
    path = tmp_path / "events"
    path.write_bytes(b"one\nagent-1")
    with path.open("rb") as file:
        lines = open_lines(file, EVENT_BYTES, lambda _: None)
        assert next(lines) == b"one\n"
        with pytest.raises(EOFError, match="still grows"):
            next(lines)


def test_a_pipe_ends_with_its_last_line() -> None:
    """A pipe's last line needs no end: its writer has closed it."""
    ours, theirs = os.pipe()
    os.write(theirs, b"one\ntwo")
    os.close(theirs)
    with open(ours, "rb") as pipe:
        assert list(open_lines(pipe, EVENT_BYTES, lambda _: None)) == [b"one\n", b"two"]


def test_a_slow_pipe_reports_its_silence() -> None:
    """While a pipe has no data, the reader receives the seconds of silence."""
    ours, theirs = os.pipe()
    silences: list[float] = []

    def on_wait(silent: float) -> None:
        silences.append(silent)
        if silent > 0.2 and len(silences) < 1000:
            silences.extend([0] * 1000)
            os.close(theirs)

    os.write(theirs, b"one\n")
    with open(ours, "rb") as pipe:
        assert list(open_lines(pipe, EVENT_BYTES, on_wait)) == [b"one\n"]
    assert max(silences) > 0.2


@pytest.mark.parametrize("data", [b"\xff\xfe{", b"\xff\xfe{\0\n"], ids=["one byte", "an odd byte"])
def test_utf_16_that_ends_within_a_character_is_an_error(data: bytes) -> None:
    with pytest.raises(UnicodeError):
        list(open_lines(io.BufferedReader(io.BytesIO(data)), EVENT_BYTES, lambda _: None))


def test_lines_after_a_long_one_are_read() -> None:
    """A line far above the limit comes in parts, and the next one is read; also the last one."""
    long = b"x" * 3 * EVENT_BYTES
    for data in (long + b"\nnext\n", long, b"\xef\xbb\xbf" + long + b"\r\nnext\n"):
        file = io.BufferedReader(io.BytesIO(gzip.compress(data)))
        lines = open_lines(file, EVENT_BYTES, lambda _: None)
        first = next(lines)
        assert EVENT_BYTES < len(first) < EVENT_BYTES + 9
        skip_line(first, lines)
        assert list(lines) == [b"next\n"] * data.count(b"next")
