"""Signing in at the identity provider: the authorization code flow with PKCE, by Authlib.

Imported when somebody signs in: Authlib and requests would hold up every command's start.
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
from requests import Response as Answer
from werkzeug.wrappers import Response

from app.auth.jwks import ALGORITHMS
from app.config.parsing import Provider
from app.errors import ForbiddenError, UnavailableError, ValidationError
from app.web.context import services
from app.web.request_log import note

SECONDS = 5.0
# Begun in so many tabs at once; a cookie has no room for more.
BEGUN = 3

_NAME = "provider"
_EXTENSION = "analytics_provider"
_SIGNED_BY = "id_token_signing_alg_values_supported"
_STATES = f"_state_{_NAME}_"
# RFC 6749 and OpenID Connect. Other text may be anybody's, and is not for a log.
_CODES = {
    *("invalid_request", "unauthorized_client", "access_denied", "unsupported_response_type"),
    *("invalid_scope", "server_error", "temporarily_unavailable", "invalid_client"),
    *("invalid_grant", "unsupported_grant_type", "invalid_target", "interaction_required"),
    *("login_required", "account_selection_required", "consent_required"),
}
# Whatever a provider that is away, broken or somebody else may do to the libraries.
_FAILED = (
    *(AuthlibBaseError, JoseError, RequestException),
    *(ValueError, TypeError, KeyError, AttributeError, RuntimeError),
)


class Session(OAuth2Session):  # type: ignore[misc]  # it has no types
    """Requests that end in time, and where they were sent."""

    def request(self, method: str, url: str, *arguments: Any, **options: Any) -> Answer:
        options |= {"timeout": SECONDS, "allow_redirects": False}
        answer: Answer = super().request(method, url, *arguments, **options)
        if answer.is_redirect:
            raise TooManyRedirects("none is followed")
        return answer


class Client(FlaskOAuth2App):  # type: ignore[misc]  # it has no types
    """This service, as the provider knows it."""

    client_cls = Session
    # Who waits for the provider; others are told to come again, for the API needs threads, too.
    turns: threading.BoundedSemaphore

    def load_server_metadata(self) -> dict[str, Any]:
        """What the provider says of itself, once it is the one that was meant."""
        metadata: dict[str, Any] = super().load_server_metadata()
        if metadata.get("issuer") != _provider().issuer:
            metadata.clear()  # or it would be kept, and never be asked for again
            raise ValueError("another issuer")
        # Whatever it lists: an ID token is signed, and with a key that is not in public hands.
        listed = metadata.get(_SIGNED_BY, ["RS256"])
        metadata[_SIGNED_BY] = [name for name in listed if name in ALGORITHMS]
        return metadata


def start() -> Response:
    """Send the browser to the provider; what the answer must fit stays in the session."""
    audience = services().settings.jwt_audience
    # Auth0, for one, issues a JWT only for an audience that is named.
    more = {} if audience is None else {"audience": audience}
    callback = url_for("signin.callback", _external=True)
    with _asking():
        asked = _client().create_authorization_url(callback, **more)
    url = asked.pop("url")
    begun = [name for name in session if name.startswith(_STATES)]
    begun.sort(key=lambda name: float(session[name]["exp"]))
    for name in begun[: max(0, len(begun) - BEGUN + 1)]:
        session.pop(name)
    _client().save_authorize_data(redirect_uri=callback, **asked)
    return redirect(url, 303)


def finish() -> str:
    """The access token that the provider gives for the code which the browser brought.

    State, and the ID token with its nonce, are Authlib's to check; the access token is not.

    Raises:
        ValidationError: the sign-in was begun elsewhere, long ago, or is finished.
        ForbiddenError: the provider refused.
        UnavailableError: it is away, or its answer is none.
    """
    with _asking():
        tokens = _client().authorize_access_token(claims_options=_expected())
        if "userinfo" not in tokens:
            raise ValueError("no ID token, hence no nonce")
        return str(tokens["access_token"])


def _expected() -> dict[str, Any]:
    """What the ID token must say; by itself Authlib lets one for others pass that ``azp`` makes
    ours."""
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
    """One for each application, for what it keeps: the provider's metadata and keys."""
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
        client.turns = threading.BoundedSemaphore(max(1, services().settings.web_threads // 2))
        current_app.extensions[_EXTENSION] = client
    found: Client = current_app.extensions[_EXTENSION]
    return found


@contextmanager
def _asking() -> Iterator[None]:
    """Wait for one's turn with the provider, in no queue."""
    turns = _client().turns
    if not turns.acquire(blocking=False):
        raise UnavailableError("many people sign in at this moment; try again in a few seconds")
    try:
        with _failures():
            yield
    finally:
        turns.release()


@contextmanager
def _failures() -> Iterator[None]:
    """Say what went wrong: to the person in words of ours, to the log by a name."""
    try:
        yield
    except MismatchingStateError:
        raise ValidationError("this sign-in is over, or was not begun here; try again") from None
    except OAuthError as error:
        code = str(error.error)
        note(cause=code if code in _CODES else type(error).__name__)
        raise ForbiddenError("the identity provider refused to sign you in") from None
    except _FAILED as error:
        note(cause=type(error).__name__)
        raise UnavailableError(
            "the identity provider is away, or its answer cannot be used; try again later"
        ) from None
