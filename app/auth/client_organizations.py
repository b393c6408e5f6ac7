"""Client organizations: the organization of a client whose tokens name none.

Many providers can put no organization into a token, and no answer of introspection has one. So an
operator says with ``flask clients`` to which organization a client belongs. An organization in the
token itself comes first.
"""

from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from flask import Flask, current_app
from sqlalchemy import Connection, Row

from app.auth.token_cache import TokenCache
from app.errors import ValidationError
from app.ids import is_id
from app.storage.audit import record_change
from app.storage.database import Database
from app.storage.tables import client_organizations

# How long a process remembers a client's organization, and that it has none.
CACHE_SECONDS = 5.0
# A longer id may have been cut, so it is no longer the id of one client alone.
MAX_CLIENT_ID = 254

_EXTENSION = "analytics_client_organizations"
_COLUMN = client_organizations.c
_LOOKUP = sa.select(_COLUMN.tenant_id, _COLUMN.people).where(
    _COLUMN.client_id == sa.bindparam("client_id", type_=sa.Text)
)


class ClientOrganization(NamedTuple):
    """The organization of a client.

    ``people``: whether also the tokens that people got by the client are of the organization.
    """

    client_id: str
    tenant_id: str
    people: bool
    changed: datetime


def init_app(app: Flask, database: Database) -> None:
    """Let the application find the organizations of clients."""
    app.extensions[_EXTENSION] = _Finder(database)


def organization_of_client(client_id: str, *, is_person: bool) -> str | None:
    """The organization of a client's tokens, if it has one.

    A change is seen within ``CACHE_SECONDS``.

    Args:
        is_person: whether the token is of a person.
    """
    finder: _Finder = current_app.extensions[_EXTENSION]
    tenant_id, people = finder.find(client_id)
    return tenant_id if people or not is_person else None


class _Finder:
    """Finds the organizations of clients in one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._found = TokenCache[tuple[str | None, bool]](CACHE_SECONDS)

    def find(self, client_id: str) -> tuple[str | None, bool]:
        if not client_id or len(client_id) > MAX_CLIENT_ID:
            return None, False
        if (known := self._found.get(client_id)) is not None:
            return known
        with self._database.reading() as connection:
            self._database.name_key(connection, client_id)
            row = connection.execute(_LOOKUP, {"client_id": client_id}).one_or_none()
        found = (None, False) if row is None else (row.tenant_id, row.people)
        self._found.put(client_id, found, float("inf"))
        return found


def set_client_organization(
    database: Database, new: ClientOrganization, *, by: str
) -> ClientOrganization:
    """Put a client's tokens into an organization, in place of the one that it had.

    Args:
        by: the actor, for the audit log.

    Raises:
        ValidationError: the client's id is invalid.
    """
    if not is_id(new.client_id) or len(new.client_id) > MAX_CLIENT_ID:
        raise ValidationError(
            f"the client's id must have 1 to {MAX_CLIENT_ID} characters, and no control characters"
        )

    def work(connection: Connection) -> ClientOrganization:
        old = _one(connection, new.client_id)
        if old is not None and old[:3] == new[:3]:
            return old
        if old is not None and old.tenant_id != new.tenant_id:
            _record_removal(connection, old, new.changed, by)
        same = _COLUMN.client_id == new.client_id
        connection.execute(sa.delete(client_organizations).where(same))
        values = {"client_id": new.client_id, "tenant_id": new.tenant_id, "people": new.people}
        connection.execute(sa.insert(client_organizations).values(changed_at=new.changed, **values))
        record_change(
            connection,
            tenant_id=new.tenant_id,
            actor=by,
            action="client.set",
            subject=new.client_id,
            details={"people": new.people},
            at=new.changed,
        )
        return new

    return database.write(work)


def remove_client_organization(
    database: Database, client_id: str, now: datetime, *, by: str
) -> ClientOrganization | None:
    """Take a client out of its organization. Returns what there was; ``None`` if nothing was.

    Args:
        by: the actor, for the audit log.
    """
    if not is_id(client_id):  # it may have a NUL, which PostgreSQL cannot read
        return None

    def work(connection: Connection) -> ClientOrganization | None:
        old = _one(connection, client_id)
        if old is not None:
            connection.execute(
                sa.delete(client_organizations).where(_COLUMN.client_id == client_id)
            )
            _record_removal(connection, old, now, by)
        return old

    return database.write(work)


def all_client_organizations(
    connection: Connection, tenant_id: str | None = None
) -> list[ClientOrganization]:
    """The clients with an organization, ordered by organization and client; for operators.

    Args:
        tenant_id: only those of one organization.
    """
    statement = sa.select(client_organizations).order_by(_COLUMN.tenant_id, _COLUMN.client_id)
    if tenant_id is not None:
        statement = statement.where(_COLUMN.tenant_id == tenant_id)
    return [_read(row) for row in connection.execute(statement)]


def _one(connection: Connection, client_id: str) -> ClientOrganization | None:
    statement = sa.select(client_organizations).where(_COLUMN.client_id == client_id)
    row = connection.execute(statement).one_or_none()
    return None if row is None else _read(row)


def _record_removal(
    connection: Connection, old: ClientOrganization, now: datetime, by: str
) -> None:
    record_change(
        connection,
        tenant_id=old.tenant_id,
        actor=by,
        action="client.removed",
        subject=old.client_id,
        at=now,
    )


def _read(row: Row[Any]) -> ClientOrganization:
    return ClientOrganization(row.client_id, row.tenant_id, row.people, row.changed_at)
