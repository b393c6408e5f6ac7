"""API keys of the organization: the list, a new one, and the end of one."""

from datetime import datetime
from typing import NamedTuple

from flask import Response, g, request
from werkzeug.wrappers import Response as Redirect

from app.auth import api_keys
from app.auth.api_keys import ANY, SCOPES, ApiKey
from app.errors import NotFoundError
from app.web import request_log
from app.web.context import connection, services
from app.web.pages.settings import base
from app.web.pages.settings.base import NEW, Form

SCOPE_NAMES = {
    "analytics:read": "read the numbers",
    "events:write": "send events",
    "agents:write": "name agents",
    "analytics:admin": "change settings, keys and links",
}

bp = base.blueprint("keys", "/keys")


class Row(NamedTuple):
    """A key of the list, and whether it is usable, expired or revoked."""

    key: ApiKey
    state: str


@bp.get("")
def page() -> Response:
    """The API keys of the organization."""
    return _page(NEW)


@bp.post("")
def create() -> Response:
    """Create a key. Only this response has the whole key.

    It is the page itself and no redirect: a key that is shown once is stored nowhere in between.
    """
    base.on_problem(_page)
    database, now, form = services().database, services().clock(), request.form
    scopes = form.getlist("scopes")
    if not scopes:
        raise base.wrong("scopes", "choose at least one thing that the key may do")
    until = base.optional_day("expires")
    expires = None if until is None else base.end_of(until)
    if expires is not None and expires <= now:
        raise base.wrong("expires", "the last day must be today or later; empty means no end")
    note = form.get("note", "").strip() or None
    key = api_keys.new_key(g.tenant_id, scopes, now, expires=expires, note=note)
    api_keys.refuse_wider_scopes(key.scopes, g.caller.scopes)
    # Closed before the key is stored: a request uses one connection.
    with database.reading_for(g.tenant_id) as reader:
        api_keys.refuse_more_keys(reader, g.tenant_id, now)
    text = api_keys.store_key(database, key, by=g.caller.subject)
    request_log.note(key=key.id)
    response = _page(NEW, made=text)
    response.status_code = 201
    return response


@bp.post("/revoke")
def revoke() -> Redirect:
    """Revoke a key. It stops working within a minute in every process."""
    database, now, by = services().database, services().clock(), g.caller.subject
    key_id = request.form.get("id", "")
    if api_keys.revoke_key(database, key_id, now, by=by, tenant_id=g.tenant_id) is None:
        raise NotFoundError("the organization has no key with this id")
    request_log.note(key=key_id)
    return base.done("settings_keys.page")


def _page(form: Form, made: str | None = None) -> Response:
    now = services().clock()
    found = api_keys.keys_of(connection(), g.tenant_id, now)
    listed = base.part_of(found)
    revoking = base.named("revoke")
    return base.page(
        "keys.html",
        form,
        listed=listed._replace(lines=[_row(key, now) for key in listed.lines]),
        made=made,
        revoking=next((_row(key, now) for key in found if key.id == revoking), None),
        # None that the session lacks, as in the API.
        scopes={
            scope: SCOPE_NAMES.get(scope, scope)
            for scope in SCOPES
            if scope in g.caller.scopes and not scope.endswith(ANY)
        },
        today=now.date(),
    )


def _row(key: ApiKey, now: datetime) -> Row:
    if key.revoked:
        return Row(key, "revoked")
    return Row(key, "expired" if key.expires and key.expires <= now else "usable")
