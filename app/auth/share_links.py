"""Share links: pages that a browser may open without a token. Creates, lists and revokes links.

A link is an id and its signature by ``SECRET_KEY``. The database has the id alone, so that a copy
of it gives no links. What a link shows, until when, and whether it is revoked is read at each use.
"""

import re
import secrets
import string
from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, NamedTuple

import sqlalchemy as sa
from itsdangerous import BadSignature, Signer
from sqlalchemy import Connection

from app.errors import RefusedError, ValidationError
from app.storage.audit import record_change
from app.storage.database import Database
from app.storage.tables import share_links

VIEWS = ("summary", "tokens", "activity", "agents", "findings")
MAX_DAYS = 366
LONGEST = timedelta(days=366)
# Usable links of an organization, and links in one list. Usable ones come first.
MAX_LINKS, MAX_LISTED = 100, 1000

_ALPHABET = string.digits + string.ascii_letters
_ID_CHARACTERS = 16
_ID = re.compile(rf"[0-9A-Za-z]{{{_ID_CHARACTERS}}}")
# An id, and a signature of 256 bits in base64.
_SIGNED = re.compile(rf"[0-9A-Za-z]{{{_ID_CHARACTERS}}}\.[0-9A-Za-z_-]{{43}}")
_SALT = "share link"
_LINK = share_links.c
_IS_OF_TENANT = _LINK.tenant_id == sa.bindparam("tenant_id", type_=sa.Text)
_IS_USABLE = sa.and_(
    _LINK.revoked_at.is_(None),
    _LINK.expires_at > sa.bindparam("now", type_=_LINK.expires_at.type),
)
_LIST = (
    sa.select(*_LINK)
    .where(_IS_OF_TENANT)
    .order_by(sa.case((_IS_USABLE, 0), else_=1), _LINK.created_at.desc(), _LINK.id)
    .limit(MAX_LISTED)
)
_COUNT = sa.select(sa.func.count(_LINK.id)).where(_IS_OF_TENANT, _IS_USABLE)
_LOOKUP = sa.select(*_LINK).where(_LINK.id == sa.bindparam("id", type_=sa.Text), _IS_USABLE)


class ShareLink(NamedTuple):
    """A stored link: what it shows, of which last days, and until when.

    ``opened``: how often its page was shown; ``last_opened``: when it was shown last.
    """

    id: str
    tenant_id: str
    views: tuple[str, ...]
    days: int
    created: datetime
    created_by: str
    expires: datetime
    revoked: datetime | None = None
    opened: int = 0
    last_opened: datetime | None = None


class Signatures:
    """Signs the ids of links, and checks them."""

    def __init__(self, keys: Sequence[str]) -> None:
        """Sign with the last of ``keys``, and accept the signatures of all."""
        self._signer = Signer(list(keys), salt=_SALT, digest_method=sha256)

    def signed(self, link_id: str) -> str:
        """The id with its signature, as a part of a URL."""
        return self._signer.sign(link_id).decode()

    def id_of(self, text: str) -> str | None:
        """The id in a signed text; ``None`` if the signature is not by one of the keys."""
        if not _SIGNED.fullmatch(text):
            return None
        try:
            return self._signer.unsign(text).decode()
        except BadSignature:
            return None


def new_link(  # noqa: PLR0913 - the parts of a link
    tenant_id: str, views: Sequence[str], days: int, expires: datetime, now: datetime, *, by: str
) -> ShareLink:
    """A link that is not stored yet.

    Raises:
        ValidationError: a view, the number of days or the end is invalid.
    """
    known = ", ".join(VIEWS)
    if not views or any(view not in VIEWS for view in views):
        raise ValidationError(f"a link shows at least one of {known}, and nothing else")
    if len(set(views)) < len(views):
        raise ValidationError("a view of the link is named twice; name each once")
    if not 1 <= days <= MAX_DAYS:
        raise ValidationError(f"the days of the link must be 1 to {MAX_DAYS}")
    if not now < expires <= now + LONGEST:
        raise ValidationError(
            f"the link must expire in the future, within {LONGEST.days} days; choose another end"
        )
    shown = tuple(view for view in VIEWS if view in views)
    link_id = "".join(secrets.choice(_ALPHABET) for _ in range(_ID_CHARACTERS))
    return ShareLink(link_id, tenant_id, shown, days, now, by, expires)


def refuse_more_links(connection: Connection, tenant_id: str, now: datetime) -> None:
    """Refuse another link of an organization that has too many usable ones.

    Raises:
        RefusedError: there are ``MAX_LINKS``.
    """
    if (connection.scalar(_COUNT, {"tenant_id": tenant_id, "now": now}) or 0) >= MAX_LINKS:
        raise RefusedError(f"the organization has {MAX_LINKS} links; revoke one first")


def store_link(database: Database, link: ShareLink) -> None:
    """Store a new link."""
    values = {
        "id": link.id,
        "tenant_id": link.tenant_id,
        "views": " ".join(link.views),
        "days": link.days,
        "created_at": link.created,
        "created_by": link.created_by,
        "expires_at": link.expires,
    }

    def insert(connection: Connection) -> None:
        database.name_tenants(connection, {link.tenant_id})
        connection.execute(sa.insert(share_links).values(values))
        record_change(
            connection,
            tenant_id=link.tenant_id,
            actor=link.created_by,
            action="share_link.created",
            subject=link.id,
            details={"views": link.views, "days": link.days, "expires": link.expires},
            at=link.created,
        )

    database.write(insert)


def links_of(connection: Connection, tenant_id: str, now: datetime) -> list[ShareLink]:
    """The links of an organization: usable ones first, then the newest first."""
    return [_read(row) for row in connection.execute(_LIST, {"tenant_id": tenant_id, "now": now})]


def revoke_link(
    database: Database, tenant_id: str, link_id: str, now: datetime, *, by: str
) -> ShareLink | None:
    """Revoke a link of an organization. Returns it, or ``None`` if there is none.

    A link that was revoked before keeps that instant.
    """
    if not _ID.fullmatch(link_id):  # it may have a NUL, which PostgreSQL cannot read
        return None
    where = sa.and_(_LINK.id == link_id, _LINK.tenant_id == tenant_id)
    revoke = sa.update(share_links).where(where, _LINK.revoked_at.is_(None))

    def work(connection: Connection) -> ShareLink | None:
        database.name_tenants(connection, {tenant_id})
        revoked = connection.execute(revoke.values(revoked_at=now)).rowcount
        row = connection.execute(sa.select(*_LINK).where(where)).one_or_none()
        if row is None:
            return None
        if revoked:
            record_change(
                connection,
                tenant_id=tenant_id,
                actor=by,
                action="share_link.revoked",
                subject=link_id,
                at=now,
            )
        return _read(row)

    return database.write(work)


def usable_link(database: Database, link_id: str, now: datetime) -> ShareLink | None:
    """The link with an id, unless it is unknown, expired or revoked.

    The id must have been signed: its organization is not known before.
    """
    with database.reading() as connection:
        database.name_key(connection, link_id)
        row = connection.execute(_LOOKUP, {"id": link_id, "now": now}).one_or_none()
    return None if row is None else _read(row)


def count_opening(database: Database, link: ShareLink, now: datetime, lock_seconds: float) -> None:
    """Count that the page of a link was shown."""
    here = sa.and_(_LINK.id == link.id, _LINK.tenant_id == link.tenant_id)
    count = sa.update(share_links).where(here).values(opened=_LINK.opened + 1, last_opened_at=now)

    def work(connection: Connection) -> None:
        database.name_tenants(connection, {link.tenant_id})
        connection.execute(count)

    database.write_briefly(work, lock_seconds)


def _read(row: Any) -> ShareLink:
    return ShareLink(
        row.id,
        row.tenant_id,
        tuple(row.views.split(" ")),
        row.days,
        row.created_at,
        row.created_by,
        row.expires_at,
        row.revoked_at,
        row.opened,
        row.last_opened_at,
    )
