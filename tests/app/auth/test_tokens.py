"""Bearer tokens: their times, organization, issuer and audience, and which are accepted."""

import base64
import hashlib
import hmac
import json
import re
from datetime import UTC, datetime

import jwt
import pytest

from tests.support.services import service_of
from tests.support.settings import KEY, NOW, TENANT, make_settings
from tests.support.tokens import bearer, token

READ = "/api/v1/analytics/tokens"
HOUR = 3600
HS256 = b'{"alg":"HS256","typ":"JWT"}'
DEEP = b"[" * 100_000 + b"]" * 100_000
ISSUER, AUDIENCE = "https://idp.example", "analytics"


@pytest.fixture(scope="module")
def app(shared_sqlite_url):
    """One service for the whole file: nothing is ever stored."""
    with service_of(make_settings(shared_sqlite_url)) as app:
        yield app


def present():
    return int(datetime.now(UTC).timestamp())


def encode(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def sign(payload, header=HS256, digest=hashlib.sha256):
    """A token of raw parts, signed with the right key."""
    signed = f"{encode(header)}.{encode(payload)}"
    return f"{signed}.{encode(hmac.digest(KEY.encode(), signed.encode(), digest))}"


def claims(**changed):
    known = {"sub": "client-1", "organization_id": TENANT, "exp": present() + HOUR}
    return json.dumps(known | changed).encode()


def raw_claim(name, text):
    """Claims in which one value is text that an encoder would not write."""
    return claims(**{name: "here"}).replace(b'"here"', text)


def get(client, credentials):
    return client.get(READ, headers={"Authorization": credentials})


def check_refusal(response, status, code):
    assert (response.status_code, response.mimetype) == (status, "application/json")
    assert set(response.json) <= {"code", "message", "details"}
    assert response.json["code"] == code
    assert response.json["message"]


def check_unauthorized(response):
    check_refusal(response, 401, "UNAUTHORIZED")
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


def test_every_route_and_method_of_the_api_wants_a_token(app, client):
    public = {"docs.openapi"}  # the description of the API holds nobody's data
    rules = [
        rule
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/api/v1") and rule.endpoint not in public
    ]
    paths = {re.sub(r"<[^>]+>", "1", rule.rule): sorted(rule.methods) for rule in rules}
    assert {READ, "/api/v1/analytics/agents", "/api/v1/events"} <= set(paths)
    for path, methods in paths.items():
        for method in methods:
            answer = client.open(path, method=method)
            assert (path, method, answer.status_code) == (path, method, 401)
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_without_credentials_the_challenge_names_no_error(client):
    answer = client.get(READ)
    check_unauthorized(answer)
    assert "error=" not in answer.headers["WWW-Authenticate"]


def test_a_bad_token_is_challenged_as_invalid_token(client):
    answer = get(client, "Bearer nonsense")
    check_unauthorized(answer)
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_is_case_insensitive(client, scheme):
    assert get(client, f"{scheme} {token()}").status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "{good}",
        "Basic {good}",
        "Token {good}",
        "Bearer: {good}",
        "Bearer{good}",
        "Bearer {good} {good}",
        "Bearer {good},Bearer {good}",
        "Bearer {good}, Bearer {good}",
        "Bearer {good},{good}",
        'Bearer "{good}"',
        "Bearer token={good}",
        "Bearer {good}.",
        "Bearer .{good}",
        "Basic Y2xpZW50OnNlY3JldA==, Bearer {good}",
    ],
)
def test_a_malformed_header_is_401(client, header):
    check_unauthorized(get(client, header.format(good=token())))


@pytest.mark.parametrize("name", ["access_token", "token", "jwt", "Authorization", "authorization"])
def test_a_token_in_the_query_string_or_a_cookie_is_ignored(client, name):
    check_unauthorized(client.get(READ, query_string={name: token()}))
    check_unauthorized(client.get(READ, query_string={name: f"Bearer {token()}"}))
    for cookie in [name, "access_token_cookie"]:
        client.set_cookie(cookie, token())
    check_unauthorized(client.get(READ))


def test_a_token_in_a_form_or_a_json_body_is_ignored(client):
    check_unauthorized(client.post("/api/v1/events", data={"access_token": token()}))
    check_unauthorized(client.post("/api/v1/events", json={"access_token": token()}))


FORGED = {
    "other key": lambda: token(key="another key, also longer than 32 bytes"),
    "no signature": lambda: token().rpartition(".")[0] + ".",
    "two parts": lambda: token().rpartition(".")[0],
    "signature cut": lambda: token()[:-4],
    "payload swapped": lambda: f"{encode(HS256)}.{encode(claims())}.{token().split('.')[2]}",
    "alg none": lambda: jwt.encode({"organization_id": TENANT}, None, algorithm="none"),
    "alg none, signed": lambda: sign(claims(), b'{"alg":"none"}'),
    "alg None": lambda: sign(claims(), b'{"alg":"None"}'),
    "alg HS512": lambda: sign(claims(), b'{"alg":"HS512"}', hashlib.sha512),
    "alg HS384": lambda: sign(claims(), b'{"alg":"HS384"}', hashlib.sha384),
    "alg hs256": lambda: sign(claims(), b'{"alg":"hs256"}'),
    "alg RS256": lambda: sign(claims(), b'{"alg":"RS256"}'),
    "alg missing": lambda: sign(claims(), b'{"typ":"JWT"}'),
    "alg null": lambda: sign(claims(), b'{"alg":null}'),
    "alg list": lambda: sign(claims(), b'{"alg":["HS256"]}'),
    "alg number": lambda: sign(claims(), b'{"alg":256}'),
    "kid number": lambda: sign(claims(), b'{"alg":"HS256","kid":1}'),
    "header list": lambda: sign(claims(), b'["HS256"]'),
    "header null": lambda: sign(claims(), b"null"),
    "header empty": lambda: sign(claims(), b""),
    "header deep": lambda: sign(claims(), b'{"alg":"HS256","x":' + DEEP + b"}"),
    "header not UTF-8": lambda: sign(claims(), b'{"alg":"HS256","x":"\xff"}'),
    "header long integer": lambda: sign(claims(), b'{"alg":"HS256","x":' + b"9" * 5000 + b"}"),
    "payload list": lambda: sign(b"[]"),
    "payload null": lambda: sign(b"null"),
    "payload number": lambda: sign(b"1"),
    "payload string": lambda: sign(b'"organization_id"'),
    "payload empty": lambda: sign(b""),
    "payload no JSON": lambda: sign(b"{"),
    "payload deep": lambda: sign(raw_claim("x", DEEP)),
    "payload not UTF-8": lambda: sign(raw_claim("x", b'"\xff"')),
    "garbage": lambda: "a.b.c",
    "not base64": lambda: "!.!.!",
    "not ASCII": lambda: "\xe9.\xe9.\xe9",
    "dots": lambda: "..",
    "five parts": lambda: "a.b.c.d.e",
    "long": lambda: "a" * 100_000,
}


@pytest.mark.parametrize("make", FORGED.values(), ids=FORGED)
def test_a_token_that_was_not_issued_for_us_is_401(client, make):
    check_unauthorized(get(client, f"Bearer {make()}"))


BAD_TIMES = {
    "exp missing": lambda: token(drop="exp"),
    "exp past": lambda: token(exp=present() - HOUR),
    "exp null": lambda: token(exp=None),
    "exp string": lambda: sign(claims(exp=str(present() + HOUR))),
    "exp word": lambda: sign(claims(exp="never")),
    "exp true": lambda: sign(claims(exp=True)),
    "exp list": lambda: sign(claims(exp=[present() + HOUR])),
    "exp object": lambda: sign(claims(exp={})),
    "exp zero": lambda: token(exp=0),
    "exp negative": lambda: token(exp=-1),
    "exp 1e30": lambda: sign(raw_claim("exp", b"1e30")),
    "exp 1e999": lambda: sign(raw_claim("exp", b"1e999")),
    "exp NaN": lambda: sign(raw_claim("exp", b"NaN")),
    "exp Infinity": lambda: sign(raw_claim("exp", b"Infinity")),
    "exp -Infinity": lambda: sign(raw_claim("exp", b"-Infinity")),
    "exp of 5,000 digits": lambda: sign(raw_claim("exp", b"9" * 5000)),
    "nbf future": lambda: token(nbf=present() + HOUR),
    "nbf word": lambda: sign(claims(nbf="now")),
    "nbf NaN": lambda: sign(raw_claim("nbf", b"NaN")),
    "nbf Infinity": lambda: sign(raw_claim("nbf", b"Infinity")),
    "iat future": lambda: token(iat=present() + HOUR),
    "iat word": lambda: sign(claims(iat="now")),
    "iat NaN": lambda: sign(raw_claim("iat", b"NaN")),
    "iat Infinity": lambda: sign(raw_claim("iat", b"Infinity")),
}


@pytest.mark.parametrize("make", BAD_TIMES.values(), ids=BAD_TIMES)
def test_a_token_outside_its_time_or_with_an_odd_one_is_401(client, make):
    check_unauthorized(get(client, f"Bearer {make()}"))


@pytest.mark.parametrize(
    "changed",
    [{"nbf": 1}, {"iat": 1}, {"iss": "https://any.example"}, {"aud": "any"}, {"aud": ["any"]}]
    + [{"scope": scope} for scope in ["", "unheard of", None, [], 1]],
    ids=str,
)
def test_what_is_not_asked_for_does_not_matter_to_a_read(client, changed):
    assert get(client, f"Bearer {token(**changed)}").status_code == 200


def test_a_fraction_of_a_second_in_a_time_is_fine(client):
    assert get(client, f"Bearer {sign(claims(exp=present() + HOUR + 0.5))}").status_code == 200


def test_only_exp_and_the_organization_are_needed(client):
    payload = {"exp": present() + HOUR, "organization_id": TENANT}
    good = sign(json.dumps(payload).encode())
    assert get(client, f"Bearer {good}").status_code == 200


NO_ORGANIZATIONS = {
    "null": None,
    "number": 7,
    "true": True,
    "empty list": [],
    "list of several": [TENANT, "org-b"],
    "list of the same": [TENANT, TENANT],
    "list of a number": [7],
    "list of null": [None],
    "list of a list": [[TENANT]],
    "list of an object": [{TENANT: {}}],
    "empty object": {},
    "object of text": {"id": TENANT},
    "object of null": {TENANT: None},
    "object of several": {TENANT: {}, "org-b": {}},
    "object with an empty name": {"": {}},
    "empty": "",
    "256 characters": "x" * 256,
    "256 astral characters": "\U0001f600" * 256,
    "NUL": "org\0",
    "U+0001": "org\x01",
    "newline": "org\n",
    "U+007F": "org\x7f",
    "U+0085": "org\x85",
    "U+009F": "\x9forg",
    "high surrogate": "org\ud800",
    "low surrogate": "\udc00org",
}


@pytest.mark.parametrize("organization", NO_ORGANIZATIONS.values(), ids=NO_ORGANIZATIONS)
def test_a_malformed_organization_is_403_everywhere(client, organization):
    check_refusal(client.get(READ, headers=bearer(organization)), 403, "FORBIDDEN")
    event = {"id": "1", "organizationId": TENANT, "agentId": "a", "issuedAt": NOW.isoformat()}
    for scope in ["events:write", "events:write:any"]:
        answer = client.post("/api/v1/events", json=event, headers=bearer(organization, scope))
        check_refusal(answer, 403, "FORBIDDEN")


def test_a_read_without_an_organization_is_403(client):
    for scope in ["", "events:write:any"]:
        headers = bearer(scope=scope, drop="organization_id")
        check_refusal(client.get(READ, headers=headers), 403, "FORBIDDEN")


@pytest.mark.parametrize(
    "organization", ["x" * 255, "\U0001f600" * 255, " ", "\xa0", "ORG-a", "org/ä"]
)
def test_an_organization_is_any_id_and_is_answered_as_it_stands(client, organization):
    answer = client.get(READ, headers=bearer(organization))
    assert answer.status_code == 200
    assert answer.json["tenantId"] == organization


@pytest.mark.parametrize(
    "organization",
    [[TENANT], {TENANT: {}}, {TENANT: {"id": "42e05a80-4f1b-4b7c-8c3b-0f0f0f0f0f0f"}}],
    ids=["list", "object", "object with id"],
)
def test_one_organization_in_a_list_or_object_is_read(client, organization):
    """Keycloak's mapper writes the organizations of a member as a list or as an object."""
    answer = client.get(READ, headers=bearer(organization))
    assert (answer.status_code, answer.json["tenantId"]) == (200, TENANT)


@pytest.mark.parametrize("organization", [[TENANT, "org-b"], {TENANT: {}, "org-b": {}}], ids=str)
def test_several_organizations_are_refused_with_a_reason(client, organization):
    """The service does not choose among the organizations of a token."""
    answer = client.get(READ, headers=bearer(organization))
    check_refusal(answer, 403, "FORBIDDEN")
    assert "several organizations" in answer.json["message"]


@pytest.mark.parametrize("value", [None, True, 7, 1.5, ["x"], {"x": 1}, "", "\ud800"], ids=repr)
@pytest.mark.parametrize("name", ["sub", "jti", "client_id", "azp"])
def test_names_of_any_type_do_not_matter(client, name, value):
    """`sub`, `jti` and the client are for logs; some providers write them as numbers."""
    event = {"id": "1", "agentId": "a", "issuedAt": NOW.isoformat()}
    assert client.get(READ, headers=bearer(**{name: value})).status_code == 200
    headers = bearer(TENANT, "events:write", **{name: value})
    assert client.post("/api/v1/events", json=event, headers=headers).status_code == 202


@pytest.fixture(scope="module")
def strict_client(shared_sqlite_url):
    """A service that checks issuer and audience."""
    settings = make_settings(shared_sqlite_url, JWT_ISSUER=ISSUER, JWT_AUDIENCE=AUDIENCE)
    with service_of(settings) as app:
        yield app.test_client()


@pytest.mark.parametrize("audience", [AUDIENCE, [AUDIENCE], ["other", AUDIENCE]], ids=str)
def test_the_right_issuer_and_audience_are_let_in(strict_client, audience):
    good = token(iss=ISSUER, aud=audience)
    assert get(strict_client, f"Bearer {good}").status_code == 200


@pytest.mark.parametrize(
    "issuer", [None, "", "https://idp.example/", "idp", 1, [ISSUER], {}], ids=str
)
def test_another_issuer_is_401(strict_client, issuer):
    check_unauthorized(get(strict_client, f"Bearer {sign(claims(iss=issuer, aud=AUDIENCE))}"))


@pytest.mark.parametrize(
    "audience", [None, "", "analytic", "Analytics", [], ["other"], [1], 1, {}], ids=str
)
def test_another_audience_is_401(strict_client, audience):
    check_unauthorized(get(strict_client, f"Bearer {sign(claims(iss=ISSUER, aud=audience))}"))


def test_a_missing_issuer_or_audience_is_401(strict_client):
    check_unauthorized(get(strict_client, f"Bearer {token(aud=AUDIENCE)}"))
    check_unauthorized(get(strict_client, f"Bearer {token(iss=ISSUER)}"))
