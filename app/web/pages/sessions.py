"""Sessions: a signed cookie with a random id. Who that is, the database knows.

Signing out deletes the row, so that a copied cookie is worthless. The cookie also keeps what is
under way before a sign-in. It never has a token.
"""

import hashlib
import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from flask import Flask, Request, Response, current_app, g, redirect, request, session, url_for
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface, SessionMixin
from flask_wtf.csrf import CSRFError, CSRFProtect
from werkzeug.wrappers import Response as Redirect

from app.auth.claims import AGENTS_WRITE, ANALYTICS_ADMIN, ANALYTICS_READ_ANY
from app.auth.page_sessions import (
    Form,
    PageSession,
    Sealer,
    begin_session,
    change_session,
    end_session,
    find_session,
    new_id,
    stored_id,
)
from app.auth.tokens import Caller, tenant_of
from app.config.settings import Settings
from app.errors import ValidationError
from app.web.context import services

COOKIE = "analytics_session"
MAX_FORM_BYTES = 64 * 1024
FORM = "application/x-www-form-urlencoded"
# Requests for these paths have no session, so none is opened.
PATHS_WITHOUT_SESSION = (
    *("/api/", "/static/", "/docs", "/health", "/ready", "/favicon.ico", "/robots.txt"),
    *("/shared/", "/signout/backchannel"),
)

_ID, _EXPIRES, _RETURN_TO = "id", "expires", "wanted"
_SEALER = "analytics_sealer"
# The scopes that pages use. Others are not kept.
_PAGE_SCOPES = {AGENTS_WRITE, ANALYTICS_ADMIN, ANALYTICS_READ_ANY}
_MAX_SUBJECT = 255
_CSRF_FIELD = "csrf_token"
# A path of this host. Browsers read // as another host, and \ as a /.
_LOCAL_PATH = re.compile(r"/([!-.0-\[\]-~][!-\[\]-~]{0,999})?")

_csrf = CSRFProtect()


class CookieSessions(SecureCookieSessionInterface):
    """Session cookies that scripts cannot read and that end with the session.

    A cookie that was set over TLS is sent over TLS only.
    """

    digest_method = staticmethod(hashlib.sha256)

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        if request.path.startswith(PATHS_WITHOUT_SESSION):
            return None
        return super().open_session(app, request)

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        if session.accessed:
            response.headers.setdefault("Cache-Control", "no-store")
        super().save_session(app, session, response)

    def get_cookie_name(self, app: Flask) -> str:
        """The cookie's name. Its prefix behind TLS keeps other hosts from setting the cookie.

        Below a path, browsers refuse ``__Host-``.
        """
        name = super().get_cookie_name(app)
        if not request.is_secure:
            return name
        return f"__Secure-{name}" if request.script_root else f"__Host-{name}"

    def get_cookie_path(self, app: Flask) -> str:
        """The path of the service, so that others on the same host do not get the cookie."""
        return request.script_root or "/"

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure

    def get_expiration_time(self, app: Flask, session: SessionMixin) -> datetime | None:
        """The session's end; before sign-in ``None``: the cookie ends with the browser."""
        expires = session.get(_EXPIRES)
        return None if expires is None else datetime.fromtimestamp(expires, UTC)


def init_app(app: Flask, settings: Settings) -> None:
    """Configure session cookies and CSRF tokens."""
    app.session_interface = CookieSessions()
    app.extensions[_SEALER] = Sealer([settings.secret_key, *settings.secret_key_fallbacks])
    app.config.update(
        SESSION_COOKIE_NAME=COOKIE,
        SESSION_COOKIE_HTTPONLY=True,
        # "Strict" would omit the cookie on the redirect back from the identity provider.
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_REFRESH_EACH_REQUEST=False,
        # check_form() checks forms, for pages only, because the API reads no cookies. A form is
        # valid as long as its session. The referrer is not checked: these pages send none.
        WTF_CSRF_CHECK_DEFAULT=False,
        WTF_CSRF_TIME_LIMIT=None,
        WTF_CSRF_SSL_STRICT=False,
    )
    _csrf.init_app(app)


def begin(caller: Caller) -> str:
    """Begin a session with a pasted token, end the previous one, and return the path to go on at.

    Raises:
        ForbiddenError: the token has no organization, and may not read those of others.
    """
    tenant = caller.tenant_id if ANALYTICS_READ_ANY in caller.scopes else tenant_of(caller)
    found = new_session(caller.subject, tenant, caller.scopes)
    ends = datetime.fromtimestamp(caller.expires, UTC)
    return enter(found._replace(expires=min(found.expires, ends)))


def new_session(subject: str, tenant_id: str | None, scopes: frozenset[str]) -> PageSession:
    """A session that is not stored yet, and has no id. It lasts ``SESSION_HOURS``."""
    now = _now()
    return PageSession(
        "",
        tenant_id,
        subject[:_MAX_SUBJECT],
        page_scopes(scopes),
        (),
        now,
        now + timedelta(hours=services().settings.session_hours),
    )


def enter(begun: PageSession) -> str:
    """Store a new session in place of this browser's, and return the path to go on at."""
    path = pop_return_path()
    cookie_id, former = new_id(), session.get(_ID)
    begun = begun._replace(id=stored_id(cookie_id))
    begin_session(
        services().database,
        begun,
        instead_of=stored_id(former) if isinstance(former, str) else None,
    )
    session.clear()
    session[_ID], session[_EXPIRES] = cookie_id, begun.expires.timestamp()
    g.page_session = begun
    return path


def stored() -> PageSession | None:
    """This browser's session, unless it has ended or is over; it is read once in a request."""
    if "page_session" not in g:
        cookie_id = session.get(_ID)
        found = None
        if isinstance(cookie_id, str):
            found = find_session(services().database, stored_id(cookie_id))
        g.page_session = None if found is None or found.expires <= _now() else found
    here: PageSession | None = g.page_session
    return here


def change(changes: dict[str, Any], *, claim: datetime | None = None) -> bool:
    """Change columns of this browser's session. Returns whether it was still there."""
    found = stored()
    if found is None:
        return False
    del g.page_session
    return change_session(services().database, found.id, changes, claim=claim)


def current() -> Caller | None:
    """The caller of the session, unless it has ended or is over."""
    found = stored()
    if found is None:
        return None
    expires = found.expires.timestamp()
    return Caller(found.tenant_id, found.scopes, found.subject, found.subject, expires)


def end() -> None:
    """End the session for good."""
    found = stored()
    if found is not None:
        end_session(services().database, found.id)
    session.clear()
    g.page_session = None


def sealer() -> Sealer:
    """What encrypts the tokens and the forms of sessions."""
    found: Sealer = current_app.extensions[_SEALER]
    return found


def sent_form() -> Form:
    """The form of the request, without its CSRF token."""
    fields = [pair for pair in request.form.items(multi=True) if pair[0] != _CSRF_FIELD]
    return Form(requested_path(), fields)


def requested_path() -> str:
    """The path of the request with its query."""
    query = request.query_string.decode("latin-1")
    return quote(request.script_root + request.path) + (f"?{query}" if query else "")


def redirect_to_sign_in() -> Redirect:
    """Redirect to the sign-in page, which redirects back to the requested page afterwards."""
    for name in (_ID, _EXPIRES):
        session.pop(name, None)
    if request.method == "GET":
        remember_path()
    return redirect(url_for("signin.page"), 303)


def remember_path(path: str | None = None) -> None:
    """Go on at this path after a sign-in or a choice; by default at the requested one."""
    session[_RETURN_TO] = requested_path() if path is None else path


def page_scopes(scopes: frozenset[str]) -> frozenset[str]:
    """The scopes that pages use."""
    return scopes & _PAGE_SCOPES


def pop_return_path() -> str:
    """The path that was requested before sign-in, removed from the session; else the dashboard."""
    return local_path(session.pop(_RETURN_TO, None))


def local_path(path: object) -> str:
    """A path of this service; the dashboard in place of anything else."""
    here = isinstance(path, str) and _LOCAL_PATH.fullmatch(path)
    return str(path) if here else url_for("dashboard.page")


def check_form() -> None:
    """Check the CSRF token of a form. Blueprints register it with ``before_request``.

    Raises:
        ValidationError: the form is not from a page of this session, or not a form at all.
    """
    request.max_content_length = MAX_FORM_BYTES
    # The pages send no other kind. A multipart form may have parts without a name, for example,
    # which Flask-WTF does not expect.
    if request.method == "POST" and request.mimetype not in ("", FORM):
        raise ValidationError(f"the form must be sent as {FORM}; reload the page and try again")
    try:
        _csrf.protect()
    except CSRFError:
        raise ValidationError("this form has expired; reload the page and try again") from None


def _now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)
