"""Access tokens: verify one and return its caller, or mint one for development.

A token is an OAuth access token of the identity provider. flask-jwt-extended checks signature,
issuer and audience. This module checks the header and the claims that the library accepts
unchecked (RFC 8725; RFC 9068, 4).
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from flask import Flask, current_app
from flask_jwt_extended import JWTManager, create_access_token, decode_token
from flask_jwt_extended.exceptions import JWTExtendedException
from jwt.exceptions import InvalidTokenError, PyJWTError

from app.auth.jwks import ALGORITHMS, KeySet
from app.auth.provider_http import trusted_certificates
from app.auth.token_cache import TokenCache
from app.config.settings import Settings
from app.errors import ForbiddenError, RefusedError, UnauthorizedError
from app.ids import is_id

EVENTS_WRITE, EVENTS_WRITE_ANY = "events:write", "events:write:any"
AGENTS_WRITE = "agents:write"
CLOCK_SKEW_SECONDS = 10
TOKEN_SYNTAX = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, 2.1

_EXTENSION = "analytics_token_cache"
# 9999-12-31. A later expiry is a mistake, or an attempt to overflow a clock.
_MAX_EXPIRY = 253_402_300_799

# Header and claims are untrusted JSON. Numbers out of range and deep nesting cause errors in the
# parser or in arithmetic, which the libraries do not turn into their own errors.
_VERIFICATION_ERRORS = (
    PyJWTError,
    JWTExtendedException,
    ValueError,
    TypeError,
    ArithmeticError,
    RecursionError,
)

_HEADER_TYPES = ("jwt", "at+jwt", "application/at+jwt")
# Header members that choose a key, or (crit) demand rules that this service does not know.
_REFUSED_MEMBERS = ("jku", "jwk", "x5u", "x5c", "crit")
# The issuer signs other kinds of token with the same keys. Cognito names the kind in token_use,
# Keycloak in typ (its Offline tokens are refresh tokens), others in type.
_KIND_CLAIMS = ("token_use", "typ", "type")
_OTHER_KIND = re.compile(r"(id|refresh|offline|logout)([ _-]?token)?", re.IGNORECASE)
_INVALID = "the token is invalid; use a new access token"


@dataclass(frozen=True)
class Caller:
    """The caller of a request: the claims of a verified token.

    ``tenant_id`` is ``None`` without an organization claim. ``client_id`` is the OAuth client
    that the token was issued to. ``subject`` is ``sub``: the person who signed in, or the client
    again. ``expires`` is in Unix seconds.
    """

    tenant_id: str | None
    scopes: frozenset[str]
    client_id: str
    subject: str
    expires: float


def init_app(app: Flask, settings: Settings) -> None:
    """Configure flask-jwt-extended with the keys, issuer and audience of ``settings``."""
    cache = TokenCache[Caller]()
    app.extensions[_EXTENSION] = cache
    if settings.provider is not None:
        trusted_certificates(settings)  # an invalid file stops the start, and not the first sign-in
    algorithms, find_key = _key_source(settings, cache.clear)
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
        JWT_DECODE_AUDIENCE=settings.jwt_audience,
        JWT_ENCODE_AUDIENCE=settings.jwt_audience,
        # For iat and nbf only: _verified_claims() checks the expiry to the second.
        JWT_DECODE_LEEWAY=CLOCK_SKEW_SECONDS,
        # The claims' names, for _tenant_id(), _scopes() and mint_token().
        JWT_ORGANIZATION_CLAIM=settings.jwt_organization_claim,
        JWT_SCOPE_CLAIMS=(settings.jwt_scope_claim,)
        if settings.jwt_scope_claim
        else ("scope", "scp"),
    )

    def decode_key(header: dict[str, Any], _claims: dict[str, Any]) -> Any:
        _check_header(header)
        return find_key(header)

    JWTManager(app).decode_key_loader(decode_key)


def _key_source(
    settings: Settings, on_fetch: Callable[[], object]
) -> tuple[Sequence[str], Callable[[dict[str, Any]], Any]]:
    """The accepted algorithms, and a function from a token's unverified header to its key."""
    if settings.jwt_jwks_url is not None:
        keys = KeySet(settings.jwt_jwks_url, trusted_certificates(settings), on_fetch)

        def find_key(header: dict[str, Any]) -> Any:
            kid = header.get("kid")
            found = keys.find(kid) if isinstance(kid, str) else None
            algorithm = header.get("alg")
            # The PyJWK is returned, not its bare key: it allows only its own algorithm.
            key = found.get(algorithm) if found and isinstance(algorithm, str) else None
            if key is None:
                raise InvalidTokenError("the identity provider has no key with this kid")
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
    if not TOKEN_SYNTAX.fullmatch(token):
        raise UnauthorizedError(_INVALID)
    cache: TokenCache[Caller] = current_app.extensions[_EXTENSION]
    caller = cache.get(token)
    if caller is None:
        generation = cache.generation
        claims = _verified_claims(token)
        client_id = str(claims.get("client_id") or claims.get("azp") or claims.get("sub"))
        subject = str(claims.get("sub") or client_id)
        expires = claims["exp"]
        caller = Caller(_tenant_id(claims), _scopes(claims), client_id, subject, expires)
        cache.put(token, caller, expires, generation)
    return caller


def tenant_of(caller: Caller) -> str:
    """The organization of a caller, which is required here.

    Raises:
        ForbiddenError: the token has no organization claim.
    """
    if caller.tenant_id is None:
        raise ForbiddenError("the token has no organization; use a token of one organization")
    return caller.tenant_id


def mint_token(organization: str, scopes: Sequence[str], expires: timedelta) -> str:
    """Sign a token for development with ``JWT_SECRET_KEY``. Needs an application context.

    Raises:
        RefusedError: the service verifies tokens with an identity provider's keys.
    """
    if current_app.config["JWT_SECRET_KEY"] is None:
        raise RefusedError(
            "tokens cannot be minted with an identity provider's keys; set JWT_SECRET_KEY instead"
        )
    claims = {
        "sub": "development",
        "client_id": "development",
        current_app.config["JWT_ORGANIZATION_CLAIM"]: organization,
        current_app.config["JWT_SCOPE_CLAIMS"][0]: " ".join(scopes),
    }
    token: str = create_access_token(identity=None, expires_delta=expires, additional_claims=claims)
    return token


def _verified_claims(token: str) -> dict[str, Any]:
    try:
        claims = decode_token(token)
    except _VERIFICATION_ERRORS:
        raise UnauthorizedError(_INVALID) from None
    expiry = claims.get("exp")
    # bool is an int in Python; NaN and infinity fail the comparison.
    if isinstance(expiry, bool) or not isinstance(expiry, int | float) or not expiry <= _MAX_EXPIRY:
        raise UnauthorizedError("the token has no valid `exp` claim; use a token that expires")
    if expiry <= time.time():
        raise UnauthorizedError("the token has expired; use a new one")
    if any(_OTHER_KIND.fullmatch(str(claims.get(name))) for name in _KIND_CLAIMS):
        raise UnauthorizedError("the token must be an access token, not an ID or refresh token")
    return claims


def _check_header(header: dict[str, Any]) -> None:
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _HEADER_TYPES:
        raise InvalidTokenError("the typ header is not one of an access token")
    if any(name in header for name in _REFUSED_MEMBERS):
        raise InvalidTokenError("the header chooses a key or demands unknown rules")


def _tenant_id(claims: dict[str, Any]) -> str | None:
    name = current_app.config["JWT_ORGANIZATION_CLAIM"]
    if name not in claims:
        return None
    organization = claims[name]
    if not is_id(organization):
        raise ForbiddenError(
            "the token's organization is invalid; it must be 1 to 255 characters without control"
            " characters"
        )
    return str(organization)


def _scopes(claims: dict[str, Any]) -> frozenset[str]:
    """The scopes in the first claim that is present: text with spaces (RFC 8693, 4.2) or a list.

    ``scope`` is always text. ``scp`` is a list at Okta and text at Entra.
    """
    names = current_app.config["JWT_SCOPE_CLAIMS"]
    name = next((name for name in names if name in claims), None)
    scope = claims.get(name) if name else None
    if isinstance(scope, str):
        return frozenset(scope.split(" "))
    if isinstance(scope, list) and name != "scope":
        return frozenset(item for item in scope if isinstance(item, str))
    return frozenset()
