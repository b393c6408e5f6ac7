"""Reading a body: content type, encoding, limits; and the events or agents it holds apart."""

import re
import zlib
from collections.abc import Callable, Collection, Sequence
from itertools import islice

import msgspec
from flask import Request

from app.errors import PayloadTooLargeError, UnsupportedMediaTypeError, ValidationError

TOKENS_PER_EVENT = 50  # brackets and commas: what a batch may cost to take apart
MAX_MEMBERS = 200  # each costs a copy of the rest


class _Listing(msgspec.Struct):
    data: msgspec.Raw


_ITEMS, _LISTING = msgspec.json.Decoder(list[msgspec.Raw]), msgspec.json.Decoder(_Listing)
# A quotation mark alone opens a string that never ends.
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[{]++|["\]},]', re.DOTALL)
_LINE = re.compile(rb"\S[^\n]*")  # from its first character on: a search without going back
_GZIP = zlib.MAX_WBITS | 16


def event_texts(request: Request, max_bytes: int, max_events: int) -> Sequence[bytes]:
    """The JSON text of each event in the request, in order.

    Args:
        max_bytes: of the body, both as sent and decompressed.
        max_events: in one batch.

    Raises:
        UnsupportedMediaTypeError: neither JSON nor NDJSON, or an encoding other than gzip.
        PayloadTooLargeError: too many bytes, before or after decompression, or events.
        ValidationError: an empty body, or one that cannot be taken apart into events.
    """
    body = _read(request, max_bytes, _SPLITTERS)
    items = _SPLITTERS[request.mimetype](body, max_events)
    if len(items) > max_events:
        raise PayloadTooLargeError("too many events in one batch", {"maxEvents": max_events})
    return items


def json_text(request: Request, max_bytes: int) -> bytes:
    """The request's one JSON text. Arguments and errors as for :func:`event_texts`."""
    return _read(request, max_bytes, (_JSON,)).strip()


def agent_texts(request: Request, max_bytes: int, max_agents: int) -> Sequence[bytes]:
    """The JSON text of each agent in an array, or in the array that is an object's ``data``.

    Arguments and errors as for :func:`event_texts`.
    """
    body = json_text(request, max_bytes)
    if body.startswith(b"{"):
        try:
            body = bytes(_LISTING.decode(body).data).strip()
        except (msgspec.MsgspecError, RecursionError):
            raise ValidationError("the object has no array in data, or is no JSON") from None
    if not body.startswith(b"["):
        raise ValidationError("the body must be an array, or an object with one in data")
    items = _one_or_many(body, max_agents)
    if len(items) > max_agents:
        raise PayloadTooLargeError("too many agents at once", {"maxAgents": max_agents})
    return items


def _read(request: Request, max_bytes: int, types: Collection[str]) -> bytes:
    """The body, decompressed; of one of some content types, and not empty."""
    if request.mimetype not in types:
        raise UnsupportedMediaTypeError(f"the content type must be {' or '.join(types)}")
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise UnsupportedMediaTypeError("the content encoding must be gzip or none")
    body = _whole_body(request, max_bytes)
    if encoding == "gzip":
        body = _gunzip(body, max_bytes)
    if not body.strip():
        raise ValidationError("the body is empty")
    return body


def _whole_body(request: Request, max_bytes: int) -> bytes:
    """The body as sent. What ends early must not pass for a smaller batch."""
    # Of a chunked body Flask reads MAX_CONTENT_LENGTH bytes, one too many, and stops without
    # a word; a connection that breaks within a declared length looks like the body's end.
    try:
        body = request.get_data(cache=False)
    except OSError:
        raise ValidationError("the body could not be read to its end") from None
    if len(body) > max_bytes:
        raise too_large(max_bytes)
    if len(body) < (request.content_length or 0):
        raise ValidationError("the body is shorter than its Content-Length")
    return body


def too_large(max_bytes: int) -> PayloadTooLargeError:
    """The refusal of a body over the limit."""
    return PayloadTooLargeError("the body is too large", {"maxBytes": max_bytes})


def _one_or_many(body: bytes, max_events: int) -> Sequence[bytes]:
    """A JSON array's items, or the one object that is the whole body; past the limit, some."""
    body = body.strip()
    if not body.startswith(b"["):
        return [body]
    # Millions of items would be as many objects before anyone counts them.
    if body.count(b",") > TOKENS_PER_EVENT * max_events:
        return _bracketed(body, max_events)
    try:
        return [bytes(item) for item in islice(_ITEMS.decode(body), max_events + 1)]
    except (msgspec.MsgspecError, RecursionError):
        # Some event in it cannot be decoded. Told apart by brackets alone, it fails by itself.
        return _bracketed(body, max_events)


def _bracketed(body: bytes, max_events: int) -> Sequence[bytes]:
    """The items of a JSON array, found by its brackets, commas and strings, whatever else
    may be wrong with them; one pass, without recursion, over a bounded number of tokens."""
    items: list[bytes] = []
    depth, start, mark = 0, 1, b""
    for token in islice(_TOKEN.finditer(body), TOKENS_PER_EVENT * max_events):
        mark = token[0]
        depth += len(mark) if mark[0] in b"[{" else -(mark in b"]}")
        if depth == 0 or (depth == 1 and mark == b","):
            items.append(body[start : token.start()])
            start = token.end()
        if depth <= 0 or mark == b'"' or len(items) > max_events:
            break
    if len(items) <= max_events and (depth != 0 or mark != b"]" or body[start:]):
        raise ValidationError("the body is not a JSON array, or not one that can be taken apart")
    return items


def _lines(body: bytes, max_events: int) -> Sequence[bytes]:
    """The lines that hold anything, past the limit some of them. JSON itself knows no other
    line end than LF and CR."""
    return [line[0] for line in islice(_LINE.finditer(body), max_events + 1)]


_JSON = "application/json"
_SPLITTERS: dict[str, Callable[[bytes, int], Sequence[bytes]]] = {
    _JSON: _one_or_many,
    "application/x-ndjson": _lines,
}


def _gunzip(body: bytes, max_bytes: int) -> bytes:
    """Decompress one or more gzip members, never holding more than the limit."""
    parts: list[bytes] = []
    room = max_bytes
    while body:
        if len(parts) == MAX_MEMBERS:
            raise ValidationError("the gzip body has too many members")
        member = zlib.decompressobj(wbits=_GZIP)
        try:
            # One byte more than there is room for tells "full" from "too large".
            part = member.decompress(body, room + 1)
        except zlib.error:
            raise ValidationError("the body is not gzip") from None
        room -= len(part)
        if room < 0:
            raise too_large(max_bytes)
        if not member.eof:
            raise ValidationError("the gzip body is cut short")
        parts.append(part)
        body = member.unused_data
    return b"".join(parts)
