"""The guide's three calls: trend, heatmap, usage by agent."""

from flask import Blueprint, Response, g, request

from app import auth, params, queries
from app.periods import month_of, months_back
from app.views.web import connection, report_response, services

bp = Blueprint("analytics", __name__, url_prefix="/api/v1/analytics")
bp.before_request(auth.authenticate_reader)


@bp.get("/tokens")
def token_trend() -> Response:
    """Tokens issued per UTC day, oldest first, silent days as zero."""
    days = params.days(request.args)
    today = services().clock().date()
    trend = queries.token_trend(connection(), g.tenant_id, last=today, days=days)
    data = [{"date": point.date, "count": point.count} for point in trend.points]
    body = {"tenantId": g.tenant_id, "days": days, "data": data}
    return report_response(body, trend.counted_at)


@bp.get("/agents/activity")
def agent_activity() -> Response:
    """Tokens issued per day of week and hour (UTC), empty cells left out."""
    months = params.months(request.args)
    until = month_of(services().clock().date())
    since = None if months is None else months_back(until, months - 1)
    activity = queries.agent_activity(connection(), g.tenant_id, since=since, until=until)
    data = [{"dow": cell.dow, "hour": cell.hour, "count": cell.count} for cell in activity.points]
    return report_response({"tenantId": g.tenant_id, "data": data}, activity.counted_at)


@bp.get("/agents")
def agent_usage() -> Response:
    """Tokens issued per agent in one month, most first."""
    month = params.month(request.args, month_of(services().clock().date()))
    limit = params.limit(request.args)
    usage = queries.agent_usage(connection(), g.tenant_id, month=month, limit=limit)
    data = [{"agentId": agent.agent_id, "tokenCount": agent.count} for agent in usage.points]
    body = {"tenantId": g.tenant_id, "month": f"{month:%Y-%m}", "data": data}
    return report_response(body, usage.counted_at)
