"""A finding's page: why it was opened, what has happened since, and people's marks on it."""

import re
from collections.abc import Mapping
from datetime import timedelta

from flask import Blueprint, Response, g, redirect, request
from werkzeug.wrappers import Response as Redirect

from app.auth.claims import ANALYTICS_ADMIN
from app.errors import NotFoundError, ValidationError
from app.intake.finding_marks import MAX_NOTE, MarkBody, mark_finding
from app.reports import findings, trend
from app.reports.base import Report
from app.reports.days import Days
from app.reports.findings import Finding
from app.reports.finer import Missing, Span, or_missing
from app.reports.trend import DayCount
from app.web import errors, params, rate_limit, request_log
from app.web.context import connection, kept, services, stored_options
from app.web.pages import signin
from app.web.pages.exports import export
from app.web.pages.filters import Filters, parse_filters
from app.web.pages.finding_charts import since_chart
from app.web.pages.frame import frame_response

# Of the days that the page shows.
_DAYS_BEFORE, _MOST_DAYS = 28, 90
_ID = re.compile("[0-9a-f]{32}")

bp = Blueprint("finding", __name__, url_prefix="/dashboard/findings")
bp.before_request(signin.require_session)
bp.before_request(rate_limit.count_request)


@bp.get("/<finding_id>")
def page(finding_id: str) -> Response:
    """A finding of the organization."""
    return _page(finding_id)


@bp.post("/<finding_id>")
def mark(finding_id: str) -> Redirect:
    """Mark the finding as expected, or take that back, and set its note."""
    signin.require_scope(ANALYTICS_ADMIN)
    signin.require_own_organization()
    now, form = services().clock(), request.form
    _found(finding_id)
    body = MarkBody(form.get("acknowledged") == "1", _note(form))
    mark_finding(services().database, g.tenant_id, finding_id, body, g.caller.subject, now)
    request_log.note(finding=finding_id)
    filters = parse_filters(params.arguments(), now)
    return redirect(filters.url("finding.page", {"finding_id": finding_id, "saved": 1}), 303)


@bp.errorhandler(ValidationError)
def problem(error: ValidationError) -> Response:
    """The page with what was typed, if the form was invalid."""
    if "finding" not in g:  # not of a form, or the form was refused
        return errors.service_error(error)
    request_log.note_cause(error)
    response = _page(g.finding.id, problem=errors.sentence(error.message), typed=request.form)
    response.status_code = error.status
    return response


def _page(
    finding_id: str, *, problem: str | None = None, typed: Mapping[str, str] | None = None
) -> Response:
    arguments, now = params.arguments(), services().clock()
    filters = parse_filters(arguments, now)
    found = _found(finding_id)
    days = or_missing(lambda: _days(found, filters))
    return frame_response(
        "finding.html",
        filters,
        None if isinstance(days, Missing) else days.counted_at,
        finding=found,
        days=days,
        chart=None if isinstance(days, Missing) else since_chart(found, days, filters),
        is_saved=params.saved(arguments),
        problem=problem,
        typed=typed,
        most_note=MAX_NOTE,
        values={"finding_id": finding_id},
        exports={
            "finding": export("finding", organization=filters.organization, findingId=finding_id)
        },
    )


def _days(found: Finding, filters: Filters) -> Report[DayCount]:
    """The tokens of the finding's agent, or of the organization, before it and since."""
    zone = filters.days.zone
    begin = found.begins_at.astimezone(zone or found.begins_at.tzinfo).date()
    first = begin - timedelta(days=_DAYS_BEFORE)
    last = min(filters.today, first + timedelta(days=_MOST_DAYS - 1))
    span = Span(Days(first, last, zone), kept())
    if found.scope == "agent" and found.agents:
        agent_id = found.agents[0].agent_id
        return trend.agent_tokens(connection(), g.tenant_id, agent_id, span)
    return trend.daily_tokens(connection(), g.tenant_id, span)


def _note(form: Mapping[str, str]) -> str | None:
    """The note of the form, or ``None``.

    Raises:
        ValidationError: it is too long, or has a character that cannot be stored.
    """
    # Browsers send a line break as two characters.
    note = form.get("note", "").replace("\r\n", "\n").strip()
    if len(note) > MAX_NOTE:
        raise ValidationError(f"the note must have at most {MAX_NOTE} characters")
    if "\0" in note:
        raise ValidationError("the note must not have the character NUL")
    return note or None


def _found(finding_id: str) -> Finding:
    """The finding of the page.

    Raises:
        NotFoundError: the organization has none with this id.
    """
    found = None
    if _ID.fullmatch(finding_id):
        found = findings.finding(connection(), g.tenant_id, finding_id, stored_options)
    if found is None:
        raise NotFoundError("the organization has no finding with this id")
    if request.method == "POST":
        g.finding = found
    return found
