"""Shared page: chosen views of an organization, behind a signed link and without a token."""

import logging
from datetime import timedelta

from flask import Blueprint, Response, current_app, g, render_template, request
from sqlalchemy.exc import SQLAlchemyError

from app.auth.share_links import ShareLink, Signatures, count_opening, usable_link
from app.errors import ServiceError
from app.reports.agent import counted_days, whole_days
from app.reports.base import Report
from app.reports.days import Days
from app.reports.finer import Span
from app.reports.shared import shared_views
from app.reports.trend import DayCount
from app.storage.locks import BRIEF_SECONDS
from app.telemetry import logs
from app.web import rate_limit, request_log
from app.web.context import connection, kept, services, stored_options
from app.web.pages.charts import Chart
from app.web.pages.day_bars import DayBars
from app.web.pages.filters import DATES, Filters
from app.web.pages.week_card import week_card
from app.web.responses import PAGE_POLICY, html_response

log = logging.getLogger("app")

bp = Blueprint("shared", __name__, url_prefix="/shared")


def signatures() -> Signatures:
    """The signatures of links, by SECRET_KEY and its former values."""
    config = current_app.config
    return Signatures([*(config.get("SECRET_KEY_FALLBACKS") or ()), config["SECRET_KEY"]])


@bp.get("/<text:link>")
def page(link: str) -> Response:
    """The page of a share link."""
    now = services().clock()
    link_id = signatures().id_of(link)
    found = None
    if link_id is not None:  # otherwise nobody was given this link, and nothing is read
        rate_limit.count_request_of(f"link {link_id}")
        found = usable_link(services().database, link_id, now)
    if found is None:
        return _sent("shared_gone.html", 404)
    request_log.note(link=found.id, organization=found.tenant_id)
    if request.method == "GET":
        _count(found)
    g.tenant_id = found.tenant_id
    today = now.date()
    days = Days(today - timedelta(days=found.days - 1), today)
    views = shared_views(
        connection(), found.tenant_id, Span(days, kept()), frozenset(found.views), stored_options
    )
    filters = Filters(today, DATES, days, "none", zone=None, organization=None)
    return _sent(
        "shared.html",
        200,
        link=found,
        filters=filters,
        views=views,
        chart=None if views.tokens is None else _chart(filters, views.tokens),
        week=None if views.activity is None else week_card(filters, views.activity),
        exports={},
    )


def _chart(filters: Filters, report: Report[DayCount]) -> Chart:
    """The tokens a day, without links into the pages for people who have signed in."""
    days, counted_at = filters.days, report.counted_at
    whole, counted = whole_days(days, counted_at), counted_days(days, counted_at)
    bars = DayBars(
        report.points, None, whole, counted, filters.today, {}, {}, lambda _first, _last: ""
    )
    return Chart(bars.bars())


def _count(link: ShareLink) -> None:
    """Count the opening, unless that fails or takes long."""
    try:
        count_opening(services().database, link, services().clock(), BRIEF_SECONDS)
    except (SQLAlchemyError, ServiceError) as error:
        cause = type(error).__name__
        logs.write(log, logging.WARNING, "opening of a link not counted", cause=cause)


def _sent(template: str, status: int, **context: object) -> Response:
    response = html_response(render_template(template, **context))
    response.status_code = status
    response.headers["Cache-Control"] = "no-store"  # a revoked link is gone at once
    response.headers["X-Robots-Tag"] = "noindex, nofollow"
    if frames := services().settings.share_frame_ancestors:
        policy = PAGE_POLICY.replace(
            "frame-ancestors 'none'", f"frame-ancestors {' '.join(frames)}"
        )
        response.headers["Content-Security-Policy"] = policy
    return response
