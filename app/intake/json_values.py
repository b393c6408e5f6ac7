"""The ends of JSON values in a text: splits an array into items without decoding them."""

import re
from collections.abc import Iterator

import msgspec

_VALUE = msgspec.json.Decoder(msgspec.Raw)
_BEHIND = re.compile(r"JSON is malformed: trailing characters \(byte (\d+)\)")
# The last alternative matches a quotation mark alone: it opens a string that never ends.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[{]++|["\]},]', re.DOTALL)


class Incomplete(Exception):  # noqa: N818 - it is a state, not an error
    """The text ends within the value."""


def end_of_value(text: bytes, start: int) -> int | None:
    """The position behind the JSON value that begins at ``start``; ``None`` if it is invalid.

    The decoder reads one value, and its error says where other text follows.

    Raises:
        Incomplete: the text ends within the value.
    """
    try:
        _VALUE.decode(memoryview(text)[start:])
    except msgspec.DecodeError as error:
        problem = str(error)
        if behind := _BEHIND.fullmatch(problem):
            return start + int(behind[1]) - 1
        if problem == "Input data was truncated":
            raise Incomplete from None
        return None
    except RecursionError:
        return None
    return len(text)


def end_of_invalid_value(text: bytes, start: int, most: int, tokens: Iterator[int]) -> int:
    """The position behind an invalid value: it ends where its brackets and strings do.

    Args:
        most: how many bytes are searched; the text's end is returned if the value has no end there.
        tokens: one element for each bracket, comma or string that may be visited.
    """
    depth = 0
    for token, _ in zip(_TOKEN.finditer(text, start, start + most), tokens, strict=False):
        mark = token[0]
        if mark == b'"' or (depth == 0 and mark in b",]}"):
            return token.start()
        depth += len(mark) if mark[0] in b"[{" else -(mark in b"]}")
    return len(text)
