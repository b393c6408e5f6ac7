"""Log formats: the registry of formats, and the events of a batch in any of them."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from app.errors import ValidationError
from app.intake.events import Batch, InvalidEvent, make_event
from app.intake.formats.base import Format, Header, Options, Skipped
from app.intake.formats.csv_rows import read_csv
from app.intake.formats.ndjson import read_ndjson

__all__ = ["FORMATS", "Format", "Options", "load_mapping", "read_batch"]

FORMATS: dict[str, Format] = {
    one.name: one
    for one in (
        Format("ndjson", read_ndjson),
        Format("csv", read_csv),
    )
}


def load_mapping(path: Path, name: str | None = None) -> Format:
    """The format that a mapping file describes.

    Args:
        name: the format to take, if the file describes several.

    Raises:
        ValidationError: the file cannot be read or is invalid; the message has line and reason.
    """
    raise ValidationError(f"{path}: mapping files are not supported yet")


def read_batch(
    file_format: Format, lines: Iterator[bytes], options: Options, now: datetime
) -> Batch:
    """Check every record of a batch.

    Args:
        lines: lines with their ends; ``app.intake.files.bounded_lines`` yields them.
        now: the present, in UTC.

    Raises:
        ForbiddenError: an event names an organization other than ``options.tenant_id``.
    """
    batch = Batch()
    for _, outcome, _ in file_format(lines, options):
        if isinstance(outcome, Header):
            continue
        if isinstance(outcome, Skipped):
            batch.skipped[outcome.reason] += 1
            continue
        try:
            if isinstance(outcome, InvalidEvent):
                raise outcome
            batch.events.append(make_event(outcome, options.tenant_id, now))
        except InvalidEvent as problem:
            batch.reject(batch.received, problem)
    return batch
