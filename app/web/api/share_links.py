"""Share links of the caller's organization, at ``/api/v1/share-links``."""

from typing import Annotated, Any

import msgspec
from flask import Blueprint, Response, g, request, url_for

from app.auth import share_links
from app.auth.share_links import MAX_DAYS, VIEWS, ShareLink
from app.dates import parse_instant
from app.errors import NotFoundError
from app.intake.events import InvalidEvent, prepared
from app.web import rate_limit, request_log
from app.web.api import access
from app.web.api.bodies import invalid, object_of
from app.web.api.schemas import Link, LinkList
from app.web.context import connection, services
from app.web.pages.shared import signatures
from app.web.responses import json_response

bp = Blueprint("share_links", __name__, url_prefix="/api/v1/share-links")
bp.before_request(access.authenticate)
bp.before_request(access.require_tenant)
bp.before_request(access.require_admin)
bp.before_request(rate_limit.count_request)


@prepared
class LinkBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """A link to create: what it shows, of how many last days, and until when."""

    views: Annotated[
        list[str],
        msgspec.Meta(
            min_length=1,
            max_length=len(VIEWS),
            extra_json_schema={"items": {"enum": list(VIEWS)}, "uniqueItems": True},
        ),
    ]
    days: Annotated[int, msgspec.Meta(ge=1, le=MAX_DAYS)]
    expires: Annotated[
        str,
        msgspec.Meta(
            description="RFC 3339 with an offset, at most 366 days from now",
            extra_json_schema={"format": "date-time"},
        ),
    ]


@bp.get("")
def list_links() -> Response:
    """Links of the organization: usable ones first, then the newest first, at most 1,000."""
    found = share_links.links_of(connection(), g.tenant_id, services().clock())
    return _private(LinkList(g.tenant_id, [_link(one) for one in found]))


@bp.post("")
def create_link() -> Response:
    """Create a link to a page that shows chosen views of the organization, without a token."""
    body, now = _body(), services().clock()
    try:
        expires = parse_instant(body.expires)
    except ValueError as error:
        raise invalid("the link is", InvalidEvent("expires", str(error))) from None
    link = share_links.new_link(
        g.tenant_id, body.views, body.days, expires, now, by=g.caller.subject
    )
    # Closed before the link is stored: a request uses one connection.
    with services().database.reading_for(g.tenant_id) as reader:
        share_links.refuse_more_links(reader, g.tenant_id, now)
    share_links.store_link(services().database, link)
    request_log.note(link=link.id)
    return _private(_link(link), 201)


@bp.delete("/<linkId>")
def revoke_link(linkId: str) -> Response:  # noqa: N803 - the OpenAPI path uses this spelling
    """Revoke a link of the organization. Its page is gone at once."""
    database, now = services().database, services().clock()
    link = share_links.revoke_link(database, g.tenant_id, linkId, now, by=g.caller.subject)
    if link is None:
        raise NotFoundError("the organization has no link with this id")
    request_log.note(link=link.id)
    return _private(_link(link))


def _body() -> LinkBody:
    return object_of(LinkBody, request, services().settings, what="the link is")


def _link(link: ShareLink) -> Link:
    members: dict[str, Any] = link._asdict()
    del members["tenant_id"]
    members["views"] = list(link.views)
    signed = signatures().signed(link.id)
    return Link(url=url_for("shared.page", link=signed, _external=True), **members)


def _private(body: Link | LinkList, status: int = 200) -> Response:
    response = json_response(body, status)
    response.headers["Cache-Control"] = "no-store"
    return response
