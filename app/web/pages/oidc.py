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
from app.auth.page_sessions import ProviderTokens, SilentSignIn
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
from app.web.pages import sessions

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


class _Begun(NamedTuple):
    """A sign-in that a browser has begun, as its cookie keeps it; ``began`` in Unix seconds."""

    nonce: str
    verifier: str
    began: float
    path: str | None = None


class PromptNeededError(Exception):
    """The provider cannot sign in without a page. ``path``: where the browser was."""

    def __init__(self, path: str | None) -> None:
        super().__init__("the provider must show a page")
        self.path = path


class EndedError(Exception):
    """The provider does not renew the session."""


def authorization_url(*, path: str | None = None) -> str:
    """The URL at the provider to send the browser to. Its cookie keeps state, nonce and verifier.

    Args:
        path: where the browser continues; by default the page that it requested last.
    """
    state, begun = (
        token_urlsafe(16),
        _Begun(token_urlsafe(16), token_urlsafe(32), time.time(), path),
    )
    client = _extension().client
    with _asking():
        prompt = client.prompt_for_account() if session.get(_SIGNED_OUT) else None
        url = client.authorization_url(_callback(), state, begun.nonce, begun.verifier, prompt)
    opened = _open_sign_ins()
    while len(opened) >= MAX_OPEN_SIGN_INS:
        del opened[min(opened, key=lambda name: opened[name].began)]
    opened[state] = begun
    session[_OPEN] = opened
    return url


def silent_url(session_id: str, path: str | None = None) -> str:
    """The same for a session that there is. The provider must not show a page for it."""
    begun = SilentSignIn(session_id, token_urlsafe(16), token_urlsafe(32), time.time(), path)
    state = sessions.sealer().seal(begun)
    client = _extension().client
    with _asking():
        return client.authorization_url(_callback(), state, begun.nonce, begun.verifier, "none")


def finish() -> SignIn:
    """Exchange the code in the browser's request for tokens, and verify them.

    Raises:
        ValidationError: the sign-in is unknown, expired or finished.
        ForbiddenError: the provider refused the sign-in, or its answer is refused.
        UnavailableError: the provider is unavailable.
        PromptNeededError: a silent sign-in needs a page of the provider, or it does not know the
            prompt of a sign-in after signing out.
    """
    arguments = request.args
    begun = _take(arguments.get("state", ""))
    error = arguments.get("error")
    client = _extension().client
    with _asking():
        if begun is not None:
            _check_answering_issuer(client, arguments)
        if error is not None:
            if isinstance(begun, SilentSignIn) and error in PROMPTED:
                raise PromptNeededError(begun.path)
            if session.pop(_SIGNED_OUT, None) and begun is not None and error == "invalid_request":
                # Perhaps the provider does not know the prompt, so once without it.
                raise PromptNeededError(begun.path)
            raise ProviderError(error)
        code = arguments.get("code")
        if begun is None or not code:
            raise ValidationError(
                "this sign-in has expired or began in another browser; sign in again"
            )
        tokens = client.redeem(code, _callback(), begun.verifier)
        if tokens.identity is None:
            raise RefusedAnswerError("token endpoint: id_token is missing")
        claims = _identity(client, tokens.identity, tokens.access, nonce=begun.nonce)
        found = _sign_in(client, claims, tokens, is_fresh=True)
    return found._replace(is_silent=isinstance(begun, SilentSignIn), path=begun.path)


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


def _open_sign_ins() -> dict[str, _Begun]:
    """The sign-ins that this browser has begun, without those that are too old."""
    found = session.get(_OPEN)
    begun = {state: _Begun(*one) for state, one in (found or {}).items()}
    return {state: one for state, one in begun.items() if not _is_too_old(one.began)}


def _take(state: str) -> "_Begun | SilentSignIn | None":
    """The sign-in with this state. It can be finished once: the provider redeems no code twice."""
    opened = _open_sign_ins()
    named = next((name for name in opened if compare_digest(name.encode(), state.encode())), None)
    if named is not None:
        begun = opened.pop(named)
        session[_OPEN] = opened
        return begun
    silent, here = sessions.sealer().silent_sign_in(state), sessions.stored()
    if silent is None or here is None or silent.session != here.id or _is_too_old(silent.began):
        return None
    return silent


def _is_too_old(began: float) -> bool:
    return began <= time.time() - OPEN_SECONDS


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
