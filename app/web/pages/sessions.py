"""Sessions: a signed cookie with organization, subject, scopes and expiry, never the token."""

import hashlib
import re
import time
from datetime import UTC, datetime
from urllib.parse import quote

from flask import Flask, Request, Response, redirect, request, session, url_for
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface, SessionMixin
from flask_wtf.csrf import CSRFError, CSRFProtect
from werkzeug.wrappers import Response as Redirect

from app.auth.claims import (
    AGENTS_WRITE,
    ANALYTICS_ADMIN,
    ANALYTICS_READ,
    ANALYTICS_READ_ANY,
    EVENTS_WRITE,
)
from app.auth.tokens import Caller, tenant_of
from app.errors import ValidationError

COOKIE = "analytics_session"
# The longest session, even if its token is valid for longer. A signed cookie cannot be revoked,
# except by a new SECRET_KEY.
MAX_SECONDS = 24 * 3600
MAX_FORM_BYTES = 64 * 1024
FORM = "application/x-www-form-urlencoded"
# Requests for these paths have no session, so none is opened.
PATHS_WITHOUT_SESSION = (
    *("/api/", "/static/", "/docs", "/health", "/ready", "/favicon.ico", "/robots.txt"),
    "/shared/",
)

_TENANT, _SUBJECT, _EXPIRES, _RETURN_TO = "tenant", "subject", "expires", "wanted"
_SCOPES = "scopes"
# The scopes that pages use, or that a page may give to an API key. Others are not in the cookie.
_PAGE_SCOPES = {AGENTS_WRITE, ANALYTICS_ADMIN, ANALYTICS_READ, ANALYTICS_READ_ANY, EVENTS_WRITE}
_MAX_SUBJECT = 255
# A path of this host. Browsers read // as another host, and \ as a /.
_LOCAL_PATH = re.compile(r"/([!-.0-\[\]-~][!-\[\]-~]{0,999})?")

_csrf = CSRFProtect()


class CookieSessions(SecureCookieSessionInterface):
    """Session cookies that scripts cannot read and that end with the token.

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
        """The token's expiry; before sign-in ``None``: the cookie ends with the browser."""
        expires = session.get(_EXPIRES)
        return None if expires is None else datetime.fromtimestamp(expires, UTC)


def init_app(app: Flask) -> None:
    """Configure session cookies and CSRF tokens."""
    app.session_interface = CookieSessions()
    app.config.update(
        SESSION_COOKIE_NAME=COOKIE,
        SESSION_COOKIE_HTTPONLY=True,
        # "Strict" would omit the cookie on the redirect back from the identity provider.
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_REFRESH_EACH_REQUEST=False,
        PERMANENT_SESSION_LIFETIME=MAX_SECONDS,
        # check_form() checks forms, for pages only, because the API reads no cookies. A form is
        # valid as long as its session. The referrer is not checked: these pages send none.
        WTF_CSRF_CHECK_DEFAULT=False,
        WTF_CSRF_TIME_LIMIT=None,
        WTF_CSRF_SSL_STRICT=False,
    )
    _csrf.init_app(app)


def begin(caller: Caller) -> str:
    """Begin a session, end the previous one, and return the path to continue at.

    Raises:
        ForbiddenError: the token has no organization, and may not read those of others.
    """
    tenant = caller.tenant_id if ANALYTICS_READ_ANY in caller.scopes else tenant_of(caller)
    path = pop_return_path()
    session.clear()
    session[_TENANT], session[_SUBJECT] = tenant, caller.subject[:_MAX_SUBJECT]
    session[_SCOPES] = sorted(caller.scopes & _PAGE_SCOPES)
    session[_EXPIRES] = min(caller.expires, time.time() + MAX_SECONDS)
    return path


def current() -> Caller | None:
    """The caller of the session, unless it has expired."""
    expires: float = session.get(_EXPIRES, 0)
    if expires <= time.time():
        return None
    subject = session[_SUBJECT]
    scopes = frozenset(session.get(_SCOPES, ()))
    return Caller(session[_TENANT], scopes, subject, subject, expires)


def end() -> None:
    """End the session in this browser."""
    session.clear()


def redirect_to_sign_in() -> Redirect:
    """Redirect to the sign-in page, which redirects back to the requested page afterwards."""
    for name in (_TENANT, _SUBJECT, _SCOPES, _EXPIRES):
        session.pop(name, None)
    if request.method == "GET":
        query = request.query_string.decode("latin-1")
        path = quote(request.script_root + request.path)
        session[_RETURN_TO] = path + (f"?{query}" if query else "")
    return redirect(url_for("signin.page"), 303)


def pop_return_path() -> str:
    """The path that was requested before sign-in, removed from the session; else the dashboard."""
    path = str(session.pop(_RETURN_TO, ""))
    return path if _LOCAL_PATH.fullmatch(path) else url_for("dashboard.page")


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
