"""Reports: the trend, the activity and the usage by agent, as JSON or CSV."""

from flask import Blueprint, Response, g

from app.dates import month_of
from app.reports import activity, trend, usage
from app.web import params, rate_limit
from app.web.api import access
from app.web.api.schemas import AgentActivity, AgentUsage, TokenTrend
from app.web.context import Snapshot, connection, services
from app.web.responses import long_report_response, report_response

bp = Blueprint("analytics", __name__, url_prefix="/api/v1/analytics")
bp.before_request(access.authenticate)
bp.before_request(access.require_tenant)
bp.before_request(access.require_read)
bp.before_request(rate_limit.count_request)


@bp.get("/tokens")
@bp.get("/tokens.csv")
def token_trend() -> Response:
    """Tokens issued per UTC day, oldest first; a day without tokens counts 0."""
    days = params.days(params.arguments())
    today = services().clock().date()
    report = trend.token_trend(connection(), g.tenant_id, last=today, days=days)
    return report_response(TokenTrend(g.tenant_id, days, report.points), report.counted_at)


@bp.get("/agents/activity")
@bp.get("/agents/activity.csv")
def agent_activity() -> Response:
    """Tokens issued per day of week and hour (UTC), without empty cells."""
    months = params.months(params.arguments())
    month = month_of(services().clock().date())
    report = activity.agent_activity(connection(), g.tenant_id, last=month, months=months)
    return report_response(AgentActivity(g.tenant_id, report.points), report.counted_at)


@bp.get("/agents")
@bp.get("/agents.csv")
def agent_usage() -> Response:
    """Tokens issued per agent in one month, most tokens first."""
    arguments = params.arguments()
    month = params.month(arguments, month_of(services().clock().date()))
    limit = params.limit(arguments)
    most = limit or usage.MOST + 1  # one more shows that there are too many to be read at once
    report = usage.agent_usage(connection(), g.tenant_id, month=month, limit=most)
    body = AgentUsage(g.tenant_id, f"{month:%Y-%m}", report.points)
    if limit or len(body.data) < most:
        return report_response(body, report.counted_at)
    body.data, snapshot = [], Snapshot()
    batches = usage.whole_usage(snapshot.connection, g.tenant_id, month=month)
    return long_report_response(body, batches, snapshot)
