"""Agent names from events: ``agentName`` in posts and in files."""

import io
import json

import pytest

from app.intake.events import InvalidEvent, parse_event
from app.intake.importer import Importer
from tests.app.web.api.test_agents import HOSTILE
from tests.support.settings import EVENT_BYTES, NOW, TENANT
from tests.support.tokens import bearer

EVENTS = "/api/v1/events"
EVENT = {"id": "1", "agentId": "a", "issuedAt": "2026-04-01T09:00:00Z"}
SILENT = [None, "", " ", "\t", "\n", " " * 300, "\xa0\u2003", "\x85"]
BAD = ["x" * 256, "\U0001f600" * 256, "a\x01", "a\nb", "\x7f", "a\x85b", "\x1bab"]
NO_TEXT = [7, False, ["a"], {}, 0.5]


@pytest.fixture
def post(client):
    """Send events as a writer, or with another scope."""

    def post(*events, scope="events:write", query=""):
        headers = bearer(scope=scope)
        return client.post(
            EVENTS + query, json=[EVENT | event for event in events], headers=headers
        )

    return post


@pytest.fixture
def load(database):
    """Import a file's text; what was refused."""

    def load(text, file_format):
        refused = []
        importer = Importer(
            database, file_format, TENANT, EVENT_BYTES, lambda: NOW, refused.append, lambda: None
        )
        importer.load("file", io.BufferedReader(io.BytesIO(text)))
        return [each.reason for each in refused]

    return load


def test_any_text_that_can_be_shown_is_a_name(client, post, names):
    texts = {f"{number:02}": text for number, text in enumerate(HOSTILE)}
    events = [{"id": agent, "agentId": agent, "agentName": texts[agent]} for agent in texts]
    assert post(*events).json["accepted"] == len(texts)
    assert names() == {(TENANT, agent): text for agent, text in texts.items()}
    listed = client.get("/api/v1/agents", headers=bearer()).json["data"]
    assert [row["name"] for row in listed] == HOSTILE


def test_null_and_white_space_say_nothing(post, names):
    post({"agentName": "before"})
    for number, text in enumerate(SILENT):
        later = {"id": f"later {number}", "issuedAt": f"2026-04-02T00:00:0{number}Z"}
        assert post(later | {"agentName": text}).json["accepted"] == 1
        assert names() == {(TENANT, "a"): "before"}


@pytest.mark.parametrize("plain", ["a", "\xe9"], ids=["plain", "looked at closely"])
@pytest.mark.parametrize("name", [*BAD, *NO_TEXT], ids=repr)
def test_a_bad_name_is_refused_by_its_member(name, plain):
    text = json.dumps(EVENT | {"agentName": name, "agentId": plain}).encode()
    with pytest.raises(InvalidEvent) as refusal:
        parse_event(text, TENANT, NOW, EVENT_BYTES)
    assert refusal.value.field == "agentName"


def test_a_bad_name_refuses_its_batch_and_can_be_skipped(post, names):
    bad = {"id": "2", "agentName": "a\x01"}
    answer = post({"agentName": "good"}, bad)
    assert answer.status_code == 400
    (error,) = answer.json["details"]["errors"]
    assert (error["index"], error["field"]) == (1, "agentName")
    assert names() == {}
    skipped = post({"agentName": "good"}, bad, query="?invalid=skip").json
    assert (skipped["accepted"], len(skipped["rejected"])) == (1, 1)
    assert names() == {(TENANT, "a"): "good"}


def test_a_lone_surrogate_refuses_its_event_by_its_member(client, names):
    text = json.dumps(EVENT | {"agentName": "\ud800"})
    headers = bearer(scope="events:write") | {"Content-Type": "application/json"}
    answer = client.post(EVENTS, data=text, headers=headers)
    (error,) = answer.json["details"]["errors"]
    assert (error["index"], error["field"]) == (0, "agentName")
    assert names() == {}


def test_the_newest_name_of_a_batch_wins(post, names):
    """The newest name of a batch wins, and a name from a late event does not replace it."""
    post(
        {"id": "1", "agentName": "newest", "issuedAt": "2026-04-02T00:00:00Z"},
        {"id": "2", "agentName": "oldest", "issuedAt": "2026-04-01T23:59:59.9Z"},
    )
    assert names() == {(TENANT, "a"): "newest"}
    post({"id": "3", "agentName": "late", "issuedAt": "2026-04-01T23:59:59Z"})
    assert names() == {(TENANT, "a"): "newest"}


def test_write_any_names_agents_of_every_organization(post, names):
    """A token with `events:write:any` names agents of every organization."""
    one, other = ({"organizationId": tenant, "agentName": tenant} for tenant in ("org-x", "org-y"))
    assert post(one, other, scope="events:write:any").json["accepted"] == 2
    assert names() == {("org-x", "a"): "org-x", ("org-y", "a"): "org-y"}


def test_an_event_for_another_organization_names_nothing(post, names):
    answer = post({"agentName": "n"}, {"id": "2", "organizationId": "org-x", "agentName": "n"})
    assert answer.status_code == 403
    assert names() == {}


def test_names_change_no_number(client, post, roll_up):
    post(*({"id": f"{n}", "agentName": f"name {n % 3}"} for n in range(10)))
    post(*({"id": f"{n}", "agentName": "again"} for n in range(10)))
    assert roll_up().events == 10
    usage = client.get("/api/v1/analytics/agents", headers=bearer()).json["data"]
    assert usage == [{"agentId": "a", "tokenCount": 10}]


def test_lines_of_json_may_say_names(load, names):
    lines = [EVENT | {"agentName": "b\xe9"}, EVENT | {"id": "2", "agentName": "x" * 256}]
    refused = load(b"\n".join(json.dumps(line).encode() for line in lines), "ndjson")
    assert [reason.split(":")[0] for reason in refused] == ["agentName"]
    assert names() == {(TENANT, "a"): "b\xe9"}


def test_a_column_of_csv_may_say_names(load, names):
    rows = [
        "id,agentId,agentName,issuedAt",
        '1,a,"backup, nightly",2026-04-01T09:00:00Z',
        "2,b,,2026-04-01T09:00:00Z",
        "3,c,  ,2026-04-01T09:00:00Z",
        "4,d,\udcff,2026-04-01T09:00:00Z",
    ]
    refused = load("\n".join(rows).encode(errors="surrogateescape"), "csv")
    assert [reason.split(":")[0] for reason in refused] == ["agentName"]
    assert names() == {(TENANT, "a"): "backup, nightly"}


def test_a_member_that_is_spelled_otherwise_is_ignored(post, names):
    assert post({"agentname": 7, "agent_name": [], "AgentName": "x"}).json["accepted"] == 1
    assert names() == {}
