"""Query parameters, read strictly: ASCII digits only, each known name at most once.

Python's ``int()`` would also take ``٣``, ``"30 "``, ``+7`` and ``1_0``.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from datetime import date
from zoneinfo import ZoneInfo

from flask import request
from werkzeug.datastructures import MultiDict
from werkzeug.routing import BaseConverter

from app.dates import parse_month
from app.errors import ValidationError
from app.ids import is_id

Args = MultiDict[str, str]

MAX_DAYS, DEFAULT_DAYS = 90, 30
MAX_MONTHS = 24
MAX_AGENTS, DEFAULT_PAGE = 1000, 100

_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


def days(args: Args) -> int:
    """``days``: 1 to 90, 30 when absent."""
    return _number(args, "days", MAX_DAYS) or DEFAULT_DAYS


def months(args: Args) -> int | None:
    """``months``: 1 to 24, or ``None`` for all recorded activity."""
    return _number(args, "months", MAX_MONTHS)


def limit(args: Args) -> int | None:
    """``limit``: 1 to 1000, or ``None`` for all."""
    return _number(args, "limit", MAX_AGENTS)


def page_limit(args: Args) -> int:
    """``limit`` of a page: 1 to 1000, 100 when absent."""
    return limit(args) or DEFAULT_PAGE


def cursor(args: Args) -> str:
    """``cursor``: the id that the page before ended with; empty for the first page."""
    text = _single(args, "cursor")
    if text is None:
        return ""
    try:
        last = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, ValueError):
        last = ""
    # One text for each id: the decoder passes over characters that are not its own.
    if not is_id(last) or cursor_after(last) != text:
        raise _wrong("cursor", "must be the nextCursor of the page before")
    return last


def cursor_after(last: str) -> str:
    """The ``cursor`` of the page after the one that ends with the id ``last``."""
    return base64.urlsafe_b64encode(last.encode()).rstrip(b"=").decode()


def search(args: Args) -> str | None:
    """``q``: text to look for, or ``None``."""
    text = _single(args, "q")
    if text is not None and not is_id(text):
        raise _wrong("q", "must be 1 to 255 characters without control characters")
    return text


def agent_id(text: str) -> str:
    """``agentId``, as the path has it."""
    if not is_id(text):
        raise _wrong("agentId", "must be 1 to 255 characters without control characters")
    return text


def month(args: Args, default: date) -> date:
    """``month``: ``YYYY-MM`` within 1970..9999, by its first day."""
    text = _single(args, "month")
    if text is None:
        return default
    try:
        return parse_month(text)
    except ValueError:
        raise _wrong("month", "must be YYYY-MM, from 1970-01 to 9999-12") from None


def zone(args: Args) -> ZoneInfo | None:
    """``zone``: the name of a time zone, as ``Europe/Berlin``, or ``None``."""
    text = _single(args, "zone")
    if text is None:
        return None
    try:
        return ZoneInfo(text)
    except (KeyError, ValueError, OSError):  # unknown, no name at all, or a folder of zones
        raise _wrong("zone", "must be the name of a time zone, as Europe/Berlin") from None


def one_of(args: Args, name: str, words: Sequence[str]) -> str:
    """One of some words; the first when absent."""
    text = _single(args, name)
    if text is None:
        return words[0]
    if text not in words:
        raise _wrong(name, f"must be {', '.join(words[:-1])} or {words[-1]}")
    return text


def skip_invalid(args: Args) -> bool:
    """``invalid=skip``: store the good events of a batch that has bad ones."""
    text = _single(args, "invalid")
    if text not in (None, "skip"):
        raise _wrong("invalid", "must be skip, or left out")
    return text is not None


def _number(args: Args, name: str, largest: int) -> int | None:
    text = _single(args, name)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text) or int(text) > largest:
        raise _wrong(name, f"must be a whole number from 1 to {largest}")
    return int(text)


def _single(args: Args, name: str) -> str | None:
    values = args.getlist(name)
    if len(values) > 1:
        raise _wrong(name, "must not be given twice")
    return values[0] if values else None


def _wrong(name: str, problem: str) -> ValidationError:
    return ValidationError(f"{name} {problem}", {"parameter": name})


def arguments() -> MultiDict[str, str]:
    """The request's query parameters.

    Raises:
        ValidationError: bytes in it, sent without being escaped, are not UTF-8.
    """
    try:
        return request.args
    except UnicodeDecodeError:
        raise ValidationError("the query is not UTF-8") from None


class TextConverter(BaseConverter):
    """Any text in a path, with slashes and whatever else is in it; ``<text:name>`` in a rule."""

    regex = r"[\s\S]+"
    part_isolating = False


def path_text(text: str) -> str:
    """A text from the path, that came as it is.

    Raises:
        ValidationError: the path is not UTF-8, and what is not was replaced in it.
    """
    try:
        request.environ["PATH_INFO"].encode("latin-1").decode()
    except UnicodeDecodeError:
        raise ValidationError("the path is not UTF-8") from None
    return text
