"""Who is asking: the Bearer token of a request, and what its claims allow.

The token is an OAuth access token as the identity provider issues it. Signature,
issuer and audience are checked by flask-jwt-extended; the header is read here, strictly
(RFC 6750, 2.1), and so are the claims that the library takes as they come.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from flask import Flask, g, request
from flask_jwt_extended import JWTManager, create_access_token, decode_token
from flask_jwt_extended.exceptions import JWTExtendedException
from jwt.exceptions import PyJWTError

from app.config import Settings
from app.errors import ForbiddenError, UnauthorizedError
from app.events import ID_PATTERN

WRITE, WRITE_ANY = "events:write", "events:write:any"
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

_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)
_PRINTABLE = re.compile(ID_PATTERN)


@dataclass(frozen=True)
class Caller:
    """A verified token: its organization, if it names one, and its scopes."""

    tenant_id: str | None
    scopes: frozenset[str]


def init_app(app: Flask, settings: Settings) -> None:
    """Configure flask-jwt-extended for the tokens that ``settings`` trust."""
    app.config.update(
        JWT_TOKEN_LOCATION=["headers"],
        # The library demands one claim by this name; the only one demanded here is exp.
        JWT_IDENTITY_CLAIM="exp",
        JWT_SECRET_KEY=settings.jwt_secret_key,
        # Both: left at its default, the first would stay in the list of accepted ones.
        JWT_ALGORITHM="HS256",
        JWT_DECODE_ALGORITHMS=["HS256"],
        JWT_DECODE_ISSUER=settings.jwt_issuer,
        JWT_ENCODE_ISSUER=settings.jwt_issuer,
        JWT_DECODE_AUDIENCE=settings.jwt_audience,
        JWT_ENCODE_AUDIENCE=settings.jwt_audience,
        # For iat and nbf only: expiry is checked to the second below.
        JWT_DECODE_LEEWAY=CLOCK_SKEW_SECONDS,
    )
    JWTManager(app)


def authenticate() -> None:
    """Verify the request's token and leave its :class:`Caller` in ``g.caller``.

    A blueprint's ``before_request``, so that no route can forget it.

    Raises:
        UnauthorizedError: no token, or none that can be trusted.
        ForbiddenError: its organization claim is malformed.
    """
    claims = _verified_claims(_presented_token(request.headers.get("Authorization")))
    g.caller = Caller(_organization(claims), _scopes(claims))


def authenticate_reader() -> None:
    """As :func:`authenticate`, and leave the organization, required here, in ``g.tenant_id``."""
    authenticate()
    if g.caller.tenant_id is None:
        raise ForbiddenError("the token names no organization")
    g.tenant_id = g.caller.tenant_id


def writing_tenant() -> str | None:
    """Whose events the caller may write: one organization, or ``None`` for any, by name.

    Raises:
        ForbiddenError: neither scope nor organization allow it.
    """
    caller: Caller = g.caller
    if WRITE_ANY in caller.scopes:
        return None
    if WRITE not in caller.scopes:
        raise ForbiddenError(f"the token lacks the scope {WRITE}")
    if caller.tenant_id is None:
        raise ForbiddenError(f"the token names no organization and lacks the scope {WRITE_ANY}")
    return caller.tenant_id


def mint_token(organization: str, scopes: Sequence[str], expires: timedelta) -> str:
    """A token for development, signed with ``JWT_SECRET_KEY``. Needs an application context."""
    claims = {
        "sub": "development",
        "client_id": "development",
        "organization_id": organization,
        "scope": " ".join(scopes),
    }
    token: str = create_access_token(identity=None, expires_delta=expires, additional_claims=claims)
    return token


def is_id(value: object) -> bool:
    """Whether ``value`` is a string of 1..255 code points without control characters."""
    return isinstance(value, str) and 0 < len(value) <= 255 and bool(_PRINTABLE.match(value))


def _presented_token(header: str | None) -> str:
    if header is None or not header.strip():
        raise UnauthorizedError("a Bearer token is required", invalid=False)
    match = _BEARER.fullmatch(header)
    if match is None:
        raise UnauthorizedError("the Authorization header is not one Bearer token")
    return match[1]


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
    return claims


def _organization(claims: dict[str, Any]) -> str | None:
    if "organization_id" not in claims:
        return None
    organization = claims["organization_id"]
    if not is_id(organization):
        raise ForbiddenError("the token's organization is malformed")
    return str(organization)


def _scopes(claims: dict[str, Any]) -> frozenset[str]:
    scope = claims.get("scope")
    return frozenset(scope.split(" ")) if isinstance(scope, str) else frozenset()
