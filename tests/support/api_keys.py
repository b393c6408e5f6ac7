"""API keys, as the shell creates them."""

from datetime import datetime
from typing import Any

from app.auth.api_keys import ApiKey, new_key, store_key
from app.storage.database import Database
from tests.support.settings import NOW, TENANT

READ = "analytics:read"


def created(
    database: Database,
    *scopes: str,
    tenant: str | None = TENANT,
    now: datetime = NOW,
    **members: Any,
) -> tuple[ApiKey, str]:
    """A stored key, and its whole text; by default one that may read."""
    key = new_key(tenant, scopes or (READ,), now, **members)
    return key, store_key(database, key, by="tester")


def with_key(text: str) -> dict[str, str]:
    """The header with a key."""
    return {"Authorization": f"Bearer {text}"}
