"""The base of formats: the options of a format, and the record that it yields."""

from typing import NamedTuple

from app.intake.events import InvalidEvent, Members

# A line's number, and either its members or the reason why the line is refused.
Record = tuple[int, Members | InvalidEvent]


class Options(NamedTuple):
    """The tenant of all events, or ``None`` if each names its own; the limit of one record."""

    tenant_id: str | None
    max_bytes: int
