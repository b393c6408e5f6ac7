"""OpenID Connect sign-in: the authorization code flow with PKCE, by Authlib.

This module is imported at the first sign-in, because Authlib and requests are slow to import.
"""

import io
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import Request

from authlib.common.errors import AuthlibBaseError
from authlib.integrations.base_client.errors import MismatchingStateError
from authlib.integrations.flask_client import FlaskOAuth2App, OAuth, OAuthError
from authlib.integrations.requests_client import OAuth2Session
from flask import abort, current_app, redirect, session, url_for
from joserfc.errors import JoseError
from requests import HTTPError, JSONDecodeError, PreparedRequest, RequestException
from requests import Response as ProviderResponse
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict
from werkzeug.wrappers import Response

from app.auth.jwks import ALGORITHMS
from app.config.parsing import Provider
from app.errors import ForbiddenError, UnavailableError, ValidationError
from app.provider_http import NOT_JSON, STATUS, FetchError, fetch, trusted_certificates
from app.web import request_log
from app.web.context import services

TIMEOUT_SECONDS = 5.0  # for each response of the provider; a sign-in needs two or three
# The most sign-ins that one browser may have open in several tabs, because a cookie is small.
MAX_OPEN_SIGN_INS = 3

_NAME = "provider"
_EXTENSION = "analytics_provider"
_SIGNING_ALGORITHMS = "id_token_signing_alg_values_supported"
_STATE_PREFIX = f"_state_{_NAME}_"  # Authlib's key in the session
# The error codes of RFC 6749 and OpenID Connect. Other text is untrusted and is not logged.
_ERROR_CODES = {
    *("invalid_request", "unauthorized_client", "access_denied", "unsupported_response_type"),
    *("invalid_scope", "server_error", "temporarily_unavailable", "invalid_client"),
    *("invalid_grant", "unsupported_grant_type", "invalid_target", "interaction_required"),
    *("login_required", "account_selection_required", "consent_required"),
}
# Every error that an unavailable, broken or wrong provider causes in the libraries.
_PROVIDER_ERRORS = (
    *(AuthlibBaseError, JoseError, RequestException, FetchError),
    *(ValueError, TypeError, KeyError, AttributeError, RuntimeError),
)


class Transport(BaseAdapter):
    """Sends the requests of a session by :mod:`app.provider_http`, as those for key sets."""

    def __init__(self, certificates: ssl.SSLContext) -> None:
        super().__init__()
        self._certificates = certificates

    def send(self, request: PreparedRequest, *_: object, **_options: object) -> ProviderResponse:
        url, body = str(request.url), request.body
        if isinstance(body, str):
            body = body.encode()
        if not isinstance(body, bytes | None):
            raise TypeError("a request to the provider is a form or has no body")
        headers = {name: str(value) for name, value in request.headers.items()}
        # The session has no transport for other URLs than http(s).
        sent = Request(url, body, headers, method=request.method)  # noqa: S310
        answer = fetch(sent, self._certificates, TIMEOUT_SECONDS)
        response = ProviderResponse()
        response.request, response.url = request, url
        response.status_code = answer.status
        response.headers = CaseInsensitiveDict(answer.headers)
        response.raw = io.BytesIO(answer.body)
        return response

    def close(self) -> None:
        """Nothing to close: each request has its own connection."""


class Session(OAuth2Session):  # type: ignore[misc]  # Authlib has no types
    """An HTTP session with the provider, which follows no redirects."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.adapters.clear()
        for scheme in ("https://", "http://"):
            self.mount(scheme, Transport(_client().certificates))

    def request(self, method: str, url: str, *arguments: Any, **options: Any) -> ProviderResponse:
        options |= {"allow_redirects": False}
        response: ProviderResponse = super().request(method, url, *arguments, **options)
        if response.is_redirect:
            raise FetchError(STATUS, response.status_code)
        return response


class Client(FlaskOAuth2App):  # type: ignore[misc]  # Authlib has no types
    """The OAuth client of this service at the provider."""

    client_cls = Session
    certificates: ssl.SSLContext
    # Limits the threads that wait for the provider, so that the API keeps the others.
    slots: threading.BoundedSemaphore

    def load_server_metadata(self) -> dict[str, Any]:
        """The provider's metadata, with the configured issuer and safe algorithms only."""
        metadata: dict[str, Any] = super().load_server_metadata()
        if metadata.get("issuer") != _provider().issuer:
            metadata.clear()  # Authlib would keep it and never fetch it again
            raise ValueError("the metadata has another issuer")
        # A listed "none" or HS256 would accept an unsigned ID token, or one signed with a key that
        # is not the provider's.
        listed = metadata.get(_SIGNING_ALGORITHMS, ["RS256"])
        metadata[_SIGNING_ALGORITHMS] = [name for name in listed if name in ALGORITHMS]
        return metadata

    def fetch_jwk_set(self, *, force: bool = False) -> dict[str, Any]:
        """The provider's keys for ID tokens, fetched for each sign-in.

        Authlib keeps them for good, so a key that was withdrawn would still verify an ID token.
        """
        keys: dict[str, Any] = super().fetch_jwk_set(force=True)
        return keys


def start() -> Response:
    """Redirect the browser to the provider. The session keeps state, nonce and PKCE verifier."""
    audience = services().settings.jwt_audience
    # Auth0, for example, issues a JWT only for a named audience.
    options = {} if audience is None else {"audience": audience}
    callback = url_for("signin.callback", _external=True)
    with _provider_request():
        authorization = _client().create_authorization_url(callback, **options)
    url = authorization.pop("url")
    states = [name for name in session if name.startswith(_STATE_PREFIX)]
    states.sort(key=lambda name: float(session[name]["exp"]))
    for name in states[: max(0, len(states) - MAX_OPEN_SIGN_INS + 1)]:
        session.pop(name)
    _client().save_authorize_data(redirect_uri=callback, **authorization)
    return redirect(url, 303)


def finish() -> str:
    """Exchange the code in the browser's request for the provider's access token.

    Authlib checks the state, the ID token and its nonce, but not the access token.

    Raises:
        ValidationError: the sign-in is unknown, expired or finished.
        ForbiddenError: the provider refused the sign-in.
        UnavailableError: the provider is unavailable, or its response is invalid.
    """
    with _provider_request():
        tokens = _client().authorize_access_token(claims_options=_expected_claims())
        if "userinfo" not in tokens:
            raise ValueError("the response has no ID token, so no nonce was checked")
        return str(tokens["access_token"])


def _expected_claims() -> dict[str, Any]:
    """The required claims of the ID token.

    By default, Authlib accepts another audience if ``azp`` is this client.
    """
    provider = _provider()
    return {
        "iss": {"essential": True, "value": provider.issuer},
        "aud": {"essential": True, "value": provider.client_id},
    }


def _provider() -> Provider:
    provider = services().settings.provider
    if provider is None:
        abort(404)
    return provider


def _client() -> Client:
    """The application's client, which caches the provider's metadata and keys."""
    if _EXTENSION not in current_app.extensions:
        provider = _provider()
        client = OAuth(current_app).register(
            _NAME,
            client_cls=Client,
            client_id=provider.client_id,
            client_secret=provider.client_secret,
            server_metadata_url=provider.metadata_url,
            client_kwargs={"scope": provider.scope, "code_challenge_method": "S256"},
        )
        client.certificates = trusted_certificates(services().settings)
        client.slots = threading.BoundedSemaphore(max(1, services().settings.web_threads // 2))
        current_app.extensions[_EXTENSION] = client
    found: Client = current_app.extensions[_EXTENSION]
    return found


@contextmanager
def _provider_request() -> Iterator[None]:
    """Take a slot for requests to the provider, without waiting, and translate their errors."""
    slots = _client().slots
    if not slots.acquire(blocking=False):
        raise UnavailableError("too many sign-ins at this moment; try again in a few seconds")
    try:
        with _translated_errors():
            yield
    finally:
        slots.release()


@contextmanager
def _translated_errors() -> Iterator[None]:
    """Raise errors with safe messages, and log the cause by an error code or a class name."""
    try:
        yield
    except MismatchingStateError:
        raise ValidationError(
            "this sign-in has expired or began in another browser; sign in again"
        ) from None
    except OAuthError as error:
        code = str(error.error)
        request_log.note(cause=code if code in _ERROR_CODES else type(error).__name__)
        raise ForbiddenError(
            "the identity provider refused the sign-in; try again or ask its administrator"
        ) from None
    except _PROVIDER_ERRORS as error:
        raise UnavailableError(
            "the identity provider is unavailable or its response is invalid; try again later",
            cause=_cause(error),
        ) from None


def _cause(error: Exception) -> str:
    """The cause of a failure for the log: what happened to the request, or the error's class."""
    if isinstance(error, FetchError):
        return str(error)
    if isinstance(error, HTTPError) and error.response is not None:
        return f"{STATUS} {error.response.status_code}"
    return NOT_JSON if isinstance(error, JSONDecodeError) else type(error).__name__
