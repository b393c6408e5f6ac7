"""Opaque tokens: the provider says what they are, and its trouble is nobody else's."""

import logging
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.auth import introspection, token_cache
from app.auth.allowances import UNKNOWN
from app.config.settings import Settings
from app.errors import SettingsError
from tests.support.introspection import CLIENT, SECRET, introspecting
from tests.support.jwks_server import body, cut, hang_up, no_http, silent, trickle_body
from tests.support.services import service_of
from tests.support.settings import make_settings
from tests.support.tokens import bearer

TOKENS = "/api/v1/analytics/tokens?days=1"
AUDIENCE, ISSUER = "https://analytics.test", "https://idp.test"


@pytest.fixture
def provider():
    with introspecting() as provider:
        yield provider


@pytest.fixture
def start(shared_sqlite_url, provider):
    """Starts a service that asks the provider, and verifies JWTs with a secret."""
    apps = []

    def start(**variables):
        settings = make_settings(shared_sqlite_url, **provider.variables, **variables)
        apps.append(service_of(settings))
        return apps[-1].__enter__()

    yield start
    for app in apps:
        app.__exit__(None, None, None)


@pytest.fixture
def read(start):
    """The answer to a read with a token."""
    app = start()
    return lambda token, **environ: app.test_client().get(
        TOKENS, headers={"Authorization": f"Bearer {token}"}, environ_overrides=environ
    )


@pytest.fixture
def later(monkeypatch):
    """Moves the clocks of caches and pauses on."""
    passed, steady, wall = [0.0], time.monotonic, time.time
    monkeypatch.setattr(token_cache.time, "monotonic", lambda: steady() + passed[0])
    monkeypatch.setattr(token_cache.time, "time", lambda: wall() + passed[0])

    def move(seconds):
        passed[0] += seconds

    return move


@pytest.fixture
def hasty(monkeypatch):
    """The service waits for the provider for a short time only."""
    monkeypatch.setattr(introspection, "REQUEST_SECONDS", 0.3)


def test_an_active_token_is_accepted(provider, read):
    """Its organization is in the answer; the provider knows this service by its credentials."""
    answer = read(provider.knows("opaque-1"))
    assert (answer.status_code, answer.json["tenantId"]) == (200, "org-a")
    assert provider.credentials == {(CLIENT, SECRET)}
    assert read("opaque-2").status_code == 401


def test_jwts_are_verified_here(provider, start):
    """Beside a key, only tokens that are no JWT are asked about."""
    app = start()
    assert app.test_client().get(TOKENS, headers=bearer()).status_code == 200
    assert app.test_client().get(TOKENS, headers=bearer(exp=1)).status_code == 401
    assert provider.asked == []


def test_without_a_key_every_token_is_asked_about(provider, shared_sqlite_url):
    variables = provider.variables | {"DATABASE_URL": shared_sqlite_url, "SECRET_KEY": "s" * 32}
    header = bearer()
    token = header["Authorization"].removeprefix("Bearer ")
    with service_of(Settings.from_environ(variables)) as app:
        assert app.test_client().get(TOKENS, headers=header).status_code == 401
        provider.knows("eyJ.eyJ.x", organization_id="org-b")
        answer = app.test_client().get(TOKENS, headers={"Authorization": "Bearer eyJ.eyJ.x"})
        assert answer.json["tenantId"] == "org-b"
    assert provider.asked == [token, "eyJ.eyJ.x"]


REFUSED = {
    "inactive token": {"active": False},
    "inactive token, text": {"active": "true"},
    "inactive token, absent": {"active": ...},
    "claim exp": {"exp": 1},
    "claim exp, text": {"exp": "soon"},
    "claim nbf": {"nbf": time.time() + 3600},
    "claim iat": {"iat": time.time() + 3600},
    "claim iss": {"iss": "https://other.test"},
    "claim aud": {"aud": "https://other.test"},
    "claim aud, absent": {"aud": ...},
    "claim aud, list": {"aud": ["https://other.test"]},
    "claim token_type": {"token_type": "refresh_token"},
    "claim at_hash": {"at_hash": "x"},
}


@pytest.mark.parametrize(("cause", "claims"), REFUSED.items(), ids=REFUSED)
def test_an_answer_is_checked(provider, start, caplog, cause, claims):
    """What is there must be right; a checked audience must be there."""
    caplog.set_level(logging.INFO)
    client = start(JWT_AUDIENCE=AUDIENCE, JWT_ISSUER=ISSUER).test_client()
    good = provider.knows("a-good-one", aud=[AUDIENCE], iss=ISSUER)
    assert client.get(TOKENS, headers={"Authorization": f"Bearer {good}"}).status_code == 200
    bad = provider.knows("a-bad-one", **({"aud": AUDIENCE} | claims))
    answer = client.get(TOKENS, headers={"Authorization": f"Bearer {bad}"})
    assert answer.status_code == 401
    lines = [record.fields for record in caplog.records if record.name == "app.request"]
    assert lines[-1]["cause"] == cause.partition(",")[0]
    assert "a-bad-one" not in caplog.text


def test_scopes_come_from_the_answer(provider, start):
    client = start().test_client()
    event = {"id": "e", "agentId": "a", "issuedAt": "2026-04-14T09:00:00Z"}
    for token, scope, status in (("one", "events:write other", 202), ("two", "other", 403)):
        provider.knows(token, scope=scope)
        header = {"Authorization": f"Bearer {token}"}
        assert client.post("/api/v1/events", json=event, headers=header).status_code == status


def test_an_answer_is_remembered_for_less_than_a_minute(provider, read, later):
    """A revoked token is refused within a minute, and a refused one is asked about again soon."""
    token = provider.knows("opaque")
    assert [read(token).status_code for _ in range(3)] == [200] * 3
    assert len(provider.asked) == 1
    provider.answers[token] = {"active": False}
    later(introspection.ANSWER_SECONDS + 0.1)
    assert [read(token).status_code for _ in range(3)] == [401] * 3
    assert len(provider.asked) == 2
    provider.knows(token)
    later(introspection.REFUSED_SECONDS + 0.1)
    assert read(token).status_code == 200
    longest = introspection.ANSWER_SECONDS + introspection.REQUEST_SECONDS
    assert longest + introspection.CROWDED_SECONDS < 60


def test_an_answer_is_not_used_past_its_expiry(provider, read, later):
    token = provider.knows("opaque", exp=int(time.time()) + 5)
    assert read(token).status_code == 200
    later(6)
    assert read(token).status_code == 401
    assert len(provider.asked) == 2


def test_many_uses_of_one_token_ask_once(provider, start):
    """Simultaneous requests share one request to the provider."""
    app = start(WEB_THREADS="8")
    token = provider.knows("opaque")
    provider.seconds = 0.3

    def use(_number):
        return app.test_client().get(TOKENS, headers={"Authorization": f"Bearer {token}"})

    with ThreadPoolExecutor(8) as pool:
        assert {answer.status_code for answer in pool.map(use, range(8))} == {200}
    assert provider.asked == [token]


TROUBLE = {
    "introspection: status 500": body("{}", 500),
    "introspection: status 401": body("{}", 401),
    "introspection: status 302": body("", 302, Location="http://127.0.0.1:9/"),
    "introspection: not JSON": body("<html>"),
    "introspection: not JSON object": body("[]"),
    "introspection: too large": body(" " * (introspection.MAX_BYTES + 1)),
    "introspection: not HTTP": no_http,
    "introspection: connection": hang_up,
    "introspection: connection ended early": cut,
    "introspection: timeout": silent,
    "introspection: timeout, slow": trickle_body,
}


@pytest.mark.parametrize(("cause", "answer"), TROUBLE.items(), ids=TROUBLE)
@pytest.mark.usefixtures("hasty")
def test_a_provider_in_trouble_is_503(provider, read, caplog, cause, answer):
    """The client may repeat the request; the log has the cause."""
    caplog.set_level(logging.INFO)
    provider.answer = answer
    refused = read("opaque")
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    lines = [record.fields for record in caplog.records if record.name == "app.request"]
    expected = cause.partition(",")[0]
    assert lines[-1]["cause"].startswith(expected)


def test_an_unavailable_provider_is_asked_now_and_then(provider, read, later):
    """After a few failures each request is refused at once, and one tries again in a while."""
    provider.answer = body("", 500)
    statuses = [read(f"opaque-{number}").status_code for number in range(10)]
    assert statuses == [503] * 10
    assert len(provider.asked) == introspection.MAX_FAILURES
    later(introspection.PAUSE_SECONDS + 0.1)
    assert [read("opaque").status_code for _ in range(3)] == [503] * 3
    assert len(provider.asked) == introspection.MAX_FAILURES + 1
    provider.answer = provider.tell
    provider.knows("opaque")
    later(introspection.PAUSE_SECONDS + 0.1)
    assert read("opaque").status_code == 200
    assert read("other").status_code == 401


def test_a_slow_provider_delays_nobody_else(provider, start):
    """While requests wait for the provider, others with JWTs are answered; further ones are 503."""
    app = start(WEB_THREADS="2")
    provider.seconds = 2.0

    def use(number):
        header = {"Authorization": f"Bearer opaque-{number}"}
        return app.test_client().get(TOKENS, headers=header).status_code

    with ThreadPoolExecutor(6) as pool:
        waiting = [pool.submit(use, number) for number in range(6)]
        time.sleep(0.5)
        answers = [app.test_client().get(TOKENS, headers=bearer()) for _ in range(5)]
        assert {answer.status_code for answer in answers} == {200}
        assert sum(not one.done() for one in waiting) >= 2
        statuses = sorted(one.result() for one in waiting)
    assert statuses == [401, 401, 503, 503, 503, 503]


def test_a_client_may_send_few_unknown_tokens(provider, read):
    """So nobody makes the service flood the provider; a known token does not wait."""
    known = provider.knows("known")
    assert read(known).status_code == 200
    statuses = [read(f"opaque-{number}").status_code for number in range(UNKNOWN + 3)]
    assert statuses == [401] * UNKNOWN + [429] * 3
    assert len(provider.asked) == UNKNOWN + 1
    assert read(known).status_code == 200
    assert read("another", REMOTE_ADDR="192.0.2.7").status_code == 401


def test_settings_belong_together(shared_sqlite_url, provider):
    for name in provider.variables:
        fewer = {key: value for key, value in provider.variables.items() if key != name}
        with pytest.raises(SettingsError, match=f"needs {name} beside it"):
            make_settings(shared_sqlite_url, **fewer)
