"""API keys of the caller's organization, at ``/api/v1/keys``."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from flask import Blueprint, Response, g, request

from app.auth import api_keys
from app.dates import parse_instant
from app.errors import NotFoundError
from app.intake.events import InvalidEvent, prepared
from app.web import rate_limit, request_log
from app.web.api import access
from app.web.api.bodies import invalid, object_of
from app.web.api.schemas import Key, KeyList, NewKey
from app.web.context import connection, services
from app.web.responses import json_response

bp = Blueprint("keys", __name__, url_prefix="/api/v1/keys")
bp.before_request(access.authenticate)
bp.before_request(access.require_tenant)
bp.before_request(access.require_admin)
bp.before_request(rate_limit.count_request)


@prepared
class KeyBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """A key to create: its scopes, and optionally a note and its end.

    Other members are refused: a misspelt end would make a key that never expires.
    """

    scopes: Annotated[list[str], msgspec.Meta(min_length=1, max_length=len(api_keys.SCOPES))]
    note: str | None = None
    expires: Annotated[
        str | None,
        msgspec.Meta(
            description="RFC 3339 with an offset. Without it the key does not expire",
            extra_json_schema={"format": "date-time"},
        ),
    ] = None


@bp.get("")
def list_keys() -> Response:
    """Keys of the organization: usable ones first, then the newest first, at most 1,000."""
    found = api_keys.keys_of(connection(), g.tenant_id, services().clock())
    return _private(KeyList(g.tenant_id, [_key(key) for key in found]))


@bp.post("")
def create_key() -> Response:
    """Create a key of the organization. Only this response has the whole key."""
    body, now = _body(), services().clock()
    until = _instant(body.expires)
    key = api_keys.new_key(g.tenant_id, body.scopes, now, expires=until, note=body.note)
    api_keys.refuse_wider_scopes(key.scopes, g.caller.scopes)
    # Closed before the key is stored: a request uses one connection.
    with services().database.reading_for(g.tenant_id) as reader:
        api_keys.refuse_more_keys(reader, g.tenant_id, now)
    text = api_keys.store_key(services().database, key, by=g.caller.subject)
    request_log.note(key=key.id)
    return _private(NewKey(key=text, **_members(key)), 201)


@bp.delete("/<keyId>")
def revoke_key(keyId: str) -> Response:  # noqa: N803 - the OpenAPI path uses this spelling
    """Revoke a key of the organization. It stops working within a minute in every process."""
    database, now = services().database, services().clock()
    by = g.caller.subject
    key = api_keys.revoke_key(database, keyId, now, by=by, tenant_id=g.tenant_id)
    if key is None:
        raise NotFoundError("the organization has no key with this id")
    request_log.note(key=key.id)
    return _private(_key(key))


def _body() -> KeyBody:
    return object_of(KeyBody, request, services().settings, what="the key is", members=("note",))


def _instant(text: str | None) -> datetime | None:
    try:
        return None if text is None else parse_instant(text)
    except ValueError as error:
        raise invalid("the key is", InvalidEvent("expires", str(error))) from None


def _members(key: api_keys.ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "prefix": key.prefix,
        "scopes": list(key.scopes),
        "note": key.note,
        "created": key.created,
        "expires": key.expires,
        "revoked": key.revoked,
        "last_used": key.last_used,
    }


def _key(key: api_keys.ApiKey) -> Key:
    return Key(**_members(key))


def _private(body: Key | NewKey | KeyList, status: int = 200) -> Response:
    response = json_response(body, status)
    response.headers["Cache-Control"] = "no-store"
    return response
