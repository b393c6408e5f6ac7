"""Sessions of the pages: begin, find, renew and end the session of a person in one browser.

The browser has a random id, and the database its SHA-256. Signing out deletes the row, so that a
copied cookie is worthless. The provider's tokens are encrypted by a key that is derived from
``SECRET_KEY``, so that a copy of the database gives none.

**Renewal.** A refresh token is used once. The request that claims the session, in one statement,
uses it; the others of the session go on meanwhile. Its result is stored only while the claim is
still its own, and only if the session has not ended.
"""

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from secrets import token_urlsafe
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import Connection

from app.storage.database import Database
from app.storage.tables import page_sessions

# How long a request may take to renew a session: several responses of the provider.
CLAIM_SECONDS = 30
# How long the other requests of the session go on meanwhile.
GRACE_SECONDS = 15

_SESSION = page_sessions.c
_PURPOSE = b"analytics page sessions"
_BY_ID = _SESSION.id == sa.bindparam("key", type_=sa.Text)
_FIND = sa.select(*_SESSION).where(_BY_ID)


class ProviderTokens(msgspec.Struct, frozen=True):
    """The provider's tokens of a session: the ID token signs out, the refresh token renews."""

    identity: str | None = None
    refresh: str | None = None


class Form(msgspec.Struct, frozen=True):
    """A form that was sent while the session had to be renewed: its path and its fields."""

    path: str
    fields: list[tuple[str, str]]


class SilentSignIn(msgspec.Struct, frozen=True):
    """A sign-in without a page of the provider, for a session that there is.

    It travels as the sealed ``state``. So several tabs of a browser can be renewed at once,
    although each answer sets the cookie anew.
    """

    session: str
    nonce: str
    verifier: str
    began: float
    path: str | None = None


class PageSession(NamedTuple):
    """A stored session; see the table for its columns."""

    id: str
    tenant_id: str | None
    subject: str
    scopes: frozenset[str]
    organizations: tuple[str, ...]
    created: datetime
    expires: datetime
    renew_at: datetime | None = None
    claimed_until: datetime | None = None
    issued: datetime | None = None
    sid: str | None = None
    sealed: str | None = None
    form: str | None = None

    def must_be_renewed(self, now: datetime) -> bool:
        """Whether the provider's answer no longer holds."""
        return self.renew_at is not None and self.renew_at <= now


class Sealer:
    """Encrypts what only this service may read, by ``SECRET_KEY`` and its former values."""

    def __init__(self, keys: Sequence[str]) -> None:
        """Encrypt with the first of ``keys``, and decrypt with all."""
        self._fernet = MultiFernet([Fernet(_derived(key)) for key in keys])

    def seal(self, value: msgspec.Struct) -> str:
        """The encrypted text of a value."""
        return self._fernet.encrypt(msgspec.json.encode(value)).decode()

    def tokens(self, text: str | None) -> ProviderTokens:
        """The tokens in an encrypted text; none if the key has changed since."""
        return self._open(text, ProviderTokens) or ProviderTokens()

    def form(self, text: str | None) -> Form | None:
        """The form in an encrypted text; ``None`` if there is none."""
        found: Form | None = self._open(text, Form)
        return found

    def silent_sign_in(self, text: str) -> SilentSignIn | None:
        """The sign-in in a sealed state; ``None`` if it is none."""
        found: SilentSignIn | None = self._open(text, SilentSignIn)
        return found

    def _open(self, text: str | None, kind: Any) -> Any:
        if text is None:
            return None
        try:
            return msgspec.json.decode(self._fernet.decrypt(text.encode()), type=kind)
        except (InvalidToken, msgspec.MsgspecError):
            return None


def new_id() -> str:
    """A new id for a cookie."""
    return token_urlsafe(32)


def stored_id(cookie_id: str) -> str:
    """The id of the row for an id of a cookie."""
    return sha256(cookie_id.encode()).hexdigest()


def begin_session(database: Database, session: PageSession, *, instead_of: str | None) -> None:
    """Store a new session.

    Args:
        instead_of: the id of this browser's former session, which ends.
    """
    values = session._asdict() | {
        "scopes": " ".join(sorted(session.scopes)),
        "organizations": organizations_text(session.organizations),
    }
    names = {"created": "created_at", "expires": "expires_at", "issued": "issued_at"}
    row = {names.get(name, name): value for name, value in values.items()}

    def work(connection: Connection) -> None:
        if instead_of is not None:
            database.name_key(connection, instead_of)
            connection.execute(sa.delete(page_sessions).where(_BY_ID), {"key": instead_of})
        database.name_key(connection, session.id)
        connection.execute(sa.insert(page_sessions).values(row))

    database.write(work)


def find_session(database: Database, session_id: str) -> PageSession | None:
    """The session with an id, even if it is over; ``None`` if it has ended."""
    with database.reading() as connection:
        database.name_key(connection, session_id)
        row = connection.execute(_FIND, {"key": session_id}).one_or_none()
    return None if row is None else _read(row)


def change_session(
    database: Database,
    session_id: str,
    changes: Mapping[str, Any],
    *,
    claim: datetime | None = None,
) -> bool:
    """Change columns of a session. Returns whether it was there.

    Args:
        claim: change it only while it is claimed until this instant.
    """
    where = [_SESSION.id == session_id]
    if claim is not None:
        where.append(_SESSION.claimed_until == claim)

    def work(connection: Connection) -> bool:
        database.name_key(connection, session_id)
        return (
            connection.execute(sa.update(page_sessions).where(*where).values(changes)).rowcount > 0
        )

    return database.write(work)


def claim_renewal(database: Database, session: PageSession, now: datetime) -> datetime | None:
    """Claim a session to renew it, unless another request has claimed it.

    Returns:
        The end of the claim.
    """
    until = now + timedelta(seconds=CLAIM_SECONDS)
    free = sa.or_(_SESSION.claimed_until.is_(None), _SESSION.claimed_until <= now)
    here = _SESSION.id == session.id, _SESSION.renew_at == session.renew_at, free

    def work(connection: Connection) -> bool:
        database.name_key(connection, session.id)
        claim = sa.update(page_sessions).where(*here).values(claimed_until=until)
        return connection.execute(claim).rowcount > 0

    return until if database.write(work) else None


def end_session(database: Database, session_id: str) -> None:
    """End a session for good."""

    def work(connection: Connection) -> None:
        database.name_key(connection, session_id)
        connection.execute(sa.delete(page_sessions).where(_BY_ID), {"key": session_id})

    database.write(work)


def end_sessions_of(
    database: Database, sid: str | None, subject: str | None, issued: datetime
) -> int:
    """End the sessions that the provider ends: of its session, or else of a person.

    Args:
        issued: when the provider said so. Sessions that began later, by its clock, go on.

    Returns:
        How many have ended.
    """
    named = []
    if sid is not None:
        named.append((sid, _SESSION.sid == sid))
    if subject is not None:
        # Some providers name their session in logout tokens, and not in ID tokens.
        unnamed = _SESSION.sid.is_(None) if sid is not None else sa.true()
        named.append((subject, sa.and_(_SESSION.subject == subject, unnamed)))

    def work(connection: Connection) -> int:
        ended = 0
        for key, where in named:
            database.name_key(connection, key)
            gone = sa.delete(page_sessions).where(where, _SESSION.issued_at <= issued)
            ended += connection.execute(gone).rowcount
        return ended

    return database.write(work)


def organizations_text(organizations: tuple[str, ...]) -> str | None:
    """The column for the organizations that a person can choose from."""
    return msgspec.json.encode(organizations).decode() if len(organizations) > 1 else None


def _read(row: Any) -> PageSession:
    return PageSession(
        row.id,
        row.tenant_id,
        row.subject,
        frozenset(row.scopes.split()),
        tuple(msgspec.json.decode(row.organizations)) if row.organizations else (),
        row.created_at,
        row.expires_at,
        row.renew_at,
        row.claimed_until,
        row.issued_at,
        row.sid,
        row.sealed,
        row.form,
    )


def _derived(key: str) -> bytes:
    made = HKDF(SHA256(), 32, salt=None, info=_PURPOSE).derive(key.encode())
    return base64.urlsafe_b64encode(made)
