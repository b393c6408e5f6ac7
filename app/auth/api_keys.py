"""API keys: credentials of machines that cannot get tokens. Creates, lists and revokes keys.

A key is ``agk_``, its public id and its secret. The database has the id and the SHA-256 of the
whole key. A plain hash is enough, because the secret is random and long.
"""

import hashlib
import re
import secrets
import string
from collections.abc import Collection
from datetime import date, datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from app.auth.claims import (
    AGENTS_WRITE,
    ANALYTICS_ADMIN,
    ANALYTICS_READ,
    ANALYTICS_READ_ANY,
    EVENTS_WRITE,
    EVENTS_WRITE_ANY,
)
from app.errors import ForbiddenError, RefusedError, ValidationError
from app.ids import is_id
from app.storage.audit import record_change
from app.storage.database import Database
from app.storage.tables import api_keys

PREFIX = "agk_"
# 32 characters of 62 are 190 bits, which nobody guesses.
ID_CHARACTERS, SECRET_CHARACTERS = 12, 32
KEY_SYNTAX = re.compile(
    rf"{PREFIX}([0-9A-Za-z]{{{ID_CHARACTERS}}})[0-9A-Za-z]{{{SECRET_CHARACTERS}}}"
)
_ID_SYNTAX = re.compile(rf"[0-9A-Za-z]{{{ID_CHARACTERS}}}")
SCOPES = (
    *(ANALYTICS_READ, ANALYTICS_READ_ANY, ANALYTICS_ADMIN),
    *(EVENTS_WRITE, EVENTS_WRITE_ANY, AGENTS_WRITE),
)
# Scopes with this ending are valid for every organization.
ANY = ":any"
# Usable keys that callers may create for an organization. The shell may create more.
MAX_KEYS = 100
# Keys in one list. Usable keys come first.
MAX_LISTED = 1000

_ALPHABET = string.digits + string.ascii_letters
_COLUMNS = [column for column in api_keys.c if column is not api_keys.c.sha256]
_IS_OF_TENANT = api_keys.c.tenant_id == sa.bindparam("tenant_id", type_=sa.Text)
_IS_USABLE = sa.and_(
    api_keys.c.revoked_at.is_(None),
    sa.or_(
        api_keys.c.expires_at.is_(None),
        api_keys.c.expires_at > sa.bindparam("now", type_=api_keys.c.expires_at.type),
    ),
)
_LIST = sa.select(*_COLUMNS).order_by(
    sa.case((_IS_USABLE, 0), else_=1), api_keys.c.created_at.desc(), api_keys.c.id
)
_LIST_OF_TENANT = _LIST.where(_IS_OF_TENANT).limit(MAX_LISTED)
_COUNT = sa.select(sa.func.count(api_keys.c.id)).where(_IS_OF_TENANT, _IS_USABLE)


class ApiKey(NamedTuple):
    """A stored key, without its secret.

    ``tenant_id`` is ``None`` for a key of no single organization. ``last_used`` is a UTC day.
    """

    id: str
    tenant_id: str | None
    scopes: tuple[str, ...]
    note: str | None
    created: datetime
    expires: datetime | None
    revoked: datetime | None = None
    last_used: date | None = None

    @property
    def prefix(self) -> str:
        """The public beginning of the key, by which its owner recognises it."""
        return PREFIX + self.id


def new_key(
    tenant_id: str | None,
    scopes: Collection[str],
    now: datetime,
    *,
    expires: datetime | None = None,
    note: str | None = None,
) -> ApiKey:
    """A key that is not stored yet.

    Args:
        tenant_id: the organization of the key, or ``None`` for every organization.

    Raises:
        ForbiddenError: a scope is for every organization, and the key is of one.
        ValidationError: a scope, the note or the expiry is invalid.
    """
    _check_scopes(tenant_id, scopes)
    if expires is not None and expires <= now:
        raise ValidationError("the expiry of the key must be in the future")
    if note is not None and not is_id(note):
        raise ValidationError("the note must have 1 to 255 characters, and no control characters")
    granted = tuple(scope for scope in SCOPES if scope in scopes)
    return ApiKey(_random(ID_CHARACTERS), tenant_id, granted, note, now, expires)


def store_key(database: Database, key: ApiKey, *, by: str) -> str:
    """Store a new key. Returns its whole text, which is not stored and never shown again.

    Args:
        by: the actor, for the audit log.
    """
    text = key.prefix + _random(SECRET_CHARACTERS)
    values = {
        "id": key.id,
        "tenant_id": key.tenant_id,
        "sha256": digest(text),
        "scopes": " ".join(key.scopes),
        "note": key.note,
        "created_at": key.created,
        "expires_at": key.expires,
    }

    def insert(connection: Connection) -> None:
        database.name_key(connection, key.id)
        connection.execute(sa.insert(api_keys).values(values))
        record_change(
            connection,
            tenant_id=key.tenant_id,
            actor=by,
            action="key.created",
            subject=key.id,
            details={"scopes": key.scopes, "expires": key.expires},
            at=key.created,
        )

    database.write(insert)
    return text


def refuse_more_keys(connection: Connection, tenant_id: str, now: datetime) -> None:
    """Refuse another key of an organization that has too many usable ones.

    Requests at the same moment may exceed the limit by their number, which does no harm.

    Raises:
        RefusedError: there are ``MAX_KEYS``.
    """
    if (connection.scalar(_COUNT, {"tenant_id": tenant_id, "now": now}) or 0) >= MAX_KEYS:
        raise RefusedError(f"the organization has {MAX_KEYS} keys; revoke one first")


def refuse_wider_scopes(scopes: Collection[str], own: Collection[str]) -> None:
    """Refuse scopes that the creator of a key lacks.

    Args:
        own: the scopes of the creator.

    Raises:
        ForbiddenError: a scope is refused.
    """
    wider = {EVENTS_WRITE} if EVENTS_WRITE_ANY in own else set()
    for scope in scopes:
        if scope not in own and scope not in wider:
            raise ForbiddenError(
                f"the key would have the scope {scope}, which your own token or key lacks;"
                " leave it out",
                cause="scope",
            )


def keys_of(connection: Connection, tenant_id: str, now: datetime) -> list[ApiKey]:
    """The keys of an organization: usable ones first, then the newest first."""
    given = {"tenant_id": tenant_id, "now": now}
    return [_read(row) for row in connection.execute(_LIST_OF_TENANT, given)]


def all_keys(connection: Connection, now: datetime) -> list[ApiKey]:
    """Every key, also those of no single organization, in the order of :func:`keys_of`."""
    return [_read(row) for row in connection.execute(_LIST, {"now": now})]


def revoke_key(
    database: Database, key_id: str, now: datetime, *, by: str, tenant_id: str | None = None
) -> ApiKey | None:
    """Revoke a key. Returns it, or ``None`` if there is none.

    A key that was revoked before keeps that instant.

    Args:
        by: the actor, for the audit log.
        tenant_id: revoke only a key of this organization; by default any.
    """
    if not _ID_SYNTAX.fullmatch(key_id):  # it may have a NUL, which PostgreSQL cannot read
        return None
    where = api_keys.c.id == key_id
    if tenant_id is not None:
        where &= api_keys.c.tenant_id == tenant_id
    revoke = sa.update(api_keys).where(where, api_keys.c.revoked_at.is_(None))

    def work(connection: Connection) -> ApiKey | None:
        database.name_key(connection, key_id)
        revoked = connection.execute(revoke.values(revoked_at=now)).rowcount
        row = connection.execute(sa.select(*_COLUMNS).where(where)).one_or_none()
        if row is None:
            return None
        if revoked:
            record_change(
                connection,
                tenant_id=row.tenant_id,
                actor=by,
                action="key.revoked",
                subject=key_id,
                at=now,
            )
        return _read(row)

    return database.write(work)


def digest(text: str) -> str:
    """The hash by which the whole text of a key is recognised."""
    return hashlib.sha256(text.encode()).hexdigest()


def _check_scopes(tenant_id: str | None, scopes: Collection[str]) -> None:
    known = ", ".join(SCOPES)
    if not scopes:
        raise ValidationError(f"a key needs a scope; use {known}")
    for scope in scopes:
        if scope not in SCOPES:
            raise ValidationError(f"a scope of the key is unknown; use {known}")
        if tenant_id is None and not scope.endswith(ANY):
            raise ValidationError(
                f"the scope {scope} needs an organization; a key of every organization has scopes"
                f" that end in {ANY}, as {EVENTS_WRITE_ANY}"
            )
        if tenant_id is not None and scope.endswith(ANY):
            raise ForbiddenError(
                f"the scope {scope} is for every organization, and the key is of one; a key with"
                " this scope is created with `flask keys create --any` only",
                cause="scope",
            )


def _random(characters: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(characters))


def _read(row: Row[Any]) -> ApiKey:
    return ApiKey(
        row.id,
        row.tenant_id,
        tuple(row.scopes.split(" ")),
        row.note,
        row.created_at,
        row.expires_at,
        row.revoked_at,
        row.last_used,
    )
