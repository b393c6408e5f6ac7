"""Dashboard: three reports on one page, each also as a CSV file, and the open findings."""

from flask import Blueprint, Response, g

from app.reports import activity, findings, trend, usage
from app.reports.activity import HourCount
from app.reports.base import Report, freshness
from app.reports.trend import DayCount
from app.reports.usage import SORTS, NamedUsage
from app.web import params, rate_limit
from app.web.context import Snapshot, connection, services, stored_options
from app.web.pages import signin
from app.web.pages.filters import PERIODS, SPANS, TOP_AGENTS, Filters, parse_filters
from app.web.responses import csv_response, long_csv_response, page_response

# The suggestions of the form. It accepts every other zone too.
COMMON_ZONES = (
    *("America/Los_Angeles", "America/Denver", "America/Chicago", "America/New_York"),
    *("America/Sao_Paulo", "Europe/London", "Europe/Berlin", "Europe/Helsinki", "Asia/Dubai"),
    *("Asia/Shanghai", "Asia/Tokyo", "Australia/Sydney", "Pacific/Auckland"),
)

# The newest open findings on the page; the API has all of them.
SHOWN_FINDINGS = 20

bp = Blueprint("dashboard", __name__, url_prefix="/dashboard")
bp.before_request(signin.require_session)
bp.before_request(rate_limit.count_request)


@bp.get("")
def page() -> Response:
    """The dashboard of an organization."""
    filters, now = _filters(), services().clock()
    history = trend.token_history(
        connection(), g.tenant_id, last=filters.today, days=2 * filters.days
    )
    hours = _hours(filters)
    agents = usage.ranking(
        connection(),
        g.tenant_id,
        month=filters.month,
        search=filters.search,
        sort=filters.sort,
        limit=filters.limit,
        offset=filters.offset,
    )
    zone_minutes = activity.zone_minutes(filters.zone, now)
    open_findings = findings.findings_page(
        connection(), g.tenant_id, findings.FindingsFilter(), stored_options, limit=SHOWN_FINDINGS
    )
    interval = services().settings.rollup_interval_seconds
    return page_response(
        "dashboard.html",
        tenant=g.tenant_id,
        filters=filters,
        periods=PERIODS,
        spans=SPANS,
        sorts=SORTS,
        common_zones=COMMON_ZONES,
        top_agents=TOP_AGENTS,
        now=f"{now:%Y-%m-%dT%H:%M:%SZ}",
        freshness=freshness(agents.counted_at, now, interval),
        findings=open_findings,
        trend=trend.trend(history, filters.days),
        week=activity.week(hours.points, activity.whole_hours(zone_minutes)),
        zone_minutes=zone_minutes,
        ranking=agents,
    )


@bp.get("/tokens.csv")
def days_file() -> Response:
    """The tokens per day as CSV."""
    filters = _filters()
    report = trend.token_trend(connection(), g.tenant_id, last=filters.today, days=filters.days)
    return csv_response("tokens", DayCount, report.points)


@bp.get("/activity.csv")
def cells_file() -> Response:
    """The tokens per hour of the week as CSV, in UTC."""
    return csv_response("activity", HourCount, _hours(_filters()).points)


@bp.get("/agents.csv")
def agents_file() -> Response:
    """All agents of the month with their names as CSV."""
    filters = _filters()
    snapshot = Snapshot()
    batches = usage.named_usage(snapshot.connection, g.tenant_id, month=filters.month)
    return long_csv_response(f"agents-{filters.month:%Y-%m}", NamedUsage, batches, snapshot)


def _filters() -> Filters:
    return parse_filters(params.arguments(), services().clock().date())


def _hours(filters: Filters) -> Report[HourCount]:
    last, months = filters.this_month, filters.months
    return activity.agent_activity(connection(), g.tenant_id, last=last, months=months)
