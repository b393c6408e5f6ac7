"""Sessions of pages: a signed cookie that says who signed in and until when, never the token."""

import hashlib
import re
import time
from datetime import UTC, datetime
from urllib.parse import quote

from flask import Flask, Request, Response, redirect, request, session, url_for
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface, SessionMixin
from flask_wtf.csrf import CSRFError, CSRFProtect
from werkzeug.wrappers import Response as Redirect

from app.auth.tokens import Caller, require_tenant
from app.errors import ValidationError

COOKIE = "analytics_session"
# However long a token lives: what is signed cannot be taken back, but by a new SECRET_KEY.
MAX_SECONDS = 24 * 3600
MAX_FORM_BYTES = 64 * 1024
# What has no sessions need not prepare one for each call.
WITHOUT = ("/api/", "/static/", "/docs", "/health", "/ready")

_TENANT, _SUBJECT, _EXPIRES, _WANTED = "tenant", "subject", "expires", "wanted"
_SHOWN = 255
# A path here, for a browser too: it takes // for another host, and \ for a /.
_LOCAL = re.compile(r"/([!-.0-\[\]-~][!-\[\]-~]{0,999})?")

_csrf = CSRFProtect()


class PageSessions(SecureCookieSessionInterface):
    """Cookies that scripts cannot read, that end with the token, and that TLS keeps to itself."""

    digest_method = staticmethod(hashlib.sha256)

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        if request.path.startswith(WITHOUT):
            return None
        return super().open_session(app, request)

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        if session.accessed:
            response.headers.setdefault("Cache-Control", "no-store")
        super().save_session(app, session, response)

    def get_cookie_name(self, app: Flask) -> str:
        """Behind TLS one that no other host of the domain can set for us."""
        name = super().get_cookie_name(app)
        return f"__Host-{name}" if request.is_secure else name

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure

    def get_expiration_time(self, app: Flask, session: SessionMixin) -> datetime | None:
        """With the token; before anybody signed in, with the browser."""
        ends = session.get(_EXPIRES)
        return None if ends is None else datetime.fromtimestamp(ends, UTC)


def init_app(app: Flask) -> None:
    """Keep sessions in cookies, and prepare the check of forms."""
    app.session_interface = PageSessions()
    app.config.update(
        SESSION_COOKIE_NAME=COOKIE,
        SESSION_COOKIE_HTTPONLY=True,
        # Strict would hide it from the redirect back from the identity provider.
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_REFRESH_EACH_REQUEST=False,
        PERMANENT_SESSION_LIFETIME=MAX_SECONDS,
        # The API has no cookies, hence nothing to check; a page's form is good as long as its
        # session, and our pages send no referrer that could be looked at.
        WTF_CSRF_CHECK_DEFAULT=False,
        WTF_CSRF_TIME_LIMIT=None,
        WTF_CSRF_SSL_STRICT=False,
    )
    _csrf.init_app(app)


def begin(caller: Caller) -> str:
    """Begin the session of whoever brought a verified token, and end what was there before; the
    page that was asked for.

    Raises:
        ForbiddenError: the token names no organization.
    """
    tenant, path = require_tenant(caller), wanted()
    session.clear()
    session[_TENANT], session[_SUBJECT] = tenant, caller.person[:_SHOWN]
    session[_EXPIRES] = min(caller.expires, time.time() + MAX_SECONDS)
    return path


def live() -> Caller | None:
    """Who signed in, unless that is over."""
    expires: float = session.get(_EXPIRES, 0)
    if expires <= time.time():
        return None
    subject = session[_SUBJECT]
    return Caller(session[_TENANT], frozenset(), subject, subject, expires)


def end() -> None:
    """Sign out of this browser."""
    session.clear()


def to_sign_in() -> Redirect:
    """Away to the sign-in page, and afterwards to the page that was asked for."""
    for name in (_TENANT, _SUBJECT, _EXPIRES):
        session.pop(name, None)
    if request.method == "GET":
        query = request.query_string.decode("latin-1")
        session[_WANTED] = quote(request.path) + (f"?{query}" if query else "")
    return redirect(url_for("signin.page"), 303)


def wanted() -> str:
    """The page of ours that was asked for before signing in, once."""
    path = str(session.pop(_WANTED, ""))
    return path if _LOCAL.fullmatch(path) else url_for("dashboard.page")


def check_form() -> None:
    """Refuse a form that is not from a page of this session; a ``before_request``.

    Raises:
        ValidationError: it is none of ours, or too old.
    """
    request.max_content_length = MAX_FORM_BYTES
    try:
        _csrf.protect()
    except CSRFError:
        raise ValidationError("the page was open for too long; please send it again") from None
