"""Webhooks of the caller's organization, at ``/api/v1/webhooks``."""

from typing import Any, TypeVar

import msgspec
from flask import Blueprint, Response, g, request

from app.alerts import webhooks
from app.alerts.signing import SigningKeys, secret_of
from app.alerts.webhooks import Endpoint, EndpointBody, EndpointChange, Rules
from app.errors import NotFoundError
from app.intake.events import prepared
from app.web import params, rate_limit, request_log
from app.web.api import access
from app.web.api.bodies import object_of
from app.web.api.schemas import (
    NewWebhook,
    Webhook,
    WebhookDeliveries,
    WebhookDelivery,
    WebhookList,
    WebhookTest,
)
from app.web.context import connection, services
from app.web.responses import json_response

B = TypeVar("B")

bp = Blueprint("webhooks", __name__, url_prefix="/api/v1/webhooks")
bp.before_request(access.authenticate)
bp.before_request(access.require_tenant)
bp.before_request(access.require_admin)
bp.before_request(rate_limit.count_request)

prepared(EndpointBody)
prepared(EndpointChange)


@bp.get("")
def list_endpoints() -> Response:
    """Endpoints of the organization, the oldest first."""
    found = webhooks.endpoints_of(connection(), g.tenant_id)
    return _private(WebhookList(g.tenant_id, [Webhook(**_members(one)) for one in found]))


@bp.post("")
def create_endpoint() -> Response:
    """Create an endpoint. Only this response, and that of a rotation, has its secret."""
    body, now = _body(EndpointBody), services().clock()
    created = webhooks.create_endpoint(
        services().database, g.tenant_id, body, now, rules=_rules(), by=g.caller.subject
    )
    request_log.note(webhook=created.id)
    return _private(_with_secret(created), 201)


@bp.get("/<webhookId>")
def one_endpoint(webhookId: str) -> Response:  # noqa: N803 - the OpenAPI path uses this spelling
    """One endpoint."""
    return _answer(webhooks.endpoint(connection(), g.tenant_id, webhookId))


@bp.patch("/<webhookId>")
def change_endpoint(webhookId: str) -> Response:  # noqa: N803 - as above
    """Change an endpoint, or enable it again. A member that is left out stays as it is."""
    body, now = _body(EndpointChange), services().clock()
    changed = webhooks.change_endpoint(
        *(services().database, g.tenant_id, webhookId, body, now),
        rules=_rules(),
        by=g.caller.subject,
    )
    return _answer(changed)


@bp.delete("/<webhookId>")
def delete_endpoint(webhookId: str) -> Response:  # noqa: N803 - as above
    """Delete an endpoint with its messages, also those that wait."""
    database, now = services().database, services().clock()
    return _answer(
        webhooks.delete_endpoint(database, g.tenant_id, webhookId, now, by=g.caller.subject)
    )


@bp.post("/<webhookId>/rotate")
def rotate_secret(webhookId: str) -> Response:  # noqa: N803 - as above
    """Give an endpoint a new secret. The former one is valid for 24 hours."""
    database, now = services().database, services().clock()
    found = webhooks.rotate_secret(database, g.tenant_id, webhookId, now, by=g.caller.subject)
    request_log.note(webhook=webhookId if found else None)
    return _private(_with_secret(_known(found)))


@bp.post("/<webhookId>/test")
def send_test(webhookId: str) -> Response:  # noqa: N803 - as above
    """Send a test message. It is in the list of deliveries, and is sent within seconds."""
    database, now = services().database, services().clock()
    message_id = webhooks.send_test(database, g.tenant_id, webhookId, now, by=g.caller.subject)
    if message_id is None:
        raise _unknown()
    request_log.note(webhook=webhookId)
    return _private(WebhookTest(message_id), 202)


@bp.get("/<webhookId>/deliveries")
def list_deliveries(webhookId: str) -> Response:  # noqa: N803 - as above
    """Messages to an endpoint in the last 30 days, the newest first."""
    limit = params.page_limit(params.arguments())
    _known(webhooks.endpoint(connection(), g.tenant_id, webhookId))
    found = webhooks.deliveries(connection(), g.tenant_id, webhookId, limit)
    rows = [WebhookDelivery(**one._asdict()) for one in found]
    return _private(WebhookDeliveries(g.tenant_id, webhookId, rows))


def _body(kind: type[B]) -> B:
    return object_of(kind, request, services().settings, what="the webhook is")


def _rules() -> Rules:
    return webhooks.rules_of(services().settings)


def _known(found: Endpoint | None) -> Endpoint:
    if found is None:
        raise _unknown()
    return found


def _unknown() -> NotFoundError:
    return NotFoundError("the organization has no webhook with this id")


def _answer(found: Endpoint | None) -> Response:
    known = _known(found)
    request_log.note(webhook=known.id)
    return _private(Webhook(**_members(known)))


def _members(one: Endpoint) -> dict[str, Any]:
    return {
        "id": one.id,
        "url": one.url,
        "format": one.format,
        "kinds": None if one.kinds is None else list(one.kinds),
        "min_severity": one.min_severity,
        "cooldown_minutes": one.cooldown_minutes,
        "quiet": one.quiet,
        "digest": one.digest,
        "created": one.created,
        "created_by": one.created_by,
        "disabled": one.disabled,
        "disabled_reason": one.disabled_reason,
        "failures": one.failures,
        "paused_until": one.paused_until,
    }


def _with_secret(one: Endpoint) -> NewWebhook:
    settings = services().settings
    keys = SigningKeys(settings.secret_key, settings.secret_key_fallbacks)
    # An e-mail has no signature.
    secret = None if one.format == "email" else secret_of(keys, one.secret_number)
    return NewWebhook(secret=secret, **_members(one))


def _private(body: msgspec.Struct, status: int = 200) -> Response:
    response = json_response(body, status)
    response.headers["Cache-Control"] = "no-store"
    return response
