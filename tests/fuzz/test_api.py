"""Whatever is sent to the API: no 5xx, every error in the envelope, every answer as described."""

import gzip
import json
import time
from datetime import date
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
import schemathesis
from hypothesis import given
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from werkzeug.test import TestResponse

from app.errors import CODES
from app.intake.formats import FORMATS
from tests.fuzz.conftest import fuzzing
from tests.support.tokens import bearer, token

# Acceptance and refusal of data are held elsewhere, case by case: a schema cannot say "at most
# five minutes ahead" or "no NUL anywhere".
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
EVENTS, AGENTS = "/api/v1/events", "/api/v1/agents"
OPERATIONS = [
    ("/api/v1/analytics/tokens", "GET"),
    ("/api/v1/analytics/agents/activity", "GET"),
    ("/api/v1/analytics/agents", "GET"),
    ("/api/v1/analytics/tokens.csv", "GET"),
    ("/api/v1/analytics/agents/activity.csv", "GET"),
    ("/api/v1/analytics/agents.csv", "GET"),
    ("/api/v1/analytics/tokens/hourly", "GET"),
    ("/api/v1/analytics/tokens/hourly.csv", "GET"),
    ("/api/v1/analytics/summary", "GET"),
    ("/api/v1/analytics/summary.csv", "GET"),
    ("/api/v1/analytics/status", "GET"),
    ("/api/v1/analytics/status.csv", "GET"),
    (EVENTS, "POST"),
    (AGENTS, "GET"),
    (AGENTS, "PUT"),
    (f"{AGENTS}/{{agentId}}", "PUT"),
    ("/api/v1/keys", "GET"),
    ("/api/v1/keys", "POST"),
    ("/api/v1/keys/{keyId}", "DELETE"),
    ("/api/v1/share-links", "GET"),
    ("/api/v1/share-links", "POST"),
    ("/api/v1/share-links/{linkId}", "DELETE"),
    ("/api/v1/webhooks", "GET"),
    ("/api/v1/webhooks", "POST"),
    ("/api/v1/webhooks/{webhookId}", "GET"),
    ("/api/v1/webhooks/{webhookId}", "PATCH"),
    ("/api/v1/webhooks/{webhookId}", "DELETE"),
    ("/api/v1/webhooks/{webhookId}/test", "POST"),
    ("/api/v1/webhooks/{webhookId}/rotate", "POST"),
    ("/api/v1/webhooks/{webhookId}/deliveries", "GET"),
    ("/api/v1/analytics/findings", "GET"),
    ("/api/v1/analytics/findings/{findingId}", "GET"),
    ("/api/v1/analytics/findings/{findingId}", "PATCH"),
    ("/api/v1/organizations", "GET"),
    ("/api/v1/organizations.csv", "GET"),
    ("/api/v1/settings", "GET"),
    ("/api/v1/settings", "PUT"),
    ("/api/v1/budgets", "GET"),
    ("/api/v1/budgets", "PUT"),
    ("/api/v1/budgets", "DELETE"),
    ("/health", "GET"),
    ("/ready", "GET"),
]
CASES = [
    (path, method, mode)
    for path, method in OPERATIONS
    for mode in schemathesis.GenerationMode
    # Where nothing can be given, nothing can be given wrong.
    if path.startswith("/api/") or mode is schemathesis.GenerationMode.POSITIVE
]
MOST = 8 * 1024 * 1024
JSON, NDJSON = "application/json", "application/x-ndjson"
CONTENT_TYPES = [JSON, NDJSON, "text/plain", "text/csv", "application/json;x", ""]
CONTENT_TYPES += ["application/cloudevents+json", "application/cloudevents-batch+json"]
FORMATTED = [f"?format={name}&invalid=skip&zone=UTC" for name in FORMATS]
# As a client library lets it out: printable Latin-1 without spaces around it.
HEADER_TEXT = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_categories=["Cc", "Zs"])
    | st.just(" ")
).map(str.strip)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NAMES = ["days", "months", "month", "limit", "invalid", "cursor", "q", "access_token"]
NAMES += ["format", "zone", "from", "to", "agentId", "organizationId", "sort"]
DATES = st.dates().map(str)
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata", "Pacific/Apia", "Africa/Monrovia"])


def _good_token() -> str:
    return f"Bearer {token(scope='events:write agents:write analytics:admin analytics:read:any')}"


CREDENTIALS = st.one_of(
    st.builds(_good_token),
    st.builds(_good_token),
    st.builds(_good_token),
    st.builds(lambda: f"Bearer {token()}"),
    st.builds(lambda: f"Bearer {token(None, scope='events:write:any')}"),
    st.builds(lambda tail: f"{_good_token()}{tail}", HEADER_TEXT),
    HEADER_TEXT,
    st.none(),
)

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
EVENTS_OR_SO = st.fixed_dictionaries(
    {},
    optional={
        "id": st.text(max_size=260) | JSON_VALUES,
        "agentId": st.text(max_size=260) | JSON_VALUES,
        "issuedAt": st.sampled_from(["2026-04-01T09:00:00Z", "2026-04-01t09:00:00.5+02:00", "no"])
        | st.datetimes().map(lambda moment: f"{moment.isoformat()}Z")
        | JSON_VALUES,
        "organizationId": st.sampled_from(["org-a", "org-b"]) | JSON_VALUES,
        "agentName": st.text(max_size=260) | JSON_VALUES,
        "name": st.text(max_size=260) | JSON_VALUES,
        "other": JSON_VALUES,
    },
)
TEXTS = st.one_of(EVENTS_OR_SO, JSON_VALUES).map(json.dumps).map(str.encode) | st.binary()
BODIES = st.one_of(
    TEXTS,
    st.lists(TEXTS, max_size=5).map(b"\n".join),
    st.lists(TEXTS, max_size=5).map(lambda items: b"[" + b",".join(items) + b"]"),
)
PACKINGS: dict[str, Any] = {
    "identity": lambda body, _cut: body,
    "gzip": lambda body, _cut: gzip.compress(body),
    "gzip, cut": lambda body, cut: gzip.compress(body)[:cut],
    "gzip, not": lambda body, _cut: body,
}


def check_envelope(response: TestResponse) -> None:
    """No 5xx; every error as JSON with the code of its status."""
    assert response.status_code < 500, response.data
    if response.status_code < 400:
        return
    assert response.mimetype == "application/json"
    assert {"code", "message"} <= set(response.json) <= {"code", "message", "details"}
    assert response.json["code"] == CODES[response.status_code][0]
    assert ("WWW-Authenticate" in response.headers) == (response.status_code in (401, 403))
    assert response.headers["Cache-Control"] == "no-store"


@pytest.fixture(scope="module")
def description(service):
    return service.test_client().get("/api/v1/openapi.json").json


@pytest.fixture(scope="module")
def schema(description):
    return schemathesis.openapi.from_dict(description)


@pytest.mark.quick
def test_every_operation_of_the_description_is_fuzzed(description):
    described = {
        (path, method.upper()) for path, item in description["paths"].items() for method in item
    }
    assert described == set(OPERATIONS)


@pytest.mark.parametrize(
    ("path", "method", "mode"),
    [pytest.param(*case, marks=pytest.mark.quick if case[0] == EVENTS else ()) for case in CASES],
)
def test_any_request_is_answered_as_described(service, schema, path, method, mode):
    cases = schema[path][method].as_strategy(generation_mode=mode)

    @fuzzing
    @given(case=cases, credentials=CREDENTIALS)
    def send(case, credentials):
        headers = {} if credentials is None else {"Authorization": credentials}
        response = case.call(app=service, headers=headers)
        case.validate_response(response, checks=CHECKS)
        assert response.status_code < 500

    send()


@pytest.mark.quick
@fuzzing
@given(
    body=BODIES,
    content_type=st.sampled_from(CONTENT_TYPES),
    packing=st.tuples(st.sampled_from(sorted(PACKINGS)), st.integers(0, 40)),
    query=st.sampled_from(["", "?invalid=skip", "?invalid=", "?invalid=skip&invalid=skip"])
    | st.sampled_from(FORMATTED),
)
def test_any_body_is_taken_or_refused(service, body, content_type, packing, query):
    name, cut = packing
    headers = {"Authorization": _good_token(), "Content-Encoding": name.partition(",")[0]}
    data = PACKINGS[name](body, cut)
    answer = service.test_client().post(
        f"{EVENTS}{query}", data=data, content_type=content_type, headers=headers
    )
    check_envelope(answer)
    if answer.status_code < 300:
        counted = answer.json["accepted"] + answer.json["duplicates"]
        counted += sum(answer.json.get("skipped", {}).values())
        assert counted + len(answer.json.get("rejected", [])) == answer.json["received"]


# A small text is repeated up to a size. Compressed, all of it is a few kilobytes.
UNITS = st.one_of(
    st.sampled_from([b"{}", b"[]", b"[[]]", b"[[[[[[0]]]]]]", b'{"":0}', b"0", b"1.2345678e-300"]),
    st.sampled_from([b"9" * 4300, b'""', b'"\\u00e9"', b'"\\ud83d"', b'"\xff"', b'"\\"', b"\\n"]),
    st.sampled_from([b'"', b" ", b"\n", b"[", b"]", b"{", b"1,", b'"":']),
    JSON_VALUES.map(json.dumps).map(str.encode),
)
MEMBERS = b'"id":"e","agentId":"a","name":"n","issuedAt":"2026-04-01T09:00:00Z"'
# What stands before the repeated text, between and after it.
FRAMES = [
    (b"", b"", b""),
    (b"[", b",", b"]"),
    (b"[", b",", b""),
    (b"", b"\n", b""),
    (b'{%b,"x":[' % MEMBERS, b",", b"]}"),
    (b'{%b,"x":"' % MEMBERS, b"", b'"}'),
    (b'{%b,"x":{' % MEMBERS, b",", b"}}"),
    (b'[{%b},{%b,"x":[' % (MEMBERS, MEMBERS), b",", b"]},{}]"),
    (b'[{%b},{"x":[' % MEMBERS, b",", b"]]},{%b}]" % MEMBERS),
    (b'{"data":[', b",", b"]}"),
    (b'{"x":[', b",", b'],"data":[]}'),
    (b'{%b}\n{"x":[' % MEMBERS, b",", b"]}\n{}"),
]


class Amplified(NamedTuple):
    """A body of up to 8 MiB: a text repeated in a frame, and perhaps all of it repeated."""

    unit: bytes
    frame: tuple[bytes, bytes, bytes]
    size: int
    repeated: bool
    content_type: str

    def body(self):
        before, between, after = self.frame
        count = (self.size - len(before) - len(after)) // len(self.unit + between)
        one = before + between.join([self.unit] * count) + after
        if not self.repeated:
            return one
        items = [one] * (MOST // (len(one) + 1))
        return b"\n".join(items) if self.content_type == NDJSON else b"[%b]" % b",".join(items)


AMPLIFIED = st.builds(
    Amplified,
    UNITS,
    st.sampled_from(FRAMES),
    st.sampled_from([1000, 65_000, 70_000, 1_000_000, MOST]),
    st.booleans(),
    st.sampled_from([JSON, NDJSON]),
)


@fuzzing
@given(
    amplified=AMPLIFIED,
    packed=st.booleans(),
    target=st.sampled_from([("POST", EVENTS), ("PUT", AGENTS), ("PUT", f"{AGENTS}/a")]),
    query=st.sampled_from(["", "?invalid=skip"]),
)
def test_no_body_costs_a_second(service, amplified, packed, target, query):
    """Any body of at most `MAX_BODY_BYTES` is answered within a second of work."""
    body, content_type = amplified.body(), amplified.content_type
    content = gzip.compress(body, 1) if packed else body
    headers = {"Authorization": _good_token()} | ({"Content-Encoding": "gzip"} if packed else {})
    method, path = target
    began = time.thread_time()
    answer = service.test_client().open(
        path + query, method=method, data=content, content_type=content_type, headers=headers
    )
    assert time.thread_time() - began < 1
    check_envelope(answer)


@fuzzing
@given(
    body=BODIES,
    content_type=st.sampled_from(CONTENT_TYPES),
    packing=st.tuples(st.sampled_from(sorted(PACKINGS)), st.integers(0, 40)),
    agent=st.none() | TEXT,
)
def test_any_body_names_or_is_refused(service, body, content_type, packing, agent):
    name, cut = packing
    headers = {"Authorization": _good_token(), "Content-Encoding": name.partition(",")[0]}
    answer = service.test_client().put(
        AGENTS if agent is None else f"{AGENTS}/{quote(agent)}",
        data=PACKINGS[name](body, cut),
        content_type=content_type,
        headers=headers,
    )
    check_envelope(answer)


@pytest.mark.quick
@fuzzing
@given(
    path=st.sampled_from([path for path, _ in OPERATIONS])
    | TEXT.map(lambda text: quote(f"/{text}")),
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]),
    query=st.dictionaries(
        st.sampled_from(NAMES) | TEXT,
        st.lists(TEXT | st.integers().map(str), max_size=2),
        max_size=3,
    ),
    credentials=CREDENTIALS,
)
def test_any_path_method_and_query_is_answered(service, path, method, query, credentials):
    headers = {} if credentials is None else {"Authorization": credentials}
    answer = service.test_client().open(path, method=method, query_string=query, headers=headers)
    if method == "HEAD":
        assert answer.status_code < 500
    else:
        check_envelope(answer)


@pytest.mark.quick
@fuzzing
@given(
    path=st.sampled_from([path for path, _ in OPERATIONS if "analytics" in path]),
    first=DATES,
    days=st.integers(0, 400),
    zone=ZONES,
)
def test_any_days_of_any_zone_are_answered(service, path, first, days, zone):
    """No day of the calendar, and no zone's history, is an error of the service."""
    last = min(date.fromisoformat(first).toordinal() + days, date.max.toordinal())
    query = {"from": first, "to": f"{date.fromordinal(last)}", "zone": zone}
    answer = service.test_client().get(path, query_string=query, headers=bearer())
    check_envelope(answer)


def test_the_good_token_is_good(service):
    answer = service.test_client().get(OPERATIONS[0][0], headers=bearer(scope="events:write"))
    assert answer.status_code == 200
