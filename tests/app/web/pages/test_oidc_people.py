"""People whom an identity provider names: their organizations, their scopes, and the client."""

import base64
import logging

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.code_flow import OIDC, asked, check_problem
from tests.support.pages import DASHBOARD, heading, place
from tests.support.scripted_idp import ACCESS, key, sign_in

CHOICE = "/signin/organization"
OPERATORS = "/dashboard/organizations"


@pytest.fixture
def visit(visit_provider):
    return visit_provider


# Organizations


@pytest.mark.parametrize(
    ("claims", "info", "claim"),
    [
        ({"orgs": "org-b"}, {}, "orgs"),
        ({"orgs": ["org-b"]}, {"orgs": "org-c"}, "orgs"),
        ({"orgs": {"org-b": {"id": "7"}}}, {}, "orgs"),
        ({"orgs": None}, {"orgs": ["org-b", "org-b"]}, "orgs"),
        ({"a": {"b": "org-b"}}, {}, "a.b"),
        ({"https://x.test/org": "org-b"}, {}, "https://x.test/org"),
        ({"a": [{"b/c": "org-b"}]}, {}, "/a/0/b~1c"),
    ],
)
def test_a_claim_names_the_organization(visit, provider, claims, info, claim):
    """The claim is in the ID token, else in userinfo. The access token is not read."""
    provider.claims, provider.info = claims, info
    browser = visit(**provider.variables(OIDC_ORGANIZATION_CLAIM=claim))
    assert place(sign_in(provider, browser)) == DASHBOARD
    assert heading(browser) == "org-b"
    paths = [one.path for one in provider.asked]
    assert ("/userinfo" in paths) == (claims == {"orgs": None})


@pytest.mark.parametrize("token", [None, ACCESS])
def test_no_access_token_is_needed(visit, provider, token):
    provider.token = {"access_token": token}
    browser = visit(**provider.variables())
    assert place(sign_in(provider, browser)) == DASHBOARD


@pytest.mark.parametrize(
    ("named", "problem"),
    [
        (None, ("has no organization here", "no organization")),
        ([], ("has no organization here", "no organization")),
        (7, ("is invalid", "organization")),
        (["org-a", 7], ("is invalid", "organization")),
        ([["org-a"]], ("is invalid", "organization")),
        ("", ("is invalid", "organization")),
        ("a\0", ("is invalid", "organization")),
        ([f"o{number}" for number in range(501)], ("more than 500", "too many organizations")),
    ],
    ids=["none", "empty", "number", "among others", "nested", "blank", "NUL", "many"],
)
def test_a_person_without_an_organization_is_refused(visit, provider, caplog, named, problem):
    said, cause = problem
    caplog.set_level(logging.INFO, "app.request")
    provider.claims = {"orgs": named}
    browser = visit(**provider.variables())
    check_problem(sign_in(provider, browser), 403, said)
    assert caplog.records[-1].fields["cause"] == cause
    assert heading(browser) is None


def test_a_person_chooses_one_of_several_organizations(visit, provider):
    """The choice leads on to the requested page, and can be changed at the top of each page."""
    provider.claims = {"orgs": ["org-a", "org-b"]}
    browser = visit(**provider.variables())
    browser.get(f"{DASHBOARD}?days=7")
    assert place(sign_in(provider, browser)) == CHOICE
    assert place(browser.get(f"{DASHBOARD}?days=28")) == CHOICE
    page = browser.get(CHOICE).text
    assert [name in page for name in ("org-a", "org-b", "org-c")] == [True, True, False]
    for other in ("org-c", "", "ORG-A"):
        answer = browser.send(CHOICE, CHOICE, organization=other)
        assert (answer.status_code, "Choose one of your" in answer.text) == (400, True)
    assert place(browser.send(CHOICE, CHOICE, organization="org-b")) == f"{DASHBOARD}?days=28"
    assert heading(browser) == "org-b"
    assert f'href="{CHOICE}"' in browser.get(DASHBOARD).text
    assert place(browser.send(CHOICE, CHOICE, organization="org-a")) == DASHBOARD
    assert heading(browser) == "org-a"


def test_a_person_of_one_organization_has_nothing_to_choose(visit, provider):
    browser = visit(**provider.variables())
    assert place(browser.get(CHOICE)) == "/signin"
    sign_in(provider, browser)
    assert place(browser.get(CHOICE)) == DASHBOARD
    answer = browser.send(DASHBOARD, CHOICE, organization="org-b")
    assert (answer.status_code, heading(browser)) == (400, "org-a")
    assert CHOICE not in browser.get(DASHBOARD).text


# Scopes


@pytest.mark.parametrize(
    ("groups", "admits"),
    [
        ("admins", True),
        (["staff", "urn:x:root"], True),
        ({"admins": {"org": "x"}}, True),
        (["staff"], False),
        ("admins staff", False),
        (None, False),
        ([7, ["admins"]], False),
    ],
    ids=str,
)
def test_a_value_of_a_claim_makes_an_administrator(visit, provider, groups, admits):
    provider.claims |= {"groups": groups}
    browser = visit(**provider.variables(OIDC_ADMIN_CLAIM="groups:admins,urn:x:root"))
    sign_in(provider, browser)
    found = stored(browser)
    assert ("analytics:admin" in found.scopes, "agents:write" in found.scopes) == (admits, admits)


def test_an_operator_needs_no_organization(visit, provider):
    """A value of a claim lets a person read every organization, also beside several own ones."""
    provider.claims = {"https://x.test/roles": ["op"]}
    rule = {"OIDC_OPERATOR_CLAIM": "https://x.test/roles:op"}
    browser = visit(**provider.variables(**rule))
    assert place(sign_in(provider, browser)) == DASHBOARD
    assert place(browser.get(DASHBOARD)) == OPERATORS
    assert browser.get(OPERATORS).status_code == 200
    provider.claims |= {"orgs": ["org-a", "org-b"]}
    other = browser.another()
    assert place(sign_in(provider, other)) == CHOICE
    assert other.get(OPERATORS).status_code == 200
    assert "org-z" in other.get(f"{DASHBOARD}?organizationId=org-z").text


def stored(browser):
    """The session in the database."""
    from app.auth.page_sessions import find_session, stored_id  # noqa: PLC0415 - only here

    with browser.client.session_transaction(base_url=browser.base) as session:
        cookie_id = session["id"]
    return find_session(browser.app.extensions["analytics"].database, stored_id(cookie_id))


# The client


def test_the_provider_is_asked_for_a_resource(visit, provider):
    """RFC 8707: at the authorization and the token endpoint. No audience is asked for then."""
    resource = "https://analytics.test/api"
    browser = visit(**provider.variables(OIDC_RESOURCE=resource, JWT_AUDIENCE="a"))
    question = asked(browser.get(OIDC))
    assert (question["resource"], "audience" in question) == (resource, False)
    sign_in(provider, browser)
    assert provider.forms("/token")[-1]["resource"] == resource


def test_metadata_may_be_elsewhere(visit, provider):
    provider.instead["/.well-known/openid-configuration"] = (404, {}, b"")
    elsewhere = f"{provider.url}/elsewhere/openid-configuration"
    browser = visit(**provider.variables(OIDC_METADATA_URL=elsewhere))
    assert place(sign_in(provider, browser)) == DASHBOARD


SECRET = "a+b%c d:e\u00e9"
METHODS = "token_endpoint_auth_methods_supported"


@pytest.mark.parametrize(
    ("methods", "is_basic"),
    [
        (None, True),
        (["client_secret_post", "client_secret_basic"], True),
        (["client_secret_post", "private_key_jwt"], False),
    ],
)
def test_a_secret_is_sent_as_the_provider_wants_it(visit, provider, methods, is_basic):
    """Id and secret are form-encoded in Basic (RFC 6749, 2.3.1); otherwise they are in the form."""
    provider.described = {METHODS: methods}
    browser = visit(**provider.variables(OIDC_CLIENT_SECRET=SECRET))
    assert place(sign_in(provider, browser)) == DASHBOARD
    (sent,) = [one for one in provider.asked if one.path == "/token"]
    if is_basic:
        basic = sent.headers["Authorization"].removeprefix("Basic ")
        assert base64.b64decode(basic) == b"dashboard:a%2Bb%25c+d%3Ae%C3%A9"
        assert "client_secret" not in sent.form
    else:
        assert (sent.form["client_id"], sent.form["client_secret"]) == ("dashboard", SECRET)
        assert "Authorization" not in sent.headers


def test_a_provider_without_a_method_for_a_secret_is_refused(visit, provider, caplog):
    caplog.set_level(logging.INFO, "app.request")
    provider.described = {METHODS: ["private_key_jwt"]}
    browser = visit(**provider.variables(OIDC_CLIENT_SECRET=SECRET))
    assert sign_in(provider, browser).status_code == 403
    cause = "metadata: no token endpoint method for a secret"
    assert caplog.records[-1].fields["cause"] == cause
    assert provider.forms("/token") == []


def test_a_client_with_a_key_signs_an_assertion(visit, provider, tmp_path):
    """RFC 7523: the key stays here, and an assertion is for this provider and one minute."""
    own = key("another")
    file = tmp_path / "client.pem"
    file.write_bytes(own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    browser = visit(**provider.variables(OIDC_CLIENT_KEY_FILE=str(file)))
    for _ in range(2):
        assert place(sign_in(provider, browser.another())) == DASHBOARD
    sent = provider.forms("/token")
    address = f"{provider.url}/token"
    said = [
        jwt.decode(form["client_assertion"], own.public_key(), ["RS256"], audience=address)
        for form in sent
    ]
    assert {one["iss"] for one in said} == {one["sub"] for one in said} == {"dashboard"}
    assert said[0]["jti"] != said[1]["jti"]
    assert said[0]["exp"] - said[0]["iat"] == 60
    assert {form["client_assertion_type"][-10:] for form in sent} == {"jwt-bearer"}


def test_a_token_needs_one_of_several_audiences(visit, issuer):
    """Several audiences may be accepted; a sign-in asks for the first."""
    from tests.support.code_flow import provided  # noqa: PLC0415 - another provider
    from tests.support.code_flow import sign_in as whole_way  # noqa: PLC0415 - as above

    browser = visit(**provided(issuer, JWT_AUDIENCE=f"https://first.test, {issuer.audience}"))
    assert asked(browser.get(OIDC))["audience"] == "https://first.test"
    assert place(whole_way(browser)) == DASHBOARD
    issuer.audience = "https://other.test"
    check_problem(whole_way(browser.another()), 401, "is not accepted here")
