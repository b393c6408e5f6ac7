"""The organizations of clients whose tokens name none."""

import jwt
import pytest

from app.auth import token_cache
from app.auth.client_organizations import (
    CACHE_SECONDS,
    MAX_CLIENT_ID,
    ClientOrganization,
    remove_client_organization,
    set_client_organization,
)
from app.errors import ValidationError
from tests.support.settings import KEY, NOW
from tests.support.tokens import payload

TOKENS = "/api/v1/analytics/tokens?days=1"


@pytest.fixture
def belongs(database, client, monkeypatch):
    """Puts a client into an organization, and forgets what the service remembers."""
    passed, steady = [0.0], token_cache.time.monotonic
    monkeypatch.setattr(token_cache.time, "monotonic", lambda: steady() + passed[0])

    def belongs(client_id, tenant_id, *, people=False):
        if tenant_id is None:
            remove_client_organization(database, client_id, NOW, by="tester")
        else:
            new = ClientOrganization(client_id, tenant_id, people, NOW)
            set_client_organization(database, new, by="tester")
        passed[0] += CACHE_SECONDS + 0.1

    return belongs


@pytest.fixture
def tenant(client):
    """The organization that a token with these claims reads; the status if it is refused."""

    def tenant(**changed):
        claims = payload(**({"organization_id": ...} | changed))
        claims = {name: value for name, value in claims.items() if value != ...}
        signed = jwt.encode(claims, KEY, algorithm="HS256")
        answer = client.get(TOKENS, headers={"Authorization": f"Bearer {signed}"})
        return answer.json.get("tenantId", answer.status_code)

    return tenant


def test_a_client_has_its_organization(belongs, tenant):
    """A token without an organization is of its client's; a change is seen soon."""
    machine = {"client_id": "reporter", "sub": "reporter"}
    assert tenant(**machine) == 403
    belongs("reporter", "org-a")
    assert tenant(**machine) == "org-a"
    assert tenant(azp="reporter", client_id=..., sub="reporter") == "org-a"
    assert tenant(client_id="reporter", sub="reporter@clients") == "org-a"
    assert tenant(client_id="other", sub="other") == 403
    belongs("reporter", "org-b")
    assert tenant(**machine) == "org-b"
    belongs("reporter", None)
    assert tenant(**machine) == 403


def test_the_claim_comes_first(belongs, tenant):
    belongs("reporter", "org-a")
    claims = {"client_id": "reporter", "sub": "reporter"}
    assert tenant(**claims, organization_id="org-b") == "org-b"
    assert tenant(**claims, organization_id=7) == 403


def test_people_are_not_of_their_clients_organization(belongs, tenant):
    """Otherwise each person who signs in by a client would read its organization's numbers."""
    person = {"client_id": "dashboard", "sub": "ada"}
    belongs("dashboard", "org-a")
    assert tenant(**person) == 403
    assert tenant(client_id="dashboard", username="ada", sub=...) == 403
    belongs("dashboard", "org-a", people=True)
    assert tenant(**person) == "org-a"


def test_only_a_claim_names_the_client(belongs, tenant):
    """A person who chose the id of a client as user name is not the client."""
    belongs("reporter", "org-a")
    assert tenant(sub="reporter", client_id=...) == 403
    longest = "c" * MAX_CLIENT_ID
    belongs(longest, "org-a")
    assert tenant(client_id=longest, sub=...) == "org-a"
    assert tenant(client_id=longest + "c" * 9, sub=...) == 403


@pytest.mark.parametrize("name", ["", "a\0", "c" * (MAX_CLIENT_ID + 1)])
def test_an_invalid_client_is_refused(database, name):
    with pytest.raises(ValidationError):
        set_client_organization(database, ClientOrganization(name, "o", False, NOW), by="tester")
    assert remove_client_organization(database, name, NOW, by="tester") is None
