"""Ids of organizations, events and agents: 1 to 255 code points, no control characters."""

import re
from typing import Annotated

import msgspec

ID_PATTERN = r"^[^\x00-\x1f\x7f-\x9f\ud800-\udfff]*\Z"
# The same for JSON Schema, whose patterns have no \Z and whose texts have no lone surrogates.
ID_SCHEMA_PATTERN = r"^[^\u0000-\u001f\u007f-\u009f]*$"

Id = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=255,
        pattern=ID_PATTERN,
        description="1 to 255 code points without control characters",
    ),
]
_PRINTABLE = re.compile(ID_PATTERN)


def is_id(value: object) -> bool:
    """Whether ``value`` is a string of 1..255 code points without control characters."""
    return isinstance(value, str) and 0 < len(value) <= 255 and bool(_PRINTABLE.match(value))
