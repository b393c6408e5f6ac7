"""Settings of the caller's organization, at ``/api/v1/settings``."""

from flask import Blueprint, Response, g, request

from app.intake import organization_settings
from app.intake.organization_settings import OrganizationSettings
from app.web import rate_limit
from app.web.api import access
from app.web.api.bodies import json_text
from app.web.context import connection, services
from app.web.responses import json_response

bp = Blueprint("settings", __name__, url_prefix="/api/v1/settings")
bp.before_request(access.authenticate)
bp.before_request(access.require_tenant)
bp.before_request(access.require_admin)
bp.before_request(rate_limit.count_request)


@bp.get("")
def show_settings() -> Response:
    """The settings of the organization."""
    return _private(organization_settings.settings_of(connection(), g.tenant_id))


@bp.put("")
def replace_settings() -> Response:
    """Replace the settings of the organization. A member that is left out is taken back."""
    limits = services().settings
    text = json_text(request, limits.max_body_bytes)
    body = organization_settings.parse_settings(text, limits.max_event_bytes)
    organization_settings.store_settings(
        services().database, g.tenant_id, body, services().clock(), by=g.caller.subject
    )
    return _private(body)


def _private(body: OrganizationSettings) -> Response:
    response = json_response(body)
    response.headers["Cache-Control"] = "no-store"
    return response
