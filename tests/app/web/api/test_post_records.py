"""POST /api/v1/events with records of a provider's log: formats, CloudEvents, limits."""

import gzip
import json

import pytest
import sqlalchemy as sa

from app.errors import SettingsError
from app.factory import create_app
from app.intake.organizations import Organizations
from app.storage.tables import issuance_events
from tests.support.api_keys import created, with_key
from tests.support.settings import NOW, TENANT, make_settings
from tests.support.tokens import bearer

EVENTS = "/api/v1/events"
TIME = "2026-04-14T09:00:00Z"
EVENT = {"id": "e", "agentId": "a", "issuedAt": TIME}
CLOUDEVENT = {
    "specversion": "1.0",
    "id": "1",
    "source": "/idp",
    "type": "com.example.token.issued",
    "time": TIME,
    "organizationid": "theirs",
    "data": {"clientId": "agent-1"},
}
BINARY = {
    "ce-specversion": "1.0",
    "ce-id": "1",
    "ce-source": "/idp",
    "ce-type": "com.example.token.issued",
    "ce-time": TIME,
}
AUTH0 = {
    "log_id": "9" * 56,
    "data": {"type": "seccft", "date": "2026-04-14T09:00:00.000Z", "client_id": "c", "log_id": "9"},
}


@pytest.fixture
def post(client):
    """Send a body, by default as a token that may write for one organization."""

    def post(body, query="", *, type="application/json", headers=None, scope="events:write"):
        sent = body if isinstance(body, str | bytes) else json.dumps(body)
        headers = bearer(TENANT, scope) | (headers or {})
        return client.post(f"{EVENTS}{query}", data=sent, content_type=type, headers=headers)

    return post


@pytest.fixture
def stored(database):
    """Tenant, id and agent of each stored event."""

    def stored():
        event = issuance_events.c
        with database.reading() as connection:
            rows = connection.execute(sa.select(event.tenant_id, event.event_id, event.agent_id))
            return sorted(map(tuple, rows))

    return stored


def lines(*values):
    return "".join(json.dumps(value) + "\n" for value in values)


@pytest.mark.parametrize("type", ["application/json", "application/x-ndjson", "text/plain"])
def test_the_format_decides_how_a_body_is_read(post, stored, type):
    """Log shippers send the same lines with different content types."""
    body = lines(EVENT, EVENT | {"id": "f"})
    answer = post(body, "?format=ndjson", type=f"{type}; charset=utf-8")
    assert answer.json == {"received": 2, "accepted": 2, "duplicates": 0, "skipped": {}}
    assert [row[1] for row in stored()] == ["e", "f"]


def test_csv_is_taken_with_its_header(post, stored):
    body = f"id,agentId,issuedAt\ne,a,{TIME}\ne,a,{TIME}\n"
    answer = post(body, "?format=csv", type="text/csv")
    assert answer.json == {"received": 2, "accepted": 1, "duplicates": 1, "skipped": {}}
    assert stored() == [(TENANT, "e", "a")]


@pytest.mark.parametrize("name", ["", "NDJSON", "nothing", "../ndjson", "ndjson "])
def test_an_unknown_format_is_400(post, name):
    answer = post(lines(EVENT), f"?format={name}")
    assert (answer.status_code, answer.json["details"]) == (400, {"parameter": "format"})
    assert "auth0" in answer.json["message"]


def test_a_format_is_given_once(post):
    assert post(lines(EVENT), "?format=ndjson&format=csv").status_code == 400


@pytest.mark.parametrize("type", ["", "application/xml", "application/x-www-form-urlencoded"])
def test_another_content_type_is_415(post, type):
    assert post(lines(EVENT), "?format=ndjson", type=type).status_code == 415


@pytest.mark.parametrize("body", ["", " ", "\n\n\r\n"])
def test_an_empty_body_is_400(post, body):
    assert post(body, "?format=auth0").status_code == 400


def test_a_bad_record_refuses_the_batch_unless_it_may_be_skipped(post, stored):
    """The index counts all records, so that the sender finds the bad one."""
    body = lines(CLOUDEVENT | {"type": "other"}, CLOUDEVENT, CLOUDEVENT | {"time": None}) + "{\n"
    refused = post(body, "?format=cloudevents")
    assert (refused.status_code, stored()) == (400, [])
    assert [error["index"] for error in refused.json["details"]["errors"]] == [2, 3]
    taken = post(body, "?format=cloudevents&invalid=skip")
    assert taken.status_code == 202
    assert [error["index"] for error in taken.json["rejected"]] == [2, 3]
    assert taken.json["skipped"] == {"no issuance": 1}
    assert (taken.json["received"], taken.json["accepted"]) == (4, 1)
    assert len(stored()) == 1


GOOD, NEXT = json.dumps(CLOUDEVENT), json.dumps(CLOUDEVENT | {"id": "2"})


@pytest.mark.parametrize("query", ["", "&invalid=skip"])
@pytest.mark.parametrize(
    ("format", "body"),
    [
        ("cloudevents", f"[{GOOD}"),
        ("cloudevents", f'[{GOOD},{{"id":'),
        ("cloudevents", f"[{GOOD} {NEXT}]"),
        ("cloudevents", f"\n[{GOOD} {NEXT}]\n\n"),
        ("cloudevents", f"[\n{GOOD},\n{NEXT}\n"),
        ("cloudevents", f"[{GOOD},\n{NEXT}\n{NEXT}]"),
        ("cloudevents", f"{GOOD}\n[\n{GOOD}\n{NEXT}]"),
        ("cloudevents", f"[{','.join([GOOD] * 500)} {NEXT}]"),
        ("okta", '{"data":{"events":[{"uuid":"1"},{"uuid":'),
        ("csv", f"id,agentId\ne1,a,{TIME}\ne2,a,{TIME}\n"),
        ("csv", f'"id,agentId,issuedAt\ne1,a,{TIME}\n'),
    ],
)
def test_a_batch_that_cannot_be_read_is_refused(post, stored, format, query, body):
    """A body with an unreadable rest is refused as a whole, also with invalid=skip."""
    refused = post(body, f"?format={format}{query}")
    assert (refused.status_code, stored()) == (400, [])
    assert refused.json["details"]["errors"][-1]["message"]


@pytest.mark.parametrize("bad", [f"[{GOOD} {GOOD}]", '[{"id":', '{"id":'])
def test_a_broken_line_does_not_stop_the_others(post, stored, bad):
    """A line of several is read alone, so that a log shipper is not blocked by it."""
    for body in (f"{NEXT}\n{bad}\n", f"{bad}\n{NEXT}\n"):
        answer = post(body, "?format=cloudevents&invalid=skip", type="application/x-ndjson")
        assert (answer.status_code, len(answer.json["rejected"])) == (202, 1)
    assert "2" in str(stored())


def test_a_batch_of_noise_alone_is_taken(post, stored):
    """A log stream sends what it has; an error would make it send that again."""
    answer = post([CLOUDEVENT | {"type": "login"}] * 3, "?format=cloudevents")
    assert (answer.status_code, answer.json["skipped"]) == (202, {"no issuance": 3})
    assert stored() == []


# Auth0 sends its three content formats as application/json.
FORMS = {
    "JSON Lines": lines(AUTH0, AUTH0),
    "JSON Array": json.dumps([AUTH0, AUTH0]),
    "JSON Object": json.dumps(AUTH0),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("credential", ["Bearer {}", "{}"])
def test_auth0_streams_with_a_key(client, database, stored, form, credential):
    """Its field for a token may have `Bearer` or the key alone."""
    headers = {"Authorization": credential.format(created(database, "events:write")[1])}
    answer = client.post(
        f"{EVENTS}?format=auth0&invalid=skip",
        data=FORMS[form],
        content_type="application/json",
        headers=headers,
    )
    assert (answer.status_code, answer.json["accepted"]) == (202, 1)
    assert stored() == [(TENANT, "9" * 56, "c")]


def test_a_provider_cannot_choose_another_organization(post, stored):
    """Records belong to the organization of the token or key, whatever they name."""
    assert post(CLOUDEVENT, "?format=cloudevents").json["accepted"] == 1
    assert [row[0] for row in stored()] == [TENANT]
    assert post(EVENT | {"organizationId": "theirs"}, "?format=ndjson").status_code == 403


def test_a_table_gives_the_organization_of_each_record(app, post, stored):
    """With events:write:any, a record names the provider's organization."""
    services = app.extensions["analytics"]
    wide = {"scope": "events:write:any"}
    services.organizations = Organizations({"theirs": "ours"}, {"agent-2": "of-agent-2"})
    unknown = CLOUDEVENT | {"organizationid": "other"}
    agent = unknown | {"id": "2", "data": {"clientId": "agent-2"}}
    assert post([CLOUDEVENT, unknown, agent], "?format=cloudevents", **wide).json["accepted"] == 3
    assert [row[0] for row in stored()] == ["of-agent-2", "other", "ours"]
    services.organizations = None
    assert post(CLOUDEVENT | {"id": "3"}, "?format=cloudevents", **wide).json["accepted"] == 1
    assert "theirs" in [row[0] for row in stored()]
    del unknown["organizationid"]
    assert post(unknown | {"id": "4"}, "?format=cloudevents", **wide).status_code == 400


def test_the_table_is_that_of_sources_file(sqlite_url, tmp_path):
    """It is read at the start, without the sources, whose secrets the web may not read."""
    file = tmp_path / "sources.toml"
    file.write_text(
        '[organizations]\ndefault = "rest"\nnames = { theirs = "ours" }\n'
        '[[source]]\nkind = "pull"\nname = "a"\nlog = "auth0"\nsecret_file = "/nowhere"\n'
    )
    app = create_app(make_settings(sqlite_url, SOURCES_FILE=str(file)))
    found = app.extensions["analytics"].organizations
    app.extensions["analytics"].database.dispose()
    assert [found.tenant_of(name, "a") for name in ("theirs", "x", None)] == [
        "ours",
        "rest",
        "rest",
    ]


@pytest.mark.parametrize(
    "text", ["[organizations", "organizations = 1", "[organizations]\nx = 1", "nothing = 1"]
)
def test_an_invalid_table_stops_the_start(sqlite_url, tmp_path, text):
    file = tmp_path / "sources.toml"
    file.write_text(text)
    for path in (file, tmp_path / "missing.toml"):
        with pytest.raises(SettingsError, match=r"^SOURCES_FILE "):
            create_app(make_settings(sqlite_url, SOURCES_FILE=str(path)))


# CloudEvents.


@pytest.mark.parametrize("query", ["", "?format=cloudevents"])
@pytest.mark.parametrize("charset", ["", "; charset=UTF-8"])
def test_cloudevents_are_known_by_their_type(post, stored, query, charset):
    one = post(CLOUDEVENT, query, type=f"application/cloudevents+json{charset}")
    assert (one.status_code, one.json["accepted"]) == (202, 1)
    more = [CLOUDEVENT, CLOUDEVENT | {"id": "2"}, CLOUDEVENT | {"type": "token.revoked"}]
    many = post(more, query, type=f"application/cloudevents-batch+json{charset}")
    assert many.json == {
        "received": 3,
        "accepted": 1,
        "duplicates": 1,
        "skipped": {"no issuance": 1},
    }
    assert stored() == [(TENANT, "/idp 1", "agent-1"), (TENANT, "/idp 2", "agent-1")]


def test_an_empty_batch_of_cloudevents_is_202(post):
    answer = post([], type="application/cloudevents-batch+json")
    assert (answer.status_code, answer.json["received"]) == (202, 0)


@pytest.mark.parametrize("type", ["application/cloudevents", "application/cloudevents+xml"])
def test_other_forms_of_cloudevents_are_415(post, type):
    assert post(CLOUDEVENT, type=type).status_code == 415
    assert post(CLOUDEVENT, type=type, headers=BINARY).status_code == 415


@pytest.mark.parametrize("type", ["application/json", "application/vnd.idp+json", "text/json"])
def test_binary_mode_has_attributes_in_headers(post, stored, type):
    answer = post({"clientId": "agent-1"}, type=type, headers=BINARY)
    assert answer.json == {"received": 1, "accepted": 1, "duplicates": 0, "skipped": {}}
    assert stored() == [(TENANT, "/idp 1", "agent-1")]


@pytest.mark.parametrize("type", ["", "application/xml", "application/json"])
def test_binary_mode_needs_no_data(post, stored, type):
    """The agent may be the subject; data of another type is not read."""
    headers = BINARY | {"ce-subject": "agent-9"}
    body = "<xml/>" if type == "application/xml" else ""
    assert post(body, type=type, headers=headers).json["accepted"] == 1
    assert stored() == [(TENANT, "/idp 1", "agent-9")]


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("plain", "plain"),
        ("Euro%20%E2%82%AC", "Euro \u20ac"),
        ("%F0%9F%98%80", "\U0001f600"),
        ("100%25", "100%"),
        ("%2525", "%25"),
        ('"quoted \\"twice\\""', 'quoted "twice"'),
        ('"%22"', '"'),
        ('a"b', 'a"b'),
        ("\u20ac".encode().decode("latin-1"), "\u20ac"),
    ],
)
def test_attributes_are_decoded_once(post, stored, value, meant):
    """Quotes are removed first, then one round of percent-decoding."""
    answer = post("", headers=BINARY | {"ce-subject": value})
    assert answer.status_code == 202
    assert [row[2] for row in stored()] == [meant]


@pytest.mark.parametrize("value", ["%", "%4", "%zz", "%FF", "%C3", "\xff", "100% sure"])
def test_a_header_that_cannot_be_decoded_is_400(post, stored, value):
    answer = post({"clientId": "a"}, headers=BINARY | {"ce-source": value})
    assert (answer.status_code, stored()) == (400, [])
    assert "ce-source" in answer.json["message"].lower()


def test_a_control_character_in_a_header_is_refused(post, stored):
    answer = post("", headers=BINARY | {"ce-subject": "a%00b"})
    assert (answer.status_code, stored()) == (400, [])


@pytest.mark.parametrize(
    "body",
    [
        '1},"id":"forged"',
        '{"clientId":"a"},"source":"forged"',
        '{"clientId":"a"}{"clientId":"b"}',
        '{"clientId":"a"',
        "nothing",
        b'{"clientId":"\xff"}',
    ],
)
def test_data_that_is_not_one_json_value_is_400(post, stored, body):
    """Text behind a value would be attributes of the event."""
    assert post(body, headers=BINARY).status_code == 400
    assert stored() == []


def test_data_cannot_replace_an_attribute(post, stored):
    """Neither by a header named data, nor by members of the data."""
    forged = {"clientId": "agent-1", "id": "forged", "type": "none", "source": "forged"}
    assert post(forged, headers=BINARY | {"ce-data": "x"}).json["accepted"] == 1
    assert stored() == [(TENANT, "/idp 1", "agent-1")]


def test_binary_events_of_other_types_are_skipped(post):
    answer = post({}, headers=BINARY | {"ce-type": "token.revoked"})
    assert answer.json["skipped"] == {"no issuance": 1}


# Limits.

MOST = {"MAX_BATCH_EVENTS": "3", "MAX_BODY_BYTES": "4096", "MAX_EVENT_BYTES": "1024"}


@pytest.fixture
def send(sqlite_url):
    """Send records to a service with small limits."""
    app = create_app(make_settings(sqlite_url, **MOST), clock=lambda: NOW)

    def send(body, query="?format=cloudevents", **headers):
        headers = bearer(scope="events:write") | headers
        return app.test_client().post(
            EVENTS + query, data=body, content_type="application/json", headers=headers
        )

    yield send
    app.extensions["analytics"].database.dispose()


NOISE = {"specversion": "1.0", "id": "1", "source": "s", "type": "other", "time": TIME}


@pytest.mark.parametrize(
    "body",
    [lines(*[NOISE] * 4), json.dumps([NOISE] * 4), "{}\n" * 4, json.dumps([{}] * 4), "x\n" * 4],
)
def test_skipped_and_bad_records_count_as_well(send, body):
    """The limit is for the work, whatever comes of it."""
    for query in ("?format=cloudevents", "?format=cloudevents&invalid=skip"):
        answer = send(body, query)
        assert (answer.status_code, answer.json["details"]) == (413, {"maxEvents": 3})


def test_as_many_records_as_allowed_are_taken(send):
    assert send(lines(*[NOISE] * 3)).json["skipped"] == {"no issuance": 3}
    row = f"e,a,{TIME}\n"
    header = "id,agentId,issuedAt\n"
    assert send(header + row * 3, "?format=csv").json["duplicates"] == 2
    assert send(header + row * 4, "?format=csv").status_code == 413


def test_bytes_are_limited_as_sent_and_decompressed(send):
    body = json.dumps(NOISE | {"padding": "x" * 4096}).encode()
    assert send(body).json["details"] == {"maxBytes": 4096}
    packed = send(gzip.compress(body), **{"Content-Encoding": "gzip"})
    assert packed.json["details"] == {"maxBytes": 4096}
    few = send(gzip.compress(lines(NOISE).encode()), **{"Content-Encoding": "gzip"})
    assert few.status_code == 202


def test_a_large_record_is_refused_alone(send):
    large = NOISE | {"padding": "x" * 1024}
    answer = send(lines(large, NOISE), "?format=cloudevents&invalid=skip")
    assert [error["index"] for error in answer.json["rejected"]] == [0]
    assert answer.json["skipped"] == {"no issuance": 1}


def test_lines_are_limited(send, monkeypatch):
    """Blank lines are no records, but cost time."""
    monkeypatch.setattr("app.web.api.records.MAX_LINES", 100)
    answer = send(lines(NOISE) + "\n" * 100)
    assert (answer.status_code, answer.json["details"]) == (413, {"maxLines": 100})


def test_the_time_to_read_a_body_is_limited(send, monkeypatch):
    """Records of nothing but brackets would take a minute, in any format."""
    monkeypatch.setattr("app.web.api.records.MAX_SECONDS", 0)
    answer = send(lines(NOISE))
    assert (answer.status_code, answer.json["details"]) == (413, {"maxSeconds": 0})


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("[" * 1000, 400),
        ('{"a":' * 500, 400),
        ("[" * 500 + "]" * 500, 400),
        ('{"specversion":' + "[" * 1700 + "]" * 1700 + "}", 400),
        ('{"data":' + "[" * 400 + "]" * 400 + "}", 202),
    ],
)
def test_deep_documents_store_nothing(send, body, status):
    """Never an internal error. A document is only read as deep as a format looks."""
    assert send(body).status_code == status
    skipping = send(body, "?format=cloudevents&invalid=skip")
    assert (skipping.status_code, skipping.json["accepted"]) == (202, 0)


@pytest.mark.parametrize("type", [None, "application/json"])
def test_large_data_of_a_binary_event_is_refused(client, type):
    """The whole event has the limit of an event."""
    headers = bearer(scope="events:write") | BINARY
    body = json.dumps({"clientId": "a", "padding": "x" * 70_000})
    assert client.post(EVENTS, data=body, content_type=type, headers=headers).status_code == 400


def test_a_key_of_every_organization_streams(app, database, stored):
    """A provider that serves many organizations has one key."""
    text = created(database, "events:write:any", tenant=None)[1]
    app.extensions["analytics"].organizations = Organizations({}, default="ours")
    client = app.test_client()
    answer = client.post(f"{EVENTS}?format=auth0", json=[AUTH0], headers=with_key(text))
    assert answer.json["accepted"] == 1
    assert [row[0] for row in stored()] == ["ours"]
