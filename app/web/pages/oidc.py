"""OpenID Connect sign-in: the authorization code flow with PKCE, its renewal and its end.

This module is imported at the first sign-in, because few services need it.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from secrets import compare_digest, token_urlsafe
from typing import Any, NamedTuple

import jwt
from flask import abort, current_app, request, session, url_for

from app.auth.claims import has_claim
from app.auth.id_tokens import (
    check_logout_claims,
    read_logout_token,
    verify_id_token,
    verify_logout_token,
)
from app.auth.page_sessions import ProviderTokens
from app.auth.people import Person, names_of_claims, person_of
from app.auth.provider import (
    PROMPTED,
    ProviderClient,
    ProviderError,
    RefusedAnswerError,
    Tokens,
)
from app.errors import ForbiddenError, UnavailableError, ValidationError
from app.ids import is_id
from app.provider_http import FetchError, trusted_certificates
from app.web import request_log
from app.web.context import services

# The most sign-ins that one browser may have open in several tabs, because a cookie is small.
MAX_OPEN_SIGN_INS = 3
OPEN_SECONDS = 3600
# The longest ID token that is kept for a sign-out: it becomes a part of a URL.
MAX_HINT = 8192
# The shortest time after which a session is renewed, so that a page can be read between two.
MIN_SECONDS = 5.0

REFUSED_ANSWER = (
    "the identity provider's answer was refused; this service's log says why, so tell its"
    " administrator"
)
_EXTENSION = "analytics_provider"
_OPEN = "sign_ins"
_SIGNED_OUT = "signed_out"
# What a person can do about an error code of the provider.
_WORDS = {
    "access_denied": "the identity provider denied the sign-in; ask its administrator for access,"
    " or try again",
    "temporarily_unavailable": "the identity provider is busy; try again in a minute",
    "server_error": "the identity provider failed; try again in a minute",
    "login_required": "the identity provider asks you to sign in again",
}
_REFUSED = "the identity provider refused the sign-in; try again or ask its administrator"


@dataclass
class Extension:
    """The application's client at the provider."""

    client: ProviderClient
    # Limits the threads that wait for the provider, so that the API keeps the others.
    slots: threading.BoundedSemaphore


class SignIn(NamedTuple):
    """A sign-in or a renewal that the provider has answered.

    ``renew_at``: until when the answer holds, in Unix seconds. ``is_silent``: without a page of the
    provider. ``path``: where the browser was.
    """

    person: Person
    tokens: ProviderTokens
    renew_at: float
    issued: datetime
    sid: str | None
    is_silent: bool = False
    path: str | None = None


class PromptNeededError(Exception):
    """The provider cannot sign in without a page. ``path``: where the browser was."""

    def __init__(self, path: str | None) -> None:
        super().__init__("the provider must show a page")
        self.path = path


class EndedError(Exception):
    """The provider does not renew the session."""


def authorization_url(*, is_silent: bool = False, path: str | None = None) -> str:
    """The URL at the provider to send the browser to. Its session keeps state, nonce and verifier.

    Args:
        is_silent: the provider must not show a page, but answer whether it would need one.
        path: where the browser continues; by default the page that it requested last.
    """
    state, nonce, verifier = token_urlsafe(16), token_urlsafe(16), token_urlsafe(32)
    client = _extension().client
    with _asking():
        prompt = "none" if is_silent else None
        if not is_silent and session.get(_SIGNED_OUT):
            prompt = client.prompt_for_account()
        url = client.authorization_url(_callback(), state, nonce, verifier, prompt)
    opened = _open_sign_ins()
    while len(opened) >= MAX_OPEN_SIGN_INS:
        del opened[min(opened, key=lambda name: opened[name]["t"])]
    opened[state] = {"n": nonce, "v": verifier, "t": time.time(), "s": int(is_silent)}
    if path is not None:
        opened[state]["p"] = path
    session[_OPEN] = opened
    return url


def finish() -> SignIn:
    """Exchange the code in the browser's request for tokens, and verify them.

    Raises:
        ValidationError: the sign-in is unknown, expired or finished.
        ForbiddenError: the provider refused the sign-in, or its answer is refused.
        UnavailableError: the provider is unavailable.
        PromptNeededError: a silent sign-in needs a page of the provider.
    """
    arguments = request.args
    begun = _take(arguments.get("state", ""))
    error = arguments.get("error")
    client = _extension().client
    with _asking():
        if begun is not None:
            _check_answering_issuer(client, arguments)
        if error is not None:
            if begun is not None and begun["s"] and error in PROMPTED:
                raise PromptNeededError(begun.get("p"))
            if session.pop(_SIGNED_OUT, None) and begun is not None and error == "invalid_request":
                # Perhaps the provider does not know the prompt, so once without it.
                raise PromptNeededError(begun.get("p"))
            raise ProviderError(error)
        code = arguments.get("code")
        if begun is None or not code:
            raise ValidationError(
                "this sign-in has expired or began in another browser; sign in again"
            )
        tokens = client.redeem(code, _callback(), begun["v"])
        if tokens.identity is None:
            raise RefusedAnswerError("token endpoint: id_token is missing")
        claims = _identity(client, tokens.identity, tokens.access, nonce=begun["n"])
        found = _sign_in(client, claims, tokens, is_fresh=True)
    return found._replace(is_silent=bool(begun["s"]), path=begun.get("p"))


def renew(kept: ProviderTokens, subject: str) -> SignIn:
    """Renew a session with its refresh token, which is used by that.

    Raises:
        EndedError: the provider does not renew it.
        ForbiddenError: the provider's answer is refused, or the person has no organization now.
        UnavailableError: the provider is unavailable.
    """
    client = _extension().client
    with _asking():
        try:
            tokens = client.refresh(kept.refresh or "")
        except ProviderError as error:
            request_log.note(cause=f"refresh: {error}")
            raise EndedError from None
        is_fresh = tokens.identity is not None
        if tokens.identity is not None:
            claims = _identity(client, tokens.identity, tokens.access, subject=subject)
        else:
            # It was verified when it was stored, and only this service could change it.
            claims = _kept_claims(kept, subject)
        return _sign_in(
            client,
            claims,
            tokens._replace(
                identity=tokens.identity or kept.identity, refresh=tokens.refresh or kept.refresh
            ),
            is_fresh=is_fresh,
        )


def sign_out(kept: ProviderTokens) -> str | None:
    """Where to send the browser so that the provider ends its own session, if it can.

    The refresh token is taken back. A provider that does not answer keeps nobody signed in here.
    """
    client = _extension().client
    session[_SIGNED_OUT] = True
    try:
        with _asking():
            if kept.refresh is not None:
                client.revoke(kept.refresh)
            hint = kept.identity
            if hint is not None and len(hint) > MAX_HINT:
                hint = None
            return client.sign_out_url(hint, url_for("signin.page", _external=True))
    except (ForbiddenError, UnavailableError) as error:
        request_log.note_cause(error)
        return None


def logged_out(token: str) -> tuple[str | None, str | None, datetime]:
    """The provider's session, the person and the time in a logout token.

    Raises:
        ForbiddenError: the token is refused.
        UnavailableError: the provider's keys are unavailable.
    """
    client = _extension().client
    try:
        # Anybody may send one. So keys are fetched only for a token that is plausible.
        header, claims = read_logout_token(token)
        check_logout_claims(header, claims, client.provider)
    except RefusedAnswerError as error:
        raise ForbiddenError("the logout token was refused", cause=str(error)) from None
    with _asking():
        keys = client.recent_keys(header.get("kid"))
        algorithms = client.metadata().algorithms
        verified = verify_logout_token(token, keys, algorithms, client.provider)
    sid, subject = verified.get("sid"), verified.get("sub")
    issued = datetime.fromtimestamp(float(verified["iat"]), UTC)
    return (sid if is_id(sid) else None), (subject if is_id(subject) else None), issued


def _sign_in(
    client: ProviderClient, claims: Mapping[str, Any], tokens: Tokens, *, is_fresh: bool
) -> SignIn:
    """The person of these claims, which userinfo completes, and until when that holds.

    Args:
        is_fresh: the claims are those of now. Otherwise userinfo goes before them.
    """
    settings, now = services().settings, time.time()
    subject = str(claims["sub"])
    names = names_of_claims(settings)
    if tokens.access is not None and any(
        not is_fresh or not has_claim(claims, name) for name in names
    ):
        more = client.userinfo(tokens.access, subject)
        claims = {**more, **claims} if is_fresh else {**claims, **more}
    person = person_of(subject, claims, tokens.access, settings)
    ends = person.expires
    if ends is None:
        ends = now + tokens.seconds if tokens.seconds is not None else float(claims["exp"])
    sid = claims.get("sid")
    return SignIn(
        person,
        ProviderTokens(tokens.identity, tokens.refresh),
        max(ends, now + MIN_SECONDS),
        datetime.fromtimestamp(float(claims["iat"]), UTC),
        sid if is_id(sid) else None,
    )


def _identity(
    client: ProviderClient,
    token: str,
    access_token: str | None,
    *,
    nonce: str | None = None,
    subject: str | None = None,
) -> dict[str, Any]:
    """The claims of an ID token, verified with the keys that the provider publishes now."""
    return verify_id_token(
        token,
        client.published_keys(),
        client.metadata().algorithms,
        client.provider,
        nonce=nonce,
        subject=subject,
        access_token=access_token,
    )


def _kept_claims(kept: ProviderTokens, subject: str) -> dict[str, Any]:
    if kept.identity is None:
        return {"sub": subject, "iat": time.time(), "exp": time.time()}
    claims: dict[str, Any] = jwt.decode(kept.identity, options={"verify_signature": False})
    return claims


def _check_answering_issuer(client: ProviderClient, arguments: Mapping[str, str]) -> None:
    """Refuse the answer of another provider, with which this one was mixed up (RFC 9207)."""
    given = arguments.get("iss")
    if given is None and client.metadata().names_issuer:
        raise RefusedAnswerError("callback: iss is missing")
    if given is not None and given != client.provider.issuer:
        raise RefusedAnswerError("callback: iss is another provider")


def _open_sign_ins() -> dict[str, dict[str, Any]]:
    """The sign-ins that this browser has begun, without those that are too old."""
    found = session.get(_OPEN)
    after = time.time() - OPEN_SECONDS
    if not isinstance(found, dict):
        return {}
    return {state: begun for state, begun in found.items() if begun["t"] > after}


def _take(state: str) -> dict[str, Any] | None:
    """The sign-in with this state, which can be finished once."""
    opened = _open_sign_ins()
    named = next((name for name in opened if compare_digest(name.encode(), state.encode())), None)
    if named is None:
        return None
    begun = opened.pop(named)
    session[_OPEN] = opened
    return begun


def _callback() -> str:
    return url_for("signin.callback", _external=True)


def _extension() -> Extension:
    settings = services().settings
    if settings.provider is None:
        abort(404)
    found: Extension | None = current_app.extensions.get(_EXTENSION)
    if found is None:
        client = ProviderClient(settings.provider, trusted_certificates(settings))
        slots = threading.BoundedSemaphore(max(1, settings.web_threads // 2))
        found = current_app.extensions[_EXTENSION] = Extension(client, slots)
    return found


@contextmanager
def _asking() -> Iterator[None]:
    """Take a slot for requests to the provider, without waiting, and translate their errors."""
    slots = _extension().slots
    if not slots.acquire(blocking=False):
        raise UnavailableError("too many sign-ins at this moment; try again in a few seconds")
    try:
        yield
    except FetchError as error:
        raise UnavailableError(
            "the identity provider is unavailable or its response is invalid; try again later",
            cause=str(error),
        ) from None
    except ProviderError as error:
        code = str(error)
        raise ForbiddenError(_WORDS.get(code, _REFUSED), cause=code) from None
    except RefusedAnswerError as error:
        raise ForbiddenError(REFUSED_ANSWER, cause=str(error)) from None
    finally:
        slots.release()
