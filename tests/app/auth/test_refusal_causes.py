"""Why a token was refused is in the log, and neither in the answer nor with a value."""

import logging
import time

import pytest
from prometheus_client import REGISTRY

from tests.support.jwks_server import FAILING, body, serving
from tests.support.keys import signer
from tests.support.services import service_of
from tests.support.settings import NOW, make_settings

READ, EVENTS = "/api/v1/analytics/tokens", "/api/v1/events"
INVALID = "the token is invalid; use a new access token"
RSA, STRANGER = signer("RS256", "rsa"), signer("RS256", "a-secret-kid")
ISSUER, AUDIENCE = "https://idp.example", "analytics"
PRIVATE = "a-secret-value"


@pytest.fixture(scope="module")
def provider():
    with serving(RSA.jwk(alg="RS256")) as provider:
        yield provider


@pytest.fixture(scope="module")
def client(shared_sqlite_url, provider):
    settings = make_settings(
        shared_sqlite_url, JWT_JWKS_URL=provider.url, JWT_ISSUER=ISSUER, JWT_AUDIENCE=AUDIENCE
    )
    with service_of(settings) as app:
        yield app.test_client()


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO)
    return lambda: [record.fields for record in caplog.records if record.name == "app.request"]


def token(header=None, **claims):
    usual = {"iss": ISSUER, "aud": AUDIENCE} | claims
    usual = {name: value for name, value in usual.items() if value != ...}
    return RSA.token(header=header, **usual)


CAUSES = {
    "claim iss": lambda: token(iss=PRIVATE),
    "claim iss, absent": lambda: token(iss=...),
    "claim aud": lambda: token(aud=PRIVATE),
    "claim aud, absent": lambda: token(aud=...),
    "claim exp": lambda: token(exp=1),
    "claim exp, just now": lambda: token(exp=int(time.time()) - 1),
    "claim exp, absent": lambda: token(drop="exp"),
    "claim exp, text": lambda: token(exp=PRIVATE),
    "claim nbf": lambda: token(nbf=int(time.time()) + 600),
    "claim nbf, text": lambda: token(nbf=PRIVATE),
    "claim iat": lambda: token(iat=int(time.time()) + 600),
    "claim token_use": lambda: token(token_use="id"),
    "claim at_hash": lambda: token(at_hash=PRIVATE),
    "claim nonce": lambda: token({"typ": "JWT"}, nonce=PRIVATE),
    "claim events": lambda: token(events={"http://schemas.openid.net/event/x": PRIVATE}),
    "header typ": lambda: token({"typ": "logout+jwt"}),
    "header jku": lambda: token({"jku": PRIVATE}),
    "header kid": lambda: token({"kid": ...}),
    "header": lambda: token({"kid": 7}),
    "unknown kid": lambda: token({"kid": PRIVATE}),
    "algorithm": lambda: token({"alg": "HS256"}),
    "algorithm, other": lambda: token({"alg": PRIVATE}),
    "signature": lambda: STRANGER.token(header={"kid": "rsa"}, iss=ISSUER, aud=AUDIENCE),
    "malformed": lambda: "a.b.c",
    "malformed, damaged": lambda: "eyJhbGciOiJSUzI1NiJ9",
    "opaque token": lambda: "an-opaque-token",
    "malformed, encrypted": lambda: "a.b.c.d.e",
}


@pytest.mark.parametrize(("cause", "make"), CAUSES.items(), ids=CAUSES)
def test_a_refused_tokens_cause_is_logged(client, lines, caplog, cause, make):
    """The log line of the request names the claim or the header, and no value."""
    cause = cause.partition(",")[0]
    name, labels = "analytics_tokens_refused_total", {"cause": cause}
    before = REGISTRY.get_sample_value(name, labels) or 0.0
    answer = client.get(READ, headers={"Authorization": f"Bearer {make()}"})
    assert (answer.status_code, answer.json["code"]) == (401, "UNAUTHORIZED")
    assert [line["cause"] for line in lines()] == [cause]
    assert REGISTRY.get_sample_value(name, labels) == before + 1
    shown = caplog.text + repr([vars(record) for record in caplog.records]) + answer.text
    assert PRIVATE not in shown
    assert set(answer.json) == {"code", "message"}


@pytest.mark.parametrize("cause", ["unknown kid", "signature", "claim aud", "header typ"])
def test_the_answer_does_not_tell_the_cause(client, cause):
    """A client with an invalid token learns nothing about the checks."""
    answer = client.get(READ, headers={"Authorization": f"Bearer {CAUSES[cause]()}"})
    assert answer.json["message"] == INVALID


def test_a_missing_credential_has_its_own_cause(client, lines):
    """A request without a token has another cause than an invalid token."""
    client.get(READ)
    client.get(READ, headers={"Authorization": "Basic Y2xpZW50OnNlY3JldA=="})
    assert [line["cause"] for line in lines()] == ["no token", "authorization header"]


FORBIDDEN = [
    ({"organization": 7}, "organization"),
    ({"organization": ["a", "b"]}, "several organizations"),
    ({"drop": "organization_id"}, "no organization"),
    ({}, "scope"),
]


@pytest.mark.parametrize(("claims", "cause"), FORBIDDEN, ids=str)
def test_a_forbidden_requests_cause_is_logged(client, lines, claims, cause):
    """A 403 names in the log what the token lacks."""
    changed = dict(claims)
    if "organization" in changed:
        changed["organization_id"] = changed.pop("organization")
    scope = "" if cause == "scope" else "events:write"
    text = token(scope=scope, **changed)
    event = {"id": "1", "agentId": "a", "issuedAt": NOW.isoformat()}
    answer = client.post(EVENTS, json=event, headers={"Authorization": f"Bearer {text}"})
    assert answer.status_code == 403
    assert [line["cause"] for line in lines()] == [cause]


def test_an_accepted_token_has_no_cause(client, lines):
    """A request with a valid token has no cause, and counts as no refusal."""
    assert client.get(READ, headers={"Authorization": f"Bearer {token()}"}).status_code == 200
    assert "cause" not in lines()[0]


# Fetches of the key set


def fetch_causes(caplog):
    return [record.fields["cause"] for record in caplog.records if "jwks" in record.getMessage()]


FETCHES = {
    "status 404": body(PRIVATE, 404),
    "status 500": body('{"keys":[]}', 500),
    "status 302": body("", 302, location=f"https://{PRIVATE}.example"),
    "not JSON": body(f"<!doctype html>{PRIVATE}"),
    "not a key set": body(f'{{"{PRIVATE}": 1}}'),
    "no usable key": body('{"keys":[]}'),
    "too large": FAILING["too large"],
    "connection ended early": FAILING["cut"],
    "not HTTP": FAILING["no HTTP"],
    "connection": FAILING["hanging up"],
}


@pytest.mark.parametrize(("cause", "way"), FETCHES.items(), ids=FETCHES)
def test_a_failed_fetchs_cause_is_logged(sqlite_url, caplog, lines, cause, way):
    """A failed fetch and the requests that wait for it name the same cause."""
    name = "analytics_key_fetches_total"
    outcome = next(word for word in OUTCOMES if cause.startswith(word))
    before = REGISTRY.get_sample_value(name, {"outcome": outcome}) or 0.0
    with serving() as provider:
        provider.answer = way
        with service_of(make_settings(sqlite_url, JWT_JWKS_URL=provider.url)) as app:
            assert app.test_client().get(READ, headers=RSA.bearer()).status_code == 503
    assert fetch_causes(caplog) == [cause]
    assert [line["cause"] for line in lines()] == [f"key set: {cause}"]
    assert REGISTRY.get_sample_value(name, {"outcome": outcome}) == before + 1
    assert PRIVATE not in caplog.text + repr([vars(record) for record in caplog.records])


OUTCOMES = [
    *("status", "not JSON", "not a key set", "no usable key", "too large", "not HTTP"),
    "connection",
]


def test_a_successful_fetch_is_counted_with_its_time(client):
    """The metrics show when the key set was last fetched."""
    assert client.get(READ, headers={"Authorization": f"Bearer {token()}"}).status_code == 200
    fetched = REGISTRY.get_sample_value("analytics_keys_fetched_timestamp_seconds")
    assert time.time() - 600 < fetched <= time.time()
    assert REGISTRY.get_sample_value("analytics_key_fetches_total", {"outcome": "fetched"}) >= 1
