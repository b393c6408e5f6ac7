"""POST /api/v1/events: forms, all or nothing, duplicates, scopes, instants."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from app.storage.tables import issuance_events
from tests.support.settings import NOW, TENANT
from tests.support.tokens import bearer

EVENTS = "/api/v1/events"
JSON, NDJSON = "application/json", "application/x-ndjson"
WRITE, WRITE_ANY = "events:write", "events:write:any"


def event(number=1, **members):
    return {"id": f"{number}", "agentId": "a", "issuedAt": "2026-04-01T09:00:00Z"} | members


def lines(*events):
    return b"".join(json.dumps(each).encode() + b"\n" for each in events)


@pytest.fixture
def post(client):
    """Send a body with a good token; what is not bytes goes as JSON."""

    def post(body, content_type=JSON, query="", token=None):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = token or bearer(scope=WRITE)
        return client.post(EVENTS + query, data=body, content_type=content_type, headers=headers)

    return post


@pytest.fixture
def stored(database):
    """One column of the stored events (by default their ids), in the order of tenant and id."""

    def stored(column="event_id"):
        table = issuance_events.c
        statement = select(table[column]).order_by(table.tenant_id, table.event_id)
        with database.reading() as connection:
            return list(connection.scalars(statement))

    return stored


def check_accepted(response, received, accepted, duplicates=0, **more):
    assert (response.status_code, response.mimetype) == (202, "application/json"), response.data
    counts = {"received": received, "accepted": accepted, "duplicates": duplicates}
    assert response.json == counts | more


def check_refusal(response, status, code):
    assert (response.status_code, response.mimetype) == (status, "application/json"), response.data
    assert set(response.json) <= {"code", "message", "details"}
    assert response.json["code"] == code
    assert response.json["message"]


def check_invalid(response):
    check_refusal(response, 400, "VALIDATION_ERROR")


def test_one_event_is_stored_as_sent(post, stored):
    issued_at = "2026-04-01T09:00:00.123456Z"
    answer = post(event("e-1", organizationId=TENANT, agentId="agent", issuedAt=issued_at))
    check_accepted(answer, 1, 1)
    columns = ["tenant_id", "event_id", "agent_id", "issued_at"]
    expected = [TENANT, "e-1", "agent", datetime(2026, 4, 1, 9, 0, 0, 123456, UTC)]
    assert [value for column in columns for value in stored(column)] == expected


def test_the_counts_come_in_the_order_of_the_contract(post):
    members = ["received", "accepted", "duplicates"]
    assert list(post([event()]).json) == members
    assert list(post([event()], query="?invalid=skip").json) == [*members, "rejected"]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (JSON, b" \n[%s ,\n%s]\n " % (lines(event(1)), lines(event(2)))),
        (NDJSON, lines(event(1), event(2))),
        (NDJSON, lines(event(1), event(2)).rstrip()),
        (NDJSON, lines(event(1), event(2)).replace(b"\n", b"\r\n")),
    ],
    ids=["array", "ndjson", "ndjson without last newline", "ndjson with CRLF"],
)
def test_a_batch_is_an_array_or_lines(post, stored, content_type, body):
    check_accepted(post(body, content_type), 2, 2)
    assert stored() == ["1", "2"]


def test_ndjson_lines_end_at_newlines_only(post, stored):
    separators = "a\u2028\u2029b"
    raw = json.dumps(event(separators), ensure_ascii=False).encode()
    check_accepted(post(raw + b"\n", NDJSON), 1, 1)
    assert stored() == [separators]


def test_an_empty_array_is_accepted_and_an_empty_body_is_not(post, stored):
    check_accepted(post([]), 0, 0)
    check_invalid(post(b""))
    check_invalid(post(b"", NDJSON))
    assert stored() == []


@pytest.mark.parametrize(
    ("content_type", "join"), [(JSON, list), (NDJSON, lambda each: lines(*each))]
)
def test_one_bad_event_refuses_the_whole_batch(post, stored, content_type, join):
    events = [event(1), event(2, agentId=""), event(3), event(4, issuedAt="now")]
    answer = post(join(events), content_type)
    check_invalid(answer)
    errors = answer.json["details"]["errors"]
    assert [(error["index"], error["field"]) for error in errors] == [
        (1, "agentId"),
        (3, "issuedAt"),
    ]
    assert stored() == []


POISON = {
    "empty": json.dumps(event(2, agentId="")),
    "control character": json.dumps(event(2, agentId="\x01")),
    "NUL": json.dumps(event(2, agentId="\0")),
    "lone surrogate": json.dumps(event(2, agentId="\ud800")),
    "number": json.dumps(event(2, agentId=7)),
    "missing": '{"id": "2", "issuedAt": "2026-04-01T09:00:00Z"}',
}


@pytest.mark.parametrize("content_type", [JSON, NDJSON])
@pytest.mark.parametrize("poison", POISON.values(), ids=POISON)
def test_invalid_skip_stores_the_good_and_lists_the_rejected(post, stored, content_type, poison):
    texts = [json.dumps(event(1)), poison, json.dumps(event(3))]
    body = f"[{','.join(texts)}]" if content_type == JSON else "\n".join(texts)
    answer = post(body.encode(), content_type, "?invalid=skip")
    assert (answer.status_code, stored()) == (202, ["1", "3"])
    rejected = answer.json["rejected"]
    assert [(error["index"], error["field"]) for error in rejected] == [(1, "agentId")]
    assert set(rejected[0]) == {"index", "field", "message"}
    check_accepted(answer, 3, 2, rejected=rejected)


def test_invalid_skip_passes_over_a_line_that_is_no_json(post, stored):
    body = lines(event(1)) + b'{"id": \xff\n' + b"1\n" + lines(event(4))
    answer = post(body, NDJSON, "?invalid=skip")
    assert (answer.status_code, stored()) == (202, ["1", "4"])
    assert [error["index"] for error in answer.json["rejected"]] == [1, 2]


def test_invalid_skip_of_nothing_bad_or_everything_bad_is_202(post):
    check_accepted(post([event()], query="?invalid=skip"), 1, 1, rejected=[])
    assert post([event(id="")], query="?invalid=skip").json["accepted"] == 0


@pytest.mark.parametrize(
    "query",
    ["other", "", "Skip", "SKIP", "skip ", "1", "true", "skip&invalid=skip", "skip&invalid="],
)
def test_any_other_invalid_is_400(post, stored, query):
    check_invalid(post(event(), query=f"?invalid={query}".replace(" ", "%20")))
    assert stored() == []


def test_unknown_parameters_and_members_are_ignored(post, stored):
    extra = {
        "x": {"y": [1, None, "x", -0.5e300]},
        "tenantId": "org-b",
        "ID": 7,
        "": [],
        "\xe9": "",
    }
    check_accepted(post(event() | extra, query="?x=1&x=2&days=x"), 1, 1)
    assert stored("tenant_id") == [TENANT]


def test_of_two_deliveries_in_a_batch_the_first_wins(post, stored):
    later = "2026-04-02T09:00:00Z"
    answer = post([event(agentId="first"), event(agentId="second"), event(issuedAt=later)])
    check_accepted(answer, 3, 1, 2)
    assert stored("agent_id") == ["first"]


def test_of_two_deliveries_in_two_batches_the_first_wins(post, stored):
    post(event(agentId="first"))
    check_accepted(post([event(agentId="second"), event(2)]), 2, 1, 1)
    assert stored("agent_id") == ["first", "a"]


def test_one_id_of_two_organizations_is_two_events(post, stored):
    events = [event(organizationId=organization) for organization in ["org-a", "org-b", "org-a"]]
    check_accepted(post(events, token=bearer(scope=WRITE_ANY)), 3, 2, 1)
    assert stored("tenant_id") == ["org-a", "org-b"]


def test_ids_are_compared_and_ordered_by_code_point(post, stored):
    ids = [" ", "1", "1 ", "A", "a", "e\u0301", "\xa0", "\xe9", "\ufffd", "\U0001f600"]
    check_accepted(post([event(each) for each in reversed(ids)]), len(ids), len(ids))
    assert stored() == ids


def test_an_id_is_any_1_to_255_characters(post, stored):
    characters = ["x", "\xe9", "\U0001f600", "\u2028", "\xad", "\uffff", "'", "%"]
    ids = sorted(character * length for character in characters for length in (1, 255))
    for each in ids:
        sent = event(each, agentId=each, organizationId=each)
        check_accepted(post(sent, token=bearer(scope=WRITE_ANY)), 1, 1)
    assert [stored(column) for column in ["event_id", "agent_id", "tenant_id"]] == [ids] * 3


@pytest.mark.parametrize("scope", [WRITE, f"read {WRITE}", f"{WRITE} read", f"{WRITE} {WRITE}"])
def test_a_writer_may_name_its_organization_or_leave_it_out(post, stored, scope):
    events = [event(1), event(2, organizationId=TENANT)]
    check_accepted(post(events, token=bearer(scope=scope)), 2, 2)
    assert stored("tenant_id") == [TENANT, TENANT]


OTHER_SCOPES = ["", "read", "events", "events:read", "events:writer", "events:write:other"]
OTHER_SCOPES += ["EVENTS:WRITE", f"{WRITE},{WRITE_ANY}", "xevents:write"]


def test_without_the_scope_a_post_is_403(post, stored):
    for scope in (*OTHER_SCOPES, None, ["read"], [[WRITE]], 7, {WRITE: True}):
        check_refusal(post(event(), token=bearer(scope=scope)), 403, "FORBIDDEN")
        check_refusal(post(b"{", token=bearer(scope=scope)), 403, "FORBIDDEN")
    check_refusal(post(event(), token=bearer(drop="scope")), 403, "FORBIDDEN")
    assert stored() == []


@pytest.mark.parametrize("query", ["", "?invalid=skip"])
@pytest.mark.parametrize("organization", ["org-b", "ORG-A", "org-a "])
def test_a_writer_that_names_another_organization_is_403(post, stored, organization, query):
    events = [event(1), event(2, organizationId=organization)]
    check_refusal(post(events, query=query), 403, "FORBIDDEN")
    assert stored() == []


@pytest.mark.parametrize("claim", [{}, {"drop": "organization_id"}], ids=["with", "without"])
@pytest.mark.parametrize("scope", [WRITE_ANY, f"{WRITE} {WRITE_ANY}"])
def test_write_any_needs_an_organization_on_every_event(post, stored, scope, claim):
    """With `events:write:any` every event must name its organization."""
    named = [event(1, organizationId="org-x"), event(2, organizationId="org-y")]
    answer = post([*named, event(3)], token=bearer(scope=scope, **claim))
    check_invalid(answer)
    (error,) = answer.json["details"]["errors"]
    assert (error["index"], error["field"]) == (2, "organizationId")
    assert stored() == []
    check_accepted(post(named, token=bearer(scope=scope, **claim)), 2, 2)
    assert stored("tenant_id") == ["org-x", "org-y"]


def test_a_writer_without_an_organization_is_403(post, stored):
    for sent in [event(), event(organizationId=TENANT), []]:
        answer = post(sent, token=bearer(scope=WRITE, drop="organization_id"))
        check_refusal(answer, 403, "FORBIDDEN")
    assert stored() == []


@pytest.mark.parametrize(
    ("issued_at", "expected"),
    [
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00"),
        ("1970-01-01T05:30:00+05:30", "1970-01-01T00:00:00"),
        ("1969-12-31T00:01:00-23:59", "1970-01-01T00:00:00"),
        ("2026-04-15T12:35:00Z", "2026-04-15T12:35:00"),
        ("2026-04-15T12:35:00.0000009Z", "2026-04-15T12:35:00"),
        ("2026-04-16T12:34:00+23:59", "2026-04-15T12:35:00"),
        ("2024-02-29T23:59:59+00:00", "2024-02-29T23:59:59"),
        ("2026-04-01T09:00:00-00:00", "2026-04-01T09:00:00"),
        ("2026-04-01t09:00:00z", "2026-04-01T09:00:00"),
        ("2026-04-01T09:00:00.5Z", "2026-04-01T09:00:00.500000"),
        ("2026-04-01T09:00:00.000001Z", "2026-04-01T09:00:00.000001"),
        ("2026-04-01T09:00:00.1234569+00:00", "2026-04-01T09:00:00.123456"),
        ("2026-04-01T09:00:00.9999999999999999999Z", "2026-04-01T09:00:00.999999"),
    ],
)
def test_an_instant_is_stored_in_utc_to_the_microsecond(post, stored, issued_at, expected):
    check_accepted(post(event(issuedAt=issued_at)), 1, 1)
    assert stored("issued_at") == [datetime.fromisoformat(expected).replace(tzinfo=UTC)]


def test_five_minutes_ahead_is_the_most(post, stored):
    edge = NOW + timedelta(minutes=5)
    beyond = edge + timedelta(microseconds=1)
    check_accepted(post(event(issuedAt=edge.isoformat())), 1, 1)
    check_invalid(post(event(2, issuedAt=beyond.isoformat())))
    assert stored() == ["1"]


def test_reads_count_an_event_in_its_utc_day_cut_not_rounded(client, post, roll_up):
    instants = ["2026-04-13T23:59:59.9999999Z", "2026-04-14T05:29:59.9999999+05:30"]
    instants += ["2026-04-14T05:30:00+05:30", "2026-04-13T23:00:00-01:00"]
    post([event(number, issuedAt=instant) for number, instant in enumerate(instants)])
    roll_up()
    trend = client.get("/api/v1/analytics/tokens?days=3", headers=bearer()).json
    assert [point["count"] for point in trend["data"]] == [2, 2, 0]
    heatmap = client.get("/api/v1/analytics/agents/activity", headers=bearer()).json
    cells = [(cell["dow"], cell["hour"], cell["count"]) for cell in heatmap["data"]]
    assert cells == [(1, 23, 2), (2, 0, 2)]
