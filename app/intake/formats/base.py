"""The base of formats: a format, the options with which it reads, and what it yields."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple
from zoneinfo import ZoneInfo

from app.intake.events import InvalidEvent, Members
from app.intake.organizations import Organizations

# Reasons for a record that is read and not counted. None of them is an error.
NO_ISSUANCE = "no issuance"
FAILED = "failed"
OTHER_FORMAT = "not an event of this format"


# The service's own events, and two of their forms.
NATIVE_NAMES = ("native", "ndjson", "csv")


class Skipped(NamedTuple):
    """A record that is not an issuance, with the reason."""

    reason: str


class Header(NamedTuple):
    """A line that is no record, but without which later records cannot be read again."""


# The number of a record's first line; its members, or why it is skipped, or why it is refused; and
# its text, with which it can be imported again.
Record = tuple[int, Members | Skipped | InvalidEvent | Header, bytes]


class Options(NamedTuple):
    """How a format reads.

    Attributes:
        tenant_id: the tenant of all events, or ``None`` if each names its own.
        max_bytes: the limit of one record.
        max_document_bytes: the limit of a file that is one JSON document.
        zone: the zone of times without an offset; ``None`` if these are refused.
        organizations: the tenant of each organization that a provider names.
    """

    tenant_id: str | None
    max_bytes: int
    max_document_bytes: int = 256 * 1024 * 1024
    zone: ZoneInfo | None = None
    organizations: Organizations | None = None


@dataclass(frozen=True)
class Format:
    """A log format.

    Attributes:
        name: the word for ``--format``.
        read: yields the records of lines, which have their ends, as ``app.intake.files`` yields
            them.
    """

    name: str
    read: Callable[[Iterator[bytes], Options], Iterator[Record]]

    def __call__(self, lines: Iterator[bytes], options: Options) -> Iterator[Record]:
        return self.read(lines, options)
