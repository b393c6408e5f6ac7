"""Parameters of a request, from its query and its path, parsed strictly.

Numbers are ASCII digits only, because Python's ``int()`` also accepts ``٣``, ``"30 "``, ``+7``
and ``1_0``. A known parameter may be given only once.
"""

import base64
import binascii
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from flask import request
from werkzeug.datastructures import MultiDict
from werkzeug.routing import BaseConverter

from app.dates import parse_day, parse_instant, parse_month, parse_zone
from app.errors import NotFoundError, ValidationError
from app.ids import is_id
from app.reports.agents import FIRST_SEEN, SORTS, Place
from app.reports.days import Days
from app.reports.findings import Cursor
from app.reports.organizations import ORDERS as ORGANIZATION_ORDERS
from app.reports.organizations import PERIODS, OrganizationPlace, OrganizationsWanted, SortValue
from app.reports.organizations import SORTS as ORGANIZATION_SORTS

Args = MultiDict[str, str]

MAX_DAYS, DEFAULT_DAYS = 90, 30
MAX_RANGE_DAYS, MAX_HOURLY_DAYS = 366, 31
MAX_MONTHS = 24
MAX_AGENTS, DEFAULT_PAGE = 1000, 100
MAX_PAGE = 1_000_000
# The largest number of a column.
MAX_NUMBER = 2**63 - 1
ORGANIZATION = "organizationId"

# It is in no id, so no cursor of one order is one of the other.
_SEPARATOR = "\x1f"
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_LONG_NUMBER = re.compile(r"[1-9][0-9]{0,17}")


class TextConverter(BaseConverter):
    """A URL converter for any text in a path, slashes included: ``<text:name>`` in a rule."""

    regex = r"[\s\S]+"
    part_isolating = False


def arguments() -> Args:
    """The request's query parameters.

    Raises:
        ValidationError: the query has unescaped bytes that are not UTF-8.
    """
    try:
        return request.args
    except UnicodeDecodeError:
        raise ValidationError("the query must be percent-encoded UTF-8") from None


def days(args: Args) -> int:
    """``days``: 1 to 90, 30 when absent."""
    return _number(args, "days", MAX_DAYS) or DEFAULT_DAYS


def recent_days(
    args: Args, now: datetime, *, default: int | None = None, largest: int = MAX_RANGE_DAYS
) -> Days:
    """The days of a report, in ``zone``: ``from`` to ``to``, or else the last ones up to today.

    Args:
        default: how many days there are without ``from`` and ``to``; ``None`` for the parameter
            ``days``, which must be absent beside these two.
        largest: the maximum number of days from ``from`` to ``to``.
    """
    count = default or days(args)
    found = _range(args, largest, instead_of=None if default else "days")
    if found is None:
        place = zone(args)
        today = (now.astimezone(place) if place else now).date()
        found = Days(today - timedelta(days=count - 1), today, place)
    return found


def date_range(args: Args, *, instead_of: str) -> Days | None:
    """The days of a report, in ``zone``: ``from`` to ``to``; ``None`` without these.

    Args:
        instead_of: the parameter that otherwise gives the period, in UTC; then ``zone`` must be
            absent.
    """
    found = _range(args, MAX_RANGE_DAYS, instead_of=instead_of)
    if found is None and zone(args) is not None:
        raise _invalid("zone", "needs from and to")
    return found


def _range(args: Args, largest: int, *, instead_of: str | None) -> Days | None:
    first, last = optional_days(args)
    if first is None and last is None:
        return None
    if first is None or last is None:
        raise _invalid("to" if last is None else "from", "is missing: give both from and to")
    if instead_of is not None and _single(args, instead_of) is not None:
        raise _invalid(instead_of, "must be left out where from and to are given")
    found = Days(first, last, zone(args))
    if len(found) > largest:
        raise _invalid("to", f"must be one of the {largest} days that begin with from")
    return found


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
    """``cursor``: the last id of the previous page; empty for the first page."""
    text = _single(args, "cursor")
    if text is None:
        return ""
    last = _decoded(text)
    # The decoder ignores foreign characters, so several texts would decode to one id.
    if not is_id(last) or next_cursor(last) != text:
        raise _invalid("cursor", "must be the nextCursor of the previous page")
    return last


def audit_cursor(args: Args) -> int | None:
    """``cursor`` of a page of the audit log; ``None`` for the first page."""
    text = cursor(args)
    if not text:
        return None
    if not _LONG_NUMBER.fullmatch(text):
        raise _invalid("cursor", "must be that of the previous page")
    return int(text)


def next_cursor(last: str | None) -> str | None:
    """The ``nextCursor`` of a page that ends with the id ``last``; ``None`` on the last page."""
    if last is None:
        return None
    return base64.urlsafe_b64encode(last.encode()).rstrip(b"=").decode()


def agents_cursor(args: Args, sort: str) -> Place:
    """``cursor`` of a page of agents in an order: the place of the previous page's last agent."""
    text = _single(args, "cursor")
    if text is None:
        return FIRST_SEEN
    if sort == SORTS[0]:
        return Place(cursor(args))
    seen, _, last = _decoded(text).partition(_SEPARATOR)
    place: Place | None = None
    with suppress(ValueError):
        place = Place(last, date.fromisoformat(seen))
    if place is None or not is_id(last) or next_agents_cursor(place, sort) != text:
        raise _invalid("cursor", "must be the nextCursor of the previous page in the same order")
    return place


def next_agents_cursor(place: Place | None, sort: str) -> str | None:
    """The ``nextCursor`` of a page of agents; ``None`` on the last page."""
    if place is None:
        return None
    if sort == SORTS[0]:
        return next_cursor(place.agent_id)
    return next_cursor(f"{place.seen}{_SEPARATOR}{place.agent_id}")


def _decoded(text: str) -> str:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, ValueError):
        return ""


def search(args: Args) -> str | None:
    """``q``: text to search for, or ``None``."""
    return _id(args, "q")


def agent_id(text: str) -> str:
    """``agentId`` from the path.

    Raises:
        ValidationError: the path is not UTF-8, or its text is not a valid id.
    """
    try:
        # Werkzeug replaces bytes that are not UTF-8, so the check needs the original bytes.
        request.environ["PATH_INFO"].encode("latin-1").decode()
    except UnicodeDecodeError:
        raise ValidationError("the path must be percent-encoded UTF-8") from None
    if not is_id(text):
        raise _invalid("agentId", "must be 1 to 255 characters without control characters")
    return text


def day_of_path(text: str) -> date:
    """A day in the path.

    Raises:
        NotFoundError: there is no such day.
    """
    # The last day of the calendar has no end that can be represented.
    with suppress(ValueError):
        if (found := parse_day(text)) < date.max:
            return found
    raise NotFoundError("there is no such day; a day is written as 2026-04-01")


def month(args: Args, default: date) -> date:
    """``month``: ``YYYY-MM`` in 1970 to 9999, as its first day."""
    text = _single(args, "month")
    if text is None:
        return default
    try:
        return parse_month(text)
    except ValueError:
        raise _invalid("month", "must be YYYY-MM, from 1970-01 to 9999-12") from None


def zone(args: Args) -> ZoneInfo | None:
    """``zone``: the name of a time zone, such as ``Europe/Berlin``, or ``None``."""
    text = _single(args, "zone")
    if text is None:
        return None
    try:
        return parse_zone(text)
    except ValueError as error:
        raise _invalid("zone", str(error)) from None


def one_of(args: Args, name: str, choices: Sequence[str]) -> str:
    """A parameter with fixed choices; the first choice when absent."""
    text = _single(args, name)
    if text is None:
        return choices[0]
    if text not in choices:
        raise _invalid(name, f"must be {', '.join(choices[:-1])} or {choices[-1]}")
    return text


def optional_one_of(args: Args, name: str, choices: Sequence[str]) -> str | None:
    """A parameter with fixed choices; ``None`` when absent."""
    return None if _single(args, name) is None else one_of(args, name, choices)


def optional_agent_id(args: Args) -> str | None:
    """``agentId`` in the query: an id, or ``None``."""
    return _id(args, "agentId")


def organization_id(args: Args) -> str | None:
    """``organizationId``: an id, or ``None``."""
    return _id(args, ORGANIZATION)


def optional_days(args: Args) -> tuple[date | None, date | None]:
    """``from`` and ``to``: the first and the last day, each may be absent."""
    first, last = _day(args, "from"), _day(args, "to")
    if first is not None and last is not None and first > last:
        raise _invalid("to", "must not be before from")
    return first, last


def finding_cursor(args: Args) -> Cursor | None:
    """``cursor`` of a page of findings; ``None`` for the first page."""
    text = _single(args, "cursor")
    if text is None:
        return None
    moment, _, finding_id = _decoded(text).partition(" ")
    try:
        cursor = Cursor(parse_instant(moment), finding_id)
    except ValueError:
        cursor = None
    # Several texts would decode to one cursor, so only the one that was sent is accepted.
    if cursor is None or not is_id(finding_id) or next_finding_cursor(cursor) != text:
        raise _invalid("cursor", "must be the nextCursor of the previous page")
    return cursor


def next_finding_cursor(cursor: Cursor | None) -> str | None:
    """The ``nextCursor`` of a page of findings; ``None`` on the last page."""
    if cursor is None:
        return None
    return next_cursor(f"{cursor.opened_at:%Y-%m-%dT%H:%M:%S.%fZ} {cursor.id}")


def period(args: Args) -> str:
    """``period`` of the list of organizations."""
    return one_of(args, "period", tuple(PERIODS))


def organizations_wanted(args: Args, period: str) -> OrganizationsWanted:
    """``sort``, ``order`` and ``q`` of the list of organizations."""
    sort = one_of(args, "sort", ORGANIZATION_SORTS)
    order = optional_one_of(args, "order", ORGANIZATION_ORDERS)
    # The first id is the smallest, and the first of the others has the most.
    usual = ORGANIZATION_ORDERS[sort == "id"]
    return OrganizationsWanted(period, sort, order or usual, search(args))


def organizations_cursor(args: Args, wanted: OrganizationsWanted) -> OrganizationPlace | None:
    """``cursor`` of a page of organizations in an order; ``None`` for the first page."""
    text = _single(args, "cursor")
    if text is None:
        return None
    place: OrganizationPlace | None = None
    *_, value, tenant_id = ["", *_decoded(text).split(_SEPARATOR)]
    with suppress(ValueError, OverflowError):
        place = OrganizationPlace(_sort_value(value, wanted.sort), tenant_id)
    # Several texts would decode to one place. One of another order would lead anywhere.
    if place is None or not is_id(tenant_id) or next_organizations_cursor(place, wanted) != text:
        raise _invalid("cursor", "must be the nextCursor of the previous page in the same order")
    return place


def next_organizations_cursor(
    place: OrganizationPlace | None, wanted: OrganizationsWanted
) -> str | None:
    """The ``nextCursor`` of a page of organizations; ``None`` on the last page."""
    if place is None:
        return None
    parts = (wanted.period, wanted.sort, wanted.order, place.value, place.tenant_id)
    return next_cursor(_SEPARATOR.join(map(str, parts)))


def _sort_value(text: str, sort: str) -> SortValue:
    """The value of a sort in a cursor.

    Raises:
        ValueError: it is none that the service has sent.
    """
    if sort == "id":
        return text
    if sort == "lastDay":
        return date.fromisoformat(text)
    if sort == "change":
        value = float(text)
        if not math.isfinite(value):
            raise ValueError(text)
        return value
    number = int(text)
    if abs(number) > MAX_NUMBER:
        raise ValueError(text)
    return number


def _day(args: Args, name: str) -> date | None:
    text = _single(args, name)
    if text is None:
        return None
    try:
        return parse_day(text)
    except ValueError:
        raise _invalid(name, "must be a day, as 2026-04-01, from 1970-01-01 on") from None


def page(args: Args) -> int:
    """``page``: 1 to 1,000,000, 1 when absent."""
    return _number(args, "page", MAX_PAGE) or 1


def byte_order_mark(args: Args) -> bool:
    """``bom=1``: begin CSV with a byte order mark, so that spreadsheets read UTF-8."""
    return _only(args, "bom", "1")


def saved(args: Args) -> bool:
    """``saved=1``: the page confirms that a form was saved."""
    return _only(args, "saved", "1")


def skip_invalid(args: Args) -> bool:
    """``invalid=skip``: store the valid events of a batch and skip the invalid ones."""
    return _only(args, "invalid", "skip")


def file_format(args: Args) -> str | None:
    """``format``: the name of a log format, which the caller checks, or ``None``."""
    return _single(args, "format")


def _number(args: Args, name: str, largest: int) -> int | None:
    text = _single(args, name)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text) or int(text) > largest:
        raise _invalid(name, f"must be a whole number from 1 to {largest}")
    return int(text)


def _id(args: Args, name: str) -> str | None:
    text = _single(args, name)
    if text is not None and not is_id(text):
        raise _invalid(name, "must be 1 to 255 characters without control characters")
    return text


def _only(args: Args, name: str, word: str) -> bool:
    """Whether a parameter that has only one value is given."""
    text = _single(args, name)
    if text not in (None, word):
        raise _invalid(name, f"must be {word} or left out")
    return text is not None


def _single(args: Args, name: str) -> str | None:
    values = args.getlist(name)
    if len(values) > 1:
        raise _invalid(name, "must be given only once")
    return values[0] if values else None


def _invalid(name: str, problem: str) -> ValidationError:
    return ValidationError(f"{name} {problem}", {"parameter": name})
