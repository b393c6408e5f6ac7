"""The base of formats: lines of limited length, and the record that a format yields."""

import io
from collections.abc import Iterator

from app.intake.events import InvalidEvent, Members

MAX_LINE_BYTES = 1024 * 1024
BOM = b"\xef\xbb\xbf"
# A line's number, and either its members or the reason why the line is refused.
Record = tuple[int, Members | InvalidEvent]


def bounded_lines(file: io.BufferedIOBase) -> Iterator[bytes]:
    """Lines of at most MAX_LINE_BYTES; a longer line is cut to that length."""
    while line := file.readline(MAX_LINE_BYTES):
        end = line
        while len(end) == MAX_LINE_BYTES and not end.endswith(b"\n"):
            end = file.readline(MAX_LINE_BYTES)
        yield line
