"""What the settings pages share: their access, their frame, and forms that are shown again.

A form that was sent is stored by the function that the API calls, and answered with a redirect. An
invalid one is shown again, with what was typed and the problem beside its field.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, NamedTuple, TypeVar

import msgspec
from flask import Blueprint, Response, g, redirect, request
from werkzeug.datastructures import MultiDict
from werkzeug.wrappers import Response as Redirect

from app.auth.claims import ANALYTICS_ADMIN
from app.dates import parse_day
from app.errors import RefusedError, ServiceError, ValidationError
from app.ids import is_id
from app.web import errors, params, rate_limit, request_log
from app.web.context import services
from app.web.pages import signin
from app.web.pages.filters import given_of, parse_filters
from app.web.pages.frame import frame_response

# Pages and their names, in the order of their links.
TABS = {
    "settings_organization.page": "Organization",
    "settings_budgets.page": "Budgets",
    "settings_webhooks.page": "Webhooks and e-mail",
    "settings_links.page": "Share links",
    "settings_keys.page": "API keys",
    "settings_audit.page": "Audit log",
}
# Lines of a list on a page.
SIZE = 40
# The name of a field of the form in an error, beside "field", a member of the API's body.
_INPUT = "input"
_WRONG_MEMBER = re.compile(r"(?P<message>.+) - at `\$\.(?P<field>[^`]+)`")
_NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True)
class Form:
    """A form as a page shows it.

    ``typed``: the fields that were sent, if the form is shown again. ``problems``: what is wrong,
    by the name of the field. ``problem``: what is wrong with no single field.
    """

    typed: MultiDict[str, str] | None = None
    problems: Mapping[str, str] = field(default_factory=dict)
    problem: str | None = None

    def value(self, name: str, stored: object = None) -> str:
        """What a field shows: what was typed, or else what is stored."""
        if self.typed is not None:
            return self.typed.get(name, "")
        return "" if stored is None else str(stored)

    def has(self, name: str, value: str, *, stored: bool = False) -> bool:
        """Whether a box or an option is chosen."""
        return stored if self.typed is None else value in self.typed.getlist(name)


T = TypeVar("T")

NEW = Form()
_Page = Callable[[Form], Response]


class _Again(NamedTuple):
    """The page that shows a form again, and the fields of the members that an error names."""

    page: _Page
    fields: Mapping[str, str]


class Part(NamedTuple):
    """One page of a list that is in memory: the lines, the numbers of the first and of all."""

    lines: list[Any]
    number: int
    total: int

    @property
    def first(self) -> int:
        return (self.number - 1) * SIZE + 1

    @property
    def last(self) -> int:
        return self.first + len(self.lines) - 1


def blueprint(name: str, path: str = "") -> Blueprint:
    """The blueprint of one settings page, for administrators of the organization only."""
    made = Blueprint(f"settings_{name}", __name__, url_prefix=f"/dashboard/settings{path}")
    made.before_request(signin.require_session)
    made.before_request(_require_admin)
    made.before_request(rate_limit.count_request)
    made.register_error_handler(ValidationError, _shown_again)
    made.register_error_handler(RefusedError, _shown_again)
    return made


def page(template: str, form: Form = NEW, **context: Any) -> Response:
    """A settings page.

    Args:
        template: it extends ``settings/base.html``.
    """
    arguments = params.arguments()
    response = frame_response(
        f"settings/{template}",
        parse_filters(arguments, services().clock()),
        None,
        tabs=TABS,
        form=form,
        is_saved=params.saved(arguments) and form is NEW,
        may_change=g.tenant_id == g.caller.tenant_id,
        **context,
    )
    response.headers["Cache-Control"] = "no-store"
    return response


def done(endpoint: str, **values: Any) -> Redirect:
    """The redirect after a form was stored. So a reload sends nothing again."""
    filters = parse_filters(params.arguments(), services().clock())
    return redirect(filters.url(endpoint, {"saved": 1, **values}), 303)


def on_problem(shown: _Page, fields: Mapping[str, str] = _NOTHING) -> None:
    """Show a page with the form of this request, if the form turns out to be invalid.

    Args:
        shown: makes the page.
        fields: the fields of the form, by the members of the API's body that an error names.
    """
    g.again = _Again(shown, fields)


def part_of(lines: list[Any]) -> Part:
    """The lines of the page that the query names."""
    number = params.page(given_of(params.arguments()))
    return Part(lines[(number - 1) * SIZE : number * SIZE], number, len(lines))


def named(name: str) -> str | None:
    """An id in the query that opens a part of the page; ``None`` without it."""
    text = given_of(params.arguments()).get(name, "")
    return text if is_id(text) else None


def number(name: str, what: str, least: int, most: int) -> int:
    """A whole number in a field of the form.

    Raises:
        ValidationError: it is none, or out of range.
    """
    text = request.form.get(name, "").strip()
    is_number = text.isascii() and text.isdigit() and len(text) < 16
    if not is_number or not least <= int(text) <= most:
        raise wrong(name, f"{what} must be a whole number from {least:,} to {most:,}")
    return int(text)


def converted(members: Mapping[str, Any], body: type[T]) -> T:
    """Members of a form as the body that the API takes.

    Raises:
        ValidationError: a member is invalid; it is named.
    """
    try:
        return msgspec.convert(members, body)
    except msgspec.ValidationError as error:
        match = _WRONG_MEMBER.fullmatch(str(error))
        if match is None:
            raise ValidationError(f"the form is invalid: {error}") from None
        text = f"the form is invalid: {match['field']} {match['message']}"
        raise ValidationError(text, {"field": match["field"]}) from None


def optional_day(name: str) -> date | None:
    """A day in a field of the form, or ``None``.

    Raises:
        ValidationError: it is no day.
    """
    text = request.form.get(name, "").strip()
    try:
        return parse_day(text) if text else None
    except ValueError:
        raise wrong(name, "this must be a day, as 2026-04-01") from None


def end_of(day: date) -> datetime:
    """The end of a day in UTC."""
    # The last day of the calendar has no end that can be represented.
    return datetime.combine(min(day, date.max - timedelta(days=1)), time(), UTC) + timedelta(days=1)


def wrong(name: str, problem: str) -> ValidationError:
    """The error of one field of the form."""
    return ValidationError(problem, {_INPUT: name})


def _require_admin() -> None:
    """Require the scope ``analytics:admin``, and for a form the own organization.

    Raises:
        ForbiddenError: the session lacks the scope, or an operator changes another organization.
    """
    signin.require_scope(ANALYTICS_ADMIN)
    if request.method == "POST":
        signin.require_own_organization()


def _shown_again(error: ServiceError) -> Response:
    """The page with what was typed, if the form was invalid."""
    if "again" not in g:  # not of a form, or the form was refused
        return errors.service_error(error)
    request_log.note_cause(error)
    again: _Again = g.again
    details = error.details or {}
    member = str(details.get("field") or "")
    # A member of a member, as daysOff.dates[0], belongs to the field of the whole.
    of_member = next((again.fields[key] for key in again.fields if member.startswith(key)), member)
    name = str(details.get(_INPUT) or of_member)
    # The names of the API's members are not on the page.
    _, is_named, problem = error.message.partition(f": {member} ")
    text = errors.sentence(f"this {problem}" if is_named and member else error.message)
    shown = Form(request.form, {name: text}, text)
    response = again.page(shown)
    response.status_code = error.status
    return response
