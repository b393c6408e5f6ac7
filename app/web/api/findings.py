"""Findings of the organization, and people's marks on them, at ``/api/v1/analytics/findings``."""

import re

import msgspec
from flask import Blueprint, Response, g, request

from app.errors import NotFoundError, ValidationError
from app.intake.finding_marks import MarkBody, mark_finding
from app.reports import findings
from app.web import params, rate_limit, request_log
from app.web.api import access
from app.web.api.bodies import object_of
from app.web.api.schemas import FindingList
from app.web.context import connection, services, stored_options
from app.web.responses import json_response, report_response

PREFIX = "/api/v1/analytics/findings"

bp = Blueprint("findings", __name__, url_prefix=PREFIX)
bp.before_request(access.authenticate)
bp.before_request(access.require_read)
bp.before_request(rate_limit.count_request)

marks = Blueprint("marks", __name__, url_prefix=PREFIX)
marks.before_request(access.authenticate)
marks.before_request(access.require_tenant)
marks.before_request(access.require_admin)
marks.before_request(rate_limit.count_request)

_ID = re.compile("[0-9a-f]{32}")


@bp.get("")
def list_findings() -> Response:
    """What is unusual, newest first, one page at a time."""
    arguments = params.arguments()
    page = asked_findings(arguments, limit=params.page_limit(arguments))
    cursor = params.next_finding_cursor(page.next_cursor)
    return report_response(FindingList(g.tenant_id, page.findings, cursor), None)


@bp.get("/<findingId>")
def one_finding(findingId: str) -> Response:  # noqa: N803 - the OpenAPI path uses this spelling
    """One finding."""
    return report_response(_finding(findingId), None)


def asked_findings(arguments: params.Args, *, limit: int) -> findings.FindingsPage:
    """The findings that a request asks for, at most ``limit``."""
    first, last = params.optional_days(arguments)
    wanted = findings.FindingsFilter(
        status=params.one_of(arguments, "status", findings.STATUSES),
        kind=params.optional_one_of(arguments, "kind", findings.KINDS),
        agent_id=params.optional_agent_id(arguments),
        first=first,
        last=last,
    )
    after = params.finding_cursor(arguments)
    return findings.findings_page(
        connection(), g.tenant_id, wanted, stored_options, limit=limit, after=after
    )


@marks.patch("/<findingId>")
def mark(findingId: str) -> Response:  # noqa: N803 - as above
    """Acknowledge a finding, or set its note. An acknowledged finding is resolved."""
    body = _body()
    database, now = services().database, services().clock()
    if not _ID.fullmatch(findingId) or not mark_finding(
        database, g.tenant_id, findingId, body, g.caller.subject, now
    ):
        raise _unknown()
    request_log.note(finding=findingId)
    response = json_response(_finding(findingId))
    response.headers["Cache-Control"] = "no-store"
    return response


def _finding(finding_id: str) -> findings.Finding:
    found = None
    if _ID.fullmatch(finding_id):  # others may have a NUL, which PostgreSQL cannot read
        found = findings.finding(connection(), g.tenant_id, finding_id, stored_options)
    if found is None:
        raise _unknown()
    return found


def _unknown() -> NotFoundError:
    return NotFoundError("the organization has no finding with this id")


def _body() -> MarkBody:
    settings = services().settings
    body = object_of(MarkBody, request, settings, what="the marks are", members=("note",))
    if body.acknowledged is msgspec.UNSET and body.note is msgspec.UNSET:
        raise ValidationError("the body marks nothing; send acknowledged, note or both")
    return body
