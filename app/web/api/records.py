"""Records of a provider's log in a request: tells their format, and reads them as events.

The parameter ``format`` names a format of the import. CloudEvents are also known by their content
type, and in binary mode by their headers (``ce-…``), as their HTTP binding says.
"""

import io
import re
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
from flask import Request

from app.config.settings import Settings
from app.errors import PayloadTooLargeError, ValidationError
from app.intake.events import Batch
from app.intake.files import bounded_lines
from app.intake.formats import FORMATS, Format, Options, read_batch
from app.intake.formats.base import Header, Record
from app.web.api.bodies import read_body

CLOUDEVENTS = "cloudevents"
EVENT_TYPE, BATCH_TYPE = "application/cloudevents+json", "application/cloudevents-batch+json"
# The format tells how the body is read. Log shippers say either of these for the same body.
TYPES = (
    *("application/json", "application/x-ndjson", "text/plain", "text/csv"),
    *(EVENT_TYPE, BATCH_TYPE),
)
# Blank lines and the lines within a record are no records, so they have a limit of their own.
MAX_LINES = 1_000_000
# The largest batches that providers write take a tenth of it. Records of nothing but brackets, or
# regular expressions on hostile text, would take a minute.
MAX_SECONDS = 3

_VERSION = "ce-specversion"
_ATTRIBUTE = re.compile(r"ce-([a-z0-9]+)")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")
_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_IS_JSON = re.compile(r"(application|text)/([\w.-]+\+)?json")
_RAW = msgspec.json.Decoder(msgspec.Raw)


def format_of(request: Request, named: str | None) -> Format | None:
    """The format of the request's records; ``None`` for events of this service.

    Args:
        named: the parameter ``format``.

    Raises:
        ValidationError: there is no such format.
    """
    if named is None:
        is_event = request.mimetype in (EVENT_TYPE, BATCH_TYPE)
        return FORMATS[CLOUDEVENTS] if is_event or _VERSION in request.headers else None
    if named not in FORMATS:
        raise ValidationError(
            f"format must be one of {', '.join(sorted(FORMATS))}", {"parameter": "format"}
        )
    return FORMATS[named]


def record_batch(
    request: Request, file_format: Format, options: Options, now: datetime, settings: Settings
) -> Batch:
    """The events of the request's records, and the number of other records by reason.

    Raises:
        UnsupportedMediaTypeError, PayloadTooLargeError, ValidationError: as for
            :func:`~app.web.api.bodies.event_texts`.
        ForbiddenError: an event of this service names an organization other than the caller's.
    """
    if _is_binary(request, file_format):
        body = _binary_event(request, settings.max_body_bytes)
    else:
        body = read_body(request, settings.max_body_bytes, TYPES)
    limits = _Limits(settings.max_batch_events)
    lines = limits.lines(bounded_lines(io.BytesIO(body), options.max_bytes))

    def read(read_lines: Iterator[bytes], read_options: Options) -> Iterator[Record]:
        return limits.records(file_format(read_lines, read_options))

    return read_batch(Format(file_format.name, read), lines, options, now)


class _Limits:
    """The limits of one batch: of records, of lines, and of the time of this thread."""

    def __init__(self, most_records: int) -> None:
        self._most = most_records
        self._until = time.thread_time() + MAX_SECONDS

    def lines(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        """The lines; a line above the limit of an event comes in several parts."""
        for number, line in enumerate(lines):
            if number == MAX_LINES:
                raise PayloadTooLargeError(
                    f"the body has too many lines; send at most {MAX_LINES}",
                    {"maxLines": MAX_LINES},
                )
            self._check_time()
            yield line

    def records(self, records: Iterator[Record]) -> Iterator[Record]:
        """The records, skipped ones included. The header of CSV is none."""
        number = 0
        for record in records:
            number += not isinstance(record[1], Header)
            if number > self._most:
                raise PayloadTooLargeError(
                    f"the batch has too many records; send at most {self._most}",
                    {"maxEvents": self._most},
                )
            self._check_time()
            yield record

    def _check_time(self) -> None:
        if time.thread_time() > self._until:
            raise PayloadTooLargeError(
                "the body takes too long to read; send fewer or smaller records",
                {"maxSeconds": MAX_SECONDS},
            )


def _is_binary(request: Request, file_format: Format) -> bool:
    """Whether the headers are a CloudEvent, and the body is its data."""
    is_structured = request.mimetype.startswith("application/cloudevents")
    return file_format.name == CLOUDEVENTS and not is_structured and _VERSION in request.headers


def _binary_event(request: Request, max_bytes: int) -> bytes:
    """The CloudEvent of a request in binary mode, as a line of JSON.

    Data that is not JSON is left out: no member of an event can be in it.
    """
    event: dict[str, Any] = {}
    for name, value in request.headers.items():
        if match := _ATTRIBUTE.fullmatch(name.lower()):
            event[match[1]] = _header_text(name, value)
    data = read_body(request, max_bytes, None, may_be_empty=True).strip()
    event.pop("data", None)
    if data and (not request.mimetype or _IS_JSON.fullmatch(request.mimetype)):
        try:
            # Text behind a value would continue the event, and could replace its attributes.
            event["data"] = _RAW.decode(data)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise ValidationError(f"the body is not JSON: {error}") from None
    return msgspec.json.encode(event)


def _header_text(name: str, value: str) -> str:
    """An attribute in a header: perhaps in quotes, then percent-encoded once."""
    if quoted := _QUOTED.fullmatch(value):
        value = _ESCAPED.sub(r"\1", quoted[1])
    try:
        if _PERCENT.search(value):
            raise ValueError
        return unquote_to_bytes(value.encode("latin-1")).decode()
    except ValueError:
        raise ValidationError(f"the header {name} must be percent-encoded UTF-8") from None
