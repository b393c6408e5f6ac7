"""Access tokens, as an identity provider issues them."""

import uuid
from datetime import UTC, datetime
from typing import Any

import jwt

from tests.support.settings import KEY, TENANT


def payload(
    organization: Any = TENANT, /, scope: str = "", *, drop: str = "", **claims: Any
) -> dict[str, Any]:
    """The claims of an access token as an identity provider issues it; ``drop`` leaves one out."""
    present = int(datetime.now(UTC).timestamp())
    whole = {
        "sub": "client-1",
        "client_id": "client-1",
        "jti": uuid.uuid4().hex,
        "iat": present,
        "exp": present + 600,
        "organization_id": organization,
        "scope": scope,
    } | claims
    whole.pop(drop, None)
    return whole


def token(*arguments: Any, key: str = KEY, **claims: Any) -> str:
    """An access token; arguments as for :func:`payload`."""
    return jwt.encode(payload(*arguments, **claims), key, algorithm="HS256")


def bearer(*arguments: Any, **claims: Any) -> dict[str, str]:
    """The header with a token; arguments as for :func:`token`."""
    return {"Authorization": f"Bearer {token(*arguments, **claims)}"}
