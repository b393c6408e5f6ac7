"""Fetching a key set: no request waits long, and a failed fetch keeps the known keys."""

import json
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from app import __version__
from app.auth import jwks as keys
from app.auth import tokens
from app.errors import UnavailableError
from app.factory import create_app
from app.provider_http import Answer
from tests.support.jwks_server import FAILING, HANGING, body, serving, silent
from tests.support.keys import signer
from tests.support.processes import poll
from tests.support.settings import NOW, make_settings

READ = "/api/v1/analytics/tokens"
RSA, NEW, STRANGER = (signer("RS256", kid) for kid in ("rsa", "new", "stranger"))
SHORT_SECONDS, LONG_SECONDS = 0.3, 60
# For a busy machine: far more than what is short, far less than what is long.
SOON_SECONDS = 15


@pytest.fixture
def provider():
    with serving(RSA.jwk()) as provider:
        yield provider


@pytest.fixture
def app(sqlite_url, provider, monkeypatch):
    """A service whose fetches may take their time."""
    monkeypatch.setattr(keys, "FETCH_SECONDS", LONG_SECONDS)
    yield from service(sqlite_url, provider)


@pytest.fixture
def hasty_client(sqlite_url, provider, monkeypatch):
    """A client of a service whose fetches may take little time, and start at once."""
    monkeypatch.setattr(keys, "FETCH_SECONDS", SHORT_SECONDS)
    monkeypatch.setattr(keys, "REFETCH_SECONDS", 0)
    for app in service(sqlite_url, provider):
        yield app.test_client()


@pytest.fixture
def stale(client, monkeypatch):
    """A service that has the keys, and from now on fetches them again with each request."""
    assert status(client, RSA) == 200
    monkeypatch.setattr(keys, "FRESH_SECONDS", 0)
    monkeypatch.setattr(keys, "REFETCH_SECONDS", 0)


def service(url, provider):
    app = create_app(make_settings(url, JWT_JWKS_URL=provider.url), clock=lambda: NOW)
    yield app
    app.extensions["analytics"].database.dispose()


def read(client, ours, **options):
    return client.get(READ, headers=ours.bearer(**options))


def status(client, ours, **options):
    return read(client, ours, **options).status_code


def check_unavailable(answer):
    assert (answer.status_code, answer.json["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert int(answer.headers["Retry-After"]) > 0
    assert "WWW-Authenticate" not in answer.headers


# No key was ever fetched


@pytest.mark.parametrize("way", HANGING.values(), ids=HANGING)
def test_a_hanging_first_fetch_is_503_soon(hasty_client, provider, way):
    """A request gets a 503 within seconds if the provider's first response never ends."""
    provider.answer = way
    began = time.monotonic()
    check_unavailable(read(hasty_client, RSA))
    assert time.monotonic() - began < SOON_SECONDS
    assert provider.fetches == 1


@pytest.mark.parametrize("way", FAILING.values(), ids=FAILING)
def test_a_failing_provider_is_503_until_it_recovers(hasty_client, provider, way):
    """Requests get a 503 until the provider returns a usable key set."""
    provider.answer = way
    check_unavailable(read(hasty_client, RSA))
    provider.answer = provider.publish
    assert poll(lambda: status(hasty_client, RSA), lambda code: code != 503) == 200


def test_a_redirect_to_a_key_set_is_not_followed(hasty_client, provider):
    with serving(RSA.jwk()) as elsewhere:
        for code in (301, 302, 303, 307, 308):
            provider.answer = body("", code, location=elsewhere.url)
            check_unavailable(read(hasty_client, RSA))
        assert (provider.fetches, elsewhere.fetches) == (5, 0)


@pytest.mark.parametrize("kid", [..., None, 1, ["rsa"]], ids=str)
def test_a_token_that_names_no_key_is_401_without_a_fetch(hasty_client, provider, kid):
    provider.answer = silent
    assert status(hasty_client, RSA, header={"kid": kid}) == 401
    assert provider.fetches == 0


def test_eight_requests_at_a_cold_start_succeed_with_one_fetch(app, provider):
    start = threading.Barrier(8)

    def slowly(exchange):
        exchange.pause(0.5)
        provider.publish(exchange)

    def attempt(_):
        start.wait(SOON_SECONDS)
        return status(app.test_client(), RSA)

    provider.answer = slowly
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(attempt, range(8))) == [200] * 8
    assert provider.fetches == 1


@pytest.mark.parametrize("way", HANGING.values(), ids=HANGING)
def test_a_hanging_fetch_does_not_block_the_next(hasty_client, provider, way):
    """A response that never ends does not prevent the next fetch."""
    provider.answer = way
    check_unavailable(read(hasty_client, RSA))
    provider.answer = provider.publish
    give_up = time.monotonic() + 10 * SHORT_SECONDS
    while (code := status(hasty_client, RSA)) == 503 and time.monotonic() < give_up:
        time.sleep(0.05)
    assert code == 200


# There are keys


@pytest.mark.usefixtures("stale")
@pytest.mark.parametrize("way", FAILING.values(), ids=FAILING)
def test_a_failing_provider_leaves_the_last_good_keys(client, provider, way):
    provider.answer = way
    # The second of these fetches begins when the first has ended.
    before = provider.fetches
    poll(lambda: (status(client, RSA), provider.fetches), lambda seen: seen[1] >= before + 2)
    assert [status(client, RSA), status(client, STRANGER)] == [200, 401]
    provider.keys, provider.answer = [NEW.jwk()], provider.publish
    assert poll(lambda: status(client, NEW), lambda code: code == 200)
    assert status(client, RSA) == 401


@pytest.mark.usefixtures("stale")
def test_a_redirect_leaves_the_last_good_keys(client, provider):
    with serving(STRANGER.jwk()) as elsewhere:
        provider.answer = body("", 302, location=elsewhere.url)
        before = provider.fetches
        poll(lambda: (status(client, RSA), provider.fetches), lambda seen: seen[1] >= before + 2)
        assert [status(client, RSA), status(client, STRANGER)] == [200, 401]
        assert elsewhere.fetches == 0


WITHDRAWN = {
    "empty": [],
    "for encryption": [NEW.jwk(use="enc")],
    "no kid": [NEW.jwk(kid=...)],
    "a secret": [{"kty": "oct", "kid": "new", "k": "AA"}],
}


@pytest.mark.usefixtures("stale")
@pytest.mark.parametrize("left", WITHDRAWN.values(), ids=WITHDRAWN)
def test_a_set_without_usable_keys_withdraws_all(client, provider, left):
    """A well-formed set is obeyed, even if it has no key that can verify a token."""
    provider.keys = left
    assert poll(lambda: status(client, RSA), lambda code: code != 200) == 401
    assert status(client, NEW) == 401
    provider.keys = [NEW.jwk()]
    assert poll(lambda: status(client, NEW), lambda code: code != 401) == 200
    assert status(client, RSA) == 401


def test_an_empty_first_set_is_503_until_there_are_keys(hasty_client, provider):
    """A provider that has published no key yet is not ready, so its writers try again."""
    provider.keys = []
    check_unavailable(read(hasty_client, RSA))
    provider.keys = [RSA.jwk()]
    assert poll(lambda: status(hasty_client, RSA), lambda code: code != 503) == 200


@pytest.mark.parametrize("way", FAILING.values(), ids=FAILING)
def test_keys_past_their_greatest_age_are_not_used(app, provider, monkeypatch, way):
    """While fetches fail, nobody can withdraw a key; so the last keys end after a day."""
    client = app.test_client()
    assert status(client, RSA) == 200
    monkeypatch.setattr(keys, "REFETCH_SECONDS", 0)
    monkeypatch.setattr(keys, "MAX_AGE_SECONDS", 0)
    monkeypatch.setattr(keys, "FRESH_SECONDS", 0)
    provider.answer = way
    check_unavailable(read(client, RSA))
    monkeypatch.setattr(keys, "MAX_AGE_SECONDS", LONG_SECONDS)
    provider.keys, provider.answer = [NEW.jwk()], provider.publish
    assert poll(lambda: status(client, NEW), lambda code: code != 401) == 200
    assert status(client, RSA) == 401


def test_a_key_set_of_almost_a_mebibyte_is_read(app, provider):
    """A key set may have a size of up to 1 MiB."""
    provider.keys = [RSA.jwk(x5c=["M" * (2**20 - 2000)])]
    assert status(app.test_client(), RSA) == 200


@pytest.mark.parametrize("way", HANGING.values(), ids=HANGING)
def test_a_fetch_ends_even_if_bytes_keep_coming(hasty_client, provider, way):
    """A fetch has a deadline for all of it, so that no provider can hold its thread."""
    provider.answer = way
    check_unavailable(read(hasty_client, RSA))
    poll(fetch_threads, lambda running: not running)


def fetch_threads():
    return [thread for thread in threading.enumerate() if thread.name == "jwks"]


def test_a_fetch_names_the_service_as_its_user_agent(app, provider):
    """The provider's log shows which program fetches its keys, and in which version."""
    assert status(app.test_client(), RSA) == 200
    assert provider.agents == [f"agentidp-analytics/{__version__}"]


@pytest.mark.usefixtures("stale")
@pytest.mark.parametrize("way", HANGING.values(), ids=HANGING)
def test_requests_use_known_keys_during_a_fetch(client, provider, way):
    """While a fetch runs, requests are verified with the known keys and do not wait."""
    provider.answer = way
    before, began = provider.fetches, time.monotonic()
    assert status(client, RSA) == 200
    poll(lambda: provider.fetches, lambda fetches: fetches == before + 1)
    assert [status(client, RSA), status(client, STRANGER), status(client, RSA)] == [200, 401, 200]
    assert time.monotonic() - began < SOON_SECONDS
    assert provider.fetches == before + 1


def test_a_fresh_key_leads_to_no_fetch(client, provider):
    assert [status(client, RSA) for _ in range(5)] == [200] * 5
    assert provider.fetches == 1


def test_a_fetch_empties_the_token_cache(client, provider, monkeypatch):
    """A cached token of a withdrawn key is refused once the new keys are fetched."""
    monkeypatch.setattr(keys, "REFETCH_SECONDS", 0)
    cached = RSA.bearer()
    assert client.get(READ, headers=cached).status_code == 200
    provider.keys = [NEW.jwk()]
    assert status(client, NEW) == 200
    assert client.get(READ, headers=cached).status_code == 401


def test_a_token_verified_during_a_withdrawal_is_not_cached(app, provider, monkeypatch):
    """A verification that began before a withdrawal leaves nothing in the token cache."""
    monkeypatch.setattr(keys, "REFETCH_SECONDS", 0)
    client, withdrawn = app.test_client(), RSA.bearer()
    decode = tokens.decode_token

    def slowly(text):
        decoded = decode(text)
        monkeypatch.setattr(tokens, "decode_token", decode)
        provider.keys = [NEW.jwk()]
        assert status(app.test_client(), NEW) == 200  # fetches the new keys
        return decoded

    monkeypatch.setattr(tokens, "decode_token", slowly)
    assert client.get(READ, headers=withdrawn).status_code == 200
    assert client.get(READ, headers=withdrawn).status_code == 401


def test_a_late_fetch_does_not_undo_a_newer_one(monkeypatch):
    """A fetch that was given up and ends after a newer one leaves the newer keys."""
    monkeypatch.setattr(keys, "FETCH_SECONDS", 0)
    monkeypatch.setattr(keys, "REFETCH_SECONDS", 0)
    threads, asked, fetched = [], threading.Event(), threading.Event()

    def fetch(*_):
        is_newer = bool(threads)
        threads.append(threading.current_thread())
        asked.set()
        if is_newer:
            return answer([NEW.jwk()])
        assert fetched.wait(SOON_SECONDS)
        return answer([RSA.jwk()])

    def answer(members):
        return Answer(200, {}, json.dumps({"keys": members}).encode())

    monkeypatch.setattr(keys, "fetch", fetch)
    certificates = ssl.create_default_context()
    found = keys.KeySet("https://idp.example/jwks", certificates, on_fetch=fetched.set)
    with pytest.raises(UnavailableError):
        found.find(RSA.kid)
    assert asked.wait(SOON_SECONDS)
    with suppress(UnavailableError):  # the newer fetch may end in time
        found.find(NEW.kid)
    assert fetched.wait(SOON_SECONDS)
    threads[0].join(SOON_SECONDS)
    monkeypatch.setattr(keys, "REFETCH_SECONDS", LONG_SECONDS)
    assert found.find(NEW.kid) is not None
    assert found.find(RSA.kid) is None
