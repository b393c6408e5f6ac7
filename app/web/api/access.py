"""Access to the API: the caller of a request and its scopes, from the Authorization header.

A blueprint registers these functions with ``before_request``, in this order. So they protect every
route of the blueprint.
"""

import re

from flask import g, request

from app.auth.claims import AGENTS_WRITE, EVENTS_WRITE, EVENTS_WRITE_ANY
from app.auth.tokens import TOKEN_SYNTAX, Caller, tenant_of, verify_token
from app.errors import ForbiddenError, UnauthorizedError

_BEARER = re.compile(rf"bearer +({TOKEN_SYNTAX.pattern})", re.IGNORECASE)


def authenticate() -> None:
    """Verify the request's token and set ``g.caller``.

    Raises:
        UnauthorizedError: the token is missing or invalid.
        ForbiddenError: its organization claim is invalid.
    """
    g.caller = verify_token(_bearer_token(request.headers.get("Authorization")))


def require_tenant() -> None:
    """Set ``g.tenant_id`` to the caller's organization.

    Raises:
        ForbiddenError: the token has no organization.
    """
    g.tenant_id = tenant_of(g.caller)


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
            "the token has no organization; use a token of one organization, or one with the scope"
            f" {EVENTS_WRITE_ANY}",
            cause="no organization",
        )
    g.tenant_id = caller.tenant_id


def _require_scope(scope: str) -> None:
    if scope not in g.caller.scopes:
        raise ForbiddenError(
            f"the token lacks the scope {scope}; request a token that has it", cause="scope"
        )


def _bearer_token(header: str | None) -> str:
    if header is None or not header.strip():
        raise UnauthorizedError(
            "the Authorization header is missing; send `Bearer <token>`",
            invalid=False,
            cause="no token",
        )
    match = _BEARER.fullmatch(header)
    if match is None:
        raise UnauthorizedError(
            "the Authorization header must be `Bearer <token>`", cause="authorization header"
        )
    return match[1]
