"""Signing in at an identity provider, over real HTTP: the way, its state, and the tokens."""

import base64
import logging

import jwt
import pytest
from joserfc.jwk import KeySet, RSAKey

from app.auth import jwks as keys
from app.web.pages import oidc
from tests.support.code_flow import (
    CALLBACK,
    OIDC,
    asked,
    check_problem,
    consent,
    go,
    parameters,
    provided,
    sign_in,
)
from tests.support.idp_grants import BROWSER, AccessTokens, OpenID
from tests.support.idp_grants import DASHBOARD as CONFIDENTIAL
from tests.support.pages import DASHBOARD, SIGNIN, SIGNOUT, heading, place
from tests.support.processes import PATIENCE_SECONDS

REFUSED_ANSWER = "s answer was refused"
SIGNED_BY = "id_token_signing_alg_values_supported"


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A busy machine may take its time; new keys are fetched at once."""
    monkeypatch.setattr(keys, "FETCH_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(keys, "REFETCH_SECONDS", 0)


@pytest.fixture
def browser(visit, issuer):
    return visit(**provided(issuer))


# The way in


@pytest.mark.parametrize("issuer", ["RS256", "ES256"], indirect=True)
def test_a_person_signs_in_at_the_provider(issuer, browser):
    """A person who signs in at the provider sees their organization."""
    issuer.claims = {"organization_id": "org-b"}
    assert place(browser.get(f"{DASHBOARD}?days=7")) == SIGNIN
    assert f'href="{OIDC}"' in browser.get(SIGNIN).text
    assert place(sign_in(browser)) == f"{DASHBOARD}?days=7"
    assert heading(browser) == "org-b"
    with browser.client.session_transaction(base_url=browser.base) as session:
        assert session.keys() <= {"id", "expires", "csrf_token"}


def test_the_authorization_request_has_pkce_and_a_nonce(issuer, browser):
    """The authorization request has PKCE, state, nonce and audience."""
    question = asked(browser.get(OIDC))
    assert question.pop("redirect_uri") == f"{browser.base}{CALLBACK}"
    for secret in ("state", "nonce", "code_challenge"):
        assert len(question.pop(secret)) >= 20
    assert question == {
        "response_type": "code",
        "client_id": "browser",
        "scope": "openid",
        "code_challenge_method": "S256",
        "audience": issuer.audience,
    }


def test_the_authorization_request_follows_the_settings(visit, issuer):
    """The authorization request has the configured scope, and no audience if none is checked."""
    variables = provided(issuer, OIDC_SCOPE="openid email", JWT_AUDIENCE="none")
    browser = visit(**variables)
    question = asked(browser.get(OIDC))
    assert (question["scope"], "audience" in question) == ("openid email", False)
    assert place(sign_in(browser)) == DASHBOARD


def test_a_client_with_a_secret_signs_in_as_well(visit, issuer):
    client = {"OIDC_CLIENT_ID": CONFIDENTIAL.client_id, "OIDC_CLIENT_SECRET": CONFIDENTIAL.secret}
    browser = visit(**provided(issuer, **client))
    assert place(sign_in(browser)) == DASHBOARD
    assert heading(browser) == "org-a"


def test_after_signing_out_the_way_in_is_the_same(browser):
    sign_in(browser)
    browser.send(DASHBOARD, SIGNOUT)
    assert place(browser.get(DASHBOARD)) == SIGNIN
    assert place(sign_in(browser)) == DASHBOARD


def test_after_a_rotation_of_keys_people_sign_in_as_before(issuer, browser):
    sign_in(browser)
    for forget in (False, True):
        issuer.rotate(forget=forget)
        browser.send(DASHBOARD, SIGNOUT)
        assert place(sign_in(browser)) == DASHBOARD


def test_a_withdrawn_key_verifies_no_id_token(issuer, browser, monkeypatch):
    """The keys for ID tokens are those that the provider publishes now."""
    sign_in(browser)
    browser.send(DASHBOARD, SIGNOUT)
    withdrawn = issuer.signing_keys()
    issuer.rotate(forget=True)
    monkeypatch.setattr(OpenID, "resolve_client_private_key", lambda *_: withdrawn)
    check_problem(sign_in(browser), 403, REFUSED_ANSWER)
    assert heading(browser) is None


# State


def test_a_repeated_or_foreign_callback_is_refused(browser):
    """A callback that is repeated or comes from another browser is refused."""
    other = browser.another()
    back = go(browser)
    for answer in (other.get(back), other.get(go(browser))):
        check_problem(
            answer, 400, "This sign-in has expired or began in another browser; sign in again."
        )
    assert not heading(other)
    assert place(browser.get(back)) == DASHBOARD
    assert browser.get(back).status_code == 400
    assert heading(browser) == "org-a"


@pytest.mark.parametrize("query", ["", "?code=c", "?state=s", "?code=c&state=s", "?code=&state="])
def test_a_callback_without_its_state_is_refused(browser, query):
    browser.get(OIDC)
    check_problem(browser.get(f"{CALLBACK}{query}"), 400, "began in another browser")


def test_a_code_of_another_sign_in_is_refused(browser):
    other = browser.another()
    theirs = parameters(go(other))["code"]
    ours = parameters(consent(place(browser.get(OIDC))))["state"]
    answer = browser.get(f"{CALLBACK}?code={theirs}&state={ours}")
    check_problem(
        answer,
        403,
        "The identity provider refused the sign-in; try again or ask its administrator.",
    )


def test_several_tabs_may_begin_and_the_cookie_stays_small(browser):
    doors = [go(browser) for _ in range(oidc.MAX_OPEN_SIGN_INS + 5)]
    assert len(browser.cookie()) < 2000
    assert browser.get(doors[0]).status_code == 400
    assert place(browser.get(doors[-oidc.MAX_OPEN_SIGN_INS])) == DASHBOARD


# Tokens that do not do


@pytest.mark.parametrize(
    ("claims", "status", "said"),
    [
        ({"organization_id": 7}, 403, "organization is invalid"),
        ({}, 403, "has no organization"),
        ({"organization_id": "org-a", "aud": "https://other.test"}, 401, "is not accepted here"),
        ({"organization_id": "org-a", "exp": 1}, 401, "is not accepted here"),
        ({"organization_id": "org-a", "token_use": "id"}, 401, "is not accepted here"),
    ],
    ids=["malformed", "no organization", "another audience", "expired", "another kind"],
)
def test_the_access_token_must_satisfy_the_api(issuer, browser, claims, status, said):
    """The provider's access token must satisfy the rules of the API before a session begins."""
    issuer.claims = claims
    check_problem(sign_in(browser), status, said)
    assert not heading(browser)


@pytest.mark.parametrize("claims", [{"nonce": "n"}, {"at_hash": "h"}], ids=str)
def test_the_token_endpoint_says_what_is_an_access_token(issuer, browser, monkeypatch, claims):
    """A sign-in may use an access token with a nonce or a hash, which the API refuses."""
    issuer.claims |= claims
    sent = []
    make = AccessTokens.__call__

    def untyped(self, *arguments, **options):
        answer = make(self, *arguments, **options)
        token = jwt.decode_complete(answer["access_token"], options={"verify_signature": False})
        key = self.get_jwks().keys[0]
        header = token["header"] | {"typ": "JWT"}
        pem = key.as_pem(private=True)
        signed = jwt.encode(token["payload"], pem, issuer.algorithm, headers=header)
        sent.append(signed)
        return answer | {"access_token": signed}

    monkeypatch.setattr(AccessTokens, "__call__", untyped)
    assert place(sign_in(browser)) == DASHBOARD
    assert heading(browser) == "org-a"
    bearer = {"Authorization": f"Bearer {sent[-1]}"}
    answer = browser.client.get("/api/v1/analytics/tokens", headers=bearer)
    assert (answer.status_code, answer.json["code"]) == (401, "UNAUTHORIZED")


def test_an_access_token_that_is_no_jwt_is_refused(browser, monkeypatch):
    make = AccessTokens.__call__

    def opaque(*arguments, **options):
        return make(*arguments, **options) | {"access_token": "an-opaque-one"}

    monkeypatch.setattr(AccessTokens, "__call__", opaque)
    check_problem(sign_in(browser), 401, "access token is not accepted here")


def other_nonce(patch):
    patch.setattr(OpenID, "get_authorization_code_claims", lambda *_: {"nonce": "another"})


def other_issuer(patch):
    claims = {"iss": "https://other.test", "aud": [BROWSER.client_id]}
    patch.setattr(OpenID, "get_client_claims", lambda *_: claims)


def other_client(patch):
    claims = {"aud": ["another"], "azp": BROWSER.client_id}
    make = OpenID.get_client_claims
    patch.setattr(OpenID, "get_client_claims", lambda *given: make(*given) | claims)


def other_key(patch):
    keys = KeySet([RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"})])
    patch.setattr(OpenID, "resolve_client_private_key", lambda *_: keys)


def no_id_token(patch):
    patch.setattr(OpenID, "process_token", lambda *_: None)


def unsigned(patch):
    make = OpenID.process_token

    def process(self, grant, response):
        make(self, grant, response)
        token = response[1]
        _, payload, _ = token["id_token"].split(".")
        header = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
        token["id_token"] = f"{header}.{payload}."

    patch.setattr(OpenID, "process_token", process)


@pytest.mark.parametrize(
    "case",
    [
        (other_nonce, "ID token: claim nonce is of another sign-in"),
        (other_issuer, "ID token: claim iss is another provider"),
        (other_client, "ID token: claim aud is another client"),
        (other_key, "ID token: the kid is unknown"),
        (no_id_token, "token endpoint: id_token is missing"),
        (unsigned, "ID token: the algorithm is not accepted"),
    ],
    ids=lambda case: case[0].__name__,
)
def test_signing_in_needs_an_id_token_for_this_sign_in(issuer, browser, monkeypatch, caplog, case):
    """Signing in fails without a valid ID token for this sign-in, and the log has the cause."""
    caplog.set_level(logging.INFO, "app.request")
    change, cause = case
    change(monkeypatch)
    issuer.described = {SIGNED_BY: ["none", "RS256"]}  # as some providers say of themselves
    check_problem(sign_in(browser), 403, REFUSED_ANSWER)
    lines = [record.fields for record in caplog.records if record.name == "app.request"]
    assert lines[-1]["cause"] == cause
    assert heading(browser) is None
