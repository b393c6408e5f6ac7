"""Access tokens: verify one and return its caller, or mint one for development.

A token is an OAuth access token of the identity provider. flask-jwt-extended checks signature,
times, issuer and audience. This module and :mod:`app.auth.claims` check the header and the claims
that the library accepts unchecked (RFC 8725; RFC 9068, 4).
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import jwt
from flask import Flask, current_app
from flask_jwt_extended import JWTManager, create_access_token, decode_token
from flask_jwt_extended.exceptions import JWTExtendedException
from jwt import exceptions

from app.auth import claims as reading
from app.auth.jwks import ALGORITHMS, KeySet
from app.auth.token_cache import TokenCache
from app.config.settings import Settings
from app.errors import ForbiddenError, RefusedError, UnauthorizedError
from app.provider_http import trusted_certificates
from app.telemetry import metrics

CLOCK_SKEW_SECONDS = 10
TOKEN_SYNTAX = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, 2.1

_EXTENSION = "analytics_token_verifier"
_CACHE = "analytics_token_cache"
# 9999-12-31. A later expiry is a mistake, or an attempt to overflow a clock.
_MAX_EXPIRY = 253_402_300_799

# Header and claims are untrusted JSON. Numbers out of range and deep nesting cause errors in the
# parser or in arithmetic, which the libraries do not turn into their own errors.
_VERIFICATION_ERRORS = (
    exceptions.PyJWTError,
    JWTExtendedException,
    ValueError,
    TypeError,
    ArithmeticError,
    RecursionError,
)
_CAUSES: tuple[tuple[type[Exception], str], ...] = (
    (exceptions.InvalidAlgorithmError, "algorithm"),
    (exceptions.InvalidSignatureError, "signature"),
    (exceptions.ExpiredSignatureError, "claim exp"),
    (exceptions.InvalidAudienceError, "claim aud"),
    (exceptions.InvalidIssuerError, "claim iss"),
    (JWTExtendedException, "claim exp"),  # the only claim that the library requires
    (exceptions.DecodeError, "malformed"),
    (exceptions.InvalidTokenError, "header"),
)
# The claim of time that another error is about. Its texts hold no value of the token.
_TIME_CLAIM = re.compile(r"\((exp|nbf|iat)\)")
_INVALID = "the token is invalid; use a new access token"


@dataclass(frozen=True)
class Caller:
    """The caller of a request: the claims of a verified token, or the owner of a verified key.

    ``tenant_id`` is ``None`` without an organization claim. ``client_id`` is the OAuth client
    that the token was issued to, or ``key:`` and the id of the key. ``subject`` is ``sub``: the
    person who signed in, or the client again. ``expires`` is in Unix seconds. All texts are short,
    because callers are cached.
    """

    tenant_id: str | None
    scopes: frozenset[str]
    client_id: str
    subject: str
    expires: float


@dataclass(frozen=True)
class _Verifier:
    """How the tokens of this service are verified."""

    settings: Settings
    find_key: Callable[[Mapping[str, Any]], Any]

    @property
    def scope_claims(self) -> tuple[str, ...]:
        """The names of the claim with the scopes; the first that is present counts."""
        return _scope_claims(self.settings)


def _scope_claims(settings: Settings) -> tuple[str, ...]:
    return (settings.jwt_scope_claim,) if settings.jwt_scope_claim else ("scope", "scp")


def init_app(app: Flask, settings: Settings) -> None:
    """Configure flask-jwt-extended with the keys, issuer and audience of ``settings``.

    Raises:
        SettingsError: a file of certificates is invalid.
    """
    cache = TokenCache[Caller]()
    app.extensions[_CACHE] = cache
    if settings.provider is not None:
        trusted_certificates(settings)  # an invalid file stops the start, and not the first sign-in
    algorithms, find_key = _key_source(settings, cache.clear)
    app.extensions[_EXTENSION] = _Verifier(settings, find_key)
    app.config.update(
        JWT_TOKEN_LOCATION=["headers"],
        # The library requires the claim with this name. This service requires only exp.
        JWT_IDENTITY_CLAIM="exp",
        JWT_SECRET_KEY=settings.jwt_secret_key,
        # Both are set. By default the first is HS256, which would also be accepted. A public key
        # could then be used as an HMAC secret.
        JWT_ALGORITHM=algorithms[0],
        JWT_DECODE_ALGORITHMS=list(algorithms),
        JWT_DECODE_ISSUER=settings.jwt_issuer,
        JWT_ENCODE_ISSUER=settings.jwt_issuer,
        JWT_DECODE_AUDIENCE=settings.jwt_audiences,
        JWT_ENCODE_AUDIENCE=settings.jwt_audiences and settings.jwt_audiences[0],
        # For iat and nbf only: _caller_of() checks the expiry to the second.
        JWT_DECODE_LEEWAY=CLOCK_SKEW_SECONDS,
        # Some providers use numbers, and nothing depends on the claim.
        JWT_VERIFY_SUB=False,
    )

    def decode_key(header: dict[str, Any], _claims: dict[str, Any]) -> Any:
        reading.check_header(header, require_at_jwt=settings.require_at_jwt)
        return find_key(header)

    JWTManager(app).decode_key_loader(decode_key)


def _key_source(
    settings: Settings, on_fetch: Callable[[], object]
) -> tuple[Sequence[str], Callable[[Mapping[str, Any]], Any]]:
    """The accepted algorithms, and a function from a token's unverified header to its key."""
    if settings.jwt_jwks_url is not None:
        certificates = trusted_certificates(settings)
        keys = KeySet(settings.jwt_jwks_url, certificates, on_fetch)

        def find_key(header: Mapping[str, Any]) -> Any:
            kid = header.get("kid")
            if not isinstance(kid, str):
                raise UnauthorizedError(_INVALID, cause="header kid")
            found = keys.find(kid)
            if found is None:
                raise UnauthorizedError(_INVALID, cause="unknown kid")
            algorithm = header.get("alg")
            # The PyJWK is returned, not its bare key: it allows only its own algorithm.
            key = found.get(algorithm) if isinstance(algorithm, str) else None
            if key is None:
                raise UnauthorizedError(_INVALID, cause="algorithm")
            return key

        return ALGORITHMS, find_key
    if settings.jwt_public_key is not None:
        public = settings.jwt_public_key
        return [public.algorithm], lambda _header: public.key
    return ["HS256"], lambda _header: settings.jwt_secret_key


def verify_token(token: str) -> Caller:
    """Verify an access token and return its caller.

    Raises:
        UnauthorizedError: the token is invalid.
        ForbiddenError: its organization claim is invalid.
        UnavailableError: no keys have been fetched to verify it.
    """
    cache: TokenCache[Caller] = current_app.extensions[_CACHE]
    caller = cache.get(token) if TOKEN_SYNTAX.fullmatch(token) else None
    if caller is None:
        generation = cache.generation
        caller = _verified_caller(token, is_access=False)
        cache.put(token, caller, caller.expires, generation)
    return caller


def verify_issued_token(token: str) -> Caller:
    """Verify the access token of a sign-in: the token endpoint itself has said what it is.

    So it may have claims that otherwise only ID tokens have: some providers repeat the nonce of the
    sign-in. The token is not cached, because the API would refuse it.

    Raises:
        UnauthorizedError, ForbiddenError, UnavailableError: as for :func:`verify_token`.
    """
    return _verified_caller(token, is_access=True)


def tenant_of(caller: Caller) -> str:
    """The organization of a caller, which is required here.

    Raises:
        ForbiddenError: the token has no organization claim.
    """
    if caller.tenant_id is None:
        raise ForbiddenError(
            "the token or key has no organization; use one of one organization",
            cause="no organization",
        )
    return caller.tenant_id


def mint_token(
    settings: Settings, organization: str, scopes: Sequence[str], expires: timedelta
) -> str:
    """Sign a token for development with ``JWT_SECRET_KEY``.

    Raises:
        RefusedError: the service verifies tokens with an identity provider's keys.
    """
    if settings.jwt_secret_key is None:
        raise RefusedError(
            "tokens cannot be minted with an identity provider's keys; set JWT_SECRET_KEY instead"
        )
    claims: dict[str, Any] = {"sub": "development", "client_id": "development"}
    reading.set_claim(claims, _scope_claims(settings)[0], " ".join(scopes))
    reading.set_claim(claims, settings.jwt_organization_claim, organization)
    # The library signs with the configuration of an application; that of a command has none.
    app = Flask("tokens")
    init_app(app, settings)
    with app.app_context():
        token: str = create_access_token(
            identity=None,
            expires_delta=expires,
            additional_claims=claims,
            additional_headers={"typ": "at+jwt"},
        )
    return token


def _verified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The header and the claims of a token with a valid signature, issuer and audience.

    Raises:
        UnauthorizedError: the token is invalid.
        UnavailableError: no keys have been fetched to verify it.
    """
    try:
        try:
            decode_token(token)
        except exceptions.InvalidJTIError:
            _verify_with_any_jti(token)
        # The library adds claims of its own, such as a type. Only what was signed counts.
        verified = jwt.decode_complete(token, options={"verify_signature": False})
    except _VERIFICATION_ERRORS as error:
        raise UnauthorizedError(_INVALID, cause=_cause(error)) from None
    return verified["header"], verified["payload"]


def _verify_with_any_jti(token: str) -> None:
    """Verify a token whose ``jti`` is not text, from the beginning.

    Some providers use numbers, and nothing depends on the claim. flask-jwt-extended has no option
    for this, unlike for ``sub``, so PyJWT is called with the same rules.
    """
    verifier = _verifier()
    key = verifier.find_key(jwt.get_unverified_header(token))
    jwt.decode(
        token,
        key,
        algorithms=current_app.config["JWT_DECODE_ALGORITHMS"],
        issuer=verifier.settings.jwt_issuer,
        audience=verifier.settings.jwt_audiences,
        leeway=CLOCK_SKEW_SECONDS,
        options={
            "verify_aud": verifier.settings.jwt_audiences is not None,
            "verify_sub": False,
            "verify_jti": False,
        },
    )


def _verified_caller(token: str, *, is_access: bool) -> Caller:
    try:
        return _caller_of(token, is_access=is_access)
    except (UnauthorizedError, ForbiddenError) as error:
        metrics.count_refused_token(error.cause)
        raise


def _caller_of(token: str, *, is_access: bool) -> Caller:
    verifier = _verifier()
    if not TOKEN_SYNTAX.fullmatch(token):
        raise UnauthorizedError(_INVALID, cause="malformed")
    header, claims = _verified(token)
    expiry = claims.get("exp")
    # bool is an int in Python; NaN and infinity fail the comparison.
    if isinstance(expiry, bool) or not isinstance(expiry, int | float) or not expiry <= _MAX_EXPIRY:
        raise UnauthorizedError(
            "the token has no valid `exp` claim; use a token that expires", cause="claim exp"
        )
    if expiry <= time.time():
        raise UnauthorizedError("the token has expired; use a new one", cause="claim exp")
    reading.check_kind_claims(claims)
    if not is_access:
        reading.check_signs_of_kind(header, claims)
    client_id = reading.text_of(claims, "client_id", "azp", "sub")
    return Caller(
        reading.organization_of(claims, verifier.settings.jwt_organization_claim),
        # With a token, reads need no scope.
        reading.scopes_of(claims, verifier.scope_claims) | {reading.ANALYTICS_READ},
        client_id,
        reading.text_of(claims, "sub") or client_id,
        expiry,
    )


def _verifier() -> _Verifier:
    found: _Verifier = current_app.extensions[_EXTENSION]
    return found


def _cause(error: Exception) -> str:
    """Why the libraries refused a token, in words that hold nothing of the token."""
    if isinstance(error, exceptions.MissingRequiredClaimError):
        return f"claim {error.claim}"
    found = _TIME_CLAIM.search(str(error)) if isinstance(error, exceptions.PyJWTError) else None
    if found:
        return f"claim {found[1]}"
    return next((cause for kind, cause in _CAUSES if isinstance(error, kind)), "malformed")
