"""The dashboard: the guide's three reports on one page, and each as a file of its own."""

from datetime import date, datetime
from typing import NamedTuple

from flask import Blueprint, Response, g

from app.dates import months_back
from app.reports import activity, trend, usage
from app.reports import trend as insights
from app.reports.activity import HourCount
from app.reports.base import Report
from app.reports.trend import DayCount
from app.reports.usage import NamedUsage
from app.web import rate_limit as limits
from app.web.context import connection, services
from app.web.csv_export import csv_response
from app.web.pages import signin
from app.web.pages.filters import PERIODS, SORTS, SPANS, Choices, choices
from app.web.params import arguments
from app.web.responses import page_response

TOP_AGENTS = 20
STALE_INTERVALS = 3
# Suggested; any other can be typed.
COMMON_ZONES = (
    *("America/Los_Angeles", "America/Denver", "America/Chicago", "America/New_York"),
    *("America/Sao_Paulo", "Europe/London", "Europe/Berlin", "Europe/Helsinki", "Asia/Dubai"),
    *("Asia/Shanghai", "Asia/Tokyo", "Australia/Sydney", "Pacific/Auckland"),
)

bp = Blueprint("dashboard", __name__, url_prefix="/dashboard")
bp.before_request(signin.require_session)
bp.before_request(limits.count_request)


class Freshness(NamedTuple):
    """How old the numbers are; ``counted_at`` is ``None`` before the first run."""

    counted_at: datetime | None
    age_seconds: int
    stale: bool
    interval_seconds: int


@bp.get("")
def page() -> Response:
    """An organization's tokens at a glance: three reads, one for each report."""
    chosen = choices(arguments(), services().clock().date())
    days = _days(chosen, insights.trend_days(chosen.days))
    cells, agents = _cells(chosen), _agents(chosen)
    return page_response(
        "dashboard.html",
        tenant=g.tenant_id,
        chosen=chosen,
        periods=PERIODS,
        spans=SPANS,
        sorts=SORTS,
        common_zones=COMMON_ZONES,
        now=f"{services().clock():%Y-%m-%dT%H:%M:%SZ}",
        fresh=_freshness(agents.counted_at),
        trend=insights.trend(days.points, chosen.days, days.counted_at),
        **_week(chosen, cells),
        **_ranking(chosen, agents),
    )


@bp.get("/tokens.csv")
def days_file() -> Response:
    """The trend's days."""
    chosen = choices(arguments(), services().clock().date())
    return csv_response("tokens", DayCount, _days(chosen, chosen.days).points)


@bp.get("/activity.csv")
def cells_file() -> Response:
    """The heatmap's cells, in UTC."""
    chosen = choices(arguments(), services().clock().date())
    return csv_response("activity", HourCount, _cells(chosen).points)


@bp.get("/agents.csv")
def agents_file() -> Response:
    """All agents of the month, with their names."""
    chosen = choices(arguments(), services().clock().date())
    return csv_response(f"agents-{chosen.month:%Y-%m}", NamedUsage, _agents(chosen).points)


def _days(chosen: Choices, days: int) -> Report[DayCount]:
    return trend.token_trend(connection(), g.tenant_id, last=chosen.today, days=days)


def _cells(chosen: Choices) -> Report[HourCount]:
    since: date | None = None
    if chosen.months is not None:
        since = months_back(chosen.this_month, chosen.months - 1)
    return activity.agent_activity(connection(), g.tenant_id, since=since, until=chosen.this_month)


def _agents(chosen: Choices) -> Report[NamedUsage]:
    return usage.named_usage(connection(), g.tenant_id, month=chosen.month)


def _freshness(counted_at: datetime | None) -> Freshness:
    interval = services().settings.rollup_interval_seconds
    if counted_at is None:
        return Freshness(None, 0, stale=False, interval_seconds=interval)
    age = max(int((services().clock() - counted_at).total_seconds()), 0)
    return Freshness(counted_at, age, age > STALE_INTERVALS * interval, interval)


def _week(chosen: Choices, cells: Report[HourCount]) -> dict[str, object]:
    """The heatmap, in the chosen zone if whole hours lead there."""
    minutes = 0
    if chosen.zone is not None:
        minutes = activity.zone_minutes(chosen.zone, services().clock())
    hours = minutes // 60 if minutes % 60 == 0 else 0
    return {"week": activity.week(cells.points, hours), "zone_minutes": minutes}


def _ranking(chosen: Choices, agents: Report[NamedUsage]) -> dict[str, object]:
    shares = usage.shares(agents.points)
    matching = usage.ordered(usage.found(shares, chosen.search or ""), chosen.sort)
    return {
        "agents": matching if chosen.everyone else matching[:TOP_AGENTS],
        "top": TOP_AGENTS,
        "matching": len(matching),
        "all_agents": len(shares),
        "heavy": [agent for agent in shares if agent.heavy],
        "agents_total": sum(agent.count for agent in shares),
    }
