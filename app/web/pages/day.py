"""A day's page: its hours beside the usual ones, its agents beside theirs, and its findings."""

from datetime import timedelta

from flask import Blueprint, Response, g

from app.dates import EPOCH
from app.reports import findings, trend
from app.reports.day import day_agents, day_hours
from app.reports.days import Days, instant_of
from app.reports.finer import Missing, Span, or_missing
from app.web import params, rate_limit
from app.web.context import connection, kept, services, stored_options
from app.web.pages import signin
from app.web.pages.day_charts import hours_chart
from app.web.pages.exports import export
from app.web.pages.filters import parse_filters
from app.web.pages.frame import frame_response

MOST_FINDINGS = 20
_DAY = timedelta(days=1)

bp = Blueprint("day", __name__, url_prefix="/dashboard/days")
bp.before_request(signin.require_session)
bp.before_request(rate_limit.count_request)


@bp.get("/<day>")
def page(day: str) -> Response:
    """A day of the organization, in the zone of the page."""
    at, now = params.day_of_path(day), services().clock()
    filters = parse_filters(params.arguments(), now)
    span = Span(Days(at, at, filters.days.zone), kept())
    reading, tenant = connection(), g.tenant_id
    hours = or_missing(lambda: day_hours(reading, tenant, span))
    agents = or_missing(lambda: day_agents(reading, tenant, span))
    whole = trend.token_trend(reading, tenant, last=at, days=1)
    begin, end = instant_of(span.days.begin), instant_of(span.days.end)
    wanted = findings.FindingsFilter(
        status="all", first=span.days.utc_first, last=span.days.utc_last
    )
    found = findings.findings_page(
        reading, tenant, wanted, stored_options, limit=MOST_FINDINGS
    ).findings
    own = [one for one in found if one.begins_at < end and one.ends_at > begin]
    return frame_response(
        "day.html",
        filters,
        whole.counted_at,
        at=at,
        hours=hours,
        chart=None if isinstance(hours, Missing) else hours_chart(hours, own, now),
        agents=agents,
        total_in_utc=whole.points[0].count,
        findings=own,
        exports={
            name: export(name, span.days, organization=filters.organization)
            for name in ("hours", "agents")
        },
        before=at - _DAY if at > EPOCH.date() else None,
        after=at + _DAY if at < filters.today else None,
    )
