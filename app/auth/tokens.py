"""Access tokens: verify one and return its caller, or mint one for development.

A token is an OAuth access token of the identity provider. A JWT is verified with a key:
flask-jwt-extended checks signature, times, issuer and audience. This module and
:mod:`app.auth.claims` check the header and the claims that the library accepts unchecked (RFC 8725;
RFC 9068, 4). What an opaque token is, the provider says (:mod:`app.auth.introspection`).
"""

import base64
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeGuard

import jwt
from flask import Flask, current_app
from flask_jwt_extended import JWTManager, create_access_token, decode_token
from flask_jwt_extended.exceptions import JWTExtendedException
from jwt import exceptions

from app.auth import claims as reading
from app.auth.client_organizations import organization_of_client
from app.auth.introspection import ANSWER_SECONDS, Introspector
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
_OPAQUE = "the token is no JWT, and this service accepts only signed JWTs; use a JWT access token"


@dataclass(frozen=True)
class Caller:
    """The caller of a request: the claims of a verified token, or the owner of a verified key.

    ``tenant_id`` is ``None`` without an organization claim. ``client_id`` is the OAuth client
    that the token was issued to, or ``key:`` and the id of the key. ``subject`` is ``sub``: the
    person who signed in, or the client again. ``expires`` is in Unix seconds. ``named_client`` is
    the client if the token names one as such, and empty otherwise. All texts are short, because
    callers are cached.
    """

    tenant_id: str | None
    scopes: frozenset[str]
    client_id: str
    subject: str
    expires: float
    named_client: str = ""
    is_person: bool = False


@dataclass(frozen=True)
class _Verifier:
    """How the tokens of this service are verified."""

    settings: Settings
    find_key: Callable[[Mapping[str, Any]], Any]
    introspector: Introspector[Caller] | None

    def is_introspected(self, token: str) -> bool:
        """Whether the provider must be asked about a token, because no key verifies it."""
        if self.introspector is None:
            return False
        settings = self.settings
        keys = (settings.jwt_secret_key, settings.jwt_public_key, settings.jwt_jwks_url)
        return all(key is None for key in keys) or not _is_jwt(token)

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
    introspector = None
    if settings.introspection is not None:
        certificates, slots = trusted_certificates(settings), settings.web_threads
        introspector = Introspector(settings.introspection, certificates, slots, _introspected)
    app.extensions[_EXTENSION] = _Verifier(settings, find_key, introspector)
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
    if settings.jwt_secret_key is None:  # every token is introspected
        return ALGORITHMS, lambda _header: None
    return ["HS256"], lambda _header: settings.jwt_secret_key


def verify_token(token: str, client: str = "") -> Caller:
    """Verify an access token and return its caller.

    If the token names no organization, it is of the organization of its client, if that has one.

    Args:
        client: the address that the request came from.

    Raises:
        UnauthorizedError: the token is invalid.
        ForbiddenError: its organization claim is invalid.
        RateLimitError: the client has sent too many opaque tokens that were refused.
        UnavailableError: no keys have been fetched to verify it, or the provider cannot be asked.
    """
    caller = _known_or_verified(token, client)
    if caller.tenant_id is not None or not caller.named_client:
        return caller
    found = organization_of_client(caller.named_client, is_person=caller.is_person)
    return caller if found is None else replace(caller, tenant_id=found)


def _known_or_verified(token: str, client: str) -> Caller:
    introspector = _verifier().introspector
    if introspector is not None and _verifier().is_introspected(token):
        with _counted_refusal():
            if not TOKEN_SYNTAX.fullmatch(token):
                raise UnauthorizedError(_INVALID, cause="malformed")
            return introspector.verify(token, client)
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
    with _counted_refusal():
        return _caller_of(token, is_access=is_access)


@contextmanager
def _counted_refusal() -> Iterator[None]:
    try:
        yield
    except (UnauthorizedError, ForbiddenError) as error:
        metrics.count_refused_token(error.cause)
        raise


def _caller_of(token: str, *, is_access: bool) -> Caller:
    verifier = _verifier()
    if not TOKEN_SYNTAX.fullmatch(token):
        raise UnauthorizedError(_INVALID, cause="malformed")
    if _is_opaque(token):
        raise UnauthorizedError(_OPAQUE, cause="opaque token")
    header, claims = _verified(token)
    expiry = _checked_expiry(claims)
    reading.check_kind_claims(claims)
    if not is_access:
        reading.check_signs_of_kind(header, claims)
    return _caller(verifier, claims, expiry)


def _introspected(answer: Mapping[str, Any]) -> Caller:
    """The caller of a token, by the provider's answer about it (RFC 7662, 2.2).

    Of its members only ``active`` is required, which is checked before. What is there must be
    right, and the audience must be there if it is checked at all.

    Raises:
        UnauthorizedError: the token is expired, of another kind, or for another service.
        ForbiddenError: its organization claim is invalid.
    """
    verifier = _verifier()
    settings = verifier.settings
    expiry = time.time() + ANSWER_SECONDS if answer.get("exp") is None else _checked_expiry(answer)
    for name in ("nbf", "iat"):
        begin = answer.get(name)
        if begin is not None and not (
            _is_number(begin) and begin <= time.time() + CLOCK_SKEW_SECONDS
        ):
            raise UnauthorizedError(_INVALID, cause=f"claim {name}")
    if (
        settings.jwt_issuer is not None
        and answer.get("iss", settings.jwt_issuer) != settings.jwt_issuer
    ):
        raise UnauthorizedError(_INVALID, cause="claim iss")
    if settings.jwt_audiences is not None:
        given = answer.get("aud")
        audiences = given if isinstance(given, list) else [given]
        if not any(accepted in audiences for accepted in settings.jwt_audiences):
            raise UnauthorizedError(_INVALID, cause="claim aud")
    reading.check_kind_claims(answer)
    reading.check_signs_of_kind({}, answer)
    return _caller(verifier, answer, expiry)


def _checked_expiry(claims: Mapping[str, Any]) -> float:
    """The expiry of a token, in Unix seconds.

    Raises:
        UnauthorizedError: it is invalid or over.
    """
    expiry = claims.get("exp")
    if not _is_number(expiry) or not expiry <= _MAX_EXPIRY:
        raise UnauthorizedError(
            "the token has no valid `exp` claim; use a token that expires", cause="claim exp"
        )
    if expiry <= time.time():
        raise UnauthorizedError("the token has expired; use a new one", cause="claim exp")
    return float(expiry)


def _is_number(value: Any) -> TypeGuard[float]:
    """Whether a claim is a number. NaN and infinity are, and fail each comparison afterwards."""
    # bool is an int in Python.
    return isinstance(value, int | float) and not isinstance(value, bool)


def _caller(verifier: _Verifier, claims: Mapping[str, Any], expires: float) -> Caller:
    client_id = reading.text_of(claims, "client_id", "azp", "sub")
    named_client = reading.client_of(claims)
    return Caller(
        reading.organization_of(claims, verifier.settings.jwt_organization_claim),
        # With a token, reads need no scope.
        reading.scopes_of(claims, verifier.scope_claims) | {reading.ANALYTICS_READ},
        client_id,
        reading.text_of(claims, "sub", "username") or client_id,
        expires,
        named_client,
        reading.is_of_person(claims, named_client),
    )


def _is_jwt(token: str) -> bool:
    """Whether a token has the form of a signed JWT: three parts, the first of which is a header."""
    first, *others = token.split(".")
    if len(others) != 2:
        return False
    try:
        header = json.loads(base64.urlsafe_b64decode(first + "=" * (-len(first) % 4)))
    except (ValueError, RecursionError):
        return False
    return isinstance(header, dict) and "alg" in header


def _is_opaque(token: str) -> bool:
    """Whether a token is no JWT at all, rather than a forged or damaged one.

    A JWT has three parts, or five if it is encrypted, and begins as every JSON object.
    """
    return token.count(".") not in (2, 4) and not token.startswith("eyJ")


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
