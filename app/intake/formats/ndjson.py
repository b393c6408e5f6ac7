"""NDJSON: one event a line, as JSON."""

from collections.abc import Iterator

from app.intake.events import InvalidEvent, read_members, refuse_nul
from app.intake.formats.base import BOM, MAX_LINE_BYTES, Record


def read_ndjson(lines: Iterator[bytes]) -> Iterator[Record]:
    """Records of an NDJSON file. Blank lines are skipped."""
    for number, line in enumerate(lines, start=1):
        text = line.removeprefix(BOM) if number == 1 else line
        if not text.strip():
            continue
        try:
            # The line before its mark is removed: a line that was cut has no end.
            if len(line) >= MAX_LINE_BYTES and not line.endswith(b"\n"):
                raise InvalidEvent("", f"is longer than {MAX_LINE_BYTES} bytes")
            members = read_members(text)
            refuse_nul(text)
            yield number, members
        except InvalidEvent as problem:
            yield number, problem
