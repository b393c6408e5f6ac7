"""Which events are accepted and refused, whether a body holds one, an array or lines of them."""

import json
import re
from datetime import timedelta

import pytest
from flask import Request
from werkzeug.test import EnvironBuilder

from app.config.settings import ROOT
from app.errors import ForbiddenError, ValidationError
from app.intake.events import InvalidEvent, parse_batch, parse_event
from app.web.api.bodies import event_texts
from tests.support.settings import EVENT_BYTES, NOW

EVENT = {"id": "bad", "organizationId": "org-a", "agentId": "a", "issuedAt": "2026-04-01T09:00:00Z"}
GOOD = json.dumps(EVENT | {"id": "good"}).encode()
NDJSON = "application/x-ndjson"
DEEP = b"[" * 20_000 + b"]" * 20_000

# A content type, what stands around the event, and the event's index.
FORMS = {
    "single": ("application/json", b"%s", 0),
    "array": ("application/json", b"[" + GOOD + b", %s, " + GOOD + b"]", 1),
    "ndjson": (NDJSON, GOOD + b"\n%s\n" + GOOD + b"\n", 1),
}


def read(body, content_type="application/json"):
    """The checked batch of a body, as ``POST /events`` reads it."""
    environ = EnvironBuilder(method="POST", data=body, content_type=content_type).get_environ()
    return parse_batch(
        event_texts(Request(environ), 8 * 1024 * 1024, 10_000), None, NOW, EVENT_BYTES
    )


def check_refused(body, content_type="application/json"):
    """The whole body is refused, or at least one event of it."""
    try:
        batch = read(body, content_type)
    except ValidationError:
        return
    assert batch.rejected
    assert all(error.message for error in batch.errors)


def check_named(event, field):
    """An event is refused by its field, alone and by its place in every form."""
    text = json.dumps(event).encode()
    with pytest.raises(InvalidEvent) as refusal:
        parse_event(text, None, NOW, EVENT_BYTES)
    assert refusal.value.field == field
    assert refusal.value.message
    for content_type, frame, index in FORMS.values():
        batch = read(frame % text, content_type)
        assert [(error.index, error.field) for error in batch.errors] == [(index, field)]
        assert len(batch.events) == batch.received - 1


def test_the_good_event_is_good():
    """The others differ from it in one place."""
    for content_type, frame, index in FORMS.values():
        batch = read(frame % json.dumps(EVENT).encode(), content_type)
        assert (batch.rejected, batch.events[index].event_id) == (0, "bad")


BAD_TIMES = {
    "naive": "2026-04-01T09:00:00",
    "naive with a fraction": "2026-04-01T09:00:00.5",
    "date only": "2026-04-01",
    "date and offset": "2026-04-01Z",
    "no seconds": "2026-04-01T09:00Z",
    "second 60": "2026-04-01T09:00:60Z",
    "leap second": "2016-12-31T23:59:60Z",
    "minute 60": "2026-04-01T09:60:00Z",
    "hour 24": "2026-03-31T24:00:00Z",
    "31 February": "2026-02-31T09:00:00Z",
    "29 February of a common year": "2025-02-29T09:00:00Z",
    "day 0": "2026-04-00T09:00:00Z",
    "month 0": "2026-00-01T09:00:00Z",
    "month 13": "2025-13-01T09:00:00Z",
    "year 0": "0000-01-01T00:00:00Z",
    "before year 1 in UTC": "0001-01-01T00:00:00+23:59",
    "after year 9999 in UTC": "9999-12-31T23:59:59-00:01",
    "year 10000": "10000-01-01T00:00:00Z",
    "year of two digits": "26-04-01T09:00:00Z",
    "signed year": "+2026-04-01T09:00:00Z",
    "negative year": "-2026-04-01T09:00:00Z",
    "offset without colon": "2026-04-01T09:00:00+0530",
    "offset of hours": "2026-04-01T09:00:00+05",
    "offset of 24 hours": "2026-04-01T09:00:00+24:00",
    "offset of 60 minutes": "2026-04-01T09:00:00+05:60",
    "offset with seconds": "2026-04-01T09:00:00+05:30:00",
    "offset without sign": "2026-04-01T09:00:0005:30",
    "offset twice": "2026-04-01T09:00:00+00:00Z",
    "offset and zone": "2026-04-01T09:00:00+00:00[UTC]",
    "zone name": "2026-04-01T09:00:00UTC",
    "week date": "2026-W14-3T09:00:00Z",
    "ordinal date": "2026-091T09:00:00Z",
    "basic format": "20260401T090000Z",
    "one digit": "2026-4-1T9:00:00Z",
    "comma": "2026-04-01T09:00:00,5Z",
    "point without fraction": "2026-04-01T09:00:00.Z",
    "underscore": "2026-04-01T09:00:0_Z",
    "space before": " 2026-04-01T09:00:00Z",
    "space after": "2026-04-01T09:00:00Z ",
    "newline after": "2026-04-01T09:00:00Z\n",
    "NUL after": "2026-04-01T09:00:00Z\0",
    "Arabic digits": "2026-04-01T09:00:0\u0660Z",
    "fullwidth digits": "\uff12026-04-01T09:00:00Z",
    "lone surrogate": "2026-04-01T09:00:00\ud800",
    "HTTP date": "Wed, 01 Apr 2026 09:00:00 GMT",
    "Unix time in text": "1775034000",
    "5,000 digits": "2026-04-01T09:00:00." + "0" * 5000,
    "word": "now",
    "empty": "",
    "just over 5 minutes in the future": (NOW + timedelta(minutes=5, microseconds=1)).isoformat(),
    "a day in the future": "2026-04-16T12:30:00Z",
    "in the future by its offset": "2026-04-15T12:30:00-00:06",
    "before 1970": "1969-12-31T23:59:59.9999999Z",
    "before 1970 by its offset": "1970-01-01T00:00:00+00:01",
    "year 1": "0001-01-01T00:00:00Z",
    "year 9999": "9999-12-31T23:59:59Z",
}


@pytest.mark.parametrize("issued_at", BAD_TIMES.values(), ids=BAD_TIMES)
def test_a_bad_instant_is_refused(issued_at):
    check_named(EVENT | {"issuedAt": issued_at}, "issuedAt")


BAD_IDS = {
    "empty": "",
    "256 characters": "x" * 256,
    "256 astral characters": "\U0001f600" * 256,
    "NUL": "a\0b",
    "only NUL": "\0",
    "U+0001": "a\x01",
    "tab": "a\tb",
    "newline": "a\n",
    "U+001F": "\x1f",
    "U+007F": "a\x7f",
    "U+0080": "\x80a",
    "U+0085": "a\x85b",
    "U+009F": "a\x9f",
    "high surrogate": "a\ud800",
    "low surrogate": "\udc00a",
    "surrogates the wrong way round": "\ude00\ud83d",
}
NO_STRINGS = {"null": None, "number": 7, "fraction": 1.5, "true": True, "list": ["a"], "object": {}}


@pytest.mark.parametrize("value", BAD_IDS.values(), ids=BAD_IDS)
def test_a_bad_id_is_refused(value):
    """An id has 1 to 255 characters, none of them a control character."""
    for field in ("id", "organizationId", "agentId"):
        check_named(EVENT | {field: value}, field)


@pytest.mark.parametrize("value", NO_STRINGS.values(), ids=NO_STRINGS)
def test_a_member_of_another_type_is_refused(value):
    for field in EVENT:
        check_named(EVENT | {field: value}, field)


@pytest.mark.parametrize("field", EVENT)
def test_a_missing_member_is_refused(field):
    event = {name: value for name, value in EVENT.items() if name != field}
    check_named(event, field)
    check_named(event | {field.upper(): EVENT[field]}, field)


def test_an_event_for_another_organization_is_forbidden():
    assert parse_event(GOOD, "org-a", NOW, EVENT_BYTES).tenant_id == "org-a"
    with pytest.raises(ForbiddenError):
        parse_event(GOOD, "org-b", NOW, EVENT_BYTES)


def event_with(value, name=b"extra"):
    """An event in which one value is text that an encoder would not write."""
    text = json.dumps({key: text for key, text in EVENT.items() if key != name.decode()}).encode()
    return text[:-1] + b', "' + name + b'": ' + value + b"}"


BROKEN = {
    "nothing": b"{",
    "no value": event_with(b""),
    "NaN": event_with(b"NaN"),
    "Infinity": event_with(b"Infinity"),
    "-Infinity": event_with(b"-Infinity"),
    "NaN as time": event_with(b"NaN", b"issuedAt"),
    "Infinity as id": event_with(b"Infinity", b"id"),
    "leading zero": event_with(b"01"),
    "hexadecimal": event_with(b"0x1"),
    "True": event_with(b"True"),
    "single quotes": event_with(b"'x'"),
    "unknown escape": event_with(rb'"\x41"'),
    "cut escape": event_with(rb'"\u00"', b"id"),
    "raw newline": event_with(b'"a\nb"', b"id"),
    "raw NUL": event_with(b'"a\0b"', b"id"),
    "raw control character in an unknown member": event_with(b'"\x01"'),
    "invalid UTF-8 in an id": event_with(b'"\xff"', b"id"),
    "invalid UTF-8 in an agent": event_with(b'"a\xc3"', b"agentId"),
    "invalid UTF-8 in an unknown member": event_with(b'"\xff"'),
    "invalid UTF-8 in a list in an unknown member": event_with(b'["\xe9"]'),
    "invalid UTF-8 in an unknown name": event_with(b"1", b"name").replace(b"name", b"n\xffme"),
    "overlong UTF-8": event_with(b'"\xc0\x80"', b"id"),
    "overlong UTF-8 in an unknown member": event_with(b'"\xc0\x80"'),
    "surrogate in UTF-8": event_with(b'"\xed\xa0\x80"', b"id"),
    "surrogate in UTF-8 in an unknown member": event_with(b'"\xed\xa0\x80"'),
    "beyond Unicode": event_with(b'"\xf4\x90\x80\x80"', b"id"),
    "5,000 digits as id": event_with(b"9" * 5000, b"id"),
    "5,000 digits as time": event_with(b"9" * 5000, b"issuedAt"),
    "5,000 digits alone": b"9" * 5000,
    "5,000 digits in an unknown member": event_with(b"9" * 5000),
    "escaped NUL in an unknown member": event_with(rb'"\u0000"'),
    "lone surrogate in an unknown member": event_with(rb'"\ud800"'),
    "deep list": DEEP,
    "deep object": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "deep id": event_with(DEEP, b"id"),
    "deep unknown member": event_with(DEEP),
    "deep and never closed": event_with(b"[" * 50_000),
    "two objects": event_with(b"1") + b" " + GOOD,
    "trailing garbage": event_with(b"1") + b" x",
    "trailing brace": event_with(b"1") + b"}",
    "trailing NUL": event_with(b"1") + b"\0",
    "trailing comma": event_with(b"1")[:-1] + b",}",
    "comment": event_with(b"1 /* one */"),
    "two objects, carriage return": event_with(b"1") + b"\r" + GOOD,
    "number": b"1",
    "string": b'"event"',
    "null": b"null",
    "false": b"false",
    "list in a list": b"[[%s]]" % GOOD,
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_invalid_json_is_refused(text):
    with pytest.raises(InvalidEvent):
        parse_event(text, None, NOW, EVENT_BYTES)
    for content_type, frame, _ in FORMS.values():
        check_refused(frame.replace(b"%s", text), content_type)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_body_is_utf_8(encoding):
    for content_type in ("application/json", NDJSON):
        check_refused(GOOD.decode().encode(encoding), content_type)


@pytest.mark.parametrize(
    "body",
    [b"", b" ", b"[", b"[,]", b"[%s,]" % GOOD, b"%s,%s" % (GOOD, GOOD), b"[%s]]" % GOOD, b"[] []"],
)
def test_a_json_body_is_one_value(body):
    check_refused(body)


@pytest.mark.parametrize("body", [b"", b"[%s]" % GOOD, GOOD + GOOD, GOOD + b"," + GOOD, b"[]"])
def test_an_ndjson_line_is_one_object(body):
    check_refused(body, NDJSON)


@pytest.mark.parametrize("content_type", ["application/json", NDJSON])
def test_the_first_100_bad_events_are_listed_in_order(content_type):
    lines = [GOOD if n % 2 else event_with(b'""', b"agentId") for n in range(300)]
    body = b"\n".join(lines) if content_type == NDJSON else b"[%s]" % b",".join(lines)
    batch = read(body, content_type)
    assert batch.rejected == 150
    assert [error.index for error in batch.errors] == list(range(0, 200, 2))
    assert {error.field for error in batch.errors} == {"agentId"}


def large(size):
    """An event of so many bytes."""
    text = event_with(b'""')
    return text.replace(b'""', b'"%s"' % (b"x" * (size - len(text))))


@pytest.mark.parametrize("form", FORMS)
def test_an_event_has_a_limited_size(form):
    """An event has at most `MAX_EVENT_BYTES`; the white space around it does not count."""
    content_type, frame, index = FORMS[form]
    blanks = b" " * EVENT_BYTES
    fitting = read(frame % (blanks + large(EVENT_BYTES) + blanks), content_type)
    assert fitting.rejected == 0
    batch = read(frame % large(EVENT_BYTES + 1), content_type)
    assert [(error.index, error.field) for error in batch.errors] == [(index, "")]
    assert len(batch.events) == batch.received - 1


def test_the_size_is_checked_before_the_event_is_decoded():
    """An event above the limit may be anything."""
    for text in (b"x", b"[", b'"\\ud800"', b"{}"):
        with pytest.raises(InvalidEvent, match="larger"):
            parse_event(text * (EVENT_BYTES + 1), None, NOW, EVENT_BYTES)


VALUES = {
    "few commas": b"[%s]" % b",".join([b"0"] * 1_000),
    "many commas": b"[%s]" % b",".join([b"0"] * 10_000),
    "many objects": b"[%s]" % b",".join([b'{"a":[[[[[[1]]]]]]}'] * 3_000),
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_an_event_may_have_many_values(value):
    """Valid JSON is read however many values it has; an invalid event beside it is named."""
    one = event_with(value)
    assert read(b"[%s]" % b",".join([one] * 20)).rejected == 0
    assert read(b"\n".join([one] * 20), NDJSON).rejected == 0
    for bad in (b'{"a"}', one[:-2] + b",]}", b"[" * 2_000 + b"]" * 2_000, b'{"a" 1}', b"{} {}"):
        batch = read(b"[%s]" % b",".join([*[one] * 10, bad, *[one] * 10]))
        assert [error.index for error in batch.errors] == [10]


def test_numbers_of_ignored_members_do_not_matter():
    """An ignored member may have a number that no computer can hold; an id is no number."""
    for number in (b"1e999", b"-1.5", b"1.23456789012345678901234567890e-300", b"9" * 4000):
        assert parse_event(event_with(number), None, NOW, EVENT_BYTES).event_id == "bad"
        with pytest.raises(InvalidEvent) as refusal:
            parse_event(event_with(number, b"id"), None, NOW, EVENT_BYTES)
        assert refusal.value.field == "id"


def test_every_decoded_struct_is_prepared():
    """Threads decode: what msgspec builds at a first use, another thread may use unfinished.

    The entries of SOURCES_FILE are read once, before there are threads.
    """
    declared = re.compile(r"^(@prepared\n)?class (\w+)\(msgspec\.Struct", re.MULTILINE)
    missing = {
        name
        for file in (ROOT / "app" / "intake").rglob("*.py")
        for is_prepared, name in declared.findall(file.read_text())
        if not is_prepared
    }
    # An EventError is never decoded. Parts are prepared together with the whole.
    parts = {"DaysOff", "Price", "Join", "Time", "ValueTest"}
    assert missing <= {"EventError", "Entry", *parts}
