"""Access: the caller of an API request, from its Authorization header.

A blueprint registers one of these as its ``before_request``, so that no route can forget it.
"""

import re

from flask import g, request

from app.auth.tokens import NAME, TOKEN, WRITE, WRITE_ANY, Caller, identify, require_tenant
from app.errors import ForbiddenError, UnauthorizedError

_BEARER = re.compile(rf"bearer +({TOKEN.pattern})", re.IGNORECASE)


def authenticate() -> None:
    """Verify the request's token and leave its :class:`Caller` in ``g.caller``.

    A blueprint's ``before_request``, so that no route can forget it.

    Raises:
        UnauthorizedError: no token, or none that can be trusted.
        ForbiddenError: its organization claim is malformed.
    """
    g.caller = identify(_presented_token(request.headers.get("Authorization")))


def authenticate_reader() -> None:
    """As :func:`authenticate`, and leave the organization, required here, in ``g.tenant_id``."""
    authenticate()
    g.tenant_id = require_tenant(g.caller)


def authenticate_namer() -> None:
    """As :func:`authenticate_reader`, for those that name the organization's agents.

    Raises:
        ForbiddenError: the scope is missing.
    """
    authenticate_reader()
    if NAME not in g.caller.scopes:
        raise ForbiddenError(f"the token lacks the scope {NAME}")


def writing_tenant() -> str | None:
    """Whose events the caller may write: one organization, or ``None`` for any, by name.

    Raises:
        ForbiddenError: neither scope nor organization allow it.
    """
    caller: Caller = g.caller
    if WRITE_ANY in caller.scopes:
        return None
    if WRITE not in caller.scopes:
        raise ForbiddenError(f"the token lacks the scope {WRITE}")
    if caller.tenant_id is None:
        raise ForbiddenError(f"the token names no organization and lacks the scope {WRITE_ANY}")
    return caller.tenant_id


def _presented_token(header: str | None) -> str:
    if header is None or not header.strip():
        raise UnauthorizedError("a Bearer token is required", invalid=False)
    match = _BEARER.fullmatch(header)
    if match is None:
        raise UnauthorizedError("the Authorization header is not one Bearer token")
    return match[1]
