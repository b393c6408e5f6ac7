"""Files to import: read as data arrives, decompressed, as UTF-8, and as lines of limited length."""

import codecs
import gzip
import io
import os
import select
import stat
import time
from collections.abc import Callable, Iterator
from typing import Any

BOM = b"\xef\xbb\xbf"
READ_BYTES = 128 * 1024
WAIT_MILLISECONDS = 100
# A file that has not changed for so long is complete, even if its last line has no end.
SETTLED_SECONDS = 5
GROWTH_SECONDS = 30
_GZIP = b"\x1f"
_UTF_16 = (b"\xff", b"\xfe")
_LINE_END = b"\r\n"


def open_lines(
    file: io.BufferedReader, max_bytes: int, on_wait: Callable[[float], None]
) -> Iterator[bytes]:
    """The lines of a file, as :func:`bounded_lines` yields them.

    Args:
        on_wait: called before each read, and while a pipe has no data; its argument is the seconds
            since the pipe's last data.

    Raises:
        EOFError, OSError, UnicodeError, zlib.error: the file is damaged or cannot be read.
    """
    plain = _utf_8(_decompressed(_arriving(file, on_wait)))
    return bounded_lines(plain, max_bytes, lambda: _is_complete(file))


def bounded_lines(
    file: io.BufferedIOBase, max_bytes: int, is_complete: Callable[[], bool] = lambda: True
) -> Iterator[bytes]:
    """Lines with their ends, without the byte order mark of the file.

    A line above ``max_bytes`` comes in parts, each above it but perhaps the last. Only the last
    part has the line's end, so a document of one line can be read, and other readers call
    :func:`skip_line`.

    Args:
        is_complete: whether a last line without an end will not grow. It waits a moment otherwise.

    Raises:
        EOFError: the last line has no end, and the file still grows.
    """
    most = max_bytes + len(_LINE_END) + 1
    line = file.readline(most + len(BOM)).removeprefix(BOM)
    while line:
        if not line.endswith(b"\n"):
            line = _complete_line(line, file, most, is_complete)
        yield line
        line = file.readline(most)


def is_longer(line: bytes, max_bytes: int) -> bool:
    """Whether a line is longer than the limit. Its end does not count."""
    return len(line) > max_bytes + len(_LINE_END) or len(line.rstrip(_LINE_END)) > max_bytes


def _complete_line(
    line: bytes, file: io.BufferedIOBase, most: int, is_complete: Callable[[], bool]
) -> bytes:
    """The last line, and what is written to it until it has an end or the file is complete."""
    give_up = time.monotonic() + GROWTH_SECONDS
    while len(line) < most and not line.endswith(b"\n") and not is_complete():
        if time.monotonic() > give_up:
            raise EOFError("the last line has no end, and the file still grows; import it later")
        line += file.readline(most - len(line))
    return line


def skip_line(part: bytes, lines: Iterator[bytes]) -> bool:
    """Skip the rest of a line of which ``part`` has been read; return whether it has text."""
    has_text = False
    while part and not part.endswith(b"\n"):
        part = next(lines, b"")
        has_text = has_text or bool(part.strip())
    return has_text


def is_regular(file: io.BufferedReader) -> bool:
    """Whether all of a file is there, in contrast to a pipe."""
    try:
        return stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except OSError:  # a file in memory
        return True


def _is_complete(file: io.BufferedReader) -> bool:
    """Whether a file has not changed for SETTLED_SECONDS, or is a pipe, whose end is final."""
    try:
        status = os.fstat(file.fileno())
    except OSError:  # a file in memory
        return True
    if stat.S_ISREG(status.st_mode) and 0 <= time.time() - status.st_mtime < SETTLED_SECONDS:
        time.sleep(WAIT_MILLISECONDS / 1000)
        return False
    return True


class _Arriving(io.RawIOBase):
    """A file whose reads never block for long, so that Ctrl-C is handled at once.

    Ctrl-C ends a read that blocks, but not a read that begins just after Ctrl-C: the process would
    wait for more data from the pipe. So this class polls, and reads only data that has arrived.
    """

    def __init__(self, file: io.BufferedReader, on_wait: Callable[[float], None]) -> None:
        self._file = file
        self._on_wait = on_wait
        self._ready = select.poll()
        self._ready.register(file, select.POLLIN)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        began = time.monotonic()
        self._on_wait(0)
        while not self._ready.poll(WAIT_MILLISECONDS):
            self._on_wait(time.monotonic() - began)
        return self._file.readinto1(buffer)


def _arriving(file: io.BufferedReader, on_wait: Callable[[float], None]) -> io.BufferedReader:
    try:
        file.fileno()
    except OSError:  # a file in memory
        return file
    return io.BufferedReader(_Arriving(file, on_wait), READ_BYTES)


def _decompressed(file: io.BufferedReader) -> io.BufferedReader | gzip.GzipFile:
    """The file, decompressed if its content is gzip; its name does not matter."""
    # One byte is tested: no text begins with it, and a slow pipe may have no second byte yet.
    if file.peek(1)[:1] == _GZIP:
        return gzip.GzipFile(fileobj=file)
    return file


class _FromUtf16(io.RawIOBase):
    """A UTF-16 file as UTF-8. Lone surrogates stay, and are refused with the line that has them."""

    def __init__(self, file: io.BufferedReader | gzip.GzipFile) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-16")("surrogatepass")
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = b"more"
        while not self._rest and data:
            data = self._file.read1(READ_BYTES)
            text = self._decoder.decode(data, final=not data)
            self._rest = text.encode("utf-8", "surrogatepass")
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def _utf_8(file: io.BufferedReader | gzip.GzipFile) -> io.BufferedIOBase:
    """The file, converted if it begins with the byte order mark of UTF-16."""
    # One byte is tested, as above: no UTF-8 has it.
    if file.peek(1)[:1] in _UTF_16:
        return io.BufferedReader(_FromUtf16(file), READ_BYTES)
    return file
