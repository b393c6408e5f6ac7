"""Log formats: the registry of formats, and the events of a batch in any of them."""

from collections.abc import Iterator
from datetime import datetime
from functools import cache
from pathlib import Path

from app.errors import ValidationError
from app.intake.events import Batch, InvalidEvent, make_event
from app.intake.formats.base import NATIVE_NAMES, Format, Header, Options, Record, Skipped
from app.intake.formats.csv_rows import read_csv
from app.intake.formats.native import read_native
from app.intake.formats.ndjson import read_ndjson

__all__ = ["FORMATS", "NATIVE", "Format", "Options", "load_mapping", "read_batch"]

_FOLDER = Path(__file__).parent


def load_mapping(path: Path, name: str | None = None) -> Format:
    """See :func:`app.intake.formats.mapped.load_mapping`."""
    # Most processes read no mapping, and the import takes time.
    from app.intake.formats.mapped import load_mapping as load  # noqa: PLC0415

    return load(path, name)


def _shipped(name: str) -> Format:
    """A format of a mapping file beside this module. The file is read at the first use."""
    loaded = cache(lambda: load_mapping(_FOLDER / f"{name}.toml"))

    def read(lines: Iterator[bytes], options: Options) -> Iterator[Record]:
        return loaded()(lines, options)

    return Format(name, read)


# The service's own events.
NATIVE: dict[str, Format] = {
    name: Format(name, read)
    for name, read in zip(NATIVE_NAMES, (read_native, read_ndjson, read_csv), strict=True)
}
FORMATS: dict[str, Format] = NATIVE | {
    name: _shipped(name)
    for name in (
        "auth0",
        "authentik",
        "cloudevents",
        "cognito",
        "duende",
        "entra",
        "hydra",
        "keycloak",
        "node-oidc-provider",
        "okta",
        "zitadel",
    )
}


def read_batch(
    file_format: Format,
    lines: Iterator[bytes],
    options: Options,
    now: datetime,
) -> Batch:
    """Check every record of a batch.

    Args:
        lines: lines with their ends; ``app.intake.files.bounded_lines`` yields them.
        now: the present, in UTC.

    Raises:
        ForbiddenError: an event names an organization other than ``options.tenant_id``.
        ValidationError: the batch cannot be read to its end. A broken line of several is only an
            invalid record, because other lines are read alone.
    """
    batch, counted, unread = Batch(), _Counted(lines), set()
    for _, outcome, _ in file_format(counted, options):
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
            unread.add(problem.unread)
    if "file" in unread or ("line" in unread and counted.number == 1):
        raise ValidationError(
            "the batch cannot be read to its end, so none of it was stored; correct those in"
            " details.errors",
            {"errors": batch.errors},
        )
    return batch


class _Counted(Iterator[bytes]):
    """Lines, and how many of them have begun. Blank ones do not count."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self.number = 0
        self._lines = lines
        self._is_new = True

    def __next__(self) -> bytes:
        line = next(self._lines)
        self.number += self._is_new and not line.isspace()
        self._is_new = line.endswith(b"\n")  # a long line comes in parts
        return line
