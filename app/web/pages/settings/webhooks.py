"""Webhooks and e-mail of the organization: the list, a new endpoint, and the page of each."""

from typing import Any

from flask import Blueprint, Response, g, request
from werkzeug.wrappers import Response as Redirect

from app.alerts import webhooks
from app.alerts.signing import SigningKeys, secret_of
from app.alerts.webhooks import (
    COOLDOWN_MINUTES,
    DIGESTS,
    KINDS,
    MAX_COOLDOWN_MINUTES,
    SEVERITIES,
    Endpoint,
    EndpointBody,
    EndpointChange,
    Rules,
    rules_of,
)
from app.dates import parse_zone
from app.errors import NotFoundError
from app.web import request_log
from app.web.context import connection, services
from app.web.pages.filters import COMMON_ZONES
from app.web.pages.settings import base
from app.web.pages.settings.base import NEW, Form

SHOWN_DELIVERIES = 25
FORMAT_NAMES = {
    "standard": "JSON, signed (Standard Webhooks)",
    "slack": "Slack",
    "teams": "Microsoft Teams",
    "email": "E-mail",
}
_NO_DIGEST = ""
DIGEST_NAMES = {_NO_DIGEST: "no digest", **{name: name for name in DIGESTS}}
SEVERITY_NAMES = {"info": "all", "warning": "warning and critical", "critical": "critical only"}
# The fields of the form, by the members of the API's body.
_FIELDS = {
    "quiet.zone": "zone",
    "quiet.to": "quiet_to",
    "quiet": "quiet_from",
    "minSeverity": "severity",
    "cooldownMinutes": "cooldown",
}

bp: Blueprint = base.blueprint("webhooks", "/webhooks")


@bp.get("")
def page() -> Response:
    """The endpoints of the organization."""
    return _list(NEW)


@bp.post("")
def create() -> Response:
    """Create an endpoint. The response has its secret, which is shown this once."""
    base.on_problem(_list, _FIELDS)
    members = _members() | {"format": request.form.get("format", "")}
    body = base.converted(members, EndpointBody)
    database, now = services().database, services().clock()
    made = webhooks.create_endpoint(
        database, g.tenant_id, body, now, rules=_rules(), by=g.caller.subject
    )
    request_log.note(webhook=made.id)
    response = _endpoint_page(NEW, made, secret=_secret(made))
    response.status_code = 201
    return response


@bp.get("/<endpoint_id>")
def endpoint(endpoint_id: str) -> Response:
    """An endpoint, with what was delivered to it."""
    return _endpoint_page(NEW, _found(endpoint_id))


@bp.post("/<endpoint_id>")
def change(endpoint_id: str) -> Redirect:
    """Change an endpoint."""
    base.on_problem(lambda form: _endpoint_page(form, _found(endpoint_id)), _FIELDS)
    members = _members() | {"enabled": request.form.get("enabled") == "1"}
    body = base.converted(members, EndpointChange)
    database, now = services().database, services().clock()
    _require(
        webhooks.change_endpoint(
            database, g.tenant_id, endpoint_id, body, now, rules=_rules(), by=g.caller.subject
        )
    )
    request_log.note(webhook=endpoint_id)
    return base.done("settings_webhooks.endpoint", endpoint_id=endpoint_id)


@bp.post("/<endpoint_id>/test")
def test(endpoint_id: str) -> Redirect:
    """Send a test message to an endpoint, within seconds."""
    base.on_problem(lambda form: _endpoint_page(form, _found(endpoint_id)))
    database, now = services().database, services().clock()
    _require(webhooks.send_test(database, g.tenant_id, endpoint_id, now, by=g.caller.subject))
    return base.done("settings_webhooks.endpoint", endpoint_id=endpoint_id)


@bp.post("/<endpoint_id>/rotate")
def rotate(endpoint_id: str) -> Response:
    """Give an endpoint a new secret. The response has it, and it is shown this once."""
    database, now = services().database, services().clock()
    rotated = webhooks.rotate_secret(database, g.tenant_id, endpoint_id, now, by=g.caller.subject)
    found: Endpoint = _require(rotated)
    request_log.note(webhook=endpoint_id)
    return _endpoint_page(NEW, found, secret=_secret(found))


@bp.post("/<endpoint_id>/delete")
def delete(endpoint_id: str) -> Redirect:
    """Delete an endpoint, with the messages that wait for it."""
    database, now = services().database, services().clock()
    _require(webhooks.delete_endpoint(database, g.tenant_id, endpoint_id, now, by=g.caller.subject))
    request_log.note(webhook=endpoint_id)
    return base.done("settings_webhooks.page")


def _list(form: Form) -> Response:
    return base.page(
        "webhooks.html",
        form,
        endpoints=[(one, _target(one)) for one in webhooks.endpoints_of(connection(), g.tenant_id)],
        **_choices(),
    )


def _endpoint_page(form: Form, found: Endpoint, secret: str | None = None) -> Response:
    return base.page(
        "webhook.html",
        form,
        endpoint=found,
        target=_target(found),
        secret=secret,
        deliveries=webhooks.deliveries(connection(), g.tenant_id, found.id, limit=SHOWN_DELIVERIES),
        asked=base.named("ask"),
        values={"endpoint_id": found.id},
        **_choices(),
    )


def _choices() -> dict[str, Any]:
    """What the fields of an endpoint's form offer."""
    mail = _rules().has_mail
    return {
        "formats": {name: text for name, text in FORMAT_NAMES.items() if name != "email" or mail},
        "format_names": FORMAT_NAMES,
        "digests": DIGEST_NAMES,
        "severities": {name: SEVERITY_NAMES[name] for name in SEVERITIES},
        "kinds": {kind: kind.replace("_", " ").capitalize() for kind in KINDS},
        "zones": ("UTC", *COMMON_ZONES),
        "cooldown": COOLDOWN_MINUTES,
        "most_cooldown": MAX_COOLDOWN_MINUTES,
    }


def _members() -> dict[str, Any]:
    """The form as members of the API's body.

    Raises:
        ValidationError: a field is invalid.
    """
    form = request.form
    begin, end = form.get("quiet_from", "").strip(), form.get("quiet_to", "").strip()
    zone = form.get("zone", "").strip() or "UTC"
    if bool(begin) != bool(end):
        raise base.wrong(
            "quiet_from" if end else "quiet_to", "quiet hours need a beginning and an end"
        )
    try:
        parse_zone(zone)
    except ValueError as error:
        raise base.wrong("zone", f"this {error}") from None
    return {
        "url": form.get("url", "").strip(),
        "kinds": form.getlist("kinds") or None,
        "minSeverity": form.get("severity", ""),
        "cooldownMinutes": base.number("cooldown", "the pause", 0, MAX_COOLDOWN_MINUTES),
        "quiet": {"from": begin, "to": end, "zone": zone} if begin else None,
        "digest": form.get("digest") or None,
    }


def _rules() -> Rules:
    return rules_of(services().settings)


def _secret(found: Endpoint) -> str | None:
    """The secret by which its receiver checks signatures; ``None`` if nothing is signed."""
    if found.format != "standard":
        return None
    settings = services().settings
    keys = SigningKeys(settings.secret_key, settings.secret_key_fallbacks)
    return secret_of(keys, found.secret_number)


def _target(found: Endpoint) -> str:
    """Where an endpoint sends: the address, or the host of a URL, whose path may be secret."""
    if found.format == "email":
        return found.url.removeprefix(webhooks.MAILTO)
    return found.url.split("/")[2] if found.url.count("/") > 1 else found.url


def _found(endpoint_id: str) -> Endpoint:
    found: Endpoint = _require(webhooks.endpoint(connection(), g.tenant_id, endpoint_id))
    return found


def _require(found: Any) -> Any:
    """What was found.

    Raises:
        NotFoundError: nothing was.
    """
    if found is None:
        raise NotFoundError("the organization has no endpoint with this id")
    return found
