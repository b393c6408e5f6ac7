"""Frame of the dashboard's pages: what they all show, and their refreshes.

A page is made of cards. With ``live=1`` the response is the cards alone, with an ETag. The script
of the page requests that, and replaces the cards that have changed. The age of the numbers is in a
header, so that it is known even if nothing has changed.
"""

import hashlib
from datetime import datetime
from typing import Any

from flask import Response, g, render_template, request

from app.auth.claims import AGENTS_WRITE, ANALYTICS_ADMIN, ANALYTICS_READ_ANY
from app.reports.base import freshness
from app.web.context import services
from app.web.pages.filters import Filters, keep_zone
from app.web.responses import html_response, is_unchanged

AGE = "X-Counted-Age"  # in seconds


def frame_response(
    template: str,
    filters: Filters,
    counted_at: datetime | None,
    *,
    interval_seconds: int | None = None,
    **context: Any,
) -> Response:
    """A page of the dashboard, or its cards alone.

    Args:
        template: it extends ``frame.html``, and puts its cards into the block ``cards``.
        counted_at: when the run that counted the page's numbers finished.
        interval_seconds: how often they are made; by default as often as runs start.
    """
    now = services().clock()
    interval = interval_seconds or services().settings.rollup_interval_seconds
    age = freshness(counted_at, now, interval)
    is_live = request.args.get("live") == "1"
    page = render_template(
        template,
        is_live=is_live,
        filters=filters,
        tenant=g.tenant_id,
        now=now,
        freshness=age,
        may_administer=ANALYTICS_ADMIN in g.caller.scopes,
        may_name=AGENTS_WRITE in g.caller.scopes,
        may_read_any=ANALYTICS_READ_ANY in g.caller.scopes,
        may_choose=len(g.page_session.organizations) > 1,
        **context,
    )
    response = html_response(page)
    if is_live:
        etag = hashlib.sha1(page.encode(), usedforsecurity=False).hexdigest()
        if is_unchanged(etag):
            response = html_response("")
            response.status_code = 304
        response.set_etag(etag)
        if counted_at is not None:
            # Last-Modified may not be in a response 304.
            response.headers[AGE] = age.age_seconds
    return keep_zone(response)
