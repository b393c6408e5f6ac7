"""Tokens of machines, as two real providers issue them: JWTs, and opaque ones by introspection."""

import time

import pytest

from app.auth import token_cache
from app.auth.client_organizations import ClientOrganization, set_client_organization
from tests.providers.running import API, OIDC_PROVIDER, OPAQUE
from tests.support.services import service_of
from tests.support.settings import NOW, make_settings

EVENT = {"id": "e", "agentId": "a", "issuedAt": "2026-04-14T09:00:00Z"}
TOKENS = "/api/v1/analytics/tokens?days=1"


@pytest.fixture
def later(monkeypatch):
    """Moves the clock of the caches on."""
    passed, steady = [0.0], time.monotonic
    monkeypatch.setattr(token_cache.time, "monotonic", lambda: steady() + passed[0])

    def move(seconds):
        passed[0] += seconds

    return move


@pytest.fixture
def client(provider, sqlite_url):
    """A service with the settings of the provider's page."""
    settings = make_settings(
        sqlite_url,
        JWT_JWKS_URL=provider.metadata()["jwks_uri"],
        JWT_ISSUER=provider.issuer,
        JWT_AUDIENCE=API,
        REQUIRE_AT_JWT="1",
        **provider.introspection(),
    )
    with service_of(settings) as app:
        yield app.test_client()


def opaque_token(provider, name="plain"):
    """An opaque token for the API."""
    return provider.machine_token(name, resource=OPAQUE if provider.kind == OIDC_PROVIDER else API)


def read(client, token):
    answer = client.get(TOKENS, headers={"Authorization": f"Bearer {token}"})
    return answer.json.get("tenantId", answer.status_code)


def test_a_jwt_is_verified_with_the_published_keys(provider, client):
    """It names its organization; a machine writes events with its scope."""
    token = provider.machine_token("forwarder", resource=API)
    assert token.count(".") == 2
    header = {"Authorization": f"Bearer {token}"}
    assert read(client, token) == "org-a"
    answer = client.post("/api/v1/events", json=EVENT, headers=header)
    assert (answer.status_code, answer.json["accepted"]) == (202, 1)


def test_new_keys_are_found(provider, client):
    """After a rotation, tokens that were signed before and after it are valid."""
    before = provider.machine_token("forwarder", resource=API)
    assert read(client, before) == "org-a"
    provider.tell("rotate")
    time.sleep(4.1)  # the key set is fetched again after this time
    assert read(client, provider.machine_token("forwarder", resource=API)) == "org-a"
    assert read(client, before) == "org-a"


def test_an_opaque_token_is_introspected(provider, sqlite_url, later):
    """No answer names an organization, so the client has one; a revoked token is refused soon."""
    audience = OPAQUE if provider.kind == OIDC_PROVIDER else API
    settings = make_settings(sqlite_url, JWT_AUDIENCE=audience, **provider.introspection())
    with service_of(settings) as app:
        client, token = app.test_client(), opaque_token(provider)
        assert "." not in token
        assert read(client, token) == 403
        new = ClientOrganization("plain", "org-b", False, NOW)
        set_client_organization(app.extensions["analytics"].database, new, by="tester")
        later(10)
        assert read(client, token) == "org-b"
        answer = client.post(
            "/api/v1/events", json=EVENT, headers={"Authorization": f"Bearer {token}"}
        )
        assert answer.status_code == 202
        provider.revoke("plain", token)
        later(60)
        assert read(client, token) == 401
        assert read(client, "an-invented-token") == 401


def test_a_token_for_another_service_is_refused(provider, client):
    """The provider says that it is active, but not for this audience."""
    other = {"resource": OPAQUE} if provider.kind == OIDC_PROVIDER else {}
    token = provider.machine_token("plain", **other)
    assert read(client, token) == 401
