"""Records of delimited text: lines, in which a quoted cell may contain line breaks (RFC 4180)."""

import csv
from collections import deque
from collections.abc import Collection, Iterator

from app.intake.events import InvalidEvent, too_large
from app.intake.files import is_longer, skip_line

MAX_RECORD_LINES = 1000
SEPARATORS = ",;\t"


class DelimitedRecords:
    """The records of a file, each as its cells or as the reason why it is refused.

    Blank lines are skipped. A record that is broken is refused with its first line alone: its
    quotation mark may be there by mistake, so reading goes on at its second line.

    Args:
        lines: lines with their ends, as ``app.intake.files.open_lines`` yields them.
        max_bytes: the limit of a record.

    Attributes:
        separator: separates the cells of a record.
        spaced: whether the spaces around a cell do not belong to it.
        number: the number of the record's first line; the first line of the file is 1.
        continuation: the record's other lines.
    """

    def __init__(self, lines: Iterator[bytes], max_bytes: int) -> None:
        self.separator = ","
        self.spaced = False
        self.number = 0
        self.continuation: list[bytes] = []
        self._first = b""
        self._lines = lines
        self._max_bytes = max_bytes
        self._again: deque[bytes] = deque()
        self._lines_read = 0
        self._open_until = 0
        # The csv module has its own limit of a cell, for the whole process.
        csv.field_size_limit(max(max_bytes, csv.field_size_limit()))

    def first_line(self) -> str:
        """The next line that is not blank; it is read again as a record."""
        while (line := self._next_line()) and not line.strip():
            pass
        if line:
            self._push_back([line])
        return _text(line)

    def __iter__(self) -> Iterator[list[str] | InvalidEvent]:
        while line := self._next_line():
            if not line.strip():
                continue
            self.number, self.continuation, self._first = self._lines_read, [], line
            if is_longer(line, self._max_bytes):
                self._first = b""  # only its beginning is known
                yield too_large(self._max_bytes)
            elif b'"' in line:
                yield self._quoted(line)
            else:
                yield self._trimmed(_text(line).rstrip("\r\n").split(self.separator))

    def text(self) -> bytes:
        """The current record as it was read; only its first line if it is broken."""
        return b"".join((self._first, *self.continuation)) if self.continuation else self._first

    def read_again(self) -> None:
        """Read the other lines of the current record as records: the record is broken."""
        self._push_back(self.continuation)
        self.continuation = []

    def cells(self, line: bytes) -> list[str]:
        """The cells of a line that is read alone, without regard to open quotation marks."""
        try:
            return self._trimmed(next(csv.reader([_text(line)], delimiter=self.separator)))
        except csv.Error:
            return []

    def _quoted(self, line: bytes) -> list[str] | InvalidEvent:
        reader = csv.reader(
            self._texts(line), delimiter=self.separator, skipinitialspace=self.spaced, strict=True
        )
        try:
            return self._trimmed(next(reader))
        except csv.Error as error:
            self.read_again()
            return InvalidEvent("", _reason(error))

    def _texts(self, line: bytes) -> Iterator[str]:
        """The record's first line, and more lines while a quoted cell has no end."""
        size = len(line)
        yield _text(line)
        # Lines that did not end the cell of an earlier record do not end this one's either. To
        # read them again for each of them would take a thousand times as long.
        if self.number <= self._open_until:
            return
        unread = 0
        while len(self.continuation) < MAX_RECORD_LINES - 1 and (line := self._next_line()):
            self.continuation.append(line)
            size += len(line)
            if size > self._max_bytes:
                unread = 1
                break
            yield _text(line)
        self._open_until = self._lines_read - unread

    def _trimmed(self, cells: list[str]) -> list[str]:
        return [cell.strip(" ") for cell in cells] if self.spaced else cells

    def _next_line(self) -> bytes:
        """The next line; empty at the end."""
        line = self._again.popleft() if self._again else next(self._lines, b"")
        self._lines_read += bool(line)
        if len(line) > self._max_bytes and not line.endswith(b"\n"):
            skip_line(line, self._lines)
            line += b"\n"  # so that its rest is not skipped again if the line is read again
        return line

    def _push_back(self, lines: list[bytes]) -> None:
        self._again.extendleft(reversed(lines))
        self._lines_read -= len(lines)


def best_separator(line: bytes, columns: Collection[str]) -> tuple[str, list[str]]:
    """The separator that tells most columns of a header apart, and the names in the header."""
    text = _text(line).strip("\r\n")
    headers = {one: [name.strip(' "') for name in text.split(one)] for one in SEPARATORS}
    folded = {name.casefold() for name in columns}
    best = max(SEPARATORS, key=lambda one: len({*map(str.casefold, headers[one])} & folded))
    return best, headers[best]


def _text(line: bytes) -> str:
    # Invalid UTF-8 becomes a lone surrogate, which no id can have.
    return line.decode(errors="surrogateescape")


def _reason(error: csv.Error) -> str:
    if "unexpected end" in str(error):
        return f"has a quotation mark that is not closed within {MAX_RECORD_LINES} lines"
    if "expected after" in str(error):
        return "has text behind a quoted cell; double each quotation mark within a quoted cell"
    return str(error)
