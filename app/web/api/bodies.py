"""Request bodies: check content type, encoding and limits; split a body into JSON texts."""

import re
import zlib
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import TypeVar

import msgspec
from flask import Request

from app.config.settings import Settings
from app.errors import PayloadTooLargeError, UnsupportedMediaTypeError, ValidationError
from app.intake.events import InvalidEvent, decode_event, refuse_nul, wrong_member
from app.intake.json_values import Incomplete, end_of_invalid_value, end_of_value

B = TypeVar("B")

MAX_GZIP_MEMBERS = 200  # each member costs a copy of the rest
MAX_COMMAS = 500_000  # more may be as many items, for each of which the decoder makes an object
MAX_TOKENS = 200_000  # brackets, commas and strings of invalid items, which are visited one by one
MAX_INVALID_BYTES = 1024 * 1024  # how far the end of an invalid item is searched


class _Listing(msgspec.Struct):
    data: msgspec.Raw


_ITEMS, _LISTING = msgspec.json.Decoder(list[msgspec.Raw]), msgspec.json.Decoder(_Listing)
_LINE = re.compile(rb"\S[^\n]*")  # begins at a visible character, so it never backtracks
_GZIP = zlib.MAX_WBITS | 16


def event_texts(request: Request, max_bytes: int, max_events: int) -> Sequence[bytes]:
    """The JSON text of each event in the request, in order.

    Args:
        max_bytes: the limit of the body, both as sent and decompressed.
        max_events: the limit of one batch.

    Raises:
        UnsupportedMediaTypeError: the body is not JSON or NDJSON, or its encoding is not gzip.
        PayloadTooLargeError: the body has too many bytes or events.
        ValidationError: the body is empty or cannot be split into events.
    """
    body = read_body(request, max_bytes, _SPLITTERS)
    items = _SPLITTERS[request.mimetype](body, max_events)
    if len(items) > max_events:
        raise PayloadTooLargeError(
            f"the batch has too many events; send at most {max_events}", {"maxEvents": max_events}
        )
    return items


def json_text(request: Request, max_bytes: int) -> bytes:
    """The request's single JSON text. Arguments and errors as for :func:`event_texts`."""
    return read_body(request, max_bytes, (_JSON,)).strip()


def object_of(
    kind: type[B], request: Request, settings: Settings, *, what: str, members: Iterable[str] = ()
) -> B:
    """The request's single JSON object, as large as one event may be.

    Args:
        kind: a struct; it says which members the object has.
        what: the object, for errors, as ``the key is``.
        members: the names that an error may mention if the text itself is invalid.

    Raises:
        ValidationError: the object is invalid; ``field`` names the member.
    """
    text = json_text(request, settings.max_body_bytes)
    try:
        if len(text) > settings.max_event_bytes:
            raise InvalidEvent("", f"is larger than {settings.max_event_bytes} bytes")
        found = msgspec.convert(decode_event(text, members), kind)
        refuse_nul(text)
    except msgspec.ValidationError as error:
        raise invalid(what, wrong_member(error)) from None
    except InvalidEvent as problem:
        raise invalid(what, problem) from None
    return found


def invalid(what: str, problem: InvalidEvent) -> ValidationError:
    """The error for a member of an object, as :func:`object_of` words it."""
    return ValidationError(f"{what} invalid: {problem}", {"field": problem.field})


def agent_texts(request: Request, max_bytes: int, max_agents: int) -> Sequence[bytes]:
    """The JSON text of each agent, from an array or from an object with an array in ``data``.

    Arguments and errors as for :func:`event_texts`.
    """
    body = json_text(request, max_bytes)
    if body.startswith(b"{"):
        try:
            body = bytes(_LISTING.decode(body).data).strip()
        except (msgspec.MsgspecError, RecursionError):
            raise ValidationError(
                "the body is invalid; send a JSON object with an array in data"
            ) from None
    if not body.startswith(b"["):
        raise ValidationError("the body must be an array, or an object with an array in data")
    items = split_json(body, max_agents)
    if len(items) > max_agents:
        raise PayloadTooLargeError(
            f"the body has too many agents; send at most {max_agents}", {"maxAgents": max_agents}
        )
    return items


def read_body(
    request: Request, max_bytes: int, types: Collection[str] | None, *, may_be_empty: bool = False
) -> bytes:
    """The decompressed body.

    Args:
        max_bytes: the limit of the body, both as sent and decompressed.
        types: the accepted content types; ``None`` for any.
        may_be_empty: whether an empty body is accepted.

    Raises:
        UnsupportedMediaTypeError, PayloadTooLargeError, ValidationError: see :func:`event_texts`.
    """
    if types is not None and request.mimetype not in types:
        raise UnsupportedMediaTypeError(f"the content type must be {' or '.join(types)}")
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise UnsupportedMediaTypeError("the content encoding must be gzip or identity")
    body = _whole_body(request, max_bytes)
    if encoding == "gzip":
        body = _gunzip(body, max_bytes)
    if not may_be_empty and not body.strip():
        raise ValidationError("the body is empty; send JSON")
    return body


def _whole_body(request: Request, max_bytes: int) -> bytes:
    """The body as sent. A body that ends early must not be taken for a smaller batch."""
    # Flask stops silently after MAX_CONTENT_LENGTH bytes of a chunked body, which is one byte
    # above the limit. A connection that breaks before Content-Length looks like a normal end.
    try:
        body = request.get_data(cache=False)
    except OSError:
        raise ValidationError("the body is incomplete; send the request again") from None
    if len(body) > max_bytes:
        raise too_large(max_bytes)
    if len(body) < (request.content_length or 0):
        raise ValidationError("the body is shorter than its Content-Length; send the request again")
    return body


def too_large(max_bytes: int) -> PayloadTooLargeError:
    """The error for a body above the limit."""
    message = f"the body is too large; send at most {max_bytes} bytes"
    return PayloadTooLargeError(message, {"maxBytes": max_bytes})


def split_json(body: bytes, max_events: int) -> Sequence[bytes]:
    """The items of a JSON array, or the body itself if it is not an array.

    Beyond the limit only some items are returned.
    """
    body = body.strip()
    if not body.startswith(b"["):
        return [body]
    if body.count(b",") > MAX_COMMAS:
        return _split_array(body, max_events)
    try:
        return [bytes(item) for item in islice(_ITEMS.decode(body), max_events + 1)]
    except (msgspec.MsgspecError, RecursionError):
        # One event cannot be decoded. Found one by one, only that event is refused.
        return _split_array(body, max_events)


def _split_array(body: bytes, max_events: int) -> Sequence[bytes]:
    """The items of a JSON array, found one after the other; items may be invalid."""
    items: list[bytes] = []
    tokens = iter(range(MAX_TOKENS))
    start, mark = 1, b""
    while mark != b"]" and len(items) <= max_events:
        end = _end_of_item(body, start)
        if end is None:
            end = end_of_invalid_value(body, start, MAX_INVALID_BYTES, tokens)
        items.append(body[start:end])
        start, mark = end + 1, body[end : end + 1]
        if mark not in (b",", b"]") or (mark == b"]" and start < len(body)):
            raise ValidationError("the body must be a valid JSON array")
    return items


def _end_of_item(body: bytes, start: int) -> int | None:
    """The position of the comma or bracket behind a valid item; ``None`` if it is invalid."""
    with suppress(Incomplete):
        end = end_of_value(body, start)
        if end is not None and body[end : end + 1] in (b",", b"]"):
            return end
    return None


def split_lines(body: bytes, max_events: int) -> Sequence[bytes]:
    """The lines that are not blank; beyond the limit only some. JSON's line ends are LF and CR."""
    return [line[0] for line in islice(_LINE.finditer(body), max_events + 1)]


_JSON = "application/json"
_SPLITTERS: dict[str, Callable[[bytes, int], Sequence[bytes]]] = {
    _JSON: split_json,
    "application/x-ndjson": split_lines,
}


def _gunzip(body: bytes, max_bytes: int) -> bytes:
    """Decompress one or more gzip members, without exceeding the limit in memory."""
    parts: list[bytes] = []
    room = max_bytes
    while body:
        if len(parts) == MAX_GZIP_MEMBERS:
            raise ValidationError(
                f"the gzip body has too many members; send at most {MAX_GZIP_MEMBERS}"
            )
        member = zlib.decompressobj(wbits=_GZIP)
        try:
            # One byte beyond the limit distinguishes a full body from one that is too large.
            part = member.decompress(body, room + 1)
        except zlib.error:
            raise ValidationError(
                "the body is not gzip; compress it or omit Content-Encoding"
            ) from None
        room -= len(part)
        if room < 0:
            raise too_large(max_bytes)
        if not member.eof:
            raise ValidationError("the gzip body is incomplete; send the request again")
        parts.append(part)
        body = member.unused_data
    return b"".join(parts)
