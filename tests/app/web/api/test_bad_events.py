"""POST /api/v1/events refuses bad events in every form, and stores nothing of their batch."""

import gzip
import json
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from app.storage.tables import issuance_events
from tests.support.settings import NOW
from tests.support.tokens import bearer

EVENTS = "/api/v1/events"
EVENT = {"id": "bad", "organizationId": "org-a", "agentId": "a", "issuedAt": "2026-04-01T09:00:00Z"}
GOOD = json.dumps(EVENT | {"id": "good"}).encode()
NDJSON = "application/x-ndjson"
DEEP = b"[" * 100_000 + b"]" * 100_000

FORMS = {
    "single": ("application/json", b"%s", 0),
    "array": ("application/json", b"[" + GOOD + b", %s, " + GOOD + b"]", 1),
    "ndjson": (NDJSON, GOOD + b"\n%s\n" + GOOD + b"\n", 1),
}
every_form = pytest.mark.parametrize("form", FORMS)


@pytest.fixture
def database_url(shared_database_url):
    """Every test sees to it that the database stays empty."""
    return shared_database_url


@pytest.fixture
def check_refused(client, database):
    """Send a body as the identity provider; it is refused and nothing of it is stored."""

    def stored():
        with database.reading() as connection:
            return connection.scalar(select(func.count()).select_from(issuance_events))

    def check_refused(body, content_type="application/json", *, encoding="identity"):
        before = stored()
        headers = bearer(scope="events:write:any") | {"Content-Encoding": encoding}
        body = gzip.compress(body, 1) if encoding == "gzip" else body
        answer = client.post(EVENTS, data=body, content_type=content_type, headers=headers)
        assert stored() == before
        assert (answer.status_code, answer.mimetype) == (400, "application/json")
        assert set(answer.json) <= {"code", "message", "details"}
        assert answer.json["code"] == "VALIDATION_ERROR"
        assert answer.json["message"]
        return answer.json

    return check_refused


@pytest.fixture
def check_named(check_refused):
    """As ``check_refused`` for one event in a form; the answer names its place and its field."""

    def check_named(form, event, field, **options):
        content_type, frame, index = FORMS[form]
        refusal = check_refused(frame % json.dumps(event).encode(), content_type, **options)
        (error,) = refusal["details"]["errors"]
        assert set(error) == {"index", "field", "message"}
        assert (error["index"], error["field"]) == (index, field)
        assert error["message"]

    return check_named


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


@every_form
@pytest.mark.parametrize("issued_at", BAD_TIMES.values(), ids=BAD_TIMES)
def test_a_time_that_is_not_an_instant_of_ours_is_refused(check_named, form, issued_at):
    check_named(form, EVENT | {"issuedAt": issued_at}, "issuedAt")


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


@every_form
@pytest.mark.parametrize("field", ["id", "organizationId", "agentId"])
@pytest.mark.parametrize("value", BAD_IDS.values(), ids=BAD_IDS)
def test_an_id_is_1_to_255_characters_and_no_control_characters(check_named, form, field, value):
    check_named(form, EVENT | {field: value}, field)


@every_form
@pytest.mark.parametrize("field", EVENT)
@pytest.mark.parametrize("value", NO_STRINGS.values(), ids=NO_STRINGS)
def test_a_member_of_another_type_is_refused(check_named, form, field, value):
    check_named(form, EVENT | {field: value}, field)


@every_form
@pytest.mark.parametrize("field", EVENT)
def test_a_missing_member_is_refused(check_named, form, field):
    event = {name: value for name, value in EVENT.items() if name != field}
    check_named(form, event, field)
    check_named(form, event | {field.upper(): EVENT[field]}, field)


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
    "deep object": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deep id": event_with(DEEP, b"id"),
    "deep unknown member": event_with(DEEP),
    "deep and never closed": event_with(b"[" * 100_000),
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


@every_form
@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_what_is_no_json_object_is_refused(check_refused, form, text):
    content_type, frame, _ = FORMS[form]
    check_refused(frame.replace(b"%s", text), content_type)


@every_form
def test_a_bad_event_is_refused_just_so_in_gzip(check_named, check_refused, form):
    ids = ["id", "organizationId", "agentId"]
    bad = [(field, value) for field in ids for value in BAD_IDS.values()]
    bad += [("issuedAt", text) for text in BAD_TIMES.values()]
    bad += [(field, value) for field in EVENT for value in NO_STRINGS.values()]
    for field, value in bad:
        check_named(form, EVENT | {field: value}, field, encoding="gzip")
    content_type, frame, _ = FORMS[form]
    for text in BROKEN.values():
        check_refused(frame.replace(b"%s", text), content_type, encoding="gzip")


@pytest.mark.parametrize("content_type", ["application/json", NDJSON])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_body_is_utf_8(check_refused, encoding, content_type):
    check_refused(GOOD.decode().encode(encoding), content_type)


@pytest.mark.parametrize(
    "body",
    [b"", b" ", b"[", b"[,]", b"[%s,]" % GOOD, b"%s,%s" % (GOOD, GOOD), b"[%s]]" % GOOD, b"[] []"],
)
def test_a_json_body_is_one_value(check_refused, body):
    check_refused(body)


@pytest.mark.parametrize("body", [b"", b"[%s]" % GOOD, GOOD + GOOD, GOOD + b"," + GOOD, b"[]"])
def test_an_ndjson_line_is_one_object(check_refused, body):
    check_refused(body, NDJSON)


@pytest.mark.parametrize("content_type", ["application/json", NDJSON])
def test_the_first_100_bad_events_are_listed_in_order(check_refused, content_type):
    lines = [GOOD if n % 2 else event_with(b'""', b"agentId") for n in range(300)]
    body = b"\n".join(lines) if content_type == NDJSON else b"[%s]" % b",".join(lines)
    errors = check_refused(body, content_type)["details"]["errors"]
    assert [error["index"] for error in errors] == list(range(0, 200, 2))
    assert {error["field"] for error in errors} == {"agentId"}
