"""POST /api/v1/events: content types, encodings, and the limits of a batch."""

import gzip
import io
import json

import pytest
from sqlalchemy import func, select
from werkzeug.test import EnvironBuilder, TestResponse, run_wsgi_app

from app.storage.tables import issuance_events
from tests.support.tokens import bearer

EVENTS = "/api/v1/events"
JSON, NDJSON = "application/json", "application/x-ndjson"
MEBIBYTE = 1024 * 1024
MOST = 8 * MEBIBYTE


def event(number=1, **members):
    return {"id": f"{number}", "agentId": "a", "issuedAt": "2026-04-01T09:00:00Z"} | members


def lines(*events):
    return b"".join(json.dumps(each).encode() + b"\n" for each in events)


PLAIN = lines(event())
PACKED = gzip.compress(PLAIN)
FORMS = {JSON: lambda events: json.dumps(events).encode(), NDJSON: lambda events: lines(*events)}
every_form = pytest.mark.parametrize("content_type", FORMS)


@pytest.fixture
def post(client):
    """Send bytes with a good token."""

    def post(body, content_type=JSON, *, encoding="identity", query="", **options):
        headers = bearer(scope="events:write") | {"Content-Encoding": encoding}
        options |= {"content_type": content_type, "headers": headers}
        return client.post(EVENTS + query, data=body, **options)

    return post


@pytest.fixture
def stored(database):
    """The number of stored events."""

    def stored():
        with database.reading() as connection:
            return connection.scalar(select(func.count()).select_from(issuance_events))

    return stored


def check_accepted(response, count=1):
    expected = {"received": count, "accepted": count, "duplicates": 0}
    assert (response.status_code, response.json) == (202, expected)


def check_refusal(response, status, code):
    assert (response.status_code, response.mimetype) == (status, "application/json"), response.data
    assert set(response.json) <= {"code", "message", "details"}
    assert response.json["code"] == code
    assert response.json["message"]


def check_too_large(response):
    check_refusal(response, 413, "PAYLOAD_TOO_LARGE")


GOOD_TYPES = ["application/json; charset=utf-8", 'application/json;charset="UTF-8"']
GOOD_TYPES += ["Application/JSON", "application/x-ndjson; charset=utf-8", "APPLICATION/X-NDJSON"]
BAD_TYPES = ["", "json", "text/plain", "text/json", "application/jsonx", "application/gzip"]
BAD_TYPES += ["application/octet-stream", "application/x-www-form-urlencoded"]
BAD_TYPES += ["multipart/form-data; boundary=x", "application/xml; charset=utf-8"]


@pytest.mark.parametrize("content_type", GOOD_TYPES)
def test_a_content_type_may_say_utf_8(post, content_type):
    check_accepted(post(PLAIN, content_type))


def test_another_content_type_is_415(post, stored):
    for content_type in BAD_TYPES:
        check_refusal(post(PLAIN, content_type), 415, "UNSUPPORTED_MEDIA_TYPE")
    assert stored() == 0


@pytest.mark.parametrize("charset", ["utf-16", "utf-32"])
def test_a_body_in_another_charset_is_refused(post, stored, charset):
    """A body that is not UTF-8 is refused, whether or not its content type declares the charset."""
    body = PLAIN.decode().encode(charset)
    assert post(body, f"{JSON}; charset={charset}").status_code in (400, 415)
    assert post(body, f"{JSON}; charset=utf-8").status_code == 400
    assert stored() == 0


BAD_ENCODINGS = ["br", "deflate", "zstd", "compress", "x-gzip", "gzipped", "utf-8", "*", "gzip;q=1"]
BAD_ENCODINGS += ["gzip, gzip", "gzip,", "gzip, identity", "identity, gzip", "identity, identity"]
BAD_ENCODINGS += ["br, gzip", "gzip, br", "gzip gzip", '"gzip"']


def test_another_content_encoding_is_415(post, stored):
    """So is a list of encodings."""
    for encoding in BAD_ENCODINGS:
        for body in (PACKED, PLAIN, gzip.compress(PACKED)):
            check_refusal(post(body, encoding=encoding), 415, "UNSUPPORTED_MEDIA_TYPE")
    assert stored() == 0


GOOD_GZIP = {
    "one member": PACKED,
    "two members": gzip.compress(PLAIN[:9]) + gzip.compress(PLAIN[9:]),
    "empty members": gzip.compress(b"") + PACKED + gzip.compress(b""),
    "stored, not packed": gzip.compress(PLAIN, 0),
}


@every_form
@pytest.mark.parametrize("body", GOOD_GZIP.values(), ids=GOOD_GZIP)
def test_a_body_may_be_gzip(post, stored, content_type, body):
    check_accepted(post(body, content_type, encoding="gzip"))
    assert stored() == 1


def test_the_name_of_an_encoding_is_case_insensitive(post):
    check_accepted(post(PACKED, encoding="GZip"))


BAD_GZIP = {
    "nothing": b"",
    "nothing packed": gzip.compress(b""),
    "plain": PLAIN,
    "magic": PACKED[:2],
    "header cut": PACKED[:5],
    "data cut": PACKED[:-9],
    "sums cut": PACKED[:-8],
    "length cut": PACKED[:-1],
    "wrong sum": PACKED[:-5] + bytes([PACKED[-5] ^ 1]) + PACKED[-4:],
    "wrong length": PACKED[:-1] + b"\1",
    "corrupt": PACKED[:20] + b"\xff\xff" + PACKED[22:],
    "trailing garbage": PACKED + b"x",
    "second member cut": PACKED + PACKED[:9],
    "packed twice": gzip.compress(PACKED),
}


@every_form
def test_broken_gzip_is_400(post, stored, content_type):
    for name, body in BAD_GZIP.items():
        answer = post(body, content_type, encoding="gzip")
        assert (name, answer.status_code) == (name, 400)
        check_refusal(answer, 400, "VALIDATION_ERROR")
    assert stored() == 0


def test_gzip_that_is_not_declared_is_400(post):
    check_refusal(post(PACKED), 400, "VALIDATION_ERROR")


@every_form
def test_10_000_events_are_taken_and_10_001_are_413(post, stored, content_type):
    join, events = FORMS[content_type], [event(number) for number in range(10_001)]
    for body in [join(events), join([event()] * 10_001)]:
        check_too_large(post(body, content_type))
        check_too_large(post(body, content_type, query="?invalid=skip"))
    assert stored() == 0
    check_accepted(post(join(events[:-1]), content_type), 10_000)
    assert stored() == 10_000


@every_form
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_8_mebibytes_are_taken_and_a_byte_more_is_413(post, stored, content_type, encoding):
    pack = gzip.compress if encoding == "gzip" else bytes
    body = FORMS[content_type]([event(number, padding="x" * 60_000) for number in range(139)])
    assert MOST - 60_000 < len(body) < MOST
    check_too_large(post(pack(body.ljust(MOST + 1)), content_type, encoding=encoding))
    assert stored() == 0
    check_accepted(post(pack(body.ljust(MOST)), content_type, encoding=encoding), 139)


LARGE, GOOD = lines(event("large", padding="x" * 66_000)).strip(), lines(event("good")).strip()
AMONG = {
    "single": (JSON, LARGE, 0),
    "array": (JSON, b"[%s, %s, %s]" % (GOOD, LARGE, GOOD), 1),
    "lines": (NDJSON, b"\n".join([GOOD, LARGE, GOOD]), 1),
}


@pytest.mark.parametrize(("content_type", "body", "index"), AMONG.values(), ids=AMONG)
def test_an_event_above_64_kibibytes_is_named(post, stored, content_type, body, index):
    """An event above `MAX_EVENT_BYTES` is invalid; `?invalid=skip` stores the others."""
    for pack, encoding in ((bytes, "identity"), (gzip.compress, "gzip")):
        answer = post(pack(body), content_type, encoding=encoding)
        check_refusal(answer, 400, "VALIDATION_ERROR")
        (error,) = answer.json["details"]["errors"]
        assert (error["index"], error["field"]) == (index, "")
        assert "65536" in error["message"]
        assert stored() == 0
    skipped = post(body, content_type, query="?invalid=skip")
    assert (skipped.status_code, skipped.json["rejected"]) == (202, [error])
    assert stored() == min(index, 1)


def test_a_gzip_bomb_is_413(post, stored):
    mebibyte = gzip.compress(b" " * MEBIBYTE)
    for bomb in [gzip.compress(b" " * 64 * MEBIBYTE), mebibyte * 64, mebibyte * 8 + PACKED]:
        check_too_large(post(bomb, encoding="gzip"))
    assert stored() == 0


@pytest.fixture
def post_chunked(post):
    """Send NDJSON as a server hands on a chunked body: without a length."""

    def post_chunked(body, query=""):
        chunked = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
        stream = io.BytesIO(body)
        return post(None, NDJSON, query=query, input_stream=stream, environ_overrides=chunked)

    return post_chunked


@pytest.mark.parametrize("query", ["", "?invalid=skip"])
def test_a_chunked_body_over_8_mebibytes_is_413_and_never_cut(post_chunked, stored, query):
    events = [lines(event(number, padding="x" * 1000)) for number in range(8200)]
    fitting = b"".join(events[:7000]).ljust(MOST - 1) + b"\n"
    check_too_large(post_chunked(b"".join(events), query))
    check_too_large(post_chunked(fitting + events[-1], query))
    check_too_large(post_chunked(fitting + b"\n", query))
    assert stored() == 0


def test_a_chunked_body_of_8_mebibytes_is_taken(post_chunked):
    check_accepted(post_chunked(PLAIN))
    check_accepted(post_chunked(lines(event(2)).ljust(MOST)))


def test_gzip_of_many_empty_members_is_refused(post):
    """A gzip body of many empty members is refused with 400."""
    check_refusal(post(gzip.compress(b"") * 100_000, encoding="gzip"), 400, "VALIDATION_ERROR")


@pytest.fixture
def post_stream(app, stored):
    """Send what a connection delivers, as gunicorn hands it on; nothing may be stored."""

    def post_stream(stream, **environ):
        builder = EnvironBuilder(EVENTS, method="POST", content_type=NDJSON)
        builder.headers.extend(bearer(scope="events:write"))
        environ |= {"wsgi.input": stream, "wsgi.input_terminated": True}
        response = run_wsgi_app(app, builder.get_environ() | environ)
        assert stored() == 0
        return TestResponse(*response, request=builder.get_request())

    return post_stream


def test_a_body_shorter_than_its_declared_length_is_400(post_stream):
    whole = lines(event(1), event(2))
    cut = io.BytesIO(whole[: len(lines(event(1)))])
    check_refusal(post_stream(cut, CONTENT_LENGTH=str(len(whole))), 400, "VALIDATION_ERROR")


def test_a_body_that_cannot_be_read_to_its_end_is_400(post_stream):
    class Broken(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, _buffer):
            raise OSError("bad chunk")

    check_refusal(post_stream(Broken()), 400, "VALIDATION_ERROR")
