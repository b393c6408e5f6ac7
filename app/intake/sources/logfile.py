"""A log file that is followed: its identity, its rotated names, and the lines after a mark.

A file is known by device and inode, and by the bytes that were read: a hash of the first ones, and
one of the last ones before the offset. So a file that was truncated, replaced or compressed differs
from one that grew.
"""

import gzip
import hashlib
import os
import re
import stat
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from app.intake.events import prepared
from app.intake.files import BOM

WINDOW_BYTES = 1024
CHUNK_BYTES = 4 * 1024 * 1024
# A longer line is skipped and counted as refused. No record is longer: see MAX_EVENT_BYTES.
LINE_BYTES = 1024 * 1024 + 2
_STEP_BYTES = 128 * 1024
_GZIP = b"\x1f\x8b"
# After the name of a log, as audit.log.1, audit.log-20260401.gz or audit.log.2026-04-01_09.
_NUMBER = r"[-._]\d[\d._:T-]*"
# Before the suffix it must be a date: audit-1.log may be the log of another process.
_DATE = r"[-._]\d{4}-?\d\d-?\d\d[\d._:T-]*"
_DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile)


class Key(NamedTuple):
    """A file as the system knows it."""

    device: int
    inode: int


class Stamp(NamedTuple):
    """The state of a file; while it is the same, so is the content."""

    size: int
    modified: int


@prepared
class Mark(msgspec.Struct, frozen=True):
    """How far one file is read.

    Attributes:
        path: where it was last seen.
        head: SHA-256 of the first bytes that were read, at most ``WINDOW_BYTES``.
        tail: SHA-256 of the last bytes before the offset.
        modified: the file's time of change when it was last read, in nanoseconds.
        inside: whether the offset is inside a line that is too long.
    """

    device: int
    inode: int
    path: str
    offset: int = 0
    head: str = ""
    tail: str = ""
    modified: int = 0
    inside: bool = False

    @property
    def key(self) -> Key:
        return Key(self.device, self.inode)


class ReplacedError(Exception):
    """The file no longer continues what was read: it was truncated or written anew."""


class NoFileError(OSError):
    """The path does not lead to a file that can be followed."""


@dataclass(frozen=True)
class Lines:
    """Lines of a file, and the mark behind them.

    Attributes:
        oversized: how many lines were skipped because of their length.
        more: whether there is more to read at once.
    """

    lines: list[bytes]
    mark: Mark
    oversized: int
    more: bool


class LogFile:
    """An open file, plain or gzip-compressed.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be opened, or it is no file.
    """

    def __init__(self, path: Path) -> None:
        # Without O_NONBLOCK, the open of a named pipe would wait for its writer.
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._gzip: gzip.GzipFile | None = None
        self._is_damaged = False
        # The last mark of a compressed file, with the bytes before it: to go back means to read
        # the file again from its begin.
        self._known: tuple[Mark, tuple[bytes, bytes]] | None = None
        try:
            status = os.fstat(self._fd)
            if not stat.S_ISREG(status.st_mode):
                kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a file"
                raise NoFileError(f"{path} is {kind}; name a log file")
            if os.pread(self._fd, len(_GZIP), 0) == _GZIP:
                self._decompress()
        except BaseException:
            self.close()
            raise
        self.path = path
        self.key = Key(status.st_dev, status.st_ino)

    @property
    def is_compressed(self) -> bool:
        return self._gzip is not None

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _decompress(self) -> None:
        """Begin to read the compressed content at its begin."""
        os.lseek(self._fd, 0, os.SEEK_SET)
        file = open(self._fd, "rb", closefd=False)  # noqa: SIM115 - close() closes the descriptor
        self._gzip = gzip.GzipFile(fileobj=file)

    def stamp(self) -> Stamp:
        """Size and time of change."""
        status = os.fstat(self._fd)
        return Stamp(status.st_size, status.st_mtime_ns)

    def new_mark(self) -> Mark:
        """The mark at the begin of the file."""
        path = str(self.path.resolve())  # a symbolic link may soon lead elsewhere
        return Mark(*self.key, path, modified=self.stamp().modified)

    def continues(self, mark: Mark) -> bool:
        """Whether the file begins with what was read up to the mark."""
        return self._before(mark) is not None

    def read(self, mark: Mark, *, last: bool) -> Lines:
        """The whole lines after a mark, at most ``CHUNK_BYTES``.

        Args:
            last: whether the file is complete, so that a last line without an end is a line.

        Raises:
            ReplacedError: the file does not continue the mark.
        """
        stamp = self.stamp()
        before = self._before(mark)
        if before is None:
            raise ReplacedError
        chunk = self._read_at(mark.offset, CHUNK_BYTES)
        # The file may have been truncated between the check and the read. A compressed file is
        # written once, and to go back in it would mean to read it again from its begin.
        if not self.is_compressed and self._before(mark) is None:
            raise ReplacedError
        ends = len(chunk) < CHUNK_BYTES
        last = last and ends and not self._is_damaged
        lines, used, oversized, inside = split(chunk, inside=mark.inside, last=last)
        head, tail = before
        if mark.offset == 0 and lines:
            lines[0] = lines[0].removeprefix(BOM)
        read = chunk[:used]
        head, tail = (head + read)[:WINDOW_BYTES], (tail + read)[-WINDOW_BYTES:]
        after = msgspec.structs.replace(
            mark,
            device=self.key.device,
            inode=self.key.inode,
            offset=mark.offset + used,
            head=_hash(head),
            tail=_hash(tail),
            modified=stamp.modified,
            inside=inside,
        )
        if self.is_compressed:
            self._known = after, (head, tail)
        return Lines(lines, after, oversized, more=not ends and used > 0)

    def _before(self, mark: Mark) -> tuple[bytes, bytes] | None:
        """The first and the last bytes before a mark, if they are those that were read."""
        size = min(mark.offset, WINDOW_BYTES)
        if size == 0:
            return b"", b""
        if self._known is not None and self._known[0] == mark:
            return self._known[1]
        head = self._read_at(0, size)
        if _hash(head) != mark.head:
            return None
        tail = self._read_at(mark.offset - size, size)
        return (head, tail) if _hash(tail) == mark.tail else None

    def _read_at(self, offset: int, size: int) -> bytes:
        """Bytes of the content; fewer at its end, or where a compressed file is damaged."""
        if self._gzip is None:
            return _read_plain(self._fd, offset, size)
        parts: list[bytes] = []
        if self._is_damaged:
            self._decompress()
        self._is_damaged = False
        try:
            if self._gzip.seek(offset) != offset:
                return b""
            while size and (part := self._gzip.read1(min(size, _STEP_BYTES))):
                parts.append(part)
                size -= len(part)
        except _DAMAGED:
            self._is_damaged = True  # or it is still being written
        return b"".join(parts)


def _read_plain(fd: int, offset: int, size: int) -> bytes:
    parts = []
    while size and (part := os.pread(fd, size, offset)):
        parts.append(part)
        offset += len(part)
        size -= len(part)
    return b"".join(parts)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def split(chunk: bytes, *, inside: bool, last: bool) -> tuple[list[bytes], int, int, bool]:
    """The lines of a chunk, how many bytes are used, how many lines are too long, and whether the
    chunk ends inside a line that is too long.

    NUL bytes before a line are dropped: a writer that does not append leaves them when its file is
    truncated.
    """
    begin = 0
    if inside:
        begin = chunk.find(b"\n") + 1
        if begin == 0:
            return [], len(chunk), 0, not last
    end = chunk.rfind(b"\n") + 1
    lines: list[bytes] = []
    oversized = 0
    for whole in chunk[begin:end].split(b"\n")[:-1] if end > begin else ():
        line = whole.lstrip(b"\0")
        if len(line) >= LINE_BYTES:
            oversized += 1
        elif line:
            lines.append(line + b"\n")
    rest = chunk[max(begin, end) :]
    bare = rest.lstrip(b"\0")
    if last and len(bare) < LINE_BYTES:
        return lines + ([bare] if bare else []), len(chunk), oversized, False
    if len(bare) >= LINE_BYTES:
        return lines, len(chunk), oversized + 1, not last
    return lines, len(chunk) - len(bare), oversized, False


@dataclass(frozen=True)
class Sibling:
    """A file beside a log: perhaps the log under a rotated name.

    Attributes:
        rotated: whether its name is the log's with a number or a date.
    """

    path: Path
    key: Key
    stamp: Stamp
    rotated: bool


def siblings(log: Path, marks: Iterable[Mark]) -> list[Sibling]:
    """The files that may be the log, or may have been: by name, or by the inode of a mark.

    They are in the folder of the log, and in those where it leads to or was seen. Symbolic links
    are left out.

    Raises:
        OSError: a folder cannot be read.
    """
    target = log.resolve()
    seen = [Path(mark.path) for mark in marks]
    inodes = {mark.inode for mark in marks}
    stems = tuple({log.stem, target.stem, *(path.stem for path in seen)})
    rotated = _rotated_names(log, target)
    found: dict[Key, Sibling] = {}
    for folder in {log.parent, target.parent, *(path.parent for path in seen)}:
        for entry in _entries(folder):
            if not entry.name.startswith(stems) and entry.inode() not in inodes:
                continue
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    key = Key(status.st_dev, status.st_ino)
                    stamp = Stamp(status.st_size, status.st_mtime_ns)
                    is_rotated = rotated.fullmatch(entry.name) is not None
                    found[key] = Sibling(Path(entry.path), key, stamp, is_rotated)
    return sorted(found.values(), key=lambda one: one.stamp.modified)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []


def _rotated_names(log: Path, target: Path) -> re.Pattern[str]:
    """The names that rotation gives to a log.

    If the log is a symbolic link, these are also the names that differ from its target's in
    digits.
    """
    stem, suffix = re.escape(log.stem), re.escape(log.suffix)
    names = [f"{re.escape(log.name)}{_NUMBER}", f"{stem}{_DATE}{suffix}"]
    if target != log:
        names.append(re.sub(r"\d+", r"\\d+", re.escape(target.name)))
    return re.compile(rf"({'|'.join(names)})(\.gz)?")
