"""Access to the API: the caller of a request and its scopes, from the Authorization header.

The header has an access token or an API key.

A blueprint registers these functions with ``before_request``, in this order. So they protect every
route of the blueprint.
"""

import re

from flask import g, request

from app.auth.api_key_verifier import is_api_key, verify_api_key
from app.auth.api_keys import PREFIX
from app.auth.claims import (
    AGENTS_WRITE,
    ANALYTICS_ADMIN,
    ANALYTICS_READ,
    ANALYTICS_READ_ANY,
    EVENTS_WRITE,
    EVENTS_WRITE_ANY,
)
from app.auth.tokens import TOKEN_SYNTAX, Caller, tenant_of, verify_token
from app.errors import ForbiddenError, UnauthorizedError
from app.web import params, request_log

# A key needs no scheme: some services send only what their form for a token contains.
_CREDENTIAL = re.compile(rf"(?i:bearer) +({TOKEN_SYNTAX.pattern})|({PREFIX}{TOKEN_SYNTAX.pattern})")


def authenticate() -> None:
    """Verify the request's token or key and set ``g.caller``.

    Raises:
        UnauthorizedError: the token or the key is missing or invalid.
        ForbiddenError: the token's organization claim is invalid.
        RateLimitError: the client has sent too many unknown keys or opaque tokens.
        UnavailableError: the identity provider is needed and unavailable.
    """
    credential = _credential(request.headers.get("Authorization"))
    if is_api_key(credential):
        g.caller = verify_api_key(credential, request.remote_addr or "")
    else:
        g.caller = verify_token(credential, request.remote_addr or "")


def require_tenant() -> None:
    """Set ``g.tenant_id`` to the caller's organization.

    Raises:
        ForbiddenError: the token has no organization.
    """
    g.tenant_id = tenant_of(g.caller)


def require_read() -> None:
    """Set ``g.tenant_id`` to the organization whose numbers the caller reads.

    It is the caller's own, for which every token has the scope ``analytics:read``. A caller with
    ``analytics:read:any`` may name another one as ``organizationId``.

    Raises:
        ForbiddenError: the caller lacks the scope, or no organization is named.
        ValidationError: the name is invalid.
    """
    caller: Caller = g.caller
    arguments = params.arguments()
    if params.ORGANIZATION in arguments:
        _require_scope(ANALYTICS_READ_ANY)
        g.tenant_id = params.organization_id(arguments)
        request_log.note(organization=g.tenant_id)
        return
    if ANALYTICS_READ_ANY not in caller.scopes:
        _require_scope(ANALYTICS_READ)
    elif caller.tenant_id is None:
        raise ForbiddenError(
            "the token or key has no organization; name one as organizationId",
            cause="no organization",
        )
    g.tenant_id = tenant_of(caller)


def require_operator() -> None:
    """Require the scope ``analytics:read:any``; the request then reads all organizations.

    Raises:
        ForbiddenError: the token or the key lacks the scope.
    """
    _require_scope(ANALYTICS_READ_ANY)
    g.for_operators = True


def require_admin() -> None:
    """Require the scope ``analytics:admin``.

    Raises:
        ForbiddenError: the token or the key lacks the scope.
    """
    _require_scope(ANALYTICS_ADMIN)


def require_agents_write() -> None:
    """Require the scope ``agents:write``.

    Raises:
        ForbiddenError: the token lacks the scope.
    """
    _require_scope(AGENTS_WRITE)


def require_events_write() -> None:
    """Set ``g.tenant_id`` to the organization whose events the caller may write.

    It is ``None`` for a caller with ``events:write:any``: each event then names its own.

    Raises:
        ForbiddenError: the token lacks the scope or the organization.
    """
    caller: Caller = g.caller
    if EVENTS_WRITE_ANY in caller.scopes:
        g.tenant_id = None
        return
    _require_scope(EVENTS_WRITE)
    if caller.tenant_id is None:
        raise ForbiddenError(
            "the token or key has no organization; use one of one organization, or one with the"
            f" scope {EVENTS_WRITE_ANY}",
            cause="no organization",
        )
    g.tenant_id = caller.tenant_id


def _require_scope(scope: str) -> None:
    if scope not in g.caller.scopes:
        raise ForbiddenError(
            f"the token or key lacks the scope {scope}; use one that has it", cause="scope"
        )


def _credential(header: str | None) -> str:
    if header is None or not header.strip():
        raise UnauthorizedError(
            "the Authorization header is missing; send `Bearer <token>`",
            invalid=False,
            cause="no token",
        )
    match = _CREDENTIAL.fullmatch(header)
    if match is None:
        raise UnauthorizedError(
            "the Authorization header must be `Bearer <token>`", cause="authorization header"
        )
    return match[1] or match[2]
