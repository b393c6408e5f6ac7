"""Sign-in through the identity provider or with a pasted access token, and sign-out.

A session of the provider is renewed as soon as what the provider said no longer holds: with the
refresh token, else by a silent sign-in (``prompt=none``), else by the provider's own pages. The
requested page, and a form that was sent meanwhile, come back afterwards.
"""

import re
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, abort, g, redirect, request, url_for
from werkzeug.wrappers import Response as Redirect

from app.auth.api_key_verifier import is_api_key
from app.auth.claims import ANALYTICS_READ_ANY
from app.auth.page_sessions import (
    GRACE_SECONDS,
    PageSession,
    claim_renewal,
    end_sessions_of,
    organizations_text,
)
from app.auth.tokens import Caller, verify_token
from app.errors import (
    ForbiddenError,
    ServiceError,
    UnauthorizedError,
    UnavailableError,
    ValidationError,
)
from app.web import errors, params, request_log
from app.web.context import services
from app.web.pages import sessions
from app.web.pages.filters import given_of
from app.web.responses import page_response

if TYPE_CHECKING:
    from app.web.pages.oidc import SignIn

_QUOTES = "\"'\u2018\u2019\u201c\u201d"
# What people copy together with a token: the line of a shell, or a header.
_BEFORE_TOKEN = re.compile(
    rf"(export\s+)?(\w{{0,50}}token\s*=\s*)?[{_QUOTES}]*(authorization\s*:\s*)?(bearer\s+)?",
    re.IGNORECASE,
)

MAX_LOGOUT_BYTES = 128 * 1024
# The longest path that a sign-in keeps for itself. A longer one is kept once for all of a browser.
_MAX_PATH = 300

bp = Blueprint("signin", __name__)
bp.before_request(sessions.check_form)
# The provider calls it, without a cookie and without a form of this service.
provider_bp = Blueprint("provider", __name__)


def require_session() -> Redirect | Response | None:
    """Require a session and a valid form, and set ``g.caller`` and ``g.tenant_id``.

    Blueprints register it with ``before_request``. Without a session the browser is redirected to
    the sign-in page. An operator, with ``analytics:read:any``, may name an organization as
    ``organizationId``. Without an own organization, an operator who names none is redirected to
    the list of all. A person of several organizations chooses one first.

    Raises:
        ForbiddenError: the session may not read another organization.
        ValidationError: the organization's name is invalid.
    """
    found = sessions.stored()
    caller = sessions.current()
    if found is None or caller is None:
        return sessions.redirect_to_sign_in()
    g.caller, g.tenant_id = caller, caller.tenant_id
    sessions.check_form()
    if found.must_be_renewed(_now()):
        answer = _renewed(found)
        found, caller = sessions.stored(), sessions.current()
        if answer is not None or found is None or caller is None:
            return answer or sessions.redirect_to_sign_in()
        g.caller, g.tenant_id = caller, caller.tenant_id
    named = params.organization_id(given_of(params.arguments()))
    if named is not None:
        require_scope(ANALYTICS_READ_ANY)
        g.tenant_id = named
        request_log.note(organization=named)
    if g.tenant_id is None and not _is_for_operators():
        return _to_an_organization(found)
    return None


def _to_an_organization(found: PageSession) -> Redirect:
    """Let a person of several organizations choose one, and an operator of none see all."""
    if len(found.organizations) < 2:
        return redirect(url_for("operator.page"), 303)
    if request.method == "GET":
        sessions.remember_path()
    return redirect(url_for("signin.choice"), 303)


def _is_for_operators() -> bool:
    is_operator = ANALYTICS_READ_ANY in g.caller.scopes
    return is_operator and (request.endpoint or "").startswith("operator.")


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
    # The script of a page asks with ``live`` for a session that is to be renewed. It follows no
    # redirect to the provider, but loads its page again.
    if sessions.current() and "live" not in request.args:
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
    from app.web.pages import oidc  # noqa: PLC0415 - only few services need it

    return redirect(oidc.authorization_url(), 303)


@bp.get("/signin/callback")
def callback() -> Redirect:
    """Sign in with the identity provider's redirect back."""
    from app.web.pages import oidc  # noqa: PLC0415 - as above

    try:
        found = oidc.finish()
    except oidc.PromptNeededError as error:
        return redirect(oidc.authorization_url(path=error.path), 303)
    former = sessions.stored()
    if found.is_silent and former is not None and former.subject == found.person.subject:
        # Several tabs may do this at once, so the session keeps its id.
        sessions.change(_changes(found, former) | {"issued_at": found.issued, "sid": found.sid})
        path = sessions.pop_return_path()
    else:
        path = sessions.enter(_session_of(found, former))
    if found.path is not None:
        path = sessions.local_path(found.path)
    g.caller = sessions.current()  # for the request's log line
    begun = sessions.stored()
    if begun is None:
        return sessions.redirect_to_sign_in()
    if begun.form is not None:
        return redirect(url_for("signin.form"), 303)
    if begun.tenant_id is None and begun.organizations:
        sessions.remember_path(path)
        return redirect(url_for("signin.choice"), 303)
    return redirect(path, 303)


def _session_of(found: "SignIn", former: PageSession | None) -> PageSession:
    """The session of a sign-in. What the same person has chosen and sent before is kept."""
    person = found.person
    begun = sessions.new_session(person.subject, None, person.scopes)
    if former is not None and former.subject != begun.subject:
        former = None
    begun = begun._replace(
        tenant_id=person.tenant(former and former.tenant_id),
        organizations=person.organizations if len(person.organizations) > 1 else (),
        renew_at=datetime.fromtimestamp(found.renew_at, UTC),
        issued=found.issued,
        sid=found.sid,
        sealed=sessions.sealer().seal(found.tokens),
    )
    return begun if former is None else begun._replace(form=former.form)


def _changes(renewed: "SignIn", former: PageSession) -> dict[str, Any]:
    """What a renewal changes in a session. The choice stays while it is among the organizations."""
    person = renewed.person
    return {
        "tenant_id": person.tenant(former.tenant_id),
        "scopes": " ".join(sorted(sessions.page_scopes(person.scopes))),
        "organizations": organizations_text(person.organizations),
        "renew_at": datetime.fromtimestamp(renewed.renew_at, UTC),
        "claimed_until": None,
        "sealed": sessions.sealer().seal(renewed.tokens),
    }


@bp.get("/signin/organization")
def choice() -> Response | Redirect:
    """The organizations of a person, to choose one."""
    found = sessions.stored()
    if found is None:
        return sessions.redirect_to_sign_in()
    if len(found.organizations) < 2:
        return redirect(url_for("dashboard.page"), 303)
    return _choice_page(found)


@bp.post("/signin/organization")
def choose() -> Redirect:
    """Show another organization of the person from now on.

    Raises:
        ValidationError: the identity provider has not named it at sign-in.
    """
    found, chosen = sessions.stored(), request.form.get("organization")
    if found is None:
        return sessions.redirect_to_sign_in()
    if chosen not in found.organizations:
        raise ValidationError("choose one of your organizations")
    path = sessions.pop_return_path()
    is_first = found.tenant_id is None
    if not sessions.change({"tenant_id": chosen}):
        return sessions.redirect_to_sign_in()
    # Another organization has other agents and findings, so only the first choice goes on there.
    return redirect(path if is_first else url_for("dashboard.page"), 303)


@bp.get("/signin/form")
def form() -> Response | Redirect:
    """The form that was sent while the session was renewed, to send it again."""
    found = sessions.stored()
    sent = found and sessions.sealer().form(found.form)
    if found is None or sent is None:
        return redirect(url_for("dashboard.page"), 303)
    sessions.change({"form": None})
    response = page_response("sent_form.html", form=sent, path=sessions.local_path(sent.path))
    response.headers["Cache-Control"] = "no-store"
    return response


@bp.post("/signout")
def sign_out() -> Redirect | Response:
    """Sign out of this service, and of the identity provider where it has a page for that."""
    found = sessions.stored()
    sessions.end()
    if found is not None and found.renew_at is not None and services().settings.provider:
        from app.web.pages import oidc  # noqa: PLC0415 - as above

        url = oidc.sign_out(sessions.sealer().tokens(found.sealed))
        if url is not None:
            return _leave(
                url, "You are signed out here. Your identity provider signs you out next."
            )
    return redirect(url_for("signin.page"), 303)


@provider_bp.post("/signout/backchannel")
def end_sessions() -> Response:
    """End sessions because the identity provider says so (OpenID Connect Back-Channel Logout)."""
    if services().settings.provider is None:
        abort(404)
    from app.web.pages import oidc  # noqa: PLC0415 - as above

    request.max_content_length = MAX_LOGOUT_BYTES
    token = request.form.get("logout_token", "")
    try:
        if not token:
            raise ForbiddenError("the form has no logout_token", cause="logout token: missing")
        sid, subject, issued = oidc.logged_out(token)
    except ForbiddenError as error:
        request_log.note_cause(error)
        return _logout_answer('{"error":"invalid_request"}', 400)
    ended = end_sessions_of(services().database, sid, subject, issued)
    request_log.note(ended=ended)
    return _logout_answer("", 200)


def _logout_answer(body: str, status: int) -> Response:
    response = Response(body, status, mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response


@bp.errorhandler(ServiceError)
def problem(error: ServiceError) -> Response | Redirect:
    """The sign-in page with the error's message."""
    request_log.note(problem=error.message)
    request_log.note_cause(error)
    if request.endpoint in ("signin.sign_out", "signin.choose") and not sessions.current():
        # Without a session the browser is signed out already, so the expired form is no error.
        return sessions.redirect_to_sign_in()
    if request.endpoint == "signin.sign_out":
        return errors.service_error(error)
    text = error.message
    if request.endpoint == "signin.callback" and isinstance(error, UnauthorizedError):
        text = f"the identity provider's access token is not accepted here: {text}"
    found = sessions.stored() if request.endpoint == "signin.choose" else None
    if found is not None and len(found.organizations) > 1:
        response = _choice_page(found, problem=errors.sentence(text))
    else:
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


def _renewed(found: PageSession) -> Redirect | Response | None:
    """Renew a session at the provider; the response if the browser must go there itself.

    Raises:
        UnavailableError: the provider does not answer, or another request has been waiting for it.
        ForbiddenError: the person has no organization any more.
    """
    from app.web.pages import oidc  # noqa: PLC0415 - as above

    if services().settings.provider is None:
        sessions.end()
        return sessions.redirect_to_sign_in()
    kept = sessions.sealer().tokens(found.sealed)
    if kept.refresh is None:
        return _ask_provider(found, is_silent=True)
    now = _now()
    claim = claim_renewal(services().database, found, now)
    if claim is None:
        if found.renew_at is not None and now < found.renew_at + timedelta(seconds=GRACE_SECONDS):
            return None
        raise UnavailableError("your session is being renewed; try again")
    try:
        renewed = oidc.renew(kept, found.subject)
    except oidc.EndedError:
        answer = _ask_provider(found, is_silent=False)
        sessions.change({"sealed": None, "claimed_until": None}, claim=claim)
        return answer
    except UnavailableError:
        sessions.change({"claimed_until": None}, claim=claim)
        raise
    except ServiceError:
        sessions.end()
        raise
    sessions.change(_changes(renewed, found), claim=claim)
    return None


def _ask_provider(found: PageSession, *, is_silent: bool) -> Redirect | Response:
    """Send the browser to the provider, which sends it back to what it wanted."""
    from app.web.pages import oidc  # noqa: PLC0415 - as above

    if request.args.get("live") == "1":
        return redirect(url_for("signin.page", live=1), 303)
    is_form, path = request.method == "POST", None
    if is_form:
        sessions.change({"form": sessions.sealer().seal(sessions.sent_form())})
    elif len(sessions.requested_path()) <= _MAX_PATH:
        path = sessions.requested_path()
    else:
        sessions.remember_path()
    url = oidc.silent_url(found.id, path) if is_silent else oidc.authorization_url(path=path)
    if is_form:
        return _leave(url, "Your identity provider renews your sign-in. Your form comes back.")
    return redirect(url, 303)


def _leave(url: str, text: str) -> Response:
    """A page that leads to the provider after a form.

    A redirect would not do: the Content-Security-Policy sends forms to this service only.
    """
    response = page_response("leave.html", url=url, text=text)
    response.headers["Cache-Control"] = "no-store"
    return response


def _choice_page(found: PageSession, problem: str | None = None) -> Response:
    response = page_response(
        "choose.html",
        organizations=sorted(found.organizations),
        current=found.tenant_id,
        problem=problem,
    )
    response.headers["Cache-Control"] = "no-store"
    return response


def _now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)


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
