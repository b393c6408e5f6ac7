"""PUT /api/v1/agents and /api/v1/agents/{agentId}: access, valid names, all or nothing."""

import gzip
import json
from urllib.parse import quote

import pytest
from sqlalchemy import select

from app.storage.tables import agents
from tests.app.web.api.test_agents import HOSTILE
from tests.support.settings import NOW, TENANT
from tests.support.tokens import bearer

AGENTS = "/api/v1/agents"
SCOPE = "agents:write"
BLANKS = [" ", "\xa0", "  ", "\u2003", "\u2028"]
BAD_NAMES = ["", "x" * 256, "\U0001f600" * 256, "a\0", "a\x01", "a\nb", "\t", "\x7f", "\x85"]
NO_NAMES = [7, True, ["a"], {}, 1.5]
ODD_IDS = ["a/b", "/a", "a/", "//", "a//b", "a.b", ".a", "...", "a b", " ", "%", "%2F", "?", "#",
           "a?b=c#d", "\xe9", "\U0001f600", "a\\b", "..;", "+", "&=", "'", "x" * 255, "\ufffd",
           "\U0001f600" * 255]  # fmt: skip


@pytest.fixture
def put(client):
    """Send a body with a good token; what is not bytes goes as JSON."""

    def put(body, agent=None, *, headers=None, content_type="application/json"):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        path = AGENTS if agent is None else f"{AGENTS}/{quote(agent, safe='/')}"
        headers = bearer(scope=SCOPE) if headers is None else headers
        return client.put(path, data=body, content_type=content_type, headers=headers)

    return put


def check(answer, status, code):
    assert (answer.status_code, answer.mimetype) == (status, "application/json"), answer.data
    assert answer.json["code"] == code


def check_errors(answer, *expected):
    check(answer, 400, "VALIDATION_ERROR")
    errors = answer.json["details"]["errors"]
    assert [(error["index"], error["field"]) for error in errors] == list(expected)
    assert all(error["message"] for error in errors)


def test_an_agent_is_named_renamed_and_its_name_taken_back(client, put, names):
    for name in ("billing-sync", "billing", None):
        answer = put({"name": name, "other": 1}, "agent-1")
        assert (answer.status_code, answer.json) == (200, {"agentId": "agent-1", "name": name})
        assert names() == {(TENANT, "agent-1"): name}
    assert client.get(AGENTS, headers=bearer()).json["data"] == []


def test_a_name_is_dated_now(put, database):
    put({"name": "n"}, "a")
    with database.reading() as connection:
        assert connection.scalar(select(agents.c.named_at)) == NOW


def test_any_id_can_stand_in_the_path(put, names):
    for agent in ODD_IDS:
        answer = put({"name": "n"}, agent)
        assert (answer.status_code, answer.json) == (200, {"agentId": agent, "name": "n"})
    assert names() == {(TENANT, agent): "n" for agent in ODD_IDS}


@pytest.mark.parametrize(
    "agent", ["x" * 256, "a\0b", "a\n", "\n", "\x1f", "a\x7f", "\x85"], ids=repr
)
def test_an_id_that_no_agent_can_have_is_400(put, names, agent):
    answer = put({"name": "n"}, agent)
    check(answer, 400, "VALIDATION_ERROR")
    assert answer.json["details"] == {"parameter": "agentId"}
    assert names() == {}


def test_a_path_that_is_not_utf_8_is_400(client, names):
    for path in (b"\xff", b"a\xc3", b"\xed\xa0\x80"):
        environ = {"PATH_INFO": f"{AGENTS}/{path.decode('latin-1')}"}
        answer = client.put(
            AGENTS, json={"name": "n"}, headers=bearer(scope=SCOPE), environ_overrides=environ
        )
        check(answer, 400, "VALIDATION_ERROR")
    assert names() == {}


def test_without_an_id_there_is_no_such_route(client):
    headers = bearer(scope=SCOPE)
    check(client.put(f"{AGENTS}/", json={"name": "n"}, headers=headers), 404, "NOT_FOUND")
    check(client.get(f"{AGENTS}/a", headers=headers), 405, "METHOD_NOT_ALLOWED")
    check(client.post(AGENTS, json=[], headers=headers), 405, "METHOD_NOT_ALLOWED")


def test_a_bad_name_is_refused_by_either_route(put, names):
    for name in (*BLANKS, *BAD_NAMES, *NO_NAMES):
        check_errors(put({"name": name}, "a"), (0, "name"))
        both = [{"agentId": "a", "name": "n"}, {"agentId": "b", "name": name}]
        check_errors(put(both), (1, "name"))
    assert names() == {}


def test_a_bad_id_is_refused_in_a_body(put, names):
    for agent in (*BAD_NAMES, *NO_NAMES, None):
        check_errors(put([{"agentId": agent, "name": "n"}]), (0, "agentId"))
    assert names() == {}


def test_any_other_text_is_a_name(put, names):
    for text in HOSTILE:
        assert put({"name": text}, "a").json == {"agentId": "a", "name": text}
        assert put([{"agentId": "b", "name": text}]).json == {"received": 1}
        assert names() == {(TENANT, "a"): text, (TENANT, "b"): text}


def test_a_lone_surrogate_is_refused_by_its_member(put, names):
    check_errors(put(rb'{"name": "\ud800"}', "a"), (0, "name"))
    good = b'{"agentId": "a", "name": "n"}'
    bad = rb'{"agentId": "b", "name": "\udc00"}'
    check_errors(put(b"[%s,%s]" % (good, bad)), (1, "name"))
    check_errors(put(rb'[{"agentId": "\ud800", "name": "n"}]'), (0, "agentId"))
    assert names() == {}


def test_a_body_without_the_name_is_refused_and_takes_none_back(put, names):
    put({"name": "n"}, "a")
    for body in ({}, {"Name": "x"}):
        check_errors(put(body, "a"), (0, "name"))
        check_errors(put([{"agentId": "a"} | body]), (0, "name"))
    check_errors(put([{"name": "x"}]), (0, "agentId"))
    assert names() == {(TENANT, "a"): "n"}


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b"null", b'"n"', b"7", b'{"name": "\xff"}', b'{"name":"n"} x',
     rb'{"name": "n", "x": "\u0000"}', b"[" * 100_000],
    ids=lambda body: repr(body[:40]),
)  # fmt: skip
def test_a_body_that_is_no_object_is_refused(put, names, body):
    check(put(body, "a"), 400, "VALIDATION_ERROR")
    assert names() == {}


def test_many_agents_are_named_at_once_and_of_one_the_last(put, names):
    several = [{"agentId": f"{n}", "name": f"name {n}"} for n in range(999)]
    answer = put([*several, {"agentId": "0", "name": None}])
    assert (answer.status_code, answer.json) == (200, {"received": 1000})
    expected = {(TENANT, f"{n}"): f"name {n}" for n in range(999)}
    assert names() == expected | {(TENANT, "0"): None}
    assert put([]).json == {"received": 0}


def test_what_get_answers_can_be_sent_back(client, put, names):
    put([{"agentId": f"{n}", "name": f"name {n}"} for n in range(5)])
    before = names()
    listed = client.get(AGENTS, headers=bearer()).get_data()
    assert put(listed).json == {"received": 5}
    assert names() == before


def test_one_bad_entry_refuses_them_all(put, names):
    good, bad = {"agentId": "a", "name": "n"}, {"agentId": "", "name": "n"}
    check_errors(put([good, bad, good, 7, good]), (1, "agentId"), (3, ""))
    check_errors(put({"data": [bad, good]}), (0, "agentId"))
    many = put([bad] * 300).json["details"]["errors"]
    assert [error["index"] for error in many] == list(range(100))
    assert names() == {}


@pytest.mark.parametrize(
    "body",
    [b"", b" ", b"{}", b'{"data": 7}', b'{"data": {}}', b"7", b"null", b"[", b"[,]", b"[]]",
     b'{"data": []', b'{"data": [1}', b"\xff", b"[\xff]", b'{"agentId": "a", "name": "n"}',
     b"[" * 100_000],
    ids=lambda body: repr(body[:40]),
)  # fmt: skip
def test_a_body_that_is_no_array_is_400(put, body):
    check(put(body), 400, "VALIDATION_ERROR")


def test_more_than_a_thousand_are_413(put, names):
    entry = {"agentId": "a", "name": "n"}
    for body in ([entry] * 1001, {"data": [entry] * 1001}):
        answer = put(body)
        check(answer, 413, "PAYLOAD_TOO_LARGE")
        assert answer.json["details"] == {"maxAgents": 1000}
    assert names() == {}


def test_a_body_is_json_plain_or_gzip_and_of_limited_size(put, names):
    packed = bearer(scope=SCOPE) | {"Content-Encoding": "gzip"}
    assert put(gzip.compress(b'{"name": "n"}'), "a", headers=packed).status_code == 200
    assert put(gzip.compress(b'[{"agentId": "b", "name": "n"}]'), headers=packed).status_code == 200
    assert len(names()) == 2
    for agent in ("a", None):
        check(put(b"[]", agent, content_type="text/plain"), 415, "UNSUPPORTED_MEDIA_TYPE")
        check(put(b"{}", agent, content_type="application/x-ndjson"), 415, "UNSUPPORTED_MEDIA_TYPE")
        check(put(gzip.compress(b" " * 9_000_000), agent, headers=packed), 413, "PAYLOAD_TOO_LARGE")
        check(put(b" " * 9_000_000, agent), 413, "PAYLOAD_TOO_LARGE")


OTHER_SCOPES = ["", "events:write", "events:write:any", "agents:writer", "agents", "AGENTS:WRITE"]


@pytest.mark.parametrize("scope", OTHER_SCOPES)
def test_without_the_scope_or_an_organization_it_is_403(put, names, scope):
    for agent, body in (("a", {"name": "n"}), (None, []), (None, b"{")):
        check(put(body, agent, headers=bearer(scope=scope)), 403, "FORBIDDEN")
        nobodys = bearer(scope=f"{SCOPE} {scope}", drop="organization_id")
        check(put(body, agent, headers=nobodys), 403, "FORBIDDEN")
        check(put(body, agent, headers={}), 401, "UNAUTHORIZED")
    assert names() == {}


def test_an_agent_above_64_kibibytes_is_named(put, names):
    """The JSON of one agent has at most `MAX_EVENT_BYTES`, alone and among others."""
    good = {"agentId": "g", "name": "n"}
    large = good | {"x": "x" * 65_536}
    check_errors(put(large, "g"), (0, ""))
    for body in ([good, large, good], {"data": [good, large]}):
        check_errors(put(body), (1, ""))
    assert names() == {}
    fitting = json.dumps(large | {"x": "x" * 65_000}).encode()
    assert put(b" " * 65_536 + fitting, "g").status_code == 200
    assert put(b"[%s]" % b",".join([b" " * 65_536 + fitting] * 9)).json == {"received": 9}
