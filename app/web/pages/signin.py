"""Sign-in through the identity provider or with a pasted access token, and sign-out."""

import re

from flask import Blueprint, Response, abort, g, redirect, request, url_for
from werkzeug.wrappers import Response as Redirect

from app.auth.api_key_verifier import is_api_key
from app.auth.claims import ANALYTICS_READ_ANY
from app.auth.tokens import Caller, verify_issued_token, verify_token
from app.errors import ForbiddenError, ServiceError, UnauthorizedError, ValidationError
from app.web import errors, params, request_log
from app.web.context import services
from app.web.pages import sessions
from app.web.pages.filters import given_of
from app.web.responses import page_response

_QUOTES = "\"'\u2018\u2019\u201c\u201d"
# What people copy together with a token: the line of a shell, or a header.
_BEFORE_TOKEN = re.compile(
    rf"(export\s+)?(\w{{0,50}}token\s*=\s*)?[{_QUOTES}]*(authorization\s*:\s*)?(bearer\s+)?",
    re.IGNORECASE,
)

bp = Blueprint("signin", __name__)
bp.before_request(sessions.check_form)


def require_session() -> Redirect | None:
    """Require a session and a valid form, and set ``g.caller`` and ``g.tenant_id``.

    Blueprints register it with ``before_request``. Without a session the browser is redirected to
    the sign-in page. An operator, with ``analytics:read:any``, may name an organization as
    ``organizationId``. Without an own organization, an operator who names none is redirected to
    the list of all.

    Raises:
        ForbiddenError: the session may not read another organization.
        ValidationError: the organization's name is invalid.
    """
    caller = sessions.current()
    if caller is None:
        return sessions.redirect_to_sign_in()
    g.caller, g.tenant_id = caller, caller.tenant_id
    sessions.check_form()
    named = params.organization_id(given_of(params.arguments()))
    if named is not None:
        require_scope(ANALYTICS_READ_ANY)
        g.tenant_id = named
        request_log.note(organization=named)
    if g.tenant_id is None and not (request.endpoint or "").startswith("operator."):
        return redirect(url_for("operator.page"), 303)
    return None


def require_scope(scope: str) -> None:
    """Require a scope of the session, for a page or a form.

    Raises:
        ForbiddenError: the token of the sign-in did not have the scope.
    """
    if scope not in g.caller.scopes:
        raise ForbiddenError(
            f"this needs the scope {scope}; sign in with a token that has it", cause="scope"
        )


def require_own_organization() -> None:
    """Require that the page is of the session's own organization, for what changes something.

    Raises:
        ForbiddenError: an operator reads another organization.
    """
    if g.tenant_id != g.caller.tenant_id:
        raise ForbiddenError(
            "an operator may read another organization, and change only the own one"
        )


@bp.get("/")
def start() -> Redirect:
    """Redirect the service's address to the dashboard."""
    return _to_dashboard()


@bp.get("/dashboard/")
def slash() -> Redirect:
    """Redirect the dashboard's address with a slash too many."""
    return _to_dashboard()


def _to_dashboard() -> Redirect:
    query = request.query_string.decode("latin-1")
    return redirect(url_for("dashboard.page") + (f"?{query}" if query else ""), 303)


@bp.get("/signin")
def page() -> Response | Redirect:
    """The sign-in page."""
    if sessions.current():
        return redirect(sessions.pop_return_path(), 303)
    return _signin_page()


@bp.get("/signin/link")
def link() -> Response:
    """The sign-in page of the link that ``make run`` prints. Development only.

    Browsers do not send the token behind the ``#``. The page's script puts it into the form.
    """
    if not services().settings.sign_in_link:
        abort(404)
    return _signin_page(is_link=True)


@bp.post("/signin")
def paste() -> Redirect:
    """Sign in with a pasted access token."""
    if not services().settings.token_login:
        abort(404)
    token = pasted_token(request.form.get("token", ""))
    if not token:
        raise ValidationError("paste an access token first")
    if is_api_key(token):
        raise ValidationError("a key cannot sign in; paste an access token")
    return _begin(verify_token(token))


@bp.get("/signin/oidc")
def ask_provider() -> Redirect:
    """Redirect to the identity provider.

    It is a link, not a form: the Content-Security-Policy sends forms to this service only.
    """
    from app.web.pages import oidc  # noqa: PLC0415 - a slow import that only sign-in needs

    return oidc.start()


@bp.get("/signin/callback")
def callback() -> Redirect:
    """Sign in with the identity provider's redirect back."""
    from app.web.pages import oidc  # noqa: PLC0415 - as above

    return _begin(verify_issued_token(oidc.finish()))


@bp.post("/signout")
def sign_out() -> Redirect:
    """Sign out of this service. The identity provider's own session continues."""
    sessions.end()
    return redirect(url_for("signin.page"), 303)


@bp.errorhandler(ServiceError)
def problem(error: ServiceError) -> Response | Redirect:
    """The sign-in page with the error's message."""
    request_log.note(problem=error.message)
    request_log.note_cause(error)
    if request.endpoint == "signin.sign_out":
        # Without a session the browser is signed out already, so the expired form is no error.
        if sessions.current():
            return errors.service_error(error)
        return sessions.redirect_to_sign_in()
    text = error.message
    if request.endpoint == "signin.callback" and isinstance(error, UnauthorizedError):
        text = f"the identity provider's access token is not accepted here: {text}"
    response = _signin_page(problem=errors.sentence(text))
    response.status_code = error.status
    response.headers.update(error.headers)
    return response


def pasted_token(text: str) -> str:
    """The token in a pasted text, without white space and line breaks.

    The text may also be ``TOKEN=…``, ``Bearer …`` or a whole Authorization header, with quotes.
    """
    text = _BEFORE_TOKEN.sub("", text.strip(), count=1).strip(f"{_QUOTES};")
    return "".join(text.split())


def _begin(caller: Caller) -> Redirect:
    path = sessions.begin(caller)
    g.caller = sessions.current()  # for the request's log line
    return redirect(path, 303)


def _signin_page(problem: str | None = None, *, is_link: bool = False) -> Response:
    settings = services().settings
    response = page_response(
        "signin.html",
        provider=settings.provider is not None,
        token_login=settings.token_login,
        problem=problem,
        is_link=is_link,
    )
    response.headers["Cache-Control"] = "no-store"
    return response
