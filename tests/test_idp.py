"""The issuer of the other tests behaves like a vendor's."""

import base64
import hashlib
import json
import secrets
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
import pytest

from tests.support.idp import AUDIENCE, TIMEOUT_SECONDS, Issuer, client_credentials, redeem
from tests.support.idp_grants import BROWSER, DASHBOARD, MACHINE, Client

CALLBACK = "http://127.0.0.1:5000/callback"


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


def fetch(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


def verified(issuer: Issuer, token: str, audience: str = AUDIENCE) -> dict[str, Any]:
    """The claims, for whoever goes by nothing but the published keys."""
    key = jwt.PyJWKClient(issuer.jwks_url).get_signing_key_from_jwt(token)
    return jwt.decode(
        token, key, algorithms=[issuer.algorithm], issuer=issuer.url, audience=audience
    )


def challenge(verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def authorize(issuer: Issuer, client: Client, **question: str) -> dict[str, str]:
    """What the browser brings back to the client; a parameter given as "" is left out."""
    usual = {
        "response_type": "code",
        "client_id": client.client_id,
        "redirect_uri": CALLBACK,
        "scope": "openid",
        "code_challenge_method": "S256",
    }
    query = urlencode({name: value for name, value in (usual | question).items() if value})
    connection = HTTPConnection(urlsplit(issuer.url).netloc, timeout=TIMEOUT_SECONDS)
    connection.request("GET", f"/authorize?{query}")
    location = connection.getresponse().headers["Location"]
    connection.close()
    assert location.startswith(CALLBACK)
    return {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}


def sign_in(issuer: Issuer, client: Client = DASHBOARD, **question: str) -> dict[str, Any]:
    """The tokens of the whole code flow."""
    verifier = secrets.token_urlsafe(48)
    back = authorize(issuer, client, code_challenge=challenge(verifier), **question)
    return redeem_code(issuer, client, back["code"], verifier)


def redeem_code(issuer: Issuer, client: Client, code: str, verifier: str) -> dict[str, Any]:
    return redeem(
        issuer,
        client,
        grant_type="authorization_code",
        code=code,
        redirect_uri=CALLBACK,
        code_verifier=verifier,
    )


def refusal(caught: "pytest.ExceptionInfo[urllib.error.HTTPError]") -> str:
    """The OAuth error code of a refused token request."""
    with caught.value as response:
        return str(json.load(response)["error"])


def test_discovery_leads_to_the_keys_and_the_endpoints(issuer):
    found = fetch(f"{issuer.url}/.well-known/openid-configuration")
    assert found["issuer"] == issuer.url
    assert found["jwks_uri"] == issuer.jwks_url
    assert found["token_endpoint"] == f"{issuer.url}/token"
    assert found["authorization_endpoint"] == f"{issuer.url}/authorize"
    assert found["code_challenge_methods_supported"] == ["S256"]


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_a_machines_token_verifies_by_the_published_keys(algorithm):
    with Issuer(algorithm) as issuer:
        issuer.claims = {"organization_id": "org-b"}
        token = client_credentials(issuer, "events:write")
        claims = verified(issuer, token)
    header = jwt.get_unverified_header(token)
    assert (header["alg"], header["typ"]) == (algorithm, "at+jwt")
    assert claims.keys() == {
        *("iss", "aud", "sub", "client_id", "scope", "jti", "iat", "exp", "organization_id")
    }
    assert claims["sub"] == claims["client_id"] == MACHINE.client_id
    assert (claims["scope"], claims["organization_id"]) == ("events:write", "org-b")


def test_a_wrong_secret_or_an_unknown_scope_gets_no_token(issuer):
    with pytest.raises(urllib.error.HTTPError) as caught:
        client_credentials(issuer, client=Client(MACHINE.client_id, "", "wrong"))
    assert refusal(caught) == "invalid_client"
    with pytest.raises(urllib.error.HTTPError) as caught:
        client_credentials(issuer, "events:erase")
    assert refusal(caught) == "invalid_scope"


def test_a_rotation_publishes_old_and_new_unless_told_to_forget(issuer):
    old = client_credentials(issuer)
    issuer.rotate()
    new = client_credentials(issuer)
    assert verified(issuer, old)
    assert verified(issuer, new)
    published = fetch(issuer.jwks_url)["keys"]
    assert len({key["kid"] for key in published}) == 2
    assert not any("d" in key for key in published)

    issuer.rotate(forget=True)
    assert len(fetch(issuer.jwks_url)["keys"]) == 1
    for token in (old, new):
        with pytest.raises(jwt.PyJWKClientError):
            verified(issuer, token)


def test_an_issuer_that_went_away_comes_back(issuer):
    issuer.go_away()
    with pytest.raises(urllib.error.HTTPError) as caught:
        fetch(issuer.jwks_url)
    with caught.value as response:
        assert response.status == 500
    issuer.go_away(hang=True)
    with pytest.raises(TimeoutError):
        urllib.request.urlopen(issuer.jwks_url, timeout=0.2)
    issuer.come_back()
    assert fetch(issuer.jwks_url)
    assert issuer.fetches == 3


@pytest.mark.parametrize("client", [DASHBOARD, BROWSER], ids=lambda client: client.client_id)
def test_signing_in_yields_an_id_and_an_access_token(issuer, client):
    """Signing in returns an id token for the client and an access token."""
    tokens = sign_in(issuer, client, scope="openid profile", nonce="n-1")
    identity = verified(issuer, tokens["id_token"], audience=client.client_id)
    assert (identity["sub"], identity["nonce"]) == ("user-1", "n-1")
    access = verified(issuer, tokens["access_token"])
    assert (access["sub"], access["client_id"]) == ("user-1", client.client_id)


def test_the_state_comes_back_with_the_code(issuer):
    back = authorize(issuer, DASHBOARD, state="s-1", code_challenge=challenge("v" * 43))
    assert back.keys() == {"code", "state"}
    assert back["state"] == "s-1"


@pytest.mark.parametrize("client", [DASHBOARD, BROWSER], ids=lambda client: client.client_id)
def test_a_code_needs_its_verifier_and_works_once(issuer, client):
    """A code is refused without its verifier, and after one attempt."""
    verifier = secrets.token_urlsafe(48)
    code = authorize(issuer, client, code_challenge=challenge(verifier))["code"]
    for attempt in (secrets.token_urlsafe(48), verifier):
        with pytest.raises(urllib.error.HTTPError) as caught:
            redeem_code(issuer, client, code, attempt)
        assert refusal(caught) == "invalid_grant"


@pytest.mark.parametrize(
    "question",
    [
        {},
        {"code_challenge": "v" * 43, "code_challenge_method": "plain"},
        {"code_challenge": "v" * 43, "code_challenge_method": ""},
    ],
    ids=["none", "plain", "plain by default"],
)
def test_pkce_is_demanded(issuer, question):
    assert authorize(issuer, DASHBOARD, **question)["error"] == "invalid_request"


def test_a_nonce_is_good_once(issuer):
    sign_in(issuer, nonce="n-1")
    again = authorize(issuer, DASHBOARD, nonce="n-1", code_challenge=challenge("v" * 43))
    assert again["error"] == "invalid_request"
