"""Overview: the dashboard's first page, as cards of one range."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from flask import Blueprint, Response, g

from app.alerts.budgets import BudgetReport
from app.reports import activity, agent_list, findings, overview
from app.reports.base import STALE_INTERVALS
from app.reports.days import Days, instant_of
from app.reports.findings import NamedAgent
from app.reports.finer import Span
from app.reports.overview import year_first
from app.web import params, rate_limit
from app.web.context import connection, kept, options_from, services
from app.web.pages import signin
from app.web.pages.agent_list import agents_card, parse_list
from app.web.pages.budget_tiles import overview_tiles, read_budgets
from app.web.pages.day_bars import MOST_BARS
from app.web.pages.exports import export
from app.web.pages.filters import RANGE_NAMES, YEAR_DAYS, Filters, parse_filters
from app.web.pages.frame import frame_response
from app.web.pages.overview_cards import calendar, cause, days_chart, not_compared
from app.web.pages.week_card import week_card

# The gravest open findings on the page; the API has all of them.
SHOWN_FINDINGS = 6
READ_FINDINGS = 20  # for the tags of agents
_HOUR_LESS = timedelta(hours=1) - timedelta(microseconds=1)

bp = Blueprint("dashboard", __name__, url_prefix="/dashboard")
bp.before_request(signin.require_session)
bp.before_request(rate_limit.count_request)


@bp.get("")
def page() -> Response:
    """The overview of an organization."""
    filters, chosen = _filters(), parse_list(params.arguments())
    reading, tenant, span = connection(), g.tenant_id, Span(filters.days, kept())
    found = overview.overview(
        reading, tenant, span, filters.compared, today=filters.today, settled=_settled()
    )
    budgets: list[BudgetReport] = []

    def named(ids: Sequence[str]) -> Iterable[NamedAgent]:
        # In the statement of budgets, which a page reads anyhow.
        budgets.append(read_budgets(names_of=ids))
        return budgets[0].named

    attention = findings.attention(
        reading, tenant, *_begin_and_end(filters.days), options_from, named, limit=READ_FINDINGS
    )
    compared, counted_at = filters.compared, found.counted_at
    listed = agent_list.agent_list(
        reading, tenant, span, chosen.wanted, compared=compared, counted_at=counted_at
    )
    # The list of all agents leaves the other cards out, or the page would be too large.
    week = None
    if chosen.size != "all":
        week = week_card(
            filters,
            activity.week_of_days(reading, tenant, span, compared=compared, counted_at=counted_at),
        )
    usage = overview_tiles(budgets[0] if budgets else read_budgets(), attention.findings)
    spikes = found.spikes(attention.spikes, filters.days.zone)
    return frame_response(
        "dashboard.html",
        filters,
        counted_at,
        ranges=RANGE_NAMES,
        kept=chosen.query(),
        overview=found,
        usage=usage,
        not_compared=not_compared(found),
        days=days_chart(found, spikes, filters),
        is_by_week=len(found.days) > MOST_BARS,
        attention=attention,
        shown_findings=attention.findings[:SHOWN_FINDINGS],
        cause=cause,
        agents=agents_card(filters, chosen, listed, attention.findings),
        week=week,
        calendar=calendar(found, spikes, filters),
        exports={
            **{
                name: export(name, filters.days, organization=filters.organization)
                for name in ("summary", "tokens", "activity", "agents")
            },
            "year": export("tokens", _year(filters.days), organization=filters.organization),
            "findings": export("findings", organization=filters.organization),
        },
    )


def _filters() -> Filters:
    return parse_filters(params.arguments(), services().clock())


def _year(days: Days) -> Days:
    """The last 12 months up to the last of the days, in whole weeks."""
    return Days(days.last - timedelta(days=YEAR_DAYS - 1), days.last, days.zone)


def _settled() -> datetime:
    """An instant that a run has passed already, unless the numbers are stale."""
    interval = timedelta(seconds=services().settings.rollup_interval_seconds)
    return services().clock() - STALE_INTERVALS * interval


def _begin_and_end(days: Days) -> tuple[datetime, datetime]:
    """The instants between which the spikes of the page are: those of its calendar."""
    calendar_days = Days(year_first(days.last), days.last, days.zone)
    # The last day of the calendar has no end that can be represented.
    return instant_of(calendar_days.begin), instant_of(days.end - 1) + _HOUR_LESS
