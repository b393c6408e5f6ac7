"""Signing in to the pages, by the identity provider or with a pasted access token, and out."""

from flask import Blueprint, Response, abort, g, redirect, request, url_for
from werkzeug.wrappers import Response as Redirect

from app.auth import tokens as auth
from app.errors import ServiceError, UnauthorizedError, ValidationError
from app.web import errors
from app.web.context import services
from app.web.pages import sessions
from app.web.request_log import note
from app.web.responses import page_response

bp = Blueprint("signin", __name__)
bp.before_request(sessions.check_form)


def require_session() -> Redirect | None:
    """Let in who signed in, as the token that they signed in with would be; a ``before_request``.

    Others go to the sign-in page first, and a form must be of this session's pages.
    """
    caller = sessions.live()
    if caller is None:
        return sessions.to_sign_in()
    g.caller, g.tenant_id = caller, caller.tenant_id
    sessions.check_form()
    return None


@bp.get("/")
def start() -> Redirect:
    """Where people come in."""
    return redirect(url_for("dashboard.page"), 303)


@bp.get("/signin")
def page() -> Response | Redirect:
    """The ways to sign in."""
    if sessions.live():
        return redirect(sessions.wanted(), 303)
    return _page()


@bp.post("/signin")
def paste() -> Redirect:
    """An access token, pasted; however its lines were broken."""
    if not services().settings.token_login:
        abort(404)
    token = "".join(request.form.get("token", "").split())
    if not token:
        raise ValidationError("paste an access token first")
    return _begin(token)


@bp.get("/signin/oidc")
def ask_provider() -> Redirect:
    """Away to the identity provider; a link, since a form may be sent to this service alone."""
    from app.web.pages import oidc  # noqa: PLC0415 - only who signs in needs what it imports

    return oidc.start()


@bp.get("/signin/callback")
def callback() -> Redirect:
    """Back from the identity provider."""
    from app.web.pages import oidc  # noqa: PLC0415 - as above

    return _begin(oidc.finish())


@bp.post("/signout")
def sign_out() -> Redirect:
    """Out of this service; the identity provider has a session of its own."""
    sessions.end()
    return redirect(url_for("signin.page"), 303)


@bp.errorhandler(ServiceError)
def problem(error: ServiceError) -> Response | Redirect:
    """The page again, with what was wrong."""
    note(problem=error.message)
    if request.endpoint == "signin.sign_out":
        # Who is out already need not be told that the form is too old.
        return errors.service_error(error) if sessions.live() else sessions.to_sign_in()
    text = error.message
    if request.endpoint == "signin.callback" and isinstance(error, UnauthorizedError):
        text = f"the identity provider's access token cannot be used here: {text}"
    response = _page(problem=errors.sentence(text))
    response.status_code = error.status
    response.headers.update(error.headers)
    return response


def _begin(token: str) -> Redirect:
    wanted = sessions.begin(auth.identify(token))
    g.caller = sessions.live()  # for the request's line
    return redirect(wanted, 303)


def _page(problem: str | None = None) -> Response:
    settings = services().settings
    response = page_response(
        "signin.html",
        provider=settings.provider is not None,
        token_login=settings.token_login,
        problem=problem,
    )
    response.headers["Cache-Control"] = "no-store"
    return response
