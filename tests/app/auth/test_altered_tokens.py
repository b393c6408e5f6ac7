"""An altered, cut, expired or premature token is refused."""

import string
import time

import pytest

from tests.support.keys import signer
from tests.support.services import service_of
from tests.support.settings import make_settings
from tests.support.tokens import token

READ = "/api/v1/analytics/tokens"
ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
OURS = {"JWT_SECRET_KEY": None, "JWT_PUBLIC_KEY": signer("ES256")}


@pytest.fixture(scope="module", params=OURS)
def ours(request):
    """The holder of the key, ``None`` for the secret, by the variable that names it."""
    return OURS[request.param]


@pytest.fixture(scope="module")
def app(shared_sqlite_url, ours):
    """One service for a whole kind of key: nothing is ever stored."""
    keys = {"JWT_PUBLIC_KEY": ours.pem} if ours else {}
    with service_of(make_settings(shared_sqlite_url, **keys)) as app:
        yield app


@pytest.fixture
def issue_token(ours):
    return ours.token if ours else token


@pytest.fixture
def status(client):
    """The status of a read with a token; a refusal is checked for its form."""

    def status(text):
        answer = client.get(READ, headers={"Authorization": f"Bearer {text}"})
        if answer.status_code != 200:
            assert answer.json["code"] == "UNAUTHORIZED"
            assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
        return answer.status_code

    return status


def flipped(character):
    """Another of base64's characters, the highest of its six bits turned: no bit that is unused."""
    return ALPHABET[ALPHABET.index(character) ^ 32]


def test_a_token_with_any_one_character_changed_is_401(status, issue_token):
    text = issue_token()
    assert status(text) == 200
    for place, character in enumerate(text):
        if character != ".":
            changed = text[:place] + flipped(character) + text[place + 1 :]
            assert (place, status(changed)) == (place, 401)


def test_a_missing_or_doubled_character_is_401(status, issue_token):
    """A token with one character missing or doubled is refused with 401."""
    text = issue_token()
    for place in range(0, len(text), 7):
        assert (place, status(text[:place] + text[place + 1 :])) == (place, 401)
        assert (place, status(text[:place] + text[place] + text[place:])) == (place, 401)


PARTS = [
    *("{0}", "{0}.{1}", "{0}.{1}.", "{0}..{2}", ".{1}.{2}", "..", "."),
    *("{0}.{1}.{2}.", ".{0}.{1}.{2}", "{0}.{1}.{2}.{2}", "{0}.{0}.{1}.{2}", "{0}.{1}.{2}.{0}.{1}"),
]


@pytest.mark.parametrize("parts", PARTS)
def test_a_token_of_other_than_three_whole_parts_is_401(status, issue_token, parts):
    assert status(parts.format(*issue_token().split("."))) == 401


@pytest.mark.parametrize("claim", ["nbf", "iat"])
def test_ten_seconds_of_clock_skew_are_accepted(status, issue_token, claim):
    """A token from a clock ten seconds ahead of ours is accepted; a later one is refused."""
    # A second is lost to rounding, the others to a busy machine.
    for ahead, expected in [(8, 200), (14, 401), (60, 401)]:
        text = issue_token(**{claim: int(time.time()) + ahead})
        assert (ahead, status(text)) == (ahead, expected)


@pytest.mark.parametrize("ago", [1, 5, 9, 60])
def test_an_expiry_is_forgiven_by_no_clock(status, issue_token, ago):
    assert status(issue_token(exp=int(time.time()) - ago)) == 401
