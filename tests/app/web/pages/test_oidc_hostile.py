"""Hostile answers of an identity provider: each is refused, with its cause in the log."""

import base64
import hashlib
import hmac
import json
import logging
import time

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.auth import provider as provider_module
from tests.support.code_flow import CALLBACK, OIDC
from tests.support.pages import DASHBOARD, place
from tests.support.scripted_idp import jwk, key, sign_in

MEBIBYTE = 2**20


@pytest.fixture
def visit(visit_provider):
    return visit_provider


def claims(**changed):
    """The ID token says something else."""

    def spoil(provider):
        provider.claims |= changed

    return spoil


def times(**offsets):
    """The ID token's times are so many seconds from now."""

    def spoil(provider):
        provider.claims |= {name: int(time.time()) + by for name, by in offsets.items()}

    return spoil


def described(**members):
    """The metadata says something else; URL is the provider's own."""

    def spoil(provider):
        provider.described |= {
            name: value.replace("URL", provider.url) if isinstance(value, str) else value
            for name, value in members.items()
        }

    return spoil


def token(**members):
    """The token endpoint says something else."""

    def spoil(provider):
        provider.token |= members

    return spoil


def answers(path, status=200, body=b"{}", **headers):
    """The provider answers a request with this."""

    def spoil(provider):
        provider.instead[path] = (status, headers, body)

    return spoil


def drips(path):
    """A byte again and again, and never the end."""

    def drip(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        try:
            for _ in range(100):
                handler.wfile.write(b" ")
                time.sleep(0.05)
        except OSError:
            pass

    def spoil(provider):
        provider.instead[path] = drip

    return spoil


def endless(path):
    """More and more, and never the end."""

    def flood(handler):
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"x" * 65536)
        except OSError:
            pass

    def spoil(provider):
        provider.instead[path] = flood

    return spoil


def part(value):
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def unsigned(provider):
    provider.signs = lambda claims: f"{part({'alg': 'none', 'kid': 'first'})}.{part(claims)}."


def by_the_public_key(provider):
    """HS256, with the text of the provider's public key as the secret."""
    pem = key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def sign(claims):
        signed = f"{part({'alg': 'HS256', 'kid': 'first'})}.{part(claims)}"
        return f"{signed}.{part(hmac.digest(pem, signed.encode(), hashlib.sha256))}"

    provider.signs = sign


def headed(**header):
    """The ID token's header says something else."""

    def spoil(provider):
        provider.signs = lambda claims: provider.sign(claims, **header)

    return spoil


def by_another_key(provider):
    keys = {"keys": [jwk(key("another"), kid="first", alg="RS256", use="sig")]}
    answers("/jwks", body=json.dumps(keys).encode())(provider)


def cut(provider):
    provider.signs = lambda claims: provider.sign(claims)[:-8] + "AAAAAAAA"


def at_userinfo(spoil):
    """The organization is in userinfo only, so that it is asked."""

    def both(provider):
        provider.claims["orgs"] = None
        spoil(provider)

    return both


def other_person(provider):
    provider.info = {"sub": "eve", "orgs": "org-b"}


AWAY = "unavailable or its response is invalid"
ANSWER = "s answer was refused"
REFUSED = "refused the sign-in"
LISTED = "id_token_signing_alg_values_supported"

# A way to spoil an answer, the cause in the log, and what the page says.
CASES = {
    "another issuer": (
        claims(iss="https://evil.test"),
        "ID token: claim iss is another provider",
        ANSWER,
    ),
    "no issuer": (claims(iss=None), "ID token: claim iss is missing", ANSWER),
    "another audience": (claims(aud="evil"), "ID token: claim aud is another client", ANSWER),
    "no audience": (claims(aud=None), "ID token: claim aud is missing", ANSWER),
    "several audiences": (
        claims(aud=["dashboard", "evil"]),
        "ID token: claim azp is missing beside several audiences",
        ANSWER,
    ),
    "another party": (claims(azp="evil"), "ID token: claim azp is another client", ANSWER),
    "another nonce": (claims(nonce="n"), "ID token: claim nonce is of another sign-in", ANSWER),
    "no nonce": (claims(nonce=None), "ID token: claim nonce is missing", ANSWER),
    "another access token": (
        claims(at_hash="AAAA"),
        "ID token: claim at_hash is of another access token",
        ANSWER,
    ),
    "expired": (times(exp=-60), "ID token: claim exp is over", ANSWER),
    "no expiry": (claims(exp=None), "ID token: claim exp is missing", ANSWER),
    "issued later": (times(iat=3600), "ID token: claim iat is in the future", ANSWER),
    "valid later": (times(nbf=3600), "ID token: claim nbf is in the future", ANSWER),
    "no time of issue": (claims(iat=None), "ID token: claim iat is missing", ANSWER),
    "nobody": (claims(sub=None), "ID token: claim sub is not text of 1 to 255 characters", ANSWER),
    "a person with a NUL": (
        claims(sub="a\0"),
        "ID token: claim sub is not text of 1 to 255 characters",
        ANSWER,
    ),
    "unsigned": (unsigned, "ID token: the algorithm is not accepted", ANSWER),
    "signed by the public key": (
        by_the_public_key,
        "ID token: the algorithm is not accepted",
        ANSWER,
    ),
    "an unknown kid": (headed(kid="other"), "ID token: the kid is unknown", ANSWER),
    "a critical header": (headed(crit=["x"], x=1), "ID token: malformed", ANSWER),
    "an access token's type": (
        headed(typ="at+jwt"),
        "ID token: header typ is of another kind",
        ANSWER,
    ),
    "another key": (by_another_key, "ID token: the signature is wrong", ANSWER),
    "a cut signature": (cut, "ID token: the signature is wrong", ANSWER),
    "a malformed token": (token(id_token="a.b.c"), "ID token: malformed", ANSWER),
    "a huge token": (token(id_token="a" * 70_000), "token endpoint: id_token is too long", ANSWER),
    "a huge refresh token": (
        token(refresh_token="a" * 70_000),
        "token endpoint: refresh_token is too long",
        ANSWER,
    ),
    "no ID token": (token(id_token=None), "token endpoint: id_token is missing", ANSWER),
    "a number for a token": (
        token(access_token=7),
        "token endpoint: access_token is not text",
        ANSWER,
    ),
    "a bound token": (token(token_type="DPoP"), "token endpoint: token_type is not Bearer", ANSWER),
    "an error": (token(error="invalid_target"), "invalid_target", REFUSED),
    "an unknown error": (token(error="<b>evil</b>"), "unknown error", REFUSED),
    "tokens that are no JSON": (answers("/token", body=b"<html>"), "not JSON", AWAY),
    "tokens in a list": (
        answers("/token", body=b"[]"),
        "token endpoint: not a JSON object",
        ANSWER,
    ),
    "deep tokens": (answers("/token", body=b"[" * 100_000), "not JSON", AWAY),
    "redirected tokens": (answers("/token", 307, Location="/jwks"), "status 307", AWAY),
    "failing tokens": (answers("/token", 500), "status 500", AWAY),
    "huge tokens": (answers("/token", body=b" " * (MEBIBYTE + 1)), "too large", AWAY),
    "endless tokens": (endless("/token"), "too large", AWAY),
    "slow tokens": (drips("/token"), "timeout", AWAY),
    "keys that are no set": (answers("/jwks", body=b'{"keys": 7}'), "not a key set", AWAY),
    "no keys": (answers("/jwks", body=b'{"keys": []}'), "ID token: the kid is unknown", ANSWER),
    "huge keys": (answers("/jwks", body=b" " * (MEBIBYTE + 1)), "too large", AWAY),
    "slow keys": (drips("/jwks"), "timeout", AWAY),
    "redirected keys": (answers("/jwks", 302, Location="/token"), "status 302", AWAY),
    "userinfo of another person": (
        at_userinfo(other_person),
        "userinfo: claim sub is another person",
        ANSWER,
    ),
    "userinfo in a list": (
        at_userinfo(answers("/userinfo", body=b"[]")),
        "userinfo: not a JSON object",
        ANSWER,
    ),
    "a signed userinfo": (at_userinfo(answers("/userinfo", body=b"a.b.c")), "not JSON", AWAY),
    "slow userinfo": (at_userinfo(drips("/userinfo")), "timeout", AWAY),
    "endless userinfo": (at_userinfo(endless("/userinfo")), "too large", AWAY),
    "metadata of another issuer": (
        described(issuer="https://evil.test"),
        "metadata: another issuer",
        ANSWER,
    ),
    "metadata without an endpoint": (
        described(token_endpoint=None),
        "metadata: token_endpoint is missing",
        ANSWER,
    ),
    "an endpoint without TLS": (
        described(token_endpoint="http://evil.test/token"),
        "metadata: token_endpoint is not a URL with https",
        ANSWER,
    ),
    "an endpoint in a file": (
        described(jwks_uri="file:///etc/passwd"),
        "metadata: jwks_uri is not a URL with https",
        ANSWER,
    ),
    "only unsafe algorithms": (
        described(**{LISTED: ["none", "HS256"]}),
        "ID token: the algorithm is not accepted",
        ANSWER,
    ),
    "slow metadata": (drips("/.well-known/openid-configuration"), "timeout", AWAY),
    "endless metadata": (endless("/.well-known/openid-configuration"), "too large", AWAY),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_hostile_answer_is_refused_with_its_cause(visit, provider, monkeypatch, caplog, case):
    """The page has a sentence, the log the cause, and nobody is signed in."""
    caplog.set_level(logging.INFO, "app.request")
    spoil, cause, said = case
    # Only what is slow may end by the limit, on a busy machine, too.
    monkeypatch.setattr(provider_module, "TIMEOUT_SECONDS", 0.8 if cause == "timeout" else 60)
    spoil(provider)
    browser = visit(**provider.variables())
    begun = browser.get(OIDC)
    answer = begun
    if begun.status_code == 303:
        answer = browser.get(provider.consent(place(begun)).removeprefix(browser.base))
    assert (answer.status_code, said in answer.text) == (503 if said == AWAY else 403, True)
    assert cause_in(caplog) == cause
    assert browser.get(DASHBOARD).status_code == 303


def cause_in(caplog):
    """The cause in the last request's line of the log."""
    lines = [record.fields for record in caplog.records if record.name == "app.request"]
    return lines[-1].get("cause")


def test_an_answer_that_is_not_spoiled_is_accepted(visit, provider):
    """So the cases above are refused for what they say."""
    browser = visit(**provider.variables())
    assert place(sign_in(provider, browser)) == DASHBOARD


@pytest.mark.parametrize("error", ["", "access_denied"])
@pytest.mark.parametrize("given", [{"iss": "https://evil.test"}, {}], ids=["another", "missing"])
def test_a_mixed_up_provider_is_refused(visit, provider, caplog, given, error):
    """Where the provider names itself in its answer (RFC 9207), another one is refused."""
    caplog.set_level(logging.INFO, "app.request")
    provider.described["authorization_response_iss_parameter_supported"] = True
    browser = visit(**provider.variables())
    url = place(browser.get(OIDC))
    back = provider.refuse(url, error) if error else provider.consent(url)
    parameters = "".join(f"&{name}={value}" for name, value in given.items())
    answer = browser.get(back.removeprefix(browser.base) + parameters)
    assert (answer.status_code, ANSWER in answer.text) == (403, True)
    assert cause_in(caplog) == f"callback: iss is {'another provider' if given else 'missing'}"
    assert provider.forms("/token") == []


def test_a_provider_may_name_itself(visit, provider):
    """Its own name is accepted, and another's is refused even if it need not say one."""
    browser = visit(**provider.variables())
    assert place(sign_in(provider, browser, iss=provider.url)) == DASHBOARD
    other = browser.another()
    assert sign_in(provider, other, iss="https://evil.test").status_code == 403


def test_a_replayed_callback_begins_nothing(visit, provider, caplog):
    """Neither a code nor a state works twice, in no browser."""
    browser = visit(**provider.variables())
    back = provider.consent(place(browser.get(OIDC))).removeprefix(browser.base)
    kept = browser.cookie()
    assert place(browser.get(back)) == DASHBOARD
    assert browser.get(back).status_code == 400
    other = browser.another()
    assert other.get(back).status_code == 400
    # Even with the cookie of before, the provider redeems no code twice.
    other.client.set_cookie("analytics_session", kept, domain="127.0.0.1")
    caplog.set_level(logging.INFO, "app.request")
    assert other.get(back).status_code == 403
    assert cause_in(caplog) == "invalid_grant"
    assert other.get(DASHBOARD).status_code == 303


@pytest.mark.parametrize("query", ["?code=c", "?code=c&state=x", "?state=x", "?iss=y", ""])
def test_a_callback_that_nobody_began_is_refused(visit, provider, query):
    assert visit(**provider.variables()).get(f"{CALLBACK}{query}").status_code == 400
    assert provider.asked == []
