"""OpenID Connect sign-in: the authorization code flow with PKCE, by Authlib.

This module is imported at the first sign-in, because Authlib and requests are slow to import.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from authlib.common.errors import AuthlibBaseError
from authlib.integrations.base_client.errors import MismatchingStateError
from authlib.integrations.flask_client import FlaskOAuth2App, OAuth, OAuthError
from authlib.integrations.requests_client import OAuth2Session
from flask import abort, current_app, redirect, session, url_for
from joserfc.errors import JoseError
from requests import RequestException, TooManyRedirects
from requests import Response as ProviderResponse
from werkzeug.wrappers import Response

from app.auth.jwks import ALGORITHMS
from app.config.parsing import Provider
from app.errors import ForbiddenError, UnavailableError, ValidationError
from app.web import request_log
from app.web.context import services

TIMEOUT_SECONDS = 5.0
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
    *(AuthlibBaseError, JoseError, RequestException),
    *(ValueError, TypeError, KeyError, AttributeError, RuntimeError),
)


class Session(OAuth2Session):  # type: ignore[misc]  # Authlib has no types
    """An HTTP session with a timeout, which follows no redirects."""

    def request(self, method: str, url: str, *arguments: Any, **options: Any) -> ProviderResponse:
        options |= {"timeout": TIMEOUT_SECONDS, "allow_redirects": False}
        response: ProviderResponse = super().request(method, url, *arguments, **options)
        if response.is_redirect:
            raise TooManyRedirects("redirects are not followed")
        return response


class Client(FlaskOAuth2App):  # type: ignore[misc]  # Authlib has no types
    """The OAuth client of this service at the provider."""

    client_cls = Session
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
        request_log.note(cause=type(error).__name__)
        raise UnavailableError(
            "the identity provider is unavailable or its response is invalid; try again later"
        ) from None
