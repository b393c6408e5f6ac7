"""Exports: the report of a card as a CSV file, and as a call of the API with curl.

The files are the API's reports, for a session in place of a token. The names of agents are added.
"""

import shlex
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from flask import Blueprint, Response, current_app, g, url_for

from app.dates import month_of
from app.reports import usage
from app.reports.base import Point
from app.reports.days import Days
from app.reports.findings import Finding
from app.reports.finer import Span
from app.reports.usage import NamedUsage
from app.web import params, rate_limit
from app.web.api import reports
from app.web.api.findings import asked_findings
from app.web.context import Snapshot, connection, kept, services
from app.web.csv_export import file_name
from app.web.pages import signin
from app.web.responses import csv_response, long_csv_response

# The API's call for each export, by endpoint.
CALLS = {
    "tokens": "analytics.token_trend",
    "hours": "analytics.hourly_tokens",
    "summary": "analytics.token_summary",
    "activity": "analytics.agent_activity",
    "agents": "analytics.agent_usage",
    "findings": "findings.list_findings",
    "finding": "findings.one_finding",
}
# The findings of a file, the newest first; the API has all of them.
MOST_FINDINGS = params.MAX_AGENTS

bp = Blueprint("exports", __name__, url_prefix="/dashboard")
bp.before_request(signin.require_session)
bp.before_request(rate_limit.count_request)
bp.add_url_rule("/tokens.csv", "tokens", reports.token_trend)
bp.add_url_rule("/hours.csv", "hours", reports.hourly_tokens)
bp.add_url_rule("/summary.csv", "summary", reports.token_summary)
bp.add_url_rule("/activity.csv", "activity", reports.agent_activity)


@bp.after_request
def forbid_storing(response: Response) -> Response:
    """Let no cache store a file, which would outlive the session."""
    response.headers["Cache-Control"] = "no-store"
    return response


@dataclass(frozen=True)
class Export:
    """The address of a CSV file, if the report has one, and the matching call of the API."""

    csv: str | None
    curl: str


def export(
    report: str, days: Days | None = None, *, organization: str | None = None, **more: object
) -> Export:
    """The export of a card that shows ``report``, one of CALLS.

    Args:
        days: the days that the card shows.
        organization: the one that the page reads, unless it is the session's own.
        more: further parameters of the call, in the path or in the query; ``None`` is left out.
    """
    endpoint = CALLS[report]
    path: dict[str, Any] = {}
    query = _query(days, organization)
    for name, value in more.items():
        if current_app.url_map.is_endpoint_expecting(endpoint, name):
            path[name] = value
        elif value is not None:
            query[name] = str(value)
    address = url_for(endpoint, _external=True, **path).removesuffix(".csv") + _encoded(query)
    curl = f'curl -sS {shlex.quote(address)} \\\n  -H "Authorization: Bearer $TOKEN"'
    file = f"exports.{report}"
    if file not in current_app.view_functions:
        return Export(None, curl)
    return Export(url_for(file) + _encoded(query | {"bom": "1"}), curl)


@bp.get("/agents.csv")
def agents() -> Response:
    """All agents of some days or of a month, with their names and tokens, as CSV."""
    arguments = params.arguments()
    days = params.date_range(arguments, instead_of="month")
    if days is None:
        month = params.month(arguments, month_of(services().clock().date()))
        snapshot = Snapshot()
        batches = usage.named_usage(snapshot.connection, g.tenant_id, month=month)
        return long_csv_response(f"agents-{month:%Y-%m}", NamedUsage, batches, snapshot)
    # This read refuses days that are not kept or not complete.
    usage.usage_of_days(connection(), g.tenant_id, Span(days, kept()), limit=1)
    snapshot, name = Snapshot(), file_name("agents", days.first, days.last)
    batches = usage.named_usage_of_days(snapshot.connection, g.tenant_id, days)
    return long_csv_response(name, NamedUsage, batches, snapshot)


class FindingRow(Point, frozen=True):
    """A finding as a line of CSV, with instants as in JSON."""

    id: str
    kind: str
    severity: str
    status: str
    begins_at: str = msgspec.field(name="from")
    ends_at: str = msgspec.field(name="to")
    observed: int
    usual_low: int | None
    usual_high: int | None
    summary: str
    advice: str
    note: str | None


@bp.get("/findings.csv")
def findings() -> Response:
    """The newest findings as CSV; the parameters are those of the API."""
    found = asked_findings(params.arguments(), limit=MOST_FINDINGS)
    name = file_name("findings", *params.optional_days(params.arguments()))
    return csv_response(name, FindingRow, map(_row, found.findings))


def _row(finding: Finding) -> FindingRow:
    members = msgspec.to_builtins(finding)
    usual = members["usual"] or {}
    return FindingRow(
        **{name: members[name] for name in ("id", "kind", "severity", "status", "observed")},
        **{name: members[name] for name in ("summary", "advice", "note")},
        begins_at=members["from"],
        ends_at=members["to"],
        usual_low=usual.get("low"),
        usual_high=usual.get("high"),
    )


def _query(days: Days | None, organization: str | None) -> dict[str, str]:
    query = {}
    if days is not None:
        query = {"from": f"{days.first}", "to": f"{days.last}"}
        if days.zone is not None:
            query["zone"] = days.zone.key
    if organization is not None:
        query[params.ORGANIZATION] = organization
    return query


def _encoded(query: dict[str, str]) -> str:
    """A query in which every special character is escaped; a shell sees no quotation mark."""
    return f"?{urlencode(query, quote_via=quote, safe='')}" if query else ""
