"""Who is asking: an access token, mostly a request's Bearer token, and what its claims allow.

The token is an OAuth access token as the identity provider issues it. Signature,
issuer and audience are checked by flask-jwt-extended; the header is read here, strictly
(RFC 6750, 2.1; RFC 8725; RFC 9068, 4), and so are the claims that the library takes as
they come.
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
from app.auth.token_cache import Remembered
from app.config.settings import Settings
from app.errors import ForbiddenError, RefusedError, UnauthorizedError
from app.ids import is_id

WRITE, WRITE_ANY = "events:write", "events:write:any"
NAME = "agents:write"
CLOCK_SKEW_SECONDS = 10
# 9999-12-31; a larger expiry is a mistake or an attempt to overflow somebody's clock.
_MAX_EXPIRY = 253_402_300_799

# Beyond the libraries' own errors: header and claims are anybody's JSON, and numbers or
# nesting out of range fail in the parser or in arithmetic.
_UNTRUSTED = (
    PyJWTError,
    JWTExtendedException,
    ValueError,
    TypeError,
    ArithmeticError,
    RecursionError,
)

TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


_REMEMBERED = "analytics_remembered"
_TYPES = ("jwt", "at+jwt", "application/at+jwt")
# A header that brings or names its own key, or rules of its own that nobody here knows.
_OWN_KEYS = ("jku", "jwk", "x5u", "x5c", "crit")
# What other tokens of the same issuer, signed with the same keys, say of themselves: Cognito
# in token_use, Keycloak in typ (its Offline tokens are refresh tokens), others in type.
_KINDS = ("token_use", "typ", "type")
_OTHER_KIND = re.compile(r"(id|refresh|offline|logout)([ _-]?token)?", re.IGNORECASE)


@dataclass(frozen=True)
class Caller:
    """A verified token: its organization, if it names one, its scopes, and who it is for.

    ``subject`` is the client that was issued it, and ``person`` its ``sub``: whoever signed in,
    where that client is an application for people. ``expires`` is in Unix seconds.
    """

    tenant_id: str | None
    scopes: frozenset[str]
    subject: str
    person: str
    expires: float


def init_app(app: Flask, settings: Settings) -> None:
    """Configure flask-jwt-extended for the tokens that ``settings`` trust."""
    remembered = Remembered[Caller]()
    app.extensions[_REMEMBERED] = remembered
    algorithms, find_key = _trusted(settings, remembered.forget)
    app.config.update(
        JWT_TOKEN_LOCATION=["headers"],
        # The library demands one claim by this name; the only one demanded here is exp.
        JWT_IDENTITY_CLAIM="exp",
        JWT_SECRET_KEY=settings.jwt_secret_key,
        # Both: left at its default, HS256, the first would stay in the list of accepted
        # ones, and a public key, which everybody has, would be an HMAC secret.
        JWT_ALGORITHM=algorithms[0],
        JWT_DECODE_ALGORITHMS=list(algorithms),
        JWT_DECODE_ISSUER=settings.jwt_issuer,
        JWT_ENCODE_ISSUER=settings.jwt_issuer,
        JWT_DECODE_AUDIENCE=settings.jwt_audience,
        JWT_ENCODE_AUDIENCE=settings.jwt_audience,
        # For iat and nbf only: expiry is checked to the second below.
        JWT_DECODE_LEEWAY=CLOCK_SKEW_SECONDS,
        # Names of claims, for the functions below.
        JWT_ORGANIZATION_CLAIM=settings.jwt_organization_claim,
        JWT_SCOPE_CLAIMS=(settings.jwt_scope_claim,)
        if settings.jwt_scope_claim
        else ("scope", "scp"),
    )

    def decode_key(header: dict[str, Any], _claims: dict[str, Any]) -> Any:
        _check_header(header)
        return find_key(header)

    JWTManager(app).decode_key_loader(decode_key)


def _trusted(
    settings: Settings, on_fetch: Callable[[], object]
) -> tuple[Sequence[str], Callable[[dict[str, Any]], Any]]:
    """The algorithms that are accepted, and the key for a token's unverified header."""
    if settings.jwt_jwks_url is not None:
        keys = KeySet(settings.jwt_jwks_url, on_fetch)

        def find_key(header: dict[str, Any]) -> Any:
            kid = header.get("kid")
            # A PyJWK, not its bare key: it verifies with its own algorithm alone.
            key = keys.find(kid) if isinstance(kid, str) else None
            if key is None:
                raise InvalidTokenError("the key is not one of the identity provider's")
            return key

        return ALGORITHMS, find_key
    if settings.jwt_public_key is not None:
        public = settings.jwt_public_key
        return [public.algorithm], lambda _header: public.key
    return ["HS256"], lambda _header: settings.jwt_secret_key


def identify(token: str) -> Caller:
    """Verify an access token, however it came.

    Raises:
        UnauthorizedError: it cannot be trusted.
        ForbiddenError: its organization claim is malformed.
        UnavailableError: there are no keys to verify it with.
    """
    if not TOKEN.fullmatch(token):
        raise UnauthorizedError("the token is not valid")
    remembered: Remembered[Caller] = current_app.extensions[_REMEMBERED]
    caller = remembered.find(token)
    if caller is None:
        claims = _verified_claims(token)
        subject = str(claims.get("client_id") or claims.get("azp") or claims.get("sub"))
        person = str(claims.get("sub") or subject)
        expires = claims["exp"]
        caller = Caller(_organization(claims), _scopes(claims), subject, person, expires)
        remembered.keep(token, caller, expires)
    return caller


def require_tenant(caller: Caller) -> str:
    """The organization of a caller who needs one.

    Raises:
        ForbiddenError: the token names none.
    """
    if caller.tenant_id is None:
        raise ForbiddenError("the token names no organization")
    return caller.tenant_id


def mint_token(organization: str, scopes: Sequence[str], expires: timedelta) -> str:
    """A token for development, signed with ``JWT_SECRET_KEY``. Needs an application context.

    Raises:
        RefusedError: tokens are verified with an identity provider's keys here.
    """
    if current_app.config["JWT_SECRET_KEY"] is None:
        raise RefusedError("tokens are the identity provider's here; minting needs JWT_SECRET_KEY")
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
    except _UNTRUSTED:
        raise UnauthorizedError("the token is not valid") from None
    expiry = claims.get("exp")
    # bool is an int in Python; NaN and infinity fail the comparison.
    if isinstance(expiry, bool) or not isinstance(expiry, int | float) or not expiry <= _MAX_EXPIRY:
        raise UnauthorizedError("the token has no usable expiry")
    if expiry <= time.time():
        raise UnauthorizedError("the token has expired")
    if any(_OTHER_KIND.fullmatch(str(claims.get(name))) for name in _KINDS):
        raise UnauthorizedError("the token is not an access token")
    return claims


def _check_header(header: dict[str, Any]) -> None:
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise InvalidTokenError("not an access token")
    if any(name in header for name in _OWN_KEYS):
        raise InvalidTokenError("a token does not choose its key or its rules")


def _organization(claims: dict[str, Any]) -> str | None:
    name = current_app.config["JWT_ORGANIZATION_CLAIM"]
    if name not in claims:
        return None
    organization = claims[name]
    if not is_id(organization):
        raise ForbiddenError("the token's organization is malformed")
    return str(organization)


def _scopes(claims: dict[str, Any]) -> frozenset[str]:
    """Of the first claim that is there: text with spaces (RFC 8693, 4.2), or a list but for
    ``scope``, which is text wherever it is defined (Okta's ``scp`` is a list, Entra's text)."""
    names = current_app.config["JWT_SCOPE_CLAIMS"]
    name = next((name for name in names if name in claims), None)
    scope = claims.get(name) if name else None
    if isinstance(scope, str):
        return frozenset(scope.split(" "))
    if isinstance(scope, list) and name != "scope":
        return frozenset(item for item in scope if isinstance(item, str))
    return frozenset()
