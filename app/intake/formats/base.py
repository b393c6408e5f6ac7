"""The base of formats: the options of a format, and the record that it yields."""

from typing import NamedTuple
from zoneinfo import ZoneInfo

from app.intake.events import InvalidEvent, Members
from app.intake.organizations import Organizations

# Reasons for a record that is read and not counted. None of them is an error.
NO_ISSUANCE = "no issuance"
FAILED = "failed"
OTHER_FORMAT = "not an event of this format"


class Skipped(NamedTuple):
    """A record that is not an issuance, with the reason."""

    reason: str


# A line's number, and its members, or why it is skipped, or why it is refused.
Record = tuple[int, Members | Skipped | InvalidEvent]


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
