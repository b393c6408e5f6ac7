"""The service trusts an identity provider's tokens: keys, their rotation and their absence."""

import base64
import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from flask.testing import FlaskClient
from joserfc import jwt

from app.auth import jwks as keys
from app.auth import token_cache
from app.config.settings import ROOT, Settings
from app.factory import create_app
from tests.support.idp import Issuer, client_credentials
from tests.support.processes import PATIENCE_SECONDS, call, free_port, poll, process
from tests.support.settings import NOW, child_environ, make_settings
from tests.test_idp import sign_in

READ = "/api/v1/analytics/tokens?days=1"
EVENTS = "/api/v1/events"


@pytest.fixture
def issuer(request: pytest.FixtureRequest) -> Iterator[Issuer]:
    with Issuer(getattr(request, "param", "RS256")) as issuer:
        yield issuer


@pytest.fixture
def settings(sqlite_url: str, issuer: Issuer) -> Settings:
    return make_settings(sqlite_url, **trust(issuer))


@pytest.fixture
def status(client: FlaskClient) -> Callable[[str], int]:
    """What a read with a token is answered."""
    return lambda token: client.get(READ, headers=bearer(token)).status_code


@pytest.fixture
def known(issuer: Issuer, status: Callable[[str], int]) -> str:
    """A token whose key the service has, however long it took to fetch it."""
    token = client_credentials(issuer)
    assert poll(lambda: status(token), fetched) == 200
    return token


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys may be fetched again at once, and no token is remembered."""
    monkeypatch.setattr(keys, "REFETCH_SECONDS", 0)
    monkeypatch.setattr(token_cache, "TTL_SECONDS", 0)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fetch may take as long as a busy machine makes it."""
    monkeypatch.setattr(keys, "FETCH_SECONDS", PATIENCE_SECONDS)


def fetched(status: int) -> bool:
    return status != 503


def accepted(status: int) -> bool:
    return status == 200


def trust(issuer: Issuer) -> dict[str, str]:
    """The variables of a service that trusts ``issuer``."""
    return {
        "JWT_JWKS_URL": issuer.jwks_url,
        "JWT_ISSUER": issuer.url,
        "JWT_AUDIENCE": issuer.audience,
    }


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def event(event_id: str = "e1", issued_at: datetime = NOW) -> dict[str, str]:
    return {"id": event_id, "agentId": "agent-1", "issuedAt": issued_at.isoformat()}


def count(client: FlaskClient, token: str) -> int:
    """The tokens that the token's organization issued today."""
    answer = client.get(READ, headers=bearer(token))
    assert answer.status_code == 200, answer.json
    return sum(point["count"] for point in answer.json["data"])


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("issuer", ["RS256", "ES256"], indirect=True)
def test_a_machine_uses_only_its_organization(issuer, client, roll_up):
    """A machine's token writes and reads the events of its organization only."""
    tokens = {}
    for organization in ("org-a", "org-b"):
        issuer.claims = {"organization_id": organization}
        tokens[organization] = client_credentials(issuer, "events:write")

    posted = client.post(EVENTS, json=event(), headers=bearer(tokens["org-a"]))
    assert (posted.status_code, posted.json["accepted"]) == (202, 1)
    foreign = event("e2") | {"organizationId": "org-a"}
    assert client.post(EVENTS, json=foreign, headers=bearer(tokens["org-b"])).status_code == 403

    roll_up()
    assert {name: count(client, token) for name, token in tokens.items()} == {
        "org-a": 1,
        "org-b": 0,
    }


@pytest.mark.usefixtures("known")
def test_a_token_without_the_scope_reads_and_does_not_write(issuer, client):
    headers = bearer(client_credentials(issuer))
    assert client.get(READ, headers=headers).status_code == 200
    assert client.post(EVENTS, json=event(), headers=headers).status_code == 403


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    "claims",
    [{"iss": "https://other.test"}, {"aud": "https://other.test"}, {"exp": 1}],
    ids=lambda claims: next(iter(claims)),
)
def test_what_the_issuer_signs_for_others_is_refused(issuer, status, claims):
    issuer.claims |= claims
    assert status(client_credentials(issuer)) == 401


@pytest.mark.usefixtures("known")
def test_access_tokens_are_accepted_and_id_tokens_refused(issuer, status):
    """A person's access token is accepted, and the id token beside it is refused."""
    tokens = sign_in(issuer, scope="openid")
    assert status(tokens["access_token"]) == 200
    assert status(tokens["id_token"]) == 401


@pytest.mark.usefixtures("known")
def test_another_issuers_token_is_refused(issuer, status):
    with Issuer() as other:
        other.claims |= {"iss": issuer.url}
        assert status(client_credentials(other)) == 401


@pytest.mark.usefixtures("patient")
def test_the_first_request_waits_for_the_keys(issuer, status):
    assert status(client_credentials(issuer)) == 200


def test_after_a_rotation_new_and_old_tokens_are_accepted(issuer, known, status):
    issuer.rotate()
    new = client_credentials(issuer)
    poll(lambda: status(new), accepted)
    assert status(known) == 200


@pytest.mark.usefixtures("impatient")
def test_a_key_taken_back_is_refused_from_the_next_fetch_on(issuer, known, status):
    issuer.rotate(forget=True)
    fetches = issuer.fetches
    assert (status(known), issuer.fetches) == (200, fetches)
    new = client_credentials(issuer)
    poll(lambda: status(new), accepted)
    assert status(known) == 401


@pytest.mark.usefixtures("impatient")
def test_keys_grow_stale_without_a_token_that_asks_for_new_ones(issuer, known, status, monkeypatch):
    issuer.rotate(forget=True)
    assert status(known) == 200
    monkeypatch.setattr(keys, "FRESH_SECONDS", 0)
    poll(lambda: status(known), lambda code: code == 401)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("hang", [False, True], ids=["fails", "hangs"])
def test_while_the_issuer_is_away_its_known_keys_work(issuer, known, status, monkeypatch, hang):
    issuer.go_away(hang=hang)
    fetches = issuer.fetches
    monkeypatch.setattr(keys, "FRESH_SECONDS", 0)
    poll(lambda: (status(known), issuer.fetches), lambda seen: seen[1] > fetches)
    issuer.rotate()
    new = client_credentials(issuer)
    assert [status(token) for token in (known, new, known)] == [200, 401, 200]
    issuer.come_back()
    poll(lambda: status(new), accepted)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("hang", [False, True], ids=["fails", "hangs"])
def test_an_issuer_that_was_never_reached_is_503_until_it_is(issuer, client, status, hang):
    issuer.go_away(hang=hang)
    token = client_credentials(issuer)
    answer = client.get(READ, headers=bearer(token))
    assert (answer.status_code, answer.json["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert int(answer.headers["Retry-After"]) > 0
    issuer.come_back()
    assert poll(lambda: status(token), fetched) == 200


def test_invented_key_ids_lead_to_one_fetch_per_interval(issuer, app, known):
    _, payload, signature = known.split(".")
    began, fetches = time.monotonic(), issuer.fetches

    def attempt(number: int) -> int:
        header = json.dumps({"alg": "RS256", "typ": "at+jwt", "kid": f"invented-{number}"})
        first = base64.urlsafe_b64encode(header.encode()).rstrip(b"=").decode()
        token = f"{first}.{payload}.{signature}"
        return app.test_client().get(READ, headers=bearer(token)).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(attempt, range(50))) == {401}
    intervals = (time.monotonic() - began) / keys.REFETCH_SECONDS
    assert issuer.fetches - fetches <= 1 + intervals


def test_deployed_processes_survive_a_key_rotation(database_url: str, issuer: Issuer) -> None:
    """Gunicorn and the scheduler accept the issuer's tokens through a key rotation."""
    port = free_port()
    environ = child_environ(
        database_url,
        APP_ENV="production",
        ALLOW_SQLITE="1",
        PORT=str(port),
        ROLLUP_INTERVAL_SECONDS="1",
        **trust(issuer),
    )
    base = f"http://127.0.0.1:{port}"

    def post(event_id: str, token: str) -> Any:
        headers = bearer(token) | {"Content-Type": "application/json"}
        body = json.dumps(event(event_id, datetime.now(UTC))).encode()
        return call(f"{base}{EVENTS}", headers, body)

    with process("gunicorn", "wsgi:app", environ=environ), process("jobs", environ=environ):
        poll(lambda: call(f"{base}/ready"), lambda answer: answer[0] == 200)
        old = client_credentials(issuer, "events:write")
        poll(lambda: post("e1", old), lambda answer: answer[0] == 202)
        issuer.rotate(forget=True)
        new = client_credentials(issuer, "events:write")
        # A worker that has fetched the keys just now refuses it at first.
        poll(lambda: post("e2", new), lambda answer: answer[0] == 202)
        issuer.go_away()
        read = f"{base}/api/v1/analytics/tokens?days=2"
        poll(lambda: total(call(read, bearer(new))[1]), lambda counted: counted == 2)


def total(body: dict[str, Any]) -> int:
    return sum(point["count"] for point in body["data"])


@pytest.fixture
def documented(provider: str) -> tuple[dict[str, str], dict[str, Any]]:
    """A provider's settings in docs/identity-providers/, and its example of a payload."""
    page = (ROOT / "docs" / "identity-providers" / f"{provider}.md").read_text()
    blocks = re.findall(r"^```(?:sh|json)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (shell,) = (text for text in blocks if "JWT_JWKS_URL=" in text)
    (payload,) = (text for text in blocks if '"exp": 1790' in text)
    variables = dict(re.findall(r"^(JWT_\w+)=(\S+)$", shell, re.MULTILINE))
    return variables, json.loads(payload)


@pytest.mark.parametrize(
    "provider",
    [
        *("keycloak", "auth0", "okta", "microsoft-entra-id", "amazon-cognito"),
        *("node-oidc-provider", "home-grown", "duende", "zitadel", "authentik", "ory-hydra"),
        "django-oauth-toolkit",
    ],
)
def test_a_documented_token_is_accepted(sqlite_url, issuer, documented):
    """Each documented token is accepted with the settings shown above it.

    It writes if it has scopes: those of Zitadel have none.
    """
    variables, payload = documented
    settings = make_settings(sqlite_url, **variables | {"JWT_JWKS_URL": issuer.jwks_url})
    app = create_app(settings, clock=lambda: NOW)
    client = app.test_client()
    present = int(time.time())
    claims = payload | {"iat": present, "exp": present + 600}
    if "nbf" in claims:
        claims["nbf"] = present
    token = jwt.encode({"alg": "RS256"}, claims, issuer.signing_keys())
    read = poll(lambda: client.get(READ, headers=bearer(token)).status_code, fetched)
    assert read == 200
    scopes = {"scope", "scp", "roles"} & payload.keys()
    written = client.post(EVENTS, json=event(), headers=bearer(token)).status_code
    assert written == (202 if scopes else 403)
    app.extensions["analytics"].database.dispose()
