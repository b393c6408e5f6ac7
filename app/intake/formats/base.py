"""What formats share: lines of bounded length, and the record that a format yields."""

import io
from collections.abc import Iterator

from app.intake.events import (
    InvalidEvent,
    Members,
)

MAX_LINE_BYTES = 1024 * 1024
BOM = b"\xef\xbb\xbf"
# A line's number and its members; a line that cannot be read has the reason instead.
Record = tuple[int, Members | InvalidEvent]


def bounded_lines(file: io.BufferedIOBase) -> Iterator[bytes]:
    """Lines of at most MAX_LINE_BYTES; of a longer one only the beginning, that long."""
    while line := file.readline(MAX_LINE_BYTES):
        end = line
        while len(end) == MAX_LINE_BYTES and not end.endswith(b"\n"):
            end = file.readline(MAX_LINE_BYTES)
        yield line
