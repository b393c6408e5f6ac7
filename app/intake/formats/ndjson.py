"""NDJSON: one event a line, as JSON."""

from collections.abc import Iterator

from app.intake.events import InvalidEvent, read_members, refuse_nul, too_large
from app.intake.files import is_longer, skip_line
from app.intake.formats.base import Options, Record


def read_ndjson(lines: Iterator[bytes], options: Options) -> Iterator[Record]:
    """Records of an NDJSON file. Blank lines are skipped."""
    max_bytes = options.max_bytes
    for number, line in enumerate(lines, start=1):
        try:
            if len(line) > max_bytes and is_longer(line, max_bytes):
                if not skip_line(line, lines) and not line.strip():
                    continue
                line = b""  # noqa: PLW2901 - only its beginning is known
                raise too_large(max_bytes)
            if not line.strip():
                continue
            members = read_members(line)
            refuse_nul(line)
            yield number, members, line
        except InvalidEvent as problem:
            yield number, problem, line
