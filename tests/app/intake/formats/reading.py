"""Reads bytes in a format, as an import does, and shortens the outcome of each record."""

import io
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from app.intake.events import Event, InvalidEvent, make_event
from app.intake.files import open_lines
from app.intake.formats import FORMATS, Format, load_mapping
from app.intake.formats.base import Header, Options, Skipped
from tests.support.settings import EVENT_BYTES

NOW = datetime(2026, 12, 1, tzinfo=UTC)

# What an outcome is called: an event, or the reason before the first semicolon.
Outcome = Event | str


def read(
    file_format: Format | str, data: bytes | str, zone: str | None = None, **options: Any
) -> list[Outcome]:
    """The outcome of each record, in order."""
    return [outcome for _, outcome in numbered(file_format, data, zone, **options)]


def numbered(
    file_format: Format | str, data: bytes | str, zone: str | None = None, **options: Any
) -> list[tuple[int, Outcome]]:
    """The line and the outcome of each record, in order."""
    if isinstance(file_format, str):
        file_format = FORMATS[file_format]
    if isinstance(data, str):
        data = data.encode()
    given = Options(
        options.pop("organization", None),
        options.pop("max_bytes", EVENT_BYTES),
        zone=ZoneInfo(zone) if zone else None,
        **options,
    )
    file = io.BufferedReader(io.BytesIO(data))
    found: list[tuple[int, Outcome]] = []
    for number, outcome, _ in file_format(open_lines(file, given.max_bytes, lambda _: None), given):
        if isinstance(outcome, Header):
            continue
        if isinstance(outcome, Skipped):
            found.append((number, outcome.reason))
            continue
        try:
            if isinstance(outcome, InvalidEvent):
                raise outcome
            found.append((number, make_event(outcome, given.tenant_id, NOW)))
        except InvalidEvent as problem:
            found.append((number, problem.message.split(";")[0]))
    return found


def events(outcomes: list[Outcome]) -> list[Event]:
    """The events among outcomes."""
    return [outcome for outcome in outcomes if isinstance(outcome, Event)]


def reasons(outcomes: list[Outcome]) -> Counter[str]:
    """The number of the other outcomes, by reason."""
    return Counter(outcome for outcome in outcomes if isinstance(outcome, str))


def lines(*records: object) -> str:
    """Records as JSON, one a line."""
    return "".join(json.dumps(record) + "\n" for record in records)


def mapping(folder: Path, text: str) -> Format:
    """A format of one's own, from the text of its file."""
    path = folder / "mapping.toml"
    path.write_text(text, "utf-8")
    return load_mapping(path)
