"""The dashboard."""

from flask import Blueprint, Response, g

from app.views import limits, signin
from app.views.web import page_response

bp = Blueprint("dashboard", __name__)
bp.before_request(signin.require_session)
bp.before_request(limits.count_request)


@bp.get("/dashboard")
def page() -> Response:
    """An organization's tokens at a glance."""
    return page_response("dashboard.html", tenant=g.tenant_id)
