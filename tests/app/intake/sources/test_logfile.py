"""Lines of a followed file: whole ones only, and none that a truncation has mixed up."""

import gzip
import os

import msgspec
import pytest

from app.intake.sources import logfile
from app.intake.sources.logfile import LINE_BYTES, LogFile, NoFileError, ReplacedError, split


@pytest.fixture
def opened(tmp_path):
    files = []

    def opened(content, name="audit.log"):
        path = tmp_path / name
        path.write_bytes(content)
        files.append(LogFile(path))
        return files[-1]

    yield opened
    for file in files:
        file.close()


def test_a_chunk_is_split_at_its_last_line_end():
    """A line without an end is left for later, unless nothing follows. Blank lines are dropped."""
    assert split(b"a\nb\nc", inside=False, last=False) == ([b"a\n", b"b\n"], 4, 0, False)
    assert split(b"a\nb\nc", inside=False, last=True) == ([b"a\n", b"b\n", b"c"], 5, 0, False)
    assert split(b"", inside=False, last=True) == ([], 0, 0, False)
    assert split(b"\n\n", inside=False, last=False) == ([], 2, 0, False)


def test_a_long_line_is_skipped_once():
    """Its rest is not read as a line, even in a later chunk."""
    part = b"x" * LINE_BYTES
    assert split(b"a\n" + part, inside=False, last=False) == ([b"a\n"], len(part) + 2, 1, True)
    assert split(part, inside=True, last=False) == ([], len(part), 0, True)
    assert split(b"x\nb\n", inside=True, last=False) == ([b"b\n"], 4, 0, False)
    assert split(part + b"\nb\n", inside=False, last=False)[::2] == ([b"b\n"], 1)
    assert split(part, inside=False, last=True) == ([], len(part), 1, False)
    assert split(b"x", inside=True, last=True) == ([], 1, 0, False)


def test_nul_bytes_before_a_line_are_dropped():
    """A writer that does not append leaves them when its file is truncated."""
    nul = b"\0" * (2 * LINE_BYTES)
    assert split(nul, inside=False, last=False) == ([], len(nul), 0, False)
    assert split(nul + b"a\n", inside=False, last=False) == ([b"a\n"], len(nul) + 2, 0, False)
    assert split(nul + b"a", inside=False, last=False) == ([], len(nul), 0, False)


def read_all(file, mark, *, last=False):
    lines = []
    more = True
    while more:
        found = file.read(mark, last=last)
        lines += found.lines
        mark, more = found.mark, found.more
    return lines, mark


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_a_file_is_read_in_chunks(opened, monkeypatch, packed):
    """Chunks join without a gap, and a mark goes on where it was made."""
    monkeypatch.setattr(logfile, "CHUNK_BYTES", 1000)
    content = b"".join(b"line %05d\n" % number for number in range(2000))
    file = opened(gzip.compress(content) if packed else content)
    lines, mark = read_all(file, file.new_mark())
    assert b"".join(lines) == content
    assert mark.offset == len(content)
    half = file.read(file.new_mark(), last=False).mark
    again = opened(gzip.compress(content) if packed else content, "again.log")
    assert again.continues(half)
    assert b"".join(read_all(again, half)[0]) == content[half.offset :]


@pytest.mark.parametrize("size", [1, 1000, 1024, 1025, 5000])
def test_other_content_does_not_continue_a_mark(opened, size):
    """Other first bytes, other bytes before the offset, and too few of them are noticed."""
    content = os.urandom(size).replace(b"\n", b"x") + b"\n"
    mark = opened(content).read(opened(content).new_mark(), last=False).mark
    assert opened(content + b"more", "grown.log").continues(mark)
    for changed in (
        bytes([content[0] ^ 1]) + content[1:],
        content[:-2] + bytes([content[-2] ^ 1]) + content[-1:],
        content[:-1],
        b"",
    ):
        assert not opened(changed + b"", "changed.log").continues(mark)


def test_a_file_that_is_truncated_while_it_is_read_is_noticed(opened, monkeypatch):
    """The bytes of a chunk count only if the file still continues the mark behind them."""
    file = opened(b"first line\nsecond line\n")
    mark = msgspec.structs.replace(file.read(file.new_mark(), last=False).mark)
    read_at = file._read_at

    def replaced(offset, size):
        if offset == mark.offset:
            file.path.write_bytes(b"another text, longer than the one before, without its words\n")
        return read_at(offset, size)

    monkeypatch.setattr(file, "_read_at", replaced)
    with pytest.raises(ReplacedError):
        file.read(mark, last=False)


def test_a_compressed_file_that_is_still_written_is_read_as_far_as_it_goes(opened):
    """Its last line counts only when the file is complete."""
    content = b"".join(b"line %05d %s\n" % (n, os.urandom(20).hex().encode()) for n in range(500))
    packed = gzip.compress(content)
    file = opened(packed[: len(packed) // 2])
    lines, mark = read_all(file, file.new_mark(), last=True)
    assert content.startswith(b"".join(lines))
    assert 0 < mark.offset < len(content)
    file.path.write_bytes(packed)
    assert b"".join(lines + read_all(file, mark, last=True)[0]) == content


def test_what_is_no_file_is_refused(tmp_path):
    """A folder and a named pipe are refused at once, without waiting for a writer."""
    with pytest.raises(NoFileError, match="is a folder"):
        LogFile(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NoFileError, match="is not a file"):
        LogFile(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError):
        LogFile(tmp_path / "missing")


def test_names_of_rotated_files_are_known(tmp_path):
    """Numbers and dates behind the name are a rotation; the log of another process is not."""
    log = tmp_path / "audit.log"
    rotated = {
        "audit.log.1", "audit.log.12.gz", "audit.log-20260401", "audit.log-20260401.gz",
        "audit.log.2026-04-01_09", "audit-2026-04-01.log", "audit.2026-04-01.2.log.gz",
    }  # fmt: skip
    other = {"audit.log.bak", "audit-1.log", "audit-other.log", "audit.log.lock", "audit.log"}
    for name in rotated | other | {"unrelated.log"}:
        (tmp_path / name).touch()
    (tmp_path / "audit.log.99").mkdir()
    (tmp_path / "audit.log.98").symlink_to("audit.log.1")
    found = {one.path.name: one.rotated for one in logfile.siblings(log, ())}
    assert found == dict.fromkeys(rotated, True) | dict.fromkeys(other, False)
