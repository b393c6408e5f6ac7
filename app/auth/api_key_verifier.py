"""API keys: verify one and return its caller.

A key is looked up by its public id, and compared by its hash in constant time. A verified key is
cached for half a minute, so a revoked one stops working within a minute in every process.

An unknown key costs a query. So a client may ask for few of them: a repeated one is answered from
memory, and a client with too many different ones has to wait. Keys that were valid before do not
wait, since a proxy may send an attacker's requests from the same address.
"""

import hmac
import logging
import math
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import sqlalchemy as sa
from flask import Flask, current_app
from sqlalchemy import Connection, Row
from sqlalchemy.exc import SQLAlchemyError

from app.auth.allowances import Allowances
from app.auth.api_keys import KEY_SYNTAX, PREFIX, digest
from app.auth.claims import KNOWN_SCOPES
from app.auth.token_cache import TokenCache
from app.auth.tokens import Caller
from app.errors import ServiceError, UnauthorizedError
from app.storage.database import Database
from app.storage.locks import BRIEF_SECONDS
from app.storage.tables import api_keys
from app.telemetry import logs, metrics

# Well below a minute, because a verification may have begun just before the key was revoked.
CACHE_SECONDS = 30.0
# After a last use could not be stored, none is stored for this time.
RETRY_SECONDS = 300.0
# The lookup of an unknown id compares with the hash of nothing, so that it takes as long.
_NO_HASH = "0" * 64
_INVALID = "the key is invalid; create another key"

_EXTENSION = "analytics_api_keys"
_LOOKUP = sa.select(api_keys).where(api_keys.c.id == sa.bindparam("id", type_=sa.Text))
_USED = sa.update(api_keys).where(
    api_keys.c.id == sa.bindparam("key_id", type_=sa.Text),
    sa.or_(
        api_keys.c.last_used.is_(None),
        api_keys.c.last_used < sa.bindparam("today", type_=sa.Date),
    ),
)
log = logging.getLogger("app")


def init_app(app: Flask, database: Database, clock: Callable[[], datetime]) -> None:
    """Let the application verify keys."""
    app.extensions[_EXTENSION] = ApiKeyVerifier(database, clock)


def is_api_key(text: str) -> bool:
    """Whether a credential is meant as a key. No token begins so."""
    return text.startswith(PREFIX)


def verify_api_key(text: str, client: str) -> Caller:
    """Verify a key and return its caller.

    Args:
        client: the address that the request came from.

    Raises:
        UnauthorizedError: the key is malformed, unknown, revoked or expired.
        RateLimitError: the client has sent too many unknown keys.
    """
    verifier: ApiKeyVerifier = current_app.extensions[_EXTENSION]
    try:
        return verifier.verify(text, client)
    except UnauthorizedError as error:
        metrics.count_refused_token(error.cause)
        raise


class ApiKeyVerifier:
    """Verifies keys against one database."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock
        self._verified = TokenCache[Caller](CACHE_SECONDS)
        # The cause and the message of each refusal.
        self._refused = TokenCache[tuple[str, str]](CACHE_SECONDS)
        self._clients = Allowances("unknown keys")
        self._store_uses_from = float("-inf")

    def verify(self, text: str, client: str) -> Caller:
        """See :func:`verify_api_key`."""
        match = KEY_SYNTAX.fullmatch(text)
        if match is None:
            raise UnauthorizedError(_INVALID, cause="malformed key")
        if caller := self._verified.get(text):
            return caller
        if refusal := self._refused.get(text):
            raise UnauthorizedError(refusal[1], cause=refusal[0])
        if not self._verified.has_had(text):
            self._clients.check(client)
        now = self._clock()
        try:
            row = self._row(text, match[1], now)
        except UnauthorizedError as error:
            self._clients.use(client)
            self._refused.put(text, (str(error.cause), error.message), math.inf)
            raise
        caller = _caller_of(row)
        self._verified.put(text, caller, caller.expires)
        self._store_use(row, now.astimezone(UTC).date())
        return caller

    def _row(self, text: str, key_id: str, now: datetime) -> Row[Any]:
        """The row of a valid key.

        Only the owner of the whole key learns that it is revoked or expired.
        """
        with self._database.reading() as connection:
            self._database.name_key(connection, key_id)
            row = connection.execute(_LOOKUP, {"id": key_id}).one_or_none()
        known = _NO_HASH if row is None else row.sha256
        if not hmac.compare_digest(known, digest(text)) or row is None:
            raise UnauthorizedError(_INVALID, cause="unknown key")
        if row.revoked_at is not None:
            raise UnauthorizedError("the key was revoked; create another key", cause="revoked key")
        if row.expires_at is not None and row.expires_at <= now:
            raise UnauthorizedError("the key has expired; create another key", cause="expired key")
        return row

    def _store_use(self, row: Row[Any], today: date) -> None:
        """Store the day of a use, once a day, unless that fails or takes long."""
        is_stored = row.last_used is not None and row.last_used >= today
        if is_stored or time.monotonic() < self._store_uses_from:
            return

        def work(connection: Connection) -> None:
            self._database.name_key(connection, row.id)
            connection.execute(_USED.values(last_used=today), {"key_id": row.id, "today": today})

        try:
            self._database.write_briefly(work, BRIEF_SECONDS)
        except (SQLAlchemyError, ServiceError) as error:
            self._store_uses_from = time.monotonic() + RETRY_SECONDS
            logs.write(
                log, logging.WARNING, "last use of a key not stored", cause=type(error).__name__
            )


def _caller_of(row: Row[Any]) -> Caller:
    name = f"key:{row.id}"
    expires = math.inf if row.expires_at is None else row.expires_at.timestamp()
    scopes = KNOWN_SCOPES.intersection(row.scopes.split(" "))
    return Caller(row.tenant_id, scopes, name, name, expires)
