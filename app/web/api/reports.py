"""Reports: tokens by day, hour, hour of the week and agent, as JSON or CSV."""

from flask import Blueprint, Response, g

from app.dates import month_of
from app.reports import activity, hours, summary, trend, usage
from app.reports.days import Days
from app.reports.finer import Span
from app.reports.status import status
from app.web import params, rate_limit
from app.web.api import access
from app.web.api.schemas import (
    AgentActivity,
    AgentUsage,
    AgentUsageOfDays,
    CountingStatus,
    HourlyTokens,
    PreviousDays,
    TokenSummary,
    TokenTrend,
)
from app.web.context import Snapshot, connection, kept, services
from app.web.responses import long_report_response, report_response

bp = Blueprint("analytics", __name__, url_prefix="/api/v1/analytics")
bp.before_request(access.authenticate)
bp.before_request(access.require_read)
bp.before_request(rate_limit.count_request)


@bp.get("/tokens")
@bp.get("/tokens.csv")
def token_trend() -> Response:
    """Tokens issued per day, oldest first; a day without tokens counts 0.

    The days are ``from`` to ``to``, or the last ``days`` up to today.
    """
    arguments = params.arguments()
    agent_id = params.optional_agent_id(arguments)
    span = _span(params.recent_days(arguments, services().clock()))
    if agent_id is None:
        report = trend.daily_tokens(connection(), g.tenant_id, span)
    else:
        report = trend.agent_tokens(connection(), g.tenant_id, agent_id, span)
    body = TokenTrend(g.tenant_id, len(span.days), report.points)
    return report_response(body, report.counted_at)


@bp.get("/tokens/hourly")
@bp.get("/tokens/hourly.csv")
def hourly_tokens() -> Response:
    """Tokens issued per hour, oldest first; an hour without tokens counts 0.

    Without ``from`` and ``to``, the hours of today.
    """
    days = params.recent_days(
        params.arguments(), services().clock(), default=1, largest=params.MAX_HOURLY_DAYS
    )
    report = hours.hourly_tokens(connection(), g.tenant_id, _span(days))
    body = HourlyTokens(g.tenant_id, days.first, days.last, report.points)
    return report_response(body, report.counted_at)


@bp.get("/summary")
@bp.get("/summary.csv")
def token_summary() -> Response:
    """The tokens of a period, the change from the period before, and the agents behind them.

    Only whole counted days are summed up: ``from`` and ``to`` of the answer are the first and the
    last of these. Without ``from`` and ``to``, the last 30 days up to today.
    """
    arguments, now = params.arguments(), services().clock()
    days = params.recent_days(arguments, now, default=params.DEFAULT_DAYS)
    found = summary.summary(connection(), g.tenant_id, _span(days))
    before = PreviousDays(found.before.first, found.before.last, found.before_total)
    body = TokenSummary(
        tenant_id=g.tenant_id,
        first=found.days.first,
        last=found.days.last,
        total=found.total,
        previous=before,
        change=found.change,
        active_agents=found.active_agents,
        largest_agent=found.largest,
    )
    return report_response(body, found.counted_at)


@bp.get("/status")
@bp.get("/status.csv")
def counting_status() -> Response:
    """How far the organization's events are counted, to tell 0 from what is not counted yet."""
    found = status(connection(), g.tenant_id)
    body = CountingStatus(
        g.tenant_id,
        found.counted_at,
        found.complete_through,
        found.lag_seconds,
        found.pending_events,
    )
    return report_response(body, found.counted_at)


@bp.get("/agents/activity")
@bp.get("/agents/activity.csv")
def agent_activity() -> Response:
    """Tokens issued per day of week and hour, without empty cells."""
    arguments = params.arguments()
    days = params.date_range(arguments, instead_of="months")
    if days is not None:
        report = activity.activity_of_days(connection(), g.tenant_id, _span(days))
    else:
        months, month = params.months(arguments), month_of(services().clock().date())
        report = activity.agent_activity(connection(), g.tenant_id, last=month, months=months)
    return report_response(AgentActivity(g.tenant_id, report.points), report.counted_at)


@bp.get("/agents")
@bp.get("/agents.csv")
def agent_usage() -> Response:
    """Tokens issued per agent in a month or on some days, most tokens first."""
    arguments = params.arguments()
    days = params.date_range(arguments, instead_of="month")
    if days is not None:
        return _usage_of_days(days, params.limit(arguments))
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


def _usage_of_days(days: Days, limit: int | None) -> Response:
    most = limit or usage.MOST + 1
    report = usage.usage_of_days(connection(), g.tenant_id, _span(days), limit=most)
    body = AgentUsageOfDays(g.tenant_id, days.first, days.last, report.points)
    if limit or len(body.data) < most:
        return report_response(body, report.counted_at)
    body.data, snapshot = [], Snapshot()
    batches = usage.whole_usage_of_days(snapshot.connection, g.tenant_id, days)
    return long_report_response(body, batches, snapshot)


def _span(days: Days) -> Span:
    return Span(days, kept())
