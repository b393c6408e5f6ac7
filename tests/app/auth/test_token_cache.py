"""A verified token is remembered for a minute: by all of it, never past its end, boundedly."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.auth import token_cache, tokens
from app.auth.token_cache import TokenCache
from tests.support.tokens import bearer, token

READ = "/api/v1/analytics/tokens?days=1"
EVENTS = "/api/v1/events"


@pytest.fixture
def verified(monkeypatch):
    """The tokens whose signature was looked at."""
    seen = []
    decode = tokens.decode_token

    def counting(text):
        seen.append(text)
        return decode(text)

    monkeypatch.setattr(tokens, "decode_token", counting)
    return seen


@pytest.fixture
def clock(monkeypatch):
    """Moves both clocks on."""
    passed = [0.0]
    wall, steady = time.time, time.monotonic
    monkeypatch.setattr(token_cache.time, "time", lambda: wall() + passed[0])
    monkeypatch.setattr(token_cache.time, "monotonic", lambda: steady() + passed[0])

    def move(seconds):
        passed[0] += seconds

    return move


def test_the_signature_is_looked_at_once_a_minute(client, verified, clock):
    headers = bearer()
    statuses = [client.get(READ, headers=headers).status_code for _ in range(3)]
    assert (statuses, len(verified)) == ([200] * 3, 1)
    clock(61)
    assert client.get(READ, headers=headers).status_code == 200
    assert len(verified) == 2


def test_a_remembered_token_ends_when_it_says(client, clock):
    headers = bearer(exp=int(time.time()) + 30)
    assert client.get(READ, headers=headers).status_code == 200
    clock(31)
    assert client.get(READ, headers=headers).status_code == 401


def test_the_cache_distinguishes_signatures(client):
    """A token with the claims of a cached token but another signature is refused."""
    good = token()
    assert client.get(READ, headers={"Authorization": f"Bearer {good}"}).status_code == 200
    head, _, signature = good.rpartition(".")
    forged = f"{head}.{'A' * len(signature)}"
    for text in (forged, f"{head}.", head, good + "A"):
        assert client.get(READ, headers={"Authorization": f"Bearer {text}"}).status_code == 401


def test_what_is_refused_is_not_remembered(client, verified):
    headers = bearer(key="another key, also longer than 32 bytes")
    for _ in range(2):
        assert client.get(READ, headers=headers).status_code == 401
    assert len(verified) == 2


def test_each_token_keeps_its_own_tenant_and_scopes(client):
    event = {"id": "1", "agentId": "a", "issuedAt": "2026-04-01T00:00:00Z"}
    for _ in range(2):
        for tenant in ("org-a", "org-b"):
            answer = client.get(READ, headers=bearer(tenant))
            assert answer.json["tenantId"] == tenant
        reader, writer = bearer("org-a"), bearer("org-a", "events:write")
        for headers, status in ((reader, 403), (writer, 202), (reader, 403), (writer, 202)):
            assert client.post(EVENTS, json=[event], headers=headers).status_code == status


def test_memory_is_bounded_and_the_oldest_goes_first(monkeypatch):
    monkeypatch.setattr(token_cache, "MAX_TOKENS", 3)
    kept = TokenCache[int]()
    expiry = time.time() + 60
    for number in range(5):
        kept.put(str(number), number, expiry, kept.generation)
    kept.put("3", 33, expiry, kept.generation)
    kept.put("5", 5, expiry, kept.generation)
    assert [kept.get(str(number)) for number in range(6)] == [None, None, None, 33, 4, 5]
    kept.clear()
    assert kept.get("5") is None


def test_threads_at_once_neither_fail_nor_mix_tokens_up(monkeypatch):
    monkeypatch.setattr(token_cache, "MAX_TOKENS", 8)
    kept = TokenCache[int]()
    expiry = time.time() + 60

    def work(number):
        kept.put(str(number), number, expiry, kept.generation)
        return kept.get(str(number)) in {None, number}

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, list(range(50)) * 100))


def test_a_full_cache_takes_tokens_of_many_threads(monkeypatch):
    """A full cache never fails, although several threads make room in it at once."""
    monkeypatch.setattr(token_cache, "MAX_TOKENS", 2)
    kept = TokenCache[int]()
    expiry = time.time() + 60

    def work(number):
        for turn in range(300):
            kept.put(f"{number} {turn}", turn, expiry, kept.generation)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
    finally:
        sys.setswitchinterval(interval)
    assert len(vars(kept)["_entries"]) == 2


def test_a_cleared_cache_forgets_running_verifications():
    """A token whose verification began before the cache was cleared is not stored."""
    kept = TokenCache[int]()
    before = kept.generation
    kept.clear()
    kept.put("token", 1, time.time() + 60, before)
    assert kept.get("token") is None
    kept.put("token", 1, time.time() + 60, kept.generation)
    assert kept.get("token") == 1


LONG = {"scope": " ".join(f"s:{number}" for number in range(1500)) + " events:write"}
LONG_LIST = {"scope": ["events:write", *(f"s:{number}" for number in range(1500))]}
LONG_NAMES = {"sub": "s" * 4000, "client_id": "\U0001f600" * 2000, "jti": "j" * 2000}


@pytest.mark.parametrize("claims", [LONG, LONG_LIST, LONG_NAMES, LONG | LONG_NAMES])
def test_a_cached_token_takes_few_bytes(app, claims):
    """The cache keeps the scopes of this service and short names, however long a token is."""
    with app.app_context():
        caller = tokens.verify_token(token("\U0001f600" * 255, **claims))
    texts = [caller.tenant_id, caller.client_id, caller.subject, *caller.scopes]
    assert sum(map(sys.getsizeof, [*texts, caller.scopes])) < 4096
    # A token needs no scope for reads.
    assert caller.scopes == {"analytics:read"} | ({"events:write"} if "scope" in claims else set())


def test_no_token_is_kept_as_it_is(client):
    headers = bearer()
    client.get(READ, headers=headers)
    kept = client.application.extensions["analytics_token_cache"]
    assert headers["Authorization"].split()[1] not in repr(vars(kept))
