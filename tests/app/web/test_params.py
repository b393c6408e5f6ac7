"""The parameters of a request: strict numbers, months, pages and choices."""

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest
from werkzeug.datastructures import MultiDict

from app.errors import ValidationError
from app.reports.agents import Place
from app.reports.days import Days
from app.web import params

SIGNS = ["", " ", "30 ", " 30", "30\n", "+7", "-1", "-0", "0", "00", "07", "1_0", "1,0", "7;"]
DIGITS = ["\u0663", "\uff10\uff17", "\xb2", "1e1", "30.0", "0x1e", "abc", "null", "9" * 5000]
NO_MONTHS = ["", "now", "2026", "2026-4", "2026-00", "2026-13", "202604", "2026/04", "2026-1e"]
NO_MONTHS += ["1969-12", "0000-01", "10000-01", "+2026-04", "-2026-04", "2_26-04", "2026-04-01"]
NO_MONTHS += [" 2026-04", "2026-04 ", "2026-04\n", "\uff12026-04", "2026-\u0660\u0664", "2026-04\0"]
NO_CURSORS = [
    "",
    "=",
    "YQ==",
    "Y Q",
    "YR",
    "!!!!",
    "\u0663",
    "gA",
    "AA",
    "YQ\n",
    "YWJj.",
    "A" * 4000,
]
NO_DAYS = ["", "today", "2026-04", "2026-4-1", "2026-04-31", "2026-02-29", "2026-00-01", "20260401"]
NO_DAYS += ["1969-12-31", "0001-01-01", "10000-01-01", "+2026-04-01", "2026-04-01T00:00:00Z"]
NO_DAYS += [" 2026-04-01", "2026-04-01\n", "2026-W14-3", "2026-091", "\uff12026-04-01"]
NO_DAYS += ["2026-04-\u0660\u0661", "2026-04-01\0", "2026/04/01"]
APRIL = date(2026, 4, 1)
NOW = datetime(2026, 4, 15, 12, 30, tzinfo=UTC)


def args(**parameters):
    return MultiDict(parameters)


def month(given):
    return params.month(given, APRIL)


def order(given):
    return params.one_of(given, "order", ("newest", "oldest"))


NUMBERS = [("days", params.days, 90), ("months", params.months, 24), ("limit", params.limit, 1000)]
NUMBERS += [("limit", params.page_limit, 1000)]
TEXTS = [("month", month), ("cursor", params.cursor), ("q", params.search)]
TEXTS += [("zone", params.zone), ("order", order), ("invalid", params.skip_invalid)]
TEXTS += [("from", params.optional_days), ("to", params.optional_days)]
TEXTS += [("agentId", params.optional_agent_id)]


def refuses(read, name, text):
    """Whether ``read`` refuses the parameter ``name`` with this text, and names it."""
    try:
        read(args(**{name: text}))
    except ValidationError as error:
        return error.details == {"parameter": name} and name in str(error)
    return False


@pytest.mark.parametrize(("name", "read", "largest"), NUMBERS)
def test_a_number_is_ascii_digits_in_its_range(name, read, largest):
    """A number has ASCII digits only, no sign, space or leading zero, and lies in its range."""
    for text in [*SIGNS, *DIGITS, str(largest + 1)]:
        assert refuses(read, name, text), text
    for number in (1, 7, largest):
        assert read(args(**{name: str(number)})) == number


def test_absent_parameters_have_their_defaults():
    assert (params.days(args()), params.months(args()), params.limit(args())) == (30, None, None)
    assert (params.page_limit(args()), params.cursor(args())) == (100, "")
    assert (params.search(args()), params.zone(args()), order(args())) == (None, None, "newest")
    assert (month(args()), params.skip_invalid(args())) == (APRIL, False)


@pytest.mark.parametrize(("name", "read"), [row[:2] for row in NUMBERS] + TEXTS)
def test_a_parameter_may_be_given_only_once(name, read):
    """A parameter given twice is refused, even with two equal or two empty values."""
    for values in (["1", "1"], ["1", ""], ["", ""]):
        with pytest.raises(ValidationError, match="only once"):
            read(MultiDict([(name, value) for value in values]))


@pytest.mark.parametrize("text", NO_MONTHS)
def test_a_month_is_four_digits_and_two(text):
    assert refuses(month, "month", text)


def test_a_month_is_read_as_its_first_day():
    assert month(args(month="1970-01")) == date(1970, 1, 1)
    assert month(args(month="9999-12")) == date(9999, 12, 1)


@pytest.mark.parametrize("name", ["from", "to"])
@pytest.mark.parametrize("text", NO_DAYS)
def test_a_day_is_four_digits_two_and_two(name, text):
    assert refuses(params.optional_days, name, text)


def test_days_are_from_and_to_or_the_last_ones():
    """Without ``from`` and ``to``, days end with today in the zone."""
    given = args(**{"from": "2026-04-01", "to": "2026-04-03", "zone": "Asia/Tokyo"})
    tokyo = ZoneInfo("Asia/Tokyo")
    assert params.recent_days(given, NOW) == Days(APRIL, date(2026, 4, 3), tokyo)
    recent = params.recent_days(args(days="2"), NOW)
    assert recent == Days(date(2026, 4, 14), date(2026, 4, 15))
    recent = params.recent_days(args(zone="Pacific/Auckland"), NOW, default=1)
    assert (recent.first, recent.last) == (date(2026, 4, 16), date(2026, 4, 16))
    assert params.date_range(args(months="1"), instead_of="months") is None


@pytest.mark.parametrize("text", NO_CURSORS)
def test_a_cursor_is_one_that_a_page_gave(text):
    """Only the exact text of a ``nextCursor`` is a cursor, so that one id has one cursor."""
    assert refuses(params.cursor, "cursor", text)


@pytest.mark.parametrize("last", ["a", "é" * 255, "\U0001f600", "a/b?c=d&e", " "])
def test_a_cursor_comes_back_as_its_id(last):
    assert params.cursor(args(cursor=params.next_cursor(last))) == last


@pytest.mark.parametrize("place", [Place("a/b\u00e9", date(2026, 4, 1)), Place("x", date.min)])
def test_a_cursor_belongs_to_one_order(place):
    text = params.next_agents_cursor(place, "lastSeen")
    assert params.agents_cursor(args(cursor=text), "lastSeen") == place
    other = params.next_agents_cursor(place, "id")
    assert params.agents_cursor(args(cursor=other), "id").agent_id == place.agent_id
    assert refuses(lambda given: params.agents_cursor(given, "id"), "cursor", text)
    assert refuses(lambda given: params.agents_cursor(given, "lastSeen"), "cursor", other)


@pytest.mark.parametrize("text", [*NO_CURSORS, params.next_cursor("20260401\x1fa")])
def test_a_cursor_by_last_day_is_one_that_a_page_gave(text):
    assert refuses(lambda given: params.agents_cursor(given, "lastSeen"), "cursor", text)


def test_the_last_page_has_no_cursor():
    assert params.next_cursor(None) is None


def test_a_search_is_text_as_an_id_is():
    for text in ("", "a\0b", "a\x7f", "\x9f", "x" * 256):
        assert refuses(params.search, "q", text), text
    assert params.search(args(q="é" * 255)) == "é" * 255


def test_a_zone_is_the_name_of_one():
    for text in (
        "",
        "Mars/Olympus",
        "../etc/passwd",
        "/etc/localtime",
        "Europe",
        "Europe/Berlin\0",
    ):
        assert refuses(params.zone, "zone", text), text
    assert params.zone(args(zone="Asia/Kolkata")) == ZoneInfo("Asia/Kolkata")


def test_a_choice_is_one_of_the_list():
    for text in ("", "NEWEST", "newest ", "other"):
        assert refuses(order, "order", text), text
    assert order(args(order="oldest")) == "oldest"


def test_invalid_may_only_be_skip():
    for text in ("", "Skip", "1", "true"):
        assert refuses(params.skip_invalid, "invalid", text), text
    assert params.skip_invalid(args(invalid="skip")) is True
