"""GET /api/v1/agents: the listed agents, pages without gaps or doubles, and the search."""

import base64
import json
from datetime import UTC, date, datetime

import pytest
from sqlalchemy import insert

from app.intake.agent_names import set_names
from app.storage.tables import monthly_agent_issuance
from tests.support.settings import TENANT
from tests.support.tokens import bearer

AGENTS = "/api/v1/agents"
AT = datetime(2026, 4, 1, tzinfo=UTC)
NO_LIMITS = ["", "0", "-1", "+7", "007", "1001", "1_0", "ten", "10 ", "1e1", "\u0663"]
HOSTILE = [
    "<script>alert(1)</script>", "\"'`&lt;", "\U0001f916 bot", "\U0001f600" * 255, "x" * 255,
    "\u202egnillib", "\u05d0\u05d1\u05d2", "e\u0301", "%", "_", "\\", "%s{}$1", "NULL", " a ",
    "a\u2028b", "\ufeff", "\u200b", "../..", "'; DROP TABLE agents; --",
]  # fmt: skip


@pytest.fixture
def get(client):
    """The answer to a read with a good token."""

    def get(tenant=TENANT, headers=None, **parameters):
        headers = bearer(tenant) | (headers or {})
        return client.get(AGENTS, query_string=parameters, headers=headers)

    return get


@pytest.fixture
def name(database):
    """Call agents so."""

    def name(names, tenant=TENANT):
        set_names(database, tenant, names, AT, by="tester")

    return name


def data(answer):
    assert (answer.status_code, answer.mimetype) == (200, "application/json"), answer.data
    return answer.json["data"]


def ids(answer):
    return [agent["agentId"] for agent in data(answer)]


def check_refused(answer, parameter):
    assert (answer.status_code, answer.json["code"]) == (400, "VALIDATION_ERROR")
    assert answer.json["details"] == {"parameter": parameter}


def test_the_body_has_exactly_the_described_members(get, name, issue, roll_up):
    issue("2026-03-31T23:59:59.999999Z", agent="busy")
    issue("2026-01-01T00:00:00Z", 2, agent="busy")
    issue("2026-04-01T00:00:00Z", agent="nameless")
    name({"busy": "billing-sync", "silent": "backup", "taken back": None})
    roll_up()
    members = ("agentId", "name", "firstMonth", "lastMonth", "tokenCount")
    members += ("firstDay", "lastDay", "activeDays", "tokenLifetime")
    rows = [
        ("busy", "billing-sync", "2026-01", "2026-03", 3, "2026-01-01", "2026-03-31", 2, None),
        ("nameless", None, "2026-04", "2026-04", 1, "2026-04-01", "2026-04-01", 1, None),
        ("silent", "backup", None, None, 0, None, None, 0, None),
    ]
    agents = [dict(zip(members, row, strict=True)) for row in rows]
    expected = {"tenantId": TENANT, "data": agents, "nextCursor": None}
    answer = get()
    assert json.dumps(answer.json) == json.dumps(expected)
    assert {"ETag", "Last-Modified"} <= set(answer.headers.keys())
    assert answer.headers["Cache-Control"] == "private, no-cache"


def test_without_agents_it_is_empty(get):
    assert get().json == {"tenantId": TENANT, "data": [], "nextCursor": None}
    assert get(q="x", cursor="YQ").json["data"] == []


def test_an_event_that_is_not_counted_yet_makes_no_agent(get, issue, roll_up):
    issue(AT)
    assert data(get()) == []
    roll_up()
    assert ids(get()) == ["agent-1"]


def test_a_bucket_that_a_repair_has_emptied_makes_no_agent(get, name, database):
    bucket = {"tenant_id": TENANT, "month": date(2026, 4, 1)}
    rows = [bucket | {"agent_id": agent, "issued": 0} for agent in ("gone", "named")]
    rows.append(bucket | {"agent_id": "named", "month": date(2026, 5, 1), "issued": 2**63 - 1})
    database.write(lambda connection: connection.execute(insert(monthly_agent_issuance), rows))
    name({"named": "n"})
    agent = {"agentId": "named", "name": "n", "firstMonth": "2026-05", "lastMonth": "2026-05"}
    days = {"firstDay": None, "lastDay": None, "activeDays": 0, "tokenLifetime": None}
    assert data(get()) == [agent | {"tokenCount": 2**63 - 1} | days]


def test_another_tenants_names_and_tokens_are_not_ours(get, name, issue, roll_up):
    issue(AT, agent="both")
    issue(AT, 5, agent="both", tenant="org-b")
    name({"both": "theirs", "only theirs": "x"}, tenant="org-b")
    roll_up()
    assert [(row["name"], row["tokenCount"]) for row in data(get())] == [(None, 1)]
    assert [row["tokenCount"] for row in data(get("org-b"))] == [5, 0]


def test_what_is_not_changed_is_304(get, name):
    name({"a": "b"})
    tag = get().headers["ETag"]
    assert get(headers={"If-None-Match": tag}).status_code == 304
    name({"a": "c"})
    assert get(headers={"If-None-Match": tag}).status_code == 200


def test_pages_hold_every_agent_once_in_order(get, name, issue, roll_up):
    """The pages hold every agent once, in the order of code points."""
    odd = [" ", "-", "A", "Z", "a/b", "\xe9", "\ufffd", "\U0001f600", "~" * 255]
    agents = [*odd, *(f"agent-{number:04}" for number in range(2_491))]
    name(dict.fromkeys(agents[::2], "n"))
    for agent in agents[1::100]:
        issue(AT, agent=agent)
    name({agent: "n" for agent in agents[1::2] if agent not in agents[1::100]})
    roll_up()
    for limit in (1000, 999, 250, None):
        found, cursor = [], {}
        while True:
            answer = get(**cursor, **({"limit": limit} if limit else {}))
            found += ids(answer)
            if answer.json["nextCursor"] is None:
                break
            assert len(answer.json["data"]) == (limit or 100)
            cursor = {"cursor": answer.json["nextCursor"]}
        assert found == sorted(agents)


def test_a_page_that_ends_with_the_last_agent_is_the_last(get, name):
    name({"a": "x", "b": "x", "c": "x"})
    assert get(limit=3).json["nextCursor"] is None
    first = get(limit=2).json
    assert first["nextCursor"] == base64.urlsafe_b64encode(b"b").rstrip(b"=").decode()
    assert get(limit=2, cursor=first["nextCursor"]).json["nextCursor"] is None


def test_a_cursor_goes_on_where_it_was_when_agents_come_and_go(get, name):
    name({"a": "x", "b": "x", "d": "x"})
    cursor = get(limit=2).json["nextCursor"]
    name({"b": None, "aa": "x", "c": "x"})
    assert ids(get(cursor=cursor)) == ["c", "d"]


def encoded(text):
    return base64.urlsafe_b64encode(text).decode()


@pytest.mark.parametrize(
    "cursor",
    ["", "=", "YQ==", "Y", "Y Q", " YQ", "YR", "Y+Q", "YQ\n", "\xe9", "YQ.", encoded(b"\xff"),
     encoded(b"\0aa"), encoded(b"a\nb"), encoded(b"x" * 258), "A" * 5000],
    ids=repr,
)  # fmt: skip
def test_a_cursor_that_no_page_has_given_is_400(get, cursor):
    check_refused(get(cursor=cursor), "cursor")


def test_a_limit_is_1_to_1000(get):
    for limit in NO_LIMITS:
        check_refused(get(limit=limit), "limit")


def test_what_is_looked_for_is_text_that_can_be_there(get):
    for text in ["", "x" * 256, "a\tb", "\0", "a\n", "\x7f", "\x85"]:
        check_refused(get(q=text), "q")


@pytest.mark.parametrize("parameter", ["limit", "cursor", "q"])
def test_a_parameter_given_twice_is_400(client, parameter):
    twice = f"{AGENTS}?{parameter}=1&{parameter}=1"
    check_refused(client.get(twice, headers=bearer()), parameter)


def test_q_is_part_of_the_name_or_the_id(get, name, issue, roll_up):
    issue(AT, agent="Agent-1")
    issue(AT, agent="AGENT-2")
    name({"AGENT-2": "billing", "x": "agent of billing", "y": "other"})
    roll_up()
    assert ids(get(q="agent")) == ["AGENT-2", "Agent-1", "x"]
    assert ids(get(q="BILLING")) == ["AGENT-2", "x"]
    assert ids(get(q="t-1")) == ["Agent-1"]
    assert ids(get(q="billing agent")) == []


def test_q_ignores_the_case_of_ascii_letters_alone(get, name):
    name({"a": "CAF\xc9 Az", "b": "caf\xe9 aZ", "c": "\u0130i", "d": "\u212a"})
    assert ids(get(q="caf\xe9")) == ["b"]
    assert ids(get(q="CAF\xc9")) == ["a"]
    assert ids(get(q="f\xe9 az")) == ["b"]
    assert ids(get(q="aZ")) == ["a", "b"]
    assert ids(get(q="k")) == []
    assert ids(get(q="II")) == []


def test_no_character_of_q_is_a_wildcard(get, name):
    texts = ["%", "_", "\\", "\\%", "a_c", "%%", "[a]", "*", "?", "/", "'"]
    for text in texts:
        tenant = f"org of {text}"
        name({"abc": "abc", "with it": f"before {text} after", f"id {text}": "z"}, tenant)
        assert ids(get(tenant, q=text)) == sorted(["with it", f"id {text}"])


def test_q_is_paged_too(get, name):
    name({f"{number:03}": "odd" if number % 2 else "even" for number in range(100)})
    first = get(q="ODD", limit=30).json
    assert first["data"][-1]["agentId"] == "059"
    assert ids(get(q="ODD", limit=30, cursor=first["nextCursor"])) == [
        f"{number:03}" for number in range(61, 100, 2)
    ]


def test_hostile_names_come_back_as_they_went_in(get, name):
    name({f"{number:02}": text for number, text in enumerate(HOSTILE)})
    assert [row["name"] for row in data(get())] == HOSTILE
    for text in HOSTILE:
        assert text in [row["name"] for row in data(get(q=text))]


def test_a_read_needs_a_token_with_an_organization_and_no_scope(client):
    assert client.get(AGENTS).status_code == 401
    without = bearer(drop="organization_id", scope="agents:write events:write:any")
    assert client.get(AGENTS, headers=without).status_code == 403
    assert client.get(AGENTS, headers=bearer()).status_code == 200
