"""The identity provider as an OpenID Connect client sees it: metadata, tokens, keys, userinfo.

Each response takes five seconds at most and has a limited size, and no redirect is followed (see
:mod:`app.provider_http`). What the provider answers is untrusted: a value that is missing or of
another type is refused with its cause, in fixed words.
"""

import base64
import json
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from secrets import token_urlsafe
from typing import Any, NamedTuple
from urllib.parse import quote_plus, urlencode, urlsplit
from urllib.request import Request

import jwt
from jwt import PyJWK

from app.auth.jwks import ALGORITHMS, verifying_keys
from app.config.parsing import Provider
from app.provider_http import NOT_A_KEY_SET, NOT_JSON, STATUS, Answer, FetchError, fetch

TIMEOUT_SECONDS = 5.0  # for each response of the provider; a sign-in needs two to four
METADATA_SECONDS = 3600.0  # how long the metadata is used before it is fetched again
# Keys for logout tokens, which anybody may send: how long fetched keys are used, and the shortest
# time between two fetches for an unknown kid. A sign-in always fetches the keys.
KEYS_SECONDS, REFETCH_SECONDS = 60.0, 5.0
ASSERTION_SECONDS = 60
MAX_KEYS = 100
# The longest token. Two are kept in a row of the database, and one is a part of a URL.
MAX_TOKEN_BYTES = 64 * 1024
# The error codes of RFC 6749, RFC 8707 and OpenID Connect. Other text is untrusted, and not logged.
ERROR_CODES = frozenset(
    {
        *("invalid_request", "unauthorized_client", "access_denied", "unsupported_response_type"),
        *("invalid_scope", "server_error", "temporarily_unavailable", "invalid_client"),
        *("invalid_grant", "unsupported_grant_type", "invalid_target", "interaction_required"),
        *("login_required", "account_selection_required", "consent_required"),
    }
)
# The prompts of a provider that cannot show a page, as a sign-in without one asks for.
PROMPTED = frozenset(
    {
        *("login_required", "interaction_required", "consent_required"),
        "account_selection_required",
    }
)


class RefusedAnswerError(Exception):
    """An answer of the provider that is not accepted; the text is the cause, for the log."""


class ProviderError(Exception):
    """An error code that the provider answered; ``unknown error`` for a text that is none."""

    def __init__(self, code: object) -> None:
        known = isinstance(code, str) and code in ERROR_CODES
        super().__init__(code if known else "unknown error")


class Tokens(NamedTuple):
    """The answer of the token endpoint. ``seconds``: how long the access token is valid."""

    access: str | None
    identity: str | None
    refresh: str | None
    seconds: float | None


@dataclass(frozen=True)
class Metadata:
    """What the provider says of itself (OpenID Connect Discovery 1.0, 3)."""

    authorization: str
    token: str
    keys: str
    userinfo: str | None
    end_session: str | None
    revocation: str | None
    methods: frozenset[str]
    algorithms: frozenset[str]
    prompts: frozenset[str] | None
    names_issuer: bool


class ProviderClient:
    """This service's client at the provider. It keeps the metadata for an hour."""

    def __init__(self, provider: Provider, certificates: ssl.SSLContext) -> None:
        self.provider = provider
        self._certificates = certificates
        self._lock = threading.Lock()
        self._metadata: Metadata | None = None
        self._fetched = float("-inf")
        self._keys: list[PyJWK] = []
        self._keys_fetched = float("-inf")

    def metadata(self) -> Metadata:
        """The provider's metadata; an old one while a new one cannot be fetched.

        Raises:
            FetchError: there is none yet, and it cannot be fetched.
            RefusedAnswerError: it is not the metadata of this provider.
        """
        found = self._metadata
        if found is not None and time.monotonic() - self._fetched < METADATA_SECONDS:
            return found
        try:
            document = _object(self._get(self.provider.metadata_url), "metadata")
        except FetchError:
            if found is None:
                raise
            return found
        found = read_metadata(document, self.provider.issuer)
        with self._lock:
            self._metadata, self._fetched = found, time.monotonic()
        return found

    def authorization_url(
        self, redirect_uri: str, state: str, nonce: str, verifier: str, prompt: str | None
    ) -> str:
        """The URL to which a sign-in sends the browser, with PKCE (RFC 7636)."""
        challenge = base64.urlsafe_b64encode(sha256(verifier.encode()).digest())
        asked = {
            "response_type": "code",
            "client_id": self.provider.client_id,
            "redirect_uri": redirect_uri,
            "scope": self.provider.scope,
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge.decode().rstrip("="),
            "code_challenge_method": "S256",
            # Auth0, for example, issues a JWT only for a named audience.
            "audience": self.provider.audience,
            "resource": self.provider.resource,
            "prompt": prompt,
        }
        return with_query(self.metadata().authorization, asked)

    def prompt_for_account(self) -> str | None:
        """The prompt that lets a person choose another account, as far as the provider has one."""
        prompts = self.metadata().prompts
        if prompts is None or "select_account" in prompts:
            return "select_account"
        return "login" if "login" in prompts else None

    def redeem(self, code: str, redirect_uri: str, verifier: str) -> Tokens:
        """The tokens for an authorization code.

        Raises:
            FetchError, ProviderError, RefusedAnswerError: there are none.
        """
        return self._tokens(
            {
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": redirect_uri,
                "code_verifier": verifier,
            }
        )

    def refresh(self, token: str) -> Tokens:
        """New tokens for a refresh token. A provider may answer without an ID token.

        Raises:
            FetchError, ProviderError, RefusedAnswerError: there are none.
        """
        return self._tokens({"grant_type": "refresh_token", "refresh_token": token})

    def userinfo(self, access_token: str, subject: str) -> dict[str, Any]:
        """The claims of the person's account; empty without such an endpoint.

        Raises:
            FetchError: it does not answer.
            RefusedAnswerError: it answers for another person.
        """
        url = self.metadata().userinfo
        if url is None:
            return {}
        claims = _object(self._get(url, {"Authorization": f"Bearer {access_token}"}), "userinfo")
        if claims.get("sub") != subject:
            raise RefusedAnswerError("userinfo: claim sub is another person")
        return claims

    def published_keys(self) -> list[PyJWK]:
        """The keys that the provider publishes now.

        Raises:
            FetchError: they cannot be fetched.
        """
        document = _json(self._get(self.metadata().keys))
        members = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(members, list):
            raise FetchError(NOT_A_KEY_SET)
        found = [key for member in members[:MAX_KEYS] for key in verifying_keys(member)]
        with self._lock:
            self._keys, self._keys_fetched = found, time.monotonic()
        return found

    def recent_keys(self, kid: object) -> list[PyJWK]:
        """The keys of a moment ago, fetched again for an unknown ``kid``, but not often.

        Raises:
            FetchError: they cannot be fetched.
        """
        keys, age = self._keys, time.monotonic() - self._keys_fetched
        is_known = kid is None or any(key.key_id == kid for key in keys)
        if age < (KEYS_SECONDS if is_known else REFETCH_SECONDS):
            return keys
        return self.published_keys()

    def sign_out_url(self, identity: str | None, redirect_uri: str) -> str | None:
        """Where the provider ends its own session (RP-Initiated Logout 1.0), if it can."""
        url = self.metadata().end_session
        asked = {
            "client_id": self.provider.client_id,
            "id_token_hint": identity,
            "post_logout_redirect_uri": redirect_uri,
        }
        return None if url is None else with_query(url, asked)

    def revoke(self, token: str) -> None:
        """Take a refresh token back (RFC 7009), if the provider has an endpoint for it.

        Raises:
            FetchError: the provider does not answer.
        """
        url = self.metadata().revocation
        if url is not None:
            self._post(url, {"token": token})

    def _tokens(self, form: Mapping[str, str]) -> Tokens:
        url = self.metadata().token
        asked = {"resource": self.provider.resource} if self.provider.resource else {}
        answer = self._post(url, {**form, **asked})
        try:
            document = _object(answer, "token endpoint", any_status=True)
        except FetchError:
            if answer.status != 200:
                raise FetchError(STATUS, answer.status) from None
            raise
        if "error" in document:
            raise ProviderError(document["error"])
        if answer.status != 200:
            raise FetchError(STATUS, answer.status)
        return read_tokens(document)

    def _get(self, url: str, headers: Mapping[str, str] = {}) -> Answer:
        return self._fetch(Request(url, headers={"Accept": "application/json", **headers}))  # noqa: S310 - http(s)

    def _post(self, url: str, form: Mapping[str, str]) -> Answer:
        headers, added = self._credentials(url)
        body = urlencode({**form, **added}).encode()
        return self._fetch(Request(url, body, {"Accept": "application/json", **headers}))  # noqa: S310 - http(s)

    def _fetch(self, request: Request) -> Answer:
        answer = fetch(request, self._certificates, TIMEOUT_SECONDS)
        if 300 <= answer.status < 400:
            raise FetchError(STATUS, answer.status)
        return answer

    def _credentials(self, url: str) -> tuple[dict[str, str], dict[str, str]]:
        """The header and the form members by which this client authenticates itself.

        Raises:
            RefusedAnswerError: the provider has no method for a secret.
        """
        provider, methods = self.provider, self.metadata().methods
        name = {"client_id": provider.client_id}
        if provider.client_key is not None:
            kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
            assertion = self._assertion(url)
            return {}, {**name, "client_assertion_type": kind, "client_assertion": assertion}
        if provider.client_secret is None:
            return {}, name
        if "client_secret_basic" in methods:
            # RFC 6749, 2.3.1: both are form-encoded before they are joined.
            pair = f"{quote_plus(provider.client_id)}:{quote_plus(provider.client_secret)}"
            return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}, {}
        if "client_secret_post" in methods:
            return {}, {**name, "client_secret": provider.client_secret}
        raise RefusedAnswerError("metadata: no token endpoint method for a secret")

    def _assertion(self, url: str) -> str:
        """A JWT that authenticates this client (RFC 7523, 3)."""
        key, now = self.provider.client_key, int(time.time())
        if key is None:
            raise ValueError("the client has no key")
        name = self.provider.client_id
        times = {"iat": now, "exp": now + ASSERTION_SECONDS}
        claims = {"iss": name, "sub": name, "aud": url, "jti": token_urlsafe(16), **times}
        return jwt.encode(claims, key.key, key.algorithm)


def read_metadata(document: Mapping[str, Any], issuer: str) -> Metadata:
    """The metadata in a discovery document.

    Raises:
        RefusedAnswerError: it is of another issuer, or an endpoint is missing or without TLS.
    """
    if document.get("issuer") != issuer:
        raise RefusedAnswerError("metadata: another issuer")

    def endpoint(name: str) -> str | None:
        url = document.get(name)
        if url is None:
            return None
        if not isinstance(url, str) or not _is_safe(url, issuer):
            raise RefusedAnswerError(f"metadata: {name} is not a URL with https")
        return url

    def required(name: str) -> str:
        url = endpoint(name)
        if url is None:
            raise RefusedAnswerError(f"metadata: {name} is missing")
        return url

    prompts = document.get("prompt_values_supported")
    return Metadata(
        authorization=required("authorization_endpoint"),
        token=required("token_endpoint"),
        keys=required("jwks_uri"),
        userinfo=endpoint("userinfo_endpoint"),
        end_session=endpoint("end_session_endpoint"),
        revocation=endpoint("revocation_endpoint"),
        methods=_names(document.get("token_endpoint_auth_methods_supported"))
        or frozenset({"client_secret_basic"}),
        # A listed "none" or HS256 would accept an unsigned ID token, or one signed with a key that
        # is not the provider's.
        algorithms=(
            _names(document.get("id_token_signing_alg_values_supported")) or frozenset({"RS256"})
        ).intersection(ALGORITHMS),
        prompts=None if prompts is None else _names(prompts),
        names_issuer=document.get("authorization_response_iss_parameter_supported") is True,
    )


def read_tokens(document: Mapping[str, Any]) -> Tokens:
    """The tokens in an answer of the token endpoint.

    Raises:
        RefusedAnswerError: a token is not text, too long, or of a type that is of no use here.
    """
    for name in ("access_token", "id_token", "refresh_token"):
        token = document.get(name)
        if token is not None and not (isinstance(token, str) and token):
            raise RefusedAnswerError(f"token endpoint: {name} is not text")
        if token is not None and len(token) > MAX_TOKEN_BYTES:
            raise RefusedAnswerError(f"token endpoint: {name} is too long")
    kind = document.get("token_type", "Bearer")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise RefusedAnswerError("token endpoint: token_type is not Bearer")
    return Tokens(
        document.get("access_token"),
        document.get("id_token"),
        document.get("refresh_token"),
        _seconds(document.get("expires_in")),
    )


def _seconds(value: Any) -> float | None:
    if isinstance(value, str) and value.isascii() and value.isdigit():  # as some write it
        value = int(value[:12])
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 < value < 1e9 else None


def with_query(url: str, asked: Mapping[str, str | None]) -> str:
    """A URL with further parameters, without those that are ``None``."""
    query = urlencode({name: value for name, value in asked.items() if value is not None})
    return f"{url}{'&' if '?' in url else '?'}{query}"


def _is_safe(url: str, issuer: str) -> bool:
    """Whether an endpoint has TLS, or is at the host of an issuer that has none either."""
    try:
        found, ours = urlsplit(url), urlsplit(issuer)
        _ = found.port
    except ValueError:
        return False
    if not found.hostname or not url.isascii() or not url.isprintable() or " " in url:
        return False
    if found.fragment or found.scheme not in ("https", "http"):
        return False
    return found.scheme == "https" or (ours.scheme == "http" and found.hostname == ours.hostname)


def _names(value: object) -> frozenset[str]:
    return frozenset(
        filter(lambda one: isinstance(one, str), value if isinstance(value, list) else ())
    )


def _object(answer: Answer, what: str, *, any_status: bool = False) -> dict[str, Any]:
    """The JSON object in an answer.

    Raises:
        FetchError: the answer has another status, or is not JSON.
        RefusedAnswerError: it is JSON of another kind.
    """
    if answer.status != 200 and not any_status:
        raise FetchError(STATUS, answer.status)
    document = _json(answer, any_status=True)
    if not isinstance(document, dict):
        raise RefusedAnswerError(f"{what}: not a JSON object")
    return document


def _json(answer: Answer, *, any_status: bool = False) -> Any:
    if answer.status != 200 and not any_status:
        raise FetchError(STATUS, answer.status)
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        raise FetchError(NOT_JSON) from None
