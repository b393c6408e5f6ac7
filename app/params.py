"""Query parameters, read strictly: ASCII digits only, each known name at most once.

Python's ``int()`` would also take ``٣``, ``"30 "``, ``+7`` and ``1_0``.
"""

import re
from datetime import date

from werkzeug.datastructures import MultiDict

from app.errors import ValidationError
from app.periods import parse_month

Args = MultiDict[str, str]

MAX_DAYS, DEFAULT_DAYS = 90, 30
MAX_MONTHS = 24
MAX_AGENTS = 1000

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


def month(args: Args, default: date) -> date:
    """``month``: ``YYYY-MM`` within 1970..9999, by its first day."""
    text = _single(args, "month")
    if text is None:
        return default
    try:
        return parse_month(text)
    except ValueError:
        raise _wrong("month", "must be YYYY-MM, from 1970-01 to 9999-12") from None


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
