"""Share links of the organization: the list, a new one, and the end of one."""

from datetime import datetime
from typing import NamedTuple

from flask import Response, g, request, url_for
from werkzeug.wrappers import Response as Redirect

from app.auth import share_links
from app.auth.share_links import MAX_DAYS, VIEWS, ShareLink
from app.errors import NotFoundError
from app.web import request_log
from app.web.context import connection, services
from app.web.pages.settings import base
from app.web.pages.settings.base import NEW, Form
from app.web.pages.shared import signatures

VIEW_NAMES = {
    "summary": "Totals",
    "tokens": "Tokens per day",
    "activity": "When in the week",
    "agents": "Agents, with their names",
    "findings": "Findings",
}
_DEFAULT_DAYS = 28

bp = base.blueprint("links", "/links")


class Row(NamedTuple):
    """A link of the list. ``url`` is ``None`` if it is over, or not of the reader to give."""

    link: ShareLink
    shows: str
    state: str
    url: str | None


@bp.get("")
def page() -> Response:
    """The share links of the organization."""
    return _page(NEW)


@bp.post("")
def create() -> Redirect:
    """Create a link to a page that shows chosen views, without a token."""
    base.on_problem(_page)
    database, now = services().database, services().clock()
    views = [view for view in VIEWS if view in request.form.getlist("views")]
    if not views:
        raise base.wrong("views", "choose at least one thing that the link shows")
    days = base.number("days", "the number of days", 1, MAX_DAYS)
    until = base.optional_day("expires")
    if until is None:
        raise base.wrong("expires", "choose the last day of the link")
    expires = base.end_of(until)
    if not now < expires <= now + share_links.LONGEST:
        raise base.wrong("expires", "the last day must be today or later, within 366 days")
    link = share_links.new_link(g.tenant_id, views, days, expires, now, by=g.caller.subject)
    # Closed before the link is stored: a request uses one connection.
    with database.reading_for(g.tenant_id) as reader:
        share_links.refuse_more_links(reader, g.tenant_id, now)
    share_links.store_link(database, link)
    request_log.note(link=link.id)
    return base.done("settings_links.page", made=link.id)


@bp.post("/revoke")
def revoke() -> Redirect:
    """Revoke a link. Its page is gone at once."""
    database, now, by = services().database, services().clock(), g.caller.subject
    link_id = request.form.get("id", "")
    if share_links.revoke_link(database, g.tenant_id, link_id, now, by=by) is None:
        raise NotFoundError("the organization has no link with this id")
    request_log.note(link=link_id)
    return base.done("settings_links.page")


def _page(form: Form) -> Response:
    now = services().clock()
    found = share_links.links_of(connection(), g.tenant_id, now)
    listed = base.part_of(found)
    by_id = {link.id: _row(link, now) for link in found}
    return base.page(
        "links.html",
        form,
        listed=listed._replace(lines=[by_id[link.id] for link in listed.lines]),
        made=by_id.get(base.named("made") or ""),
        revoking=by_id.get(base.named("revoke") or ""),
        view_names=VIEW_NAMES,
        today=now.date(),
        longest=(now + share_links.LONGEST).date(),
        default_days=_DEFAULT_DAYS,
        most_days=MAX_DAYS,
    )


def _row(link: ShareLink, now: datetime) -> Row:
    state = "revoked" if link.revoked else "usable" if link.expires > now else "expired"
    shows = "; ".join(VIEW_NAMES[view] for view in link.views)
    if state != "usable" or g.tenant_id != g.caller.tenant_id:
        return Row(link, shows, state, None)
    signed = signatures().signed(link.id)
    return Row(link, shows, state, url_for("shared.page", link=signed, _external=True))
