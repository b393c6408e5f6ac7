"""Handshakes of webhooks: Okta's challenge, and the question of CloudEvents."""

import pytest

EVENTS = "/api/v1/events"
OKTA = "x-okta-verification-challenge"
ASKED, ALLOWED = "WebHook-Request-Origin", "WebHook-Allowed-Origin"


@pytest.mark.parametrize(
    "value", ["a1B2-c3_d4.e5", "", 'a"b\\c', "<script>", "caf\xe9", "v" * 4000]
)
def test_oktas_challenge_is_answered(client, value):
    """The answer repeats the value, whatever it is; Okta sends no token with it."""
    answer = client.get(EVENTS, headers={OKTA: value})
    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    assert answer.json == {"verification": value}
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_challenge_opens_nothing_else(client):
    """A request with the header still needs a token, unless it is the verification itself."""
    for method, path in (("POST", EVENTS), ("GET", "/api/v1/agents"), ("PUT", "/api/v1/agents")):
        assert client.open(path, method=method, headers={OKTA: "x"}, json={}).status_code == 401
    assert client.get(EVENTS).status_code == 405
    assert client.get(f"{EVENTS}/", headers={OKTA: "x"}).status_code == 404


def test_the_question_of_cloudevents_is_answered(client):
    """Azure Event Grid asks before its first event."""
    asked = {ASKED: "eventgrid.azure.net", "WebHook-Request-Rate": "120"}
    answer = client.options(EVENTS, headers=asked)
    assert (answer.status_code, answer.data) == (200, b"")
    assert answer.headers[ALLOWED] == "eventgrid.azure.net"
    assert (answer.headers["WebHook-Allowed-Rate"], answer.headers["Allow"]) == ("*", "POST")


@pytest.mark.parametrize("origin", ["", "a b", "a,b", "<x>", "caf\xe9", "a" * 256])
def test_no_other_text_is_allowed(client, origin):
    answer = client.options(EVENTS, headers={ASKED: origin})
    assert answer.status_code == 405
    assert ALLOWED not in answer.headers


def test_other_routes_give_no_permission(client):
    answer = client.options("/api/v1/agents", headers={ASKED: "eventgrid.azure.net"})
    assert ALLOWED not in answer.headers
