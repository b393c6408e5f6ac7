"""Issuance events: parses and checks their JSON, and returns :class:`Event`; stores nothing."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec

from app.dates import EPOCH, parse_instant
from app.errors import ForbiddenError
from app.ids import ID_SCHEMA_PATTERN, Id, is_id

S = TypeVar("S", bound=type[msgspec.Struct])
FUTURE = timedelta(minutes=5)
SHOWN_ERRORS = 100
_Short = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


def prepared(struct: S) -> S:
    """Make msgspec build its description of a struct when the class is defined.

    By default, msgspec builds it at the first use, and another thread may then use an unfinished
    description. That crashed the process when requests ran in several threads.
    """
    msgspec.json.Decoder(struct)
    return struct


@prepared
class EventBody(msgspec.Struct, rename="camel"):
    """One event as a caller sends it. Unknown members are ignored."""

    id: Id
    agent_id: Id
    issued_at: Annotated[
        str,
        msgspec.Meta(
            description="RFC 3339 with an offset, 1970 or later, at most 5 minutes ahead",
            extra_json_schema={"format": "date-time"},
        ),
    ]
    organization_id: Id | msgspec.UnsetType = msgspec.UNSET
    agent_name: Annotated[
        str | msgspec.UnsetType | None,
        msgspec.Meta(
            description="The agent's name, at most 255 code points without control characters."
            " The newest name wins; a blank name is ignored",
            extra_json_schema={"maxLength": 255, "pattern": ID_SCHEMA_PATTERN},
        ),
    ] = msgspec.UNSET


class Event(NamedTuple):
    """A checked event. Tuples sort by tenant and id, the order in which they are stored."""

    tenant_id: str
    event_id: str
    agent_id: str
    issued_at: datetime
    agent_name: str | None = None


class EventError(msgspec.Struct, frozen=True):
    """Why an event is refused: its 0-based index, the member, a message."""

    index: int
    field: str
    message: str


@dataclass
class Batch:
    """The accepted events in their order of arrival, and the errors of the others.

    Attributes:
        skipped: the number of records that are not issuances, by reason; they are no errors.
    """

    events: list[Event] = field(default_factory=list)
    rejected: int = 0
    errors: list[EventError] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def received(self) -> int:
        return len(self.events) + self.rejected + self.skipped.total()

    def reject(self, index: int, problem: "InvalidEvent") -> None:
        """Count a refused event, and keep its error if it is among the first hundred."""
        self.rejected += 1
        if len(self.errors) < SHOWN_ERRORS:
            self.errors.append(EventError(index, problem.field, problem.message))


class InvalidEvent(ValueError):  # noqa: N818 - the name says what it is; callers never see it
    """An event is refused, because of one member or (empty ``field``) as a whole.

    Attributes:
        unread: what could not be read because of it: the rest of the ``line``, the rest of the
            ``file``, or nothing (empty).
    """

    unread = ""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field
        self.message = message


def refuse_large(item: bytes, max_bytes: int) -> None:
    """Refuse a text above the limit. White space around it does not count.

    Call it before the text is decoded: values take 30 times the memory of a text of small ones.
    """
    if len(item) > max_bytes and len(item.strip()) > max_bytes:
        raise too_large(max_bytes)


def too_large(max_bytes: int) -> InvalidEvent:
    """The error for an event, or a line of a file, above the limit."""
    return InvalidEvent("", f"is larger than {max_bytes} bytes")


def parse_batch(
    items: Iterable[bytes], tenant_id: str | None, now: datetime, max_bytes: int
) -> Batch:
    """Check every event of a request.

    Args:
        items: one JSON text an event.
        tenant_id: the tenant of all events; ``None`` if each event must name its own.
        now: the present, in UTC.
        max_bytes: the limit of one event's JSON text.

    Raises:
        ForbiddenError: an event names an organization other than ``tenant_id``.
    """
    batch = Batch()
    for index, item in enumerate(items):
        try:
            batch.events.append(parse_event(item, tenant_id, now, max_bytes))
        except InvalidEvent as problem:
            batch.reject(index, problem)
    return batch


def parse_event(item: bytes, tenant_id: str | None, now: datetime, max_bytes: int) -> Event:
    """Check the JSON text of one event. Arguments and errors are those of :func:`parse_batch`.

    Raises:
        InvalidEvent: the event is refused.
        ForbiddenError: the event names another organization.
    """
    refuse_large(item, max_bytes)
    event = make_event(read_members(item), tenant_id, now)
    refuse_nul(item)
    return event


# An event's id, agent and instant (text, or in UTC); its organization and agent name, or None.
Members = tuple[str, str, str | datetime, str | None, str | None]


def make_event(members: Members, tenant_id: str | None, now: datetime) -> Event:
    """An event from checked members. Arguments and errors are those of :func:`parse_event`."""
    event_id, agent_id, issued_at, named, agent_name = members
    if tenant_id is None:
        if named is None:
            raise InvalidEvent("organizationId", "is required")
        tenant_id = named
    elif named is not None and named != tenant_id:
        raise ForbiddenError("an event names an organization other than the token's")
    return Event(tenant_id, event_id, agent_id, _issued_at(issued_at, now), agent_name)


def read_members(item: bytes) -> Members:
    """The members of an event's JSON text, whose length the caller has checked.

    :func:`refuse_nul` checks the rest of the text.

    Raises:
        InvalidEvent: the text is not JSON, or a member is missing or invalid.
    """
    # The decoder refuses raw control characters except DEL, which is tested here.
    plain = item.isascii() and b"\\" not in item and b"\x7f" not in item
    return check_members(decode_event(item), plain=plain)


@prepared
class _PlainBody(EventBody):
    """EventBody without patterns, because matching them takes five times as long as the rest."""

    id: _Short
    agent_id: _Short
    organization_id: _Short | msgspec.UnsetType = msgspec.UNSET


def check_members(value: Any, *, plain: bool) -> Members:
    """The members of a decoded event.

    Args:
        plain: every character of the event is printable ASCII, so patterns are not matched.

    Raises:
        InvalidEvent: a member is missing or invalid.
    """
    try:
        body = msgspec.convert(value, _PlainBody if plain else EventBody)
    except msgspec.ValidationError as error:
        raise wrong_member(error) from None
    named = None if isinstance(body.organization_id, msgspec.UnsetType) else body.organization_id
    return body.id, body.agent_id, body.issued_at, named, _agent_name(body.agent_name)


def _agent_name(text: str | msgspec.UnsetType | None) -> str | None:
    if not isinstance(text, str) or not text.strip():
        return None
    if not is_id(text):
        raise InvalidEvent(
            "agentName", "must have at most 255 characters, and no control characters"
        )
    return text


def _issued_at(instant: str | datetime, now: datetime) -> datetime:
    if isinstance(instant, datetime):
        issued_at, problem = instant, "unusable time; it "
    else:
        issued_at, problem = _parsed(instant), ""
    if issued_at < EPOCH:
        raise InvalidEvent("issuedAt", f"{problem}is before 1970")
    if issued_at > now + FUTURE:
        raise InvalidEvent("issuedAt", f"{problem}is more than 5 minutes in the future")
    return issued_at


def _parsed(text: str) -> datetime:
    try:
        return parse_instant(text)
    except ValueError as error:
        raise InvalidEvent("issuedAt", str(error)) from None


# An escaped NUL. Before it there may be pairs of backslashes, each an escaped backslash.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
MEMBERS = frozenset(field.encode_name for field in msgspec.structs.fields(EventBody))


def _any_float(_text: str) -> float:
    """A value of the right type: no member of an event is a number, so its value is not used."""
    return 0.0


# To compute the value of a long decimal fraction takes 10 µs, and an event may have thousands.
_VALUE = msgspec.json.Decoder(float_hook=_any_float)


def decode_event(item: bytes, members: Iterable[str] = MEMBERS) -> Any:
    """The JSON text of one event as plain values, with every string in it checked.

    Decoding straight into a struct would skip unknown members, and with them invalid UTF-8, lone
    surrogates and integers that cannot be read back.

    Args:
        members: the names that an error may mention if the decoder's message names no member.

    Raises:
        InvalidEvent: the text is not JSON, or not JSON that can be stored.
    """
    try:
        value = _VALUE.decode(item)
    except UnicodeDecodeError:
        raise InvalidEvent("", "is not valid UTF-8") from None
    except msgspec.MsgspecError as error:
        raise _undecodable(item, error, members) from None
    except RecursionError:
        raise InvalidEvent("", "is nested too deeply") from None
    return value


def refuse_nul(item: bytes) -> None:
    """Refuse an event with a NUL in any string, ignored members included."""
    if b"\\u0000" in item and _NUL.search(item):
        raise InvalidEvent("", "has a NUL character in a string")


def _undecodable(
    item: bytes, error: msgspec.MsgspecError, members: Iterable[str]
) -> "InvalidEvent":
    """The error for text that cannot be decoded: usually the decoder's message.

    The decoder does not name a member that has a lone surrogate, so it is found here.
    """
    values = None
    if _ESCAPED_SURROGATE.search(item):
        with suppress(ValueError, RecursionError):
            values = json.loads(item, parse_float=_any_float)
    if isinstance(values, dict):
        for name in members:
            if isinstance(values.get(name), str) and _SURROGATE.search(values[name]):
                return InvalidEvent(name, "has a lone surrogate")
    return InvalidEvent("", str(error))


_WRONG_MEMBER = re.compile(r"(?P<message>.*) - at `\$\.(?P<field>\w+)`")
_MISSING_MEMBER = re.compile(r"Object missing required field `(?P<field>\w+)`")


def wrong_member(error: msgspec.ValidationError) -> InvalidEvent:
    """msgspec's one-line message, split into member and message."""
    text = str(error)
    if match := _MISSING_MEMBER.fullmatch(text):
        return InvalidEvent(match["field"], "is required")
    if match := _WRONG_MEMBER.fullmatch(text):
        message = match["message"]
        if "matching regex" in message:
            message = "has a control character"
        return InvalidEvent(match["field"], message)
    return InvalidEvent("", text)
