"""The service's own events: NDJSON, JSON arrays and objects, or CSV, told by the first line."""

from collections.abc import Iterator
from itertools import chain

from app.intake.events import InvalidEvent, read_members, refuse_nul
from app.intake.formats.base import Options, Record
from app.intake.formats.csv_rows import has_columns, read_csv
from app.intake.formats.documents import UNREADABLE, read_texts
from app.intake.formats.ndjson import read_ndjson


def read_native(lines: Iterator[bytes], options: Options) -> Iterator[Record]:
    """Records of events in any of the three forms."""
    before: list[bytes] = []
    while (line := next(lines, b"")) and not line.strip():
        before.append(line)
    lines = chain((*before, line), lines)
    text = line.strip()
    if text[:1] == b"[" or (text[:1] == b"{" and text[-1:] != b"}"):
        yield from _read_documents(lines, options)
    elif text[:1] != b"{" and has_columns(line):
        yield from read_csv(lines, options)
    else:
        yield from read_ndjson(lines, options)


def _read_documents(lines: Iterator[bytes], options: Options) -> Iterator[Record]:
    """Records of JSON arrays and of objects on several lines; each array or object may follow."""
    for number, found, value in read_texts(lines, options, ()):
        text = found or b""  # it has one, since there are no batches
        if isinstance(value, InvalidEvent):
            yield number, value, text
            continue
        try:
            if value is None:
                raise InvalidEvent("", f"{UNREADABLE}it is not JSON")
            members = read_members(text)
            refuse_nul(text)
            yield number, members, text
        except InvalidEvent as problem:
            yield number, problem, text
