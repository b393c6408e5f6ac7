"""Signatures of messages, checked by an independent implementation, and derived secrets."""

from datetime import UTC, datetime, timedelta

import pytest

from app.alerts import signing
from app.alerts.signing import Rotation, SigningKeys, secret_of, signed_headers
from tests.support.receivers import Received, verified

NOW = datetime(2026, 4, 15, 12, tzinfo=UTC)
FIRST = Rotation("org-a", "8Rn3YdWc0UaL", 1, None)
KEYS = SigningKeys("k" * 32)


def sent(keys, rotation, now=NOW, body=b"{}"):
    return Received(signed_headers(keys, rotation, "m.1", body, now), body)


def check(secret, received):
    return verified(secret, received, now=NOW.timestamp())


def test_the_independent_check_knows_the_example_of_the_specification():
    """The example of the libraries of Standard Webhooks, with its secret and signature."""
    body = b'{"test": 2432232314}'
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    assert verified(secret, Received(headers, body), now=1614265330)
    assert not verified(secret, Received(headers, body + b" "), now=1614265330)


def test_a_signature_verifies_and_is_of_this_message():
    secret = secret_of(KEYS, FIRST)
    received = sent(KEYS, FIRST)
    assert secret.startswith("whsec_")
    assert check(secret, received)
    for name, text in (("webhook-id", "m.2"), ("webhook-timestamp", "1776254401")):
        assert not check(secret, Received(received.headers | {name: text}, received.body))
    assert not check(secret, Received(received.headers, b"[]"))


@pytest.mark.parametrize(
    "other",
    [
        FIRST._replace(tenant_id="org-b"),
        FIRST._replace(endpoint_id="8Rn3YdWc0UaM"),
        FIRST._replace(number=2),
        FIRST._replace(tenant_id="org-a8", endpoint_id="Rn3YdWc0UaL"),
    ],
)
def test_each_endpoint_and_rotation_has_a_secret_of_its_own(other):
    assert secret_of(KEYS, other) != secret_of(KEYS, FIRST)
    assert not check(secret_of(KEYS, FIRST), sent(KEYS, other))


def test_the_former_secret_is_valid_for_a_day():
    for age, is_valid in ((timedelta(hours=23), True), (timedelta(hours=25), False)):
        received = sent(KEYS, FIRST._replace(number=2, since=NOW - age))
        assert check(secret_of(KEYS, FIRST), received) is is_valid
        assert check(secret_of(KEYS, FIRST._replace(number=2)), received)


def test_a_former_secret_key_still_signs():
    """So SECRET_KEY can be changed before each receiver knows its new secret."""
    changed = SigningKeys("n" * 32, (KEYS.current,))
    received = sent(changed, FIRST)
    assert check(secret_of(KEYS, FIRST), received)
    assert check(secret_of(changed, FIRST), received)
    assert not check(secret_of(KEYS, FIRST), sent(SigningKeys("n" * 32), FIRST))


def test_a_secret_does_not_change_with_a_new_release():
    """It is not stored, so a receiver would notice."""
    assert signing.secret_of(KEYS, FIRST) == "whsec_wsYvZxIXTeKxBKrraIcCp+4QejLwkS4g/7vBjmT3yr4="
