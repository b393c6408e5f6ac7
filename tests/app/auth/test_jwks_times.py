"""How long a key set keeps anybody waiting, in real time and as it is deployed."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.factory import create_app
from tests.support.jwks_server import serving, silent, trickle_body
from tests.support.keys import signer
from tests.support.settings import NOW, make_settings

READ = "/api/v1/analytics/tokens"
OLD, NEW = signer("RS256", "old"), signer("RS256", "new")
TIMEOUT_SECONDS, ROTATION_SECONDS = 3, 5
# What a busy machine adds.
SLACK_SECONDS, PATIENCE_SECONDS = 3, 25


@pytest.fixture
def provider():
    with serving(OLD.jwk()) as provider:
        yield provider


@pytest.fixture
def app(sqlite_url, provider):
    app = create_app(make_settings(sqlite_url, JWT_JWKS_URL=provider.url), clock=lambda: NOW)
    yield app
    app.extensions["analytics"].database.dispose()


@pytest.fixture
def status(app):
    """The status of a read, through a client of the caller's thread."""

    def status(ours, **options):
        return app.test_client().get(READ, headers=ours.bearer(**options)).status_code

    return status


@pytest.mark.parametrize(
    "way",
    [pytest.param(silent, marks=pytest.mark.slow), trickle_body],
    ids=["silent", "trickling"],
)
def test_a_hanging_provider_delays_a_request_by_its_timeout(status, provider, way):
    """A request waits three seconds for a hanging provider, then gets a 503."""
    provider.answer = way
    began = time.monotonic()
    assert status(OLD) == 503
    spent = time.monotonic() - began
    assert TIMEOUT_SECONDS - 1 < spent < TIMEOUT_SECONDS + SLACK_SECONDS


def test_a_provider_that_takes_its_time_is_waited_for(status, provider):
    def slowly(exchange):
        exchange.pause(1)
        provider.publish(exchange)

    provider.answer = slowly
    assert status(OLD) == 200


def test_a_rotated_key_is_accepted_within_five_seconds(status, provider):
    """The new key is accepted within five seconds, and the withdrawn key is then refused.

    A busy machine may have stopped meanwhile, so one rotation of three is enough.
    """
    assert status(OLD) == 200
    withdrawn, seconds = OLD, []
    for key in (NEW, signer("RS256", "newer"), signer("RS256", "newest")):
        provider.keys = [key.jwk()]
        began = time.monotonic()
        while status(key) != 200:
            assert time.monotonic() - began < ROTATION_SECONDS + PATIENCE_SECONDS
            time.sleep(0.1)
        seconds.append(time.monotonic() - began)
        assert status(withdrawn) == 401
        if seconds[-1] < ROTATION_SECONDS:
            break
        withdrawn = key
    assert min(seconds) < ROTATION_SECONDS


def test_fifty_invented_kids_lead_to_one_more_fetch_at_most(status, provider):
    assert status(OLD) == 200
    with ThreadPoolExecutor(8) as pool:
        invented = [{"header": {"kid": f"invented-{number}"}} for number in range(50)]
        began = time.monotonic()
        codes = list(pool.map(lambda options: status(OLD, **options), invented))
    assert codes == [401] * 50
    # One more for each interval that begins meanwhile, on a busy machine.
    assert provider.fetches <= 2 + (time.monotonic() - began) // TIMEOUT_SECONDS
