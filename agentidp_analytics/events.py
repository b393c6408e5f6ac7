"""Events as the service takes them: one JSON object a line, and the reason why one is rejected."""

import json
import re
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

MAX_EVENT_BYTES = 64 * 1024
_NOT_PLAIN = re.compile(r"[^\x20-\x7e]")


class Rejected(NamedTuple):
    """An event that was refused, the member that is wrong (empty: all of it), and why."""

    event: dict[str, Any]
    field: str
    message: str

    def __str__(self) -> str:
        """The reason without a value of the event, for a log."""
        message = _NOT_PLAIN.sub(" ", self.message)[:200]
        return f"{self.field}: {message}" if self.field else message


def encoded(event: dict[str, Any]) -> bytes | Rejected:
    """The line of an event; the service checks the members."""
    try:
        line = json.dumps(event, default=_text).encode()
    except (TypeError, ValueError, RecursionError):
        return Rejected(event, "", "is not JSON; pass text, and an aware datetime as issued_at")
    if len(line) > MAX_EVENT_BYTES:
        return Rejected(event, "", f"is larger than {MAX_EVENT_BYTES} bytes")
    return line


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    raise TypeError


def listed(lines: list[bytes], rejected: object) -> list[Rejected]:
    """The rejected events of a batch that the service's answer lists."""
    found = []
    for entry in rejected if isinstance(rejected, list) else []:
        index = entry.get("index") if isinstance(entry, dict) else None
        if isinstance(index, int) and 0 <= index < len(lines):
            event = json.loads(lines[index])
            found.append(Rejected(event, str(entry.get("field")), str(entry.get("message"))))
    return found
