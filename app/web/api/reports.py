"""The guide's three calls: trend, heatmap, usage by agent; each as CSV, too."""

from flask import Blueprint, Response, g

from app.dates import month_of, months_back
from app.reports import activity, trend, usage
from app.web import params
from app.web import rate_limit as limits
from app.web.api import access
from app.web.api.schemas import AgentActivity, AgentUsage, TokenTrend
from app.web.context import connection, services
from app.web.params import arguments
from app.web.responses import report_response

bp = Blueprint("analytics", __name__, url_prefix="/api/v1/analytics")
bp.before_request(access.authenticate)
bp.before_request(access.require_tenant)
bp.before_request(limits.count_request)


@bp.get("/tokens")
@bp.get("/tokens.csv")
def token_trend() -> Response:
    """Tokens issued per UTC day, oldest first, silent days as zero."""
    days = params.days(arguments())
    today = services().clock().date()
    found = trend.token_trend(connection(), g.tenant_id, last=today, days=days)
    return report_response(TokenTrend(g.tenant_id, days, found.points), found.counted_at)


@bp.get("/agents/activity")
@bp.get("/agents/activity.csv")
def agent_activity() -> Response:
    """Tokens issued per day of week and hour (UTC), empty cells left out."""
    months = params.months(arguments())
    until = month_of(services().clock().date())
    since = None if months is None else months_back(until, months - 1)
    found = activity.agent_activity(connection(), g.tenant_id, since=since, until=until)
    return report_response(AgentActivity(g.tenant_id, found.points), found.counted_at)


@bp.get("/agents")
@bp.get("/agents.csv")
def agent_usage() -> Response:
    """Tokens issued per agent in one month, most first."""
    month = params.month(arguments(), month_of(services().clock().date()))
    limit = params.limit(arguments())
    found = usage.agent_usage(connection(), g.tenant_id, month=month, limit=limit)
    answer = AgentUsage(g.tenant_id, f"{month:%Y-%m}", found.points)
    return report_response(answer, found.counted_at)
