"""The organization's part of the audit log: who changed what, newest first."""

from typing import NamedTuple

import msgspec
from flask import Response, g

from app.storage.audit import Change, changes_page
from app.web import params
from app.web.context import connection
from app.web.pages.filters import given_of
from app.web.pages.settings import base

SIZE = 25
_MOST_DETAILS = 300
ACTIONS = {
    "agent.erased": "Agent erased",
    "agent.changed": "Agent changed",
    "agents.named": "Agents named",
    "budget.deleted": "Budget deleted",
    "budget.set": "Budget set",
    "finding.marked": "Finding marked",
    "key.created": "API key created",
    "key.revoked": "API key revoked",
    "settings.changed": "Settings changed",
    "share_link.created": "Share link created",
    "share_link.revoked": "Share link revoked",
    "webhook.changed": "Endpoint changed",
    "webhook.created": "Endpoint added",
    "webhook.deleted": "Endpoint deleted",
    "webhook.rotated": "Secret of an endpoint rotated",
    "webhook.tested": "Endpoint tested",
}

bp = base.blueprint("audit", "/audit")


class Line(NamedTuple):
    """A change of the list. ``details`` is JSON, cut if it is long."""

    change: Change
    action: str
    details: str


@bp.get("")
def page() -> Response:
    """The latest changes of the organization."""
    before = params.audit_cursor(given_of(params.arguments()))
    found, following = changes_page(connection(), g.tenant_id, limit=SIZE, before=before)
    return base.page(
        "audit.html",
        lines=[_line(change) for change in found],
        is_first=before is None,
        next_cursor=None if following is None else params.next_cursor(str(following)),
    )


def _line(change: Change) -> Line:
    details = ""
    if change.details:
        details = msgspec.json.encode(change.details).decode()
    if len(details) > _MOST_DETAILS:
        details = f"{details[:_MOST_DETAILS]}\N{HORIZONTAL ELLIPSIS}"
    action = ACTIONS.get(change.action, change.action.replace(".", " ").replace("_", " "))
    return Line(change, action, details)
