"""ID tokens and logout tokens of the identity provider: which are accepted, and why not.

PyJWT verifies signature and times. The rules of OpenID Connect (Core 1.0, 3.1.3.7; Back-Channel
Logout 1.0, 2.6) are here, because each has its own cause in the log.
"""

import base64
import hmac
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from hashlib import sha256, sha384, sha512
from typing import Any

import jwt
from jwt import PyJWK, exceptions

from app.auth.provider import MAX_TOKEN_BYTES, RefusedAnswerError
from app.config.parsing import Provider
from app.ids import is_id

CLOCK_SKEW_SECONDS = 10
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
# A logout token without an expiry is accepted this long.
LOGOUT_SECONDS = 300

_ID_TOKEN, _LOGOUT_TOKEN = "ID token", "logout token"
# Without a kid, each key of the algorithm is tried.
_MAX_TRIED = 10
_HASHES: dict[str, Callable[[bytes], Any]] = {"256": sha256, "384": sha384, "512": sha512}
_ERRORS = (exceptions.PyJWTError, ValueError, TypeError, ArithmeticError, RecursionError)
_WORDS: tuple[tuple[type[Exception], str], ...] = (
    (exceptions.ExpiredSignatureError, "claim exp is over"),
    (exceptions.InvalidSignatureError, "the signature is wrong"),
    (exceptions.InvalidAlgorithmError, "the algorithm is not accepted"),
    (exceptions.DecodeError, "malformed"),
)

Claims = dict[str, Any]


def verify_id_token(  # noqa: PLR0913 - what the token is compared with
    token: str,
    keys: Sequence[PyJWK],
    algorithms: Collection[str],
    provider: Provider,
    *,
    nonce: str | None,
    subject: str | None = None,
    access_token: str | None = None,
) -> Claims:
    """The claims of an ID token for this client.

    Args:
        nonce: of the sign-in; ``None`` for a token that a renewal brought, which has none.
        subject: the person who signed in before, for a renewal.
        access_token: the access token beside it, for ``at_hash``.

    Raises:
        RefusedAnswerError: the token is not accepted; the text is the cause.
    """
    refuse = _Refusal(_ID_TOKEN)
    header, claims = _verified(token, keys, algorithms, _ID_TOKEN)
    if str(header.get("typ", "JWT")).lower() not in ("jwt", "id_token+jwt"):
        refuse("header typ is of another kind")
    _check_issuer_and_audience(claims, provider, refuse)
    if not is_id(claims.get("sub")):
        refuse("claim sub is not text of 1 to 255 characters")
    if subject is not None and claims["sub"] != subject:
        refuse("claim sub is another person")
    if nonce is not None:
        _check_nonce(claims, nonce, refuse)
    if "at_hash" in claims and access_token is not None:
        expected = _half_hash(access_token, str(header["alg"]))
        if not hmac.compare_digest(str(claims["at_hash"]).encode("utf-8", "replace"), expected):
            refuse("claim at_hash is of another access token")
    return claims


def read_logout_token(token: str) -> tuple[Mapping[str, Any], Claims]:
    """The header and the claims of a logout token that is not verified yet.

    Raises:
        RefusedAnswerError: it is none.
    """
    header, claims = _unverified(token, _LOGOUT_TOKEN)
    return header, claims


def check_logout_claims(header: Mapping[str, Any], claims: Claims, provider: Provider) -> None:
    """Check what a logout token says, apart from its signature.

    Raises:
        RefusedAnswerError: it is of another kind, for another client, or not of this moment.
    """
    refuse = _Refusal(_LOGOUT_TOKEN)
    if str(header.get("typ", "JWT")).lower() not in ("jwt", "logout+jwt"):
        refuse("header typ is of another kind")
    _check_issuer_and_audience(claims, provider, refuse)
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(LOGOUT_EVENT), dict):
        refuse("claim events does not name a logout")
    if "nonce" in claims:
        refuse("claim nonce is not allowed")
    if not is_id(claims.get("jti")):
        refuse("claim jti is missing")
    if not any(is_id(claims.get(name)) for name in ("sid", "sub")):
        refuse("claims sid and sub are missing")
    issued, now = claims.get("iat"), time.time()
    if isinstance(issued, bool) or not isinstance(issued, int | float):
        refuse("claim iat is missing")
    elif not now - LOGOUT_SECONDS <= issued <= now + CLOCK_SKEW_SECONDS:
        refuse("claim iat is not of this moment")


def verify_logout_token(
    token: str, keys: Sequence[PyJWK], algorithms: Collection[str], provider: Provider
) -> Claims:
    """The claims of a logout token for this client.

    A repeated token is harmless, so its ``jti`` is not kept: it ends sessions that began before it.

    Raises:
        RefusedAnswerError: the token is not accepted; the text is the cause.
    """
    header, claims = _verified(token, keys, algorithms, _LOGOUT_TOKEN, required=("iat",))
    check_logout_claims(header, claims, provider)
    return claims


class _Refusal:
    """Raises a refusal whose cause begins with the kind of token."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __call__(self, cause: str) -> None:
        raise RefusedAnswerError(f"{self._kind}: {cause}")


def _check_nonce(claims: Claims, nonce: str, refuse: _Refusal) -> None:
    given = claims.get("nonce")
    if not isinstance(given, str):
        refuse("claim nonce is missing")
    elif not hmac.compare_digest(given.encode("utf-8", "replace"), nonce.encode()):
        refuse("claim nonce is of another sign-in")


def _check_issuer_and_audience(claims: Claims, provider: Provider, refuse: _Refusal) -> None:
    if "iss" not in claims:
        refuse("claim iss is missing")
    if claims["iss"] != provider.issuer:
        refuse("claim iss is another provider")
    audiences = claims.get("aud")
    if audiences is None:
        refuse("claim aud is missing")
    named = audiences if isinstance(audiences, list) else [audiences]
    if provider.client_id not in named:
        refuse("claim aud is another client")
    party = claims.get("azp")
    if party is None and len(named) > 1:
        refuse("claim azp is missing beside several audiences")
    if party is not None and party != provider.client_id:
        refuse("claim azp is another client")


def _unverified(token: str, kind: str) -> tuple[dict[str, Any], Claims]:
    if len(token) > MAX_TOKEN_BYTES:
        raise RefusedAnswerError(f"{kind}: too long")
    try:
        found = jwt.decode_complete(token, options={"verify_signature": False})
    except _ERRORS:
        raise RefusedAnswerError(f"{kind}: malformed") from None
    return found["header"], found["payload"]


def _verified(
    token: str,
    keys: Sequence[PyJWK],
    algorithms: Collection[str],
    kind: str,
    required: Sequence[str] = ("exp", "iat"),
) -> tuple[dict[str, Any], Claims]:
    """The header and the claims of a token that a key of the provider has signed."""
    header, _ = _unverified(token, kind)
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise RefusedAnswerError(f"{kind}: the algorithm is not accepted")
    if "crit" in header:
        raise RefusedAnswerError(f"{kind}: header crit")
    named = [key for key in keys if kid is None or key.key_id == kid]
    fitting = [key for key in named if key.algorithm_name == algorithm][:_MAX_TRIED]
    if not fitting:
        cause = "the algorithm is not that of the key" if named else "the kid is unknown"
        raise RefusedAnswerError(f"{kind}: {cause}")
    options: Any = {
        "require": list(required),
        **{f"verify_{name}": False for name in ("aud", "iss", "sub", "jti")},
    }
    failure: Exception | None = None
    for key in fitting:
        try:
            claims: Claims = jwt.decode(
                token, key, algorithms=[algorithm], options=options, leeway=CLOCK_SKEW_SECONDS
            )
        except exceptions.InvalidSignatureError as error:
            failure = error
        except _ERRORS as error:
            raise RefusedAnswerError(f"{kind}: {_words(error)}") from None
        else:
            return header, claims
    raise RefusedAnswerError(f"{kind}: {_words(failure)}")


def _words(error: Exception | None) -> str:
    """Why PyJWT refused a token, in words that hold nothing of it."""
    if isinstance(error, exceptions.MissingRequiredClaimError):
        return f"claim {error.claim} is missing"
    if isinstance(error, exceptions.ImmatureSignatureError):
        return f"claim {'iat' if 'iat' in str(error) else 'nbf'} is in the future"
    return next((words for kind, words in _WORDS if isinstance(error, kind)), "malformed")


def _half_hash(access_token: str, algorithm: str) -> bytes:
    """The left half of an access token's hash (OpenID Connect Core 1.0, 3.1.3.6)."""
    digest = _HASHES.get(algorithm[-3:], sha512)(access_token.encode()).digest()
    return base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=")
