"""The kind, times, organization and scopes of a verified token, and the access they grant."""

import time

import jwt
import pytest

from tests.support.command_line import Runner, assert_one_clear_error
from tests.support.keys import sign, signer
from tests.support.services import service_of
from tests.support.settings import KEY, NOW, TENANT, child_environ, make_settings
from tests.support.tokens import bearer, payload

READ, EVENTS = "/api/v1/analytics/tokens", "/api/v1/events"
WRITE, WRITE_ANY = "events:write", "events:write:any"
OURS = signer("RS256", "rsa")
CUSTOM = {"JWT_ORGANIZATION_CLAIM": "https://a.example/org", "JWT_SCOPE_CLAIM": "roles"}


@pytest.fixture(scope="module")
def app(shared_sqlite_url):
    """One service for the whole file: whether an event is new does not matter."""
    with service_of(make_settings(shared_sqlite_url)) as app:
        yield app


@pytest.fixture(scope="module")
def custom_client(shared_sqlite_url):
    """A service with claims of its provider's choice."""
    with service_of(make_settings(shared_sqlite_url, **CUSTOM)) as app:
        yield app.test_client()


def check_unauthorized(answer):
    assert (answer.status_code, answer.json["code"]) == (401, "UNAUTHORIZED")
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


def check_forbidden(answer):
    assert (answer.status_code, answer.json["code"]) == (403, "FORBIDDEN")
    assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]


def event(organization=None):
    whole = {"id": "e1", "agentId": "agent-1", "issuedAt": NOW.isoformat()}
    return whole | ({"organizationId": organization} if organization else {})


def write(client, target=None, /, **claims):
    return client.post(EVENTS, json=event(target), headers=bearer(**claims))


def typed(claims=None, /, **header):
    """The header of a request with a token whose own header has these members."""
    text = sign({"alg": "HS256"} | header, payload(**(claims or {})), KEY.encode(), "HS256")
    return {"Authorization": f"Bearer {text}"}


# The kind of token


@pytest.mark.parametrize("name", ["JWT", "at+jwt", "application/at+jwt"])
def test_an_access_token_s_type_is_let_in_in_any_case(client, name):
    for spelled in {name, name.lower(), name.upper(), name.title(), name.swapcase()}:
        assert client.get(READ, headers=typed(typ=spelled)).status_code == 200


def test_a_token_without_a_type_is_let_in(client):
    assert client.get(READ, headers=typed()).status_code == 200


OTHER_TYPES = [
    *("id+jwt", "ID+JWT", "logout+jwt", "dpop+jwt", "rt+jwt", "application/jwt", "application/"),
    *("JWE", "JOSE", "at", "at+jwt ", " at+jwt", "at+jwt\n", "xat+jwt", "at+jwt;q=1", "", " "),
    *(1, 0, 1.5, True, False, None, [], ["JWT"], ["at+jwt"], {}, {"JWT": "at+jwt"}),
]


@pytest.mark.parametrize("name", OTHER_TYPES, ids=repr)
def test_another_type_in_the_header_is_401(client, name):
    check_unauthorized(client.get(READ, headers=typed(typ=name)))


KIND_CLAIMS = ["token_use", "typ", "type", "token_type", "tokenType", "tokenName"]
OTHER_KINDS = [
    *("id", "ID", "Id", "id_token", "Serialized-ID", "refresh", "Refresh", "REFRESH"),
    *(
        "refresh_token",
        "refresh-token",
        "RefreshToken",
        "offline",
        "Offline",
        "Logout",
        "logout_token",
    ),
]


@pytest.mark.parametrize("claim", KIND_CLAIMS)
def test_a_token_that_says_it_is_for_something_else_is_401(client, claim):
    for kind in OTHER_KINDS:
        check_unauthorized(client.get(READ, headers=bearer(**{claim: kind})))
        check_unauthorized(write(client, scope=WRITE, **{claim: kind}))


@pytest.mark.parametrize(
    "claims",
    [
        {"typ": "Bearer"},
        {"token_use": "access"},
        {"type": "access"},
        {"token_type": "access"},
        {"token_type": "Bearer"},
        {"tokenName": "access_token"},
        {"tokenType": "access-token"},
        {"typ": "Bearer", "token_use": "access", "type": "access"},
    ],
    ids=str,
)
def test_a_token_that_says_it_is_for_access_is_let_in(client, claims):
    assert client.get(READ, headers=bearer(**claims)).status_code == 200


@pytest.mark.parametrize("claim", KIND_CLAIMS)
def test_one_word_for_something_else_outweighs_those_for_access(client, claim):
    claims = {"typ": "Bearer", "token_use": "access", "type": "access"} | {claim: "refresh"}
    check_unauthorized(client.get(READ, headers=bearer(**claims)))


# ID tokens that say nothing of their kind

# As two providers issue them, for a client whose id is the API's audience.
ID_TOKENS = {
    "by the hash of its access token": {"at_hash": "77QmUPtjPfzWtF2AnpK9RQ"},
    "by the hash of its code": {"c_hash": "LDktKdoQak3Pk0cnXxCltA"},
    "by the hash of its state": {"s_hash": "LDktKdoQak3Pk0cnXxCltA"},
    "by an empty hash": {"at_hash": ""},
    "by a null hash": {"at_hash": None},
    "by its nonce": {"nonce": "n-0S6_WzA2Mj"},
    "by all": {"at_hash": "x", "c_hash": "x", "nonce": "x", "auth_time": 1, "acr": "1", "sid": "x"},
    "by its hash, though it says Bearer": {"at_hash": "x", "typ": "Bearer"},
}


@pytest.mark.parametrize("claims", ID_TOKENS.values(), ids=ID_TOKENS)
def test_an_id_token_is_refused_by_its_own_claims(client, claims):
    """An ID token for this audience neither reads nor writes, even if it holds a scope."""
    for header in ({}, {"typ": "JWT"}):
        check_unauthorized(client.get(READ, headers=typed(claims, **header)))
        scope = {"scope": f"openid {WRITE}"}
        headers = typed(scope | claims, **header)
        check_unauthorized(client.post(EVENTS, json=event(), headers=headers))
        headers = typed({"scope": ["openid", WRITE]} | claims, **header)
        check_unauthorized(client.post(EVENTS, json=event(), headers=headers))


@pytest.mark.parametrize("name", ["at+jwt", "application/at+jwt"])
def test_a_hash_is_refused_even_as_at_jwt(client, name):
    """Only ID tokens have a hash of the tokens beside them."""
    check_unauthorized(client.get(READ, headers=typed({"at_hash": "x"}, typ=name)))


@pytest.mark.parametrize(
    ("claims", "header"),
    [
        ({"typ": "Bearer"}, {"typ": "JWT"}),
        ({"typ": "DPoP"}, {"typ": "JWT"}),
        ({"token_use": "access"}, {}),
        ({"type": "access"}, {}),
        ({"token_type": "Bearer"}, {}),
        ({}, {"typ": "at+jwt"}),
        ({}, {"typ": "application/at+jwt"}),
    ],
    ids=str,
)
def test_a_nonce_is_accepted_beside_a_word_for_access(client, claims, header):
    """Older versions of Keycloak repeat the nonce of a sign-in in access tokens."""
    headers = typed({"nonce": "x"} | claims, **header)
    assert client.get(READ, headers=headers).status_code == 200


@pytest.mark.parametrize("kind", ["JWT", "Jwt", "user", "", None, 1, ["Bearer"]], ids=repr)
def test_a_nonce_is_refused_beside_other_words(client, kind):
    """What does not say access is not taken for it."""
    check_unauthorized(client.get(READ, headers=typed({"nonce": "x", "typ": kind})))


LOGOUT = "http://schemas.openid.net/event/backchannel-logout"


@pytest.mark.parametrize(
    "events",
    [{LOGOUT: {}}, {LOGOUT.replace("http:", "https:"): {}}, {"x": {}, LOGOUT: {}}],
    ids=str,
)
def test_a_logout_token_of_the_jwt_type_is_401(client, events):
    """Older providers give a logout token no type of its own."""
    check_unauthorized(client.get(READ, headers=bearer(events=events)))


@pytest.mark.parametrize("events", ["write", ["write"], {"write": True}, None, 1], ids=repr)
def test_a_claim_events_of_another_meaning_is_ignored(client, events):
    """A provider may have a claim `events` of its own."""
    assert client.get(READ, headers=bearer(events=events)).status_code == 200


@pytest.fixture(scope="module")
def at_jwt_client(shared_sqlite_url):
    """A service that accepts only tokens of RFC 9068."""
    with service_of(make_settings(shared_sqlite_url, REQUIRE_AT_JWT="1")) as app:
        yield app.test_client()


def test_with_require_at_jwt_only_that_type_is_accepted(at_jwt_client):
    """`REQUIRE_AT_JWT=1` tells access tokens apart where their provider writes the type."""
    for name in ("at+jwt", "AT+JWT", "application/at+jwt"):
        assert at_jwt_client.get(READ, headers=typed(typ=name)).status_code == 200
    for header in ({}, {"typ": "JWT"}, {"typ": "id+jwt"}, {"typ": None}):
        check_unauthorized(at_jwt_client.get(READ, headers=typed(**header)))


def test_a_minted_token_satisfies_require_at_jwt(sqlite_url, at_jwt_client):
    """Tokens for development are access tokens by RFC 9068."""
    done = Runner(child_environ(sqlite_url))("tokens", "mint", "--organization", TENANT)
    headers = {"Authorization": f"Bearer {done.stdout.strip()}"}
    assert at_jwt_client.get(READ, headers=headers).json["tenantId"] == TENANT


# Clocks that differ


@pytest.mark.parametrize("claim", ["nbf", "iat"])
def test_a_few_seconds_of_clock_skew_are_accepted(client, claim):
    """A token from a few seconds ahead of now is accepted; one from a minute ahead is not."""
    present = int(time.time())
    assert client.get(READ, headers=bearer(**{claim: present + 8})).status_code == 200
    check_unauthorized(client.get(READ, headers=bearer(**{claim: present + 60})))


# Scopes


GRANTS = {
    "alone": {"scope": WRITE},
    "among others": {"scope": f"openid {WRITE} x:y"},
    "for all": {"scope": WRITE_ANY},
    "list": {"scope": [WRITE]},
    "list among others": {"scope": ["openid", WRITE]},
    "list with other things": {"scope": [None, 1, [], {}, WRITE]},
    "list beside scp": {"scope": [WRITE], "scp": "openid"},
    "list for all": {"scope": [WRITE_ANY]},
    "scp text": {"drop": "scope", "scp": f"openid {WRITE}"},
    "scp list": {"drop": "scope", "scp": ["openid", WRITE]},
    "scp list for all": {"drop": "scope", "scp": [WRITE_ANY]},
    "scp list with other things": {"drop": "scope", "scp": [None, 1, [], {}, WRITE]},
}


@pytest.mark.parametrize("claims", GRANTS.values(), ids=GRANTS)
def test_scopes_come_from_scope_or_else_from_scp(client, claims):
    """Scopes are the words of `scope`, or of `scp` if `scope` is missing."""
    assert write(client, TENANT, **claims).status_code == 202


NO_GRANTS = {
    "none": {"drop": "scope"},
    "empty list": {"scope": []},
    "list of words": {"scope": [f"openid {WRITE}"]},
    "list in a list": {"scope": [[WRITE]]},
    "object": {"scope": {WRITE: True}},
    "true": {"scope": True},
    "number": {"scope": 1},
    "null": {"scope": None},
    "prefix": {"scope": "events"},
    "longer": {"scope": f"{WRITE}:all"},
    "pattern": {"scope": "events:* *"},
    "other case": {"scope": WRITE.upper()},
    "comma": {"scope": f"openid,{WRITE}"},
    "tab": {"scope": f"openid\t{WRITE}"},
    "newline": {"scope": f"openid\n{WRITE}"},
    "no-break space": {"scope": f"openid\xa0{WRITE}"},
    "scp beside scope": {"scope": "openid", "scp": [WRITE, WRITE_ANY]},
    "scp beside an empty scope": {"scope": "", "scp": WRITE},
    "scp beside a null scope": {"scope": None, "scp": WRITE},
    "scp beside a list": {"scope": ["openid"], "scp": WRITE},
    "scp list of words": {"drop": "scope", "scp": [f"openid {WRITE}"]},
    "scp list in a list": {"drop": "scope", "scp": [[WRITE]]},
    "scp object": {"drop": "scope", "scp": {WRITE: True}},
    "other claims": {"drop": "scope", "scopes": WRITE, "roles": [WRITE], "permissions": [WRITE]},
}


@pytest.mark.parametrize("claims", NO_GRANTS.values(), ids=NO_GRANTS)
def test_what_is_not_that_word_grants_no_writing(client, claims):
    check_forbidden(write(client, **claims))


# Organizations


def test_a_token_writes_for_its_own_organization_alone(client):
    assert write(client, TENANT, scope=WRITE).status_code == 202
    check_forbidden(write(client, "org-b", scope=WRITE))


MISNAMED = ["organizationId", "organization", "org_id", "org", "tenant_id", "Organization_ID", ""]


@pytest.mark.parametrize("name", MISNAMED)
def test_a_misnamed_organization_is_none_at_all(client, name):
    claims = {"drop": "organization_id", name: TENANT}
    check_forbidden(client.get(READ, headers=bearer(**claims)))
    for target in [None, TENANT, "org-b"]:
        check_forbidden(write(client, target, scope=WRITE, **claims))


def test_a_token_without_an_organization_needs_write_any(client):
    """Without an organization a token needs `events:write:any` and names one in each event."""
    nobody = {"drop": "organization_id"}
    for target in [None, TENANT, "org-b"]:
        check_forbidden(write(client, target, scope=WRITE, **nobody))
        check_forbidden(write(client, target, scope="", **nobody))
    assert write(client, "org-b", scope=WRITE_ANY, **nobody).status_code == 202
    assert write(client, None, scope=WRITE_ANY, **nobody).status_code == 400


# Claims of the provider's choice


def test_the_claims_that_are_configured_count(custom_client):
    claims = {"drop": "organization_id", "https://a.example/org": "org-c"}
    for roles in [f"x {WRITE}", ["x", WRITE]]:
        assert write(custom_client, "org-c", **claims, roles=roles).status_code == 202
        check_forbidden(write(custom_client, "org-b", **claims, roles=roles))
    answer = custom_client.get(READ, headers=bearer(**claims))
    assert (answer.status_code, answer.json["tenantId"]) == (200, "org-c")


def test_a_configured_organization_claim_replaces_the_usual(custom_client):
    """If another organization claim is configured, the service ignores `organization_id`."""
    check_forbidden(custom_client.get(READ, headers=bearer(TENANT)))
    check_forbidden(write(custom_client, TENANT, roles=WRITE))
    claims = {"organization_id": TENANT, "https://a.example/org": "org-c"}
    assert custom_client.get(READ, headers=bearer(**claims)).json["tenantId"] == "org-c"


@pytest.mark.parametrize("scopes", [{"scope": WRITE_ANY}, {"drop": "scope", "scp": [WRITE_ANY]}])
def test_a_configured_scope_claim_replaces_the_usual(custom_client, scopes):
    """If another scope claim is configured, the service ignores `scope` and `scp`."""
    claims = {"https://a.example/org": "org-c"} | scopes
    check_forbidden(write(custom_client, "org-c", **claims))
    check_forbidden(write(custom_client, "org-c", **claims, roles="x"))


NESTED = {
    "pointer": {
        "JWT_ORGANIZATION_CLAIM": "/https:~1~1a.example~1claims/organization",
        "JWT_SCOPE_CLAIM": "/resource_access/analytics/roles",
    },
    "path": {
        "JWT_ORGANIZATION_CLAIM": "realm.organization",
        "JWT_SCOPE_CLAIM": "resource_access.analytics.roles",
    },
}
NESTED_CLAIMS = {
    "https://a.example/claims": {"organization": TENANT},
    "realm": {"organization": TENANT},
    "resource_access": {"analytics": {"roles": [WRITE]}},
}


@pytest.mark.parametrize("names", NESTED.values(), ids=NESTED)
def test_a_claim_inside_another_is_read(shared_sqlite_url, names):
    """A JSON pointer or a dotted path names a claim inside another one."""
    with service_of(make_settings(shared_sqlite_url, **names)) as app:
        client = app.test_client()
        claims = {"drop": "organization_id"} | NESTED_CLAIMS
        assert client.get(READ, headers=bearer(**claims)).json["tenantId"] == TENANT
        assert write(client, TENANT, **claims).status_code == 202
        check_forbidden(write(client, "org-b", **claims))
        check_forbidden(client.get(READ, headers=bearer(drop="organization_id")))


@pytest.mark.parametrize("names", NESTED.values(), ids=NESTED)
def test_a_minted_token_has_nested_claims(sqlite_url, names):
    """A token for development is accepted by the service that minted it."""
    flask = Runner(child_environ(sqlite_url, **names))
    done = flask("tokens", "mint", "--organization", TENANT, "--scope", WRITE)
    headers = {"Authorization": f"Bearer {done.stdout.strip()}"}
    with service_of(make_settings(sqlite_url, **names)) as app:
        assert app.test_client().post(EVENTS, json=event(), headers=headers).status_code == 202


# Tokens for development


@pytest.mark.parametrize(
    ("command", "source"),
    [
        (["tokens", "mint", "--organization", "org-a"], {"JWT_PUBLIC_KEY": OURS.pem}),
        (["demo", "calls"], {"JWT_JWKS_URL": "http://127.0.0.1:9/jwks.json"}),
    ],
    ids=["mint", "calls"],
)
def test_no_token_is_minted_where_the_provider_s_count(sqlite_url, command, source):
    done = Runner(child_environ(sqlite_url, **source))(*command)
    assert "JWT_SECRET_KEY" in assert_one_clear_error(done)
    assert done.returncode == 1


def test_a_minted_token_has_the_claims_that_are_configured(sqlite_url, custom_client):
    flask = Runner(child_environ(sqlite_url, **CUSTOM))
    done = flask("tokens", "mint", "--organization", "org-c", "--scope", WRITE)
    assert (done.returncode, done.stderr) == (0, "")
    token = done.stdout.strip()
    assert not {"organization_id", "scope"} & jwt.decode(token, KEY, ["HS256"]).keys()
    headers = {"Authorization": f"Bearer {token}"}
    assert custom_client.get(READ, headers=headers).json["tenantId"] == "org-c"
    assert custom_client.post(EVENTS, json=event("org-c"), headers=headers).status_code == 202
