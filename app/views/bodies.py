"""Reading a batch's body: content type, encoding, limits, and the events it holds apart."""

import re
import zlib
from collections.abc import Callable, Sequence
from itertools import islice

import msgspec
from flask import Request

from app.errors import PayloadTooLargeError, UnsupportedMediaTypeError, ValidationError

MAX_BYTES = 8 * 1024 * 1024
MAX_EVENTS = 10_000
MAX_TOKENS = 50 * MAX_EVENTS
MAX_MEMBERS = 200  # each costs a copy of the rest

_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])
# A quotation mark alone opens a string that never ends.
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[{]++|["\]},]', re.DOTALL)
_GZIP = zlib.MAX_WBITS | 16


def event_texts(request: Request) -> Sequence[bytes]:
    """The JSON text of each event in the request, in order.

    Raises:
        UnsupportedMediaTypeError: neither JSON nor NDJSON, or an encoding other than gzip.
        PayloadTooLargeError: too many bytes, before or after decompression, or events.
        ValidationError: an empty body, or one that cannot be taken apart into events.
    """
    split = _SPLITTERS.get(request.mimetype)
    if split is None:
        wanted = " or ".join(_SPLITTERS)
        raise UnsupportedMediaTypeError(f"the content type must be {wanted}")
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise UnsupportedMediaTypeError("the content encoding must be gzip or none")
    body = _whole_body(request)
    if encoding == "gzip":
        body = _gunzip(body)
    if not body.strip():
        raise ValidationError("the body is empty")
    items = split(body)
    if len(items) > MAX_EVENTS:
        raise PayloadTooLargeError("too many events in one batch", {"maxEvents": MAX_EVENTS})
    return items


def _whole_body(request: Request) -> bytes:
    """The body as sent. What ends early must not pass for a smaller batch."""
    # Of a chunked body Flask reads MAX_CONTENT_LENGTH bytes, one too many, and stops without
    # a word; a connection that breaks within a declared length looks like the body's end.
    try:
        body = request.get_data(cache=False)
    except OSError:
        raise ValidationError("the body could not be read to its end") from None
    if len(body) > MAX_BYTES:
        raise too_large()
    if len(body) < (request.content_length or 0):
        raise ValidationError("the body is shorter than its Content-Length")
    return body


def too_large() -> PayloadTooLargeError:
    """The refusal of a body over the limit."""
    return PayloadTooLargeError("the body is too large", {"maxBytes": MAX_BYTES})


def _one_or_many(body: bytes) -> Sequence[bytes]:
    """A JSON array's items, or the one object that is the whole body."""
    body = body.strip()
    if not body.startswith(b"["):
        return [body]
    try:
        return [bytes(item) for item in _ITEMS.decode(body)]
    except (msgspec.MsgspecError, RecursionError):
        # Some event in it cannot be decoded. Told apart by brackets alone, it fails by itself.
        return _bracketed(body)


def _bracketed(body: bytes) -> Sequence[bytes]:
    """The items of a JSON array, found by its brackets, commas and strings, whatever else
    may be wrong with them; one pass, without recursion, over a bounded number of tokens."""
    items: list[bytes] = []
    depth, start, mark = 0, 1, b""
    for token in islice(_TOKEN.finditer(body), MAX_TOKENS):
        mark = token[0]
        depth += len(mark) if mark[0] in b"[{" else -(mark in b"]}")
        if depth == 0 or (depth == 1 and mark == b","):
            items.append(body[start : token.start()])
            start = token.end()
        if depth <= 0 or mark == b'"' or len(items) > MAX_EVENTS:
            break
    if len(items) <= MAX_EVENTS and (depth != 0 or mark != b"]" or body[start:]):
        raise ValidationError("the body is not a JSON array, or not one that can be taken apart")
    return items


def _lines(body: bytes) -> Sequence[bytes]:
    """The lines that hold anything; JSON itself knows no other line end than LF and CR."""
    return [line for line in body.split(b"\n") if line.strip()]


_SPLITTERS: dict[str, Callable[[bytes], Sequence[bytes]]] = {
    "application/json": _one_or_many,
    "application/x-ndjson": _lines,
}


def _gunzip(body: bytes) -> bytes:
    """Decompress one or more gzip members, never holding more than the limit."""
    parts: list[bytes] = []
    room = MAX_BYTES
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
            raise too_large()
        if not member.eof:
            raise ValidationError("the gzip body is cut short")
        parts.append(part)
        body = member.unused_data
    return b"".join(parts)
