"""Endpoints of webhooks: where findings of an organization are sent, and what was delivered."""

import re
import secrets
import string
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from app.alerts.mail import ADDRESS
from app.alerts.signing import Rotation
from app.alerts.targets import Network, TargetError, parse_target
from app.config.settings import Settings
from app.dates import parse_zone
from app.detection import Kind
from app.errors import RefusedError, ValidationError
from app.storage.audit import record_change
from app.storage.database import Database
from app.storage.outbox import Document, drop_waiting, enqueue_message
from app.storage.tables import webhook_endpoints, webhook_messages

FORMATS = ("standard", "slack", "teams", "email")
SEVERITIES = ("info", "warning", "critical")
KINDS = tuple(kind.value for kind in Kind)
COOLDOWN_MINUTES, MAX_COOLDOWN_MINUTES = 60, 7 * 24 * 60
MAX_ENDPOINTS, MAX_DELIVERIES = 20, 1000
MAILTO = "mailto:"
DIGESTS = ("weekly", "monthly")
# The members whose values are columns.
_PLAIN = {"url", "min_severity", "cooldown_minutes", "digest"}
_ID_CHARACTERS = 12
_ID = re.compile(rf"[0-9A-Za-z]{{{_ID_CHARACTERS}}}")
_ALPHABET = string.digits + string.ascii_letters
_TIME = "^([01][0-9]|2[0-3]):[0-5][0-9]$"
_ENDPOINT, _MESSAGE = webhook_endpoints.c, webhook_messages.c
_IS_OF_TENANT = _ENDPOINT.tenant_id == sa.bindparam("tenant_id", type_=sa.Text)
# None of the columns that the sender changes all the time, apart from those that people need.
_COLUMNS = [
    column for column in webhook_endpoints.c if column.name not in {"turn", "claimed_until"}
]
_LIST = sa.select(*_COLUMNS).where(_IS_OF_TENANT).order_by(_ENDPOINT.created_at, _ENDPOINT.id)
_ONE = sa.select(*_COLUMNS).where(_IS_OF_TENANT, _ENDPOINT.id == sa.bindparam("id", type_=sa.Text))
_DELIVERIES = (
    sa.select(
        _MESSAGE.id,
        _MESSAGE.kind,
        _MESSAGE.finding_id,
        _MESSAGE.status,
        _MESSAGE.attempts,
        _MESSAGE.last_status,
        _MESSAGE.error,
        _MESSAGE.created_at,
        _MESSAGE.next_at,
        _MESSAGE.done_at,
    )
    .where(
        _MESSAGE.tenant_id == sa.bindparam("tenant_id", type_=sa.Text),
        _MESSAGE.endpoint_id == sa.bindparam("endpoint_id", type_=sa.Text),
    )
    .order_by(_MESSAGE.created_at.desc(), _MESSAGE.id.desc())
    .limit(sa.bindparam("limit", type_=sa.Integer))
)


class Quiet(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, rename={"begin": "from", "end": "to"}
):
    """Hours of each day in which only critical findings are sent at once."""

    begin: Annotated[str, msgspec.Meta(pattern=_TIME, description="As `22:00`")]
    end: Annotated[str, msgspec.Meta(pattern=_TIME, description="As `06:00`, maybe a day later")]
    zone: Annotated[str, msgspec.Meta(max_length=64, description="IANA name, as `Europe/Berlin`")]


_Kinds = Annotated[
    list[str],
    msgspec.Meta(
        min_length=1,
        max_length=len(KINDS),
        extra_json_schema={"items": {"enum": list(KINDS)}, "uniqueItems": True},
    ),
]
_Url = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=2000,
        description="An https URL; with the format email a mailto: URL of one address",
    ),
]
_Format = Literal["standard", "slack", "teams", "email"]
_Severity = Literal["info", "warning", "critical"]
_Digest = Literal["weekly", "monthly"]
_Cooldown = Annotated[int, msgspec.Meta(ge=0, le=MAX_COOLDOWN_MINUTES)]


class EndpointBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """An endpoint to create: where findings are sent, which ones, and when."""

    url: _Url
    format: _Format = "standard"
    kinds: _Kinds | None = None
    min_severity: _Severity = "info"
    cooldown_minutes: _Cooldown = COOLDOWN_MINUTES
    quiet: Quiet | None = None
    digest: _Digest | None = None


class EndpointChange(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Members to change. A member that is left out stays as it is.

    ``enabled``: false stops sending and drops what waits; true goes on.
    """

    url: _Url | msgspec.UnsetType = msgspec.UNSET
    kinds: _Kinds | msgspec.UnsetType | None = msgspec.UNSET
    min_severity: _Severity | msgspec.UnsetType = msgspec.UNSET
    cooldown_minutes: _Cooldown | msgspec.UnsetType = msgspec.UNSET
    quiet: Quiet | msgspec.UnsetType | None = msgspec.UNSET
    digest: _Digest | msgspec.UnsetType | None = msgspec.UNSET
    enabled: bool | msgspec.UnsetType = msgspec.UNSET


class Rules(NamedTuple):
    """What the operator's settings allow: own networks, and whether e-mail can be sent."""

    networks: Sequence[Network] = ()
    has_mail: bool = False


@dataclass(frozen=True)
class Endpoint:
    """A stored endpoint. ``kinds`` is ``None`` for all kinds."""

    id: str
    tenant_id: str
    url: str
    format: str
    kinds: tuple[str, ...] | None
    min_severity: str
    cooldown_minutes: int
    quiet: Quiet | None
    created: datetime
    created_by: str
    rotation: int = 1
    rotated: datetime | None = None
    disabled: datetime | None = None
    disabled_reason: str | None = None
    failures: int = 0
    paused_until: datetime | None = None
    digest: str | None = None

    @property
    def secret_number(self) -> Rotation:
        """What its secret is derived from."""
        return Rotation(self.tenant_id, self.id, self.rotation, self.rotated)


class Delivery(NamedTuple):
    """A message in the log of an endpoint.

    ``status`` is ``waiting``, ``delivered``, ``parked`` or ``dropped``. ``next`` is the time of the
    next attempt.
    """

    id: str
    event: str
    finding_id: str | None
    status: str
    attempts: int
    last_status: int | None
    error: str | None
    created: datetime
    next: datetime | None
    done: datetime | None


def rules_of(settings: Settings) -> Rules:
    """The rules that the settings make."""
    return Rules(settings.webhook_allow, settings.smtp_url is not None)


def endpoints_of(connection: Connection, tenant_id: str) -> list[Endpoint]:
    """The endpoints of an organization, the oldest first."""
    return [read_endpoint(row) for row in connection.execute(_LIST, {"tenant_id": tenant_id})]


def endpoint(connection: Connection, tenant_id: str, endpoint_id: str) -> Endpoint | None:
    """One endpoint of an organization."""
    if not _ID.fullmatch(endpoint_id):  # it may have a NUL, which PostgreSQL cannot read
        return None
    row = connection.execute(_ONE, {"tenant_id": tenant_id, "id": endpoint_id}).one_or_none()
    return None if row is None else read_endpoint(row)


def deliveries(
    connection: Connection, tenant_id: str, endpoint_id: str, limit: int = MAX_DELIVERIES
) -> list[Delivery]:
    """The messages to an endpoint in the last 30 days, the newest first."""
    values = {"tenant_id": tenant_id, "endpoint_id": endpoint_id, "limit": limit}
    return [Delivery._make(row) for row in connection.execute(_DELIVERIES, values)]


def quiet_until(quiet: Quiet, now: datetime) -> datetime | None:
    """The end of the quiet hours that an instant is in; ``None`` if it is in none."""
    try:
        zone = parse_zone(quiet.zone)
    except ValueError:  # the host that took it knows other zones
        zone = ZoneInfo("UTC")
    local = now.astimezone(zone)
    begin, end = time.fromisoformat(quiet.begin), time.fromisoformat(quiet.end)
    at = local.time()
    is_quiet = begin <= at < end if begin < end else at >= begin or at < end
    if not is_quiet:
        return None
    day = local.date() + timedelta(days=at >= end)
    # Where clocks are changed, the end may be an instant that was there before.
    until = datetime.combine(day, end, local.tzinfo).astimezone(UTC)
    return max(until, now + timedelta(minutes=1))


def create_endpoint(  # noqa: PLR0913 - an endpoint, by which rules, by whom and when
    database: Database, tenant_id: str, body: EndpointBody, now: datetime, *, rules: Rules, by: str
) -> Endpoint:
    """Create an endpoint.

    Raises:
        ValidationError: the URL, a kind or the quiet hours are invalid.
        RefusedError: the organization has ``MAX_ENDPOINTS``.
    """
    _check_url(body.url, body.format, rules)
    _check(body.kinds, body.quiet)
    created = Endpoint(
        "".join(secrets.choice(_ALPHABET) for _ in range(_ID_CHARACTERS)),
        tenant_id,
        body.url,
        body.format,
        _ordered(body.kinds),
        body.min_severity,
        body.cooldown_minutes,
        body.quiet,
        now,
        by,
        digest=body.digest,
    )
    values = {
        "tenant_id": tenant_id,
        "id": created.id,
        "url": created.url,
        "format": created.format,
        "created_at": now,
        "created_by": by,
        "min_severity": created.min_severity,
        "cooldown_minutes": created.cooldown_minutes,
        "digest": created.digest,
        **_kinds(body.kinds),
        **_quiet(body.quiet),
    }

    def work(connection: Connection) -> None:
        database.name_tenants(connection, {tenant_id})
        ours = sa.select(sa.func.count(_ENDPOINT.id)).where(_ENDPOINT.tenant_id == tenant_id)
        if (connection.scalar(ours) or 0) >= MAX_ENDPOINTS:
            raise RefusedError(f"the organization has {MAX_ENDPOINTS} endpoints; delete one first")
        connection.execute(sa.insert(webhook_endpoints).values(values))
        details = {"format": body.format, "target": _target(body.url)}
        _record(connection, created, by, "created", now, details)

    database.write(work)
    return created


def change_endpoint(  # noqa: PLR0913 - which endpoint, its members, by whom and when
    database: Database,
    tenant_id: str,
    endpoint_id: str,
    change: EndpointChange,
    now: datetime,
    *,
    rules: Rules,
    by: str,
) -> Endpoint | None:
    """Change an endpoint. Returns it, or ``None`` if there is none.

    Raises:
        ValidationError: as for :func:`create_endpoint`.
    """
    kinds = None if change.kinds is msgspec.UNSET else change.kinds
    quiet = None if change.quiet is msgspec.UNSET else change.quiet
    _check(kinds, quiet)
    given = _given(change)
    values = _changed(change, now)

    def work(connection: Connection, before: Endpoint) -> None:
        if "url" in given:
            _check_url(values["url"], before.format, rules)
        if values:
            connection.execute(_update(before).values(values))
        if change.enabled is False:
            drop_waiting(connection, tenant_id, endpoint_id, now)
        if given:
            details: dict[str, Any] = {"members": sorted(given)}
            if "url" in given:
                details["target"] = _target(values["url"])
            _record(connection, before, by, "changed", now, details)

    return _work_on(database, tenant_id, endpoint_id, work)


def rotate_secret(
    database: Database, tenant_id: str, endpoint_id: str, now: datetime, *, by: str
) -> Endpoint | None:
    """Give an endpoint a new secret. The former one is valid for a day.

    Returns the endpoint, or ``None`` if there is none.
    """

    def work(connection: Connection, before: Endpoint) -> None:
        values = {"rotation": before.rotation + 1, "rotated_at": now}
        connection.execute(_update(before).values(values))
        _record(connection, before, by, "rotated", now)

    return _work_on(database, tenant_id, endpoint_id, work)


def delete_endpoint(
    database: Database, tenant_id: str, endpoint_id: str, now: datetime, *, by: str
) -> Endpoint | None:
    """Delete an endpoint with its messages. Returns it, or ``None`` if there is none."""
    deleted: list[Endpoint] = []

    def work(connection: Connection, before: Endpoint) -> None:
        messages = sa.and_(_MESSAGE.tenant_id == tenant_id, _MESSAGE.endpoint_id == endpoint_id)
        connection.execute(sa.delete(webhook_messages).where(messages))
        ours = sa.and_(_ENDPOINT.tenant_id == tenant_id, _ENDPOINT.id == endpoint_id)
        connection.execute(sa.delete(webhook_endpoints).where(ours))
        _record(connection, before, by, "deleted", now)
        deleted[:] = [before]

    _work_on(database, tenant_id, endpoint_id, work)
    return deleted[0] if deleted else None


def send_test(
    database: Database, tenant_id: str, endpoint_id: str, now: datetime, *, by: str
) -> str | None:
    """Add a test message to the outbox. Returns its ``webhook-id``; ``None``: no such endpoint.

    Raises:
        RefusedError: the endpoint is disabled.
    """
    message_id = "test-" + secrets.token_hex(8)
    document = Document(
        "Test of a webhook",
        "This endpoint receives the findings of your organization. This message is a test.",
        data={"test": True},
    )

    def work(connection: Connection, before: Endpoint) -> None:
        if before.disabled is not None:
            raise RefusedError("the endpoint is disabled; enable it first")
        enqueue_message(
            connection,
            tenant_id=tenant_id,
            endpoint_ids=[endpoint_id],
            message_id=message_id,
            kind="test",
            document=document,
            now=now,
        )
        _record(connection, before, by, "tested", now)

    found = _work_on(database, tenant_id, endpoint_id, work)
    return None if found is None else f"{message_id}.{endpoint_id}"


def read_endpoint(row: Any) -> Endpoint:
    """An endpoint from a row of the table."""
    quiet = None
    if row.quiet_from is not None:
        quiet = Quiet(row.quiet_from, row.quiet_to, row.quiet_zone)
    return Endpoint(
        row.id,
        row.tenant_id,
        row.url,
        row.format,
        None if row.kinds is None else tuple(row.kinds.split(" ")),
        row.min_severity,
        row.cooldown_minutes,
        quiet,
        row.created_at,
        row.created_by,
        row.rotation,
        row.rotated_at,
        row.disabled_at,
        row.disabled_reason,
        row.failures,
        row.paused_until,
        row.digest,
    )


def _work_on(database: Database, tenant_id: str, endpoint_id: str, change: Any) -> Endpoint | None:
    """Lock an endpoint and change it. Returns it as it is then; ``None`` if there is none."""
    if not _ID.fullmatch(endpoint_id):
        return None
    values = {"tenant_id": tenant_id, "id": endpoint_id}

    def work(connection: Connection) -> Endpoint | None:
        database.name_tenants(connection, {tenant_id})
        row = connection.execute(_ONE.with_for_update(), values).one_or_none()
        if row is None:
            return None
        before = read_endpoint(row)
        change(connection, before)
        after = connection.execute(_ONE, values).one_or_none()
        return before if after is None else read_endpoint(after)

    return database.write(work)


def _given(change: EndpointChange) -> set[str]:
    return {name for name in change.__struct_fields__ if getattr(change, name) is not msgspec.UNSET}


def _changed(change: EndpointChange, now: datetime) -> dict[str, Any]:
    """The columns that a change sets."""
    given = _given(change)
    values: dict[str, Any] = {name: getattr(change, name) for name in given & _PLAIN}
    if change.kinds is not msgspec.UNSET:
        values |= _kinds(change.kinds)
    if change.quiet is not msgspec.UNSET:
        values |= _quiet(change.quiet)
    if change.enabled is False:
        values |= {"disabled_at": now, "disabled_reason": "disabled by hand"}
    if change.enabled is True:
        values |= {"disabled_at": None, "disabled_reason": None}
    if change.enabled is True or "url" in given:
        # The next attempt need not wait for what failed before, or elsewhere.
        values |= {"failures": 0, "paused_until": None}
    return values


def _update(one: Endpoint) -> sa.Update:
    return sa.update(webhook_endpoints).where(
        _ENDPOINT.tenant_id == one.tenant_id, _ENDPOINT.id == one.id
    )


def _record(  # noqa: PLR0913, PLR0917 - a row of the audit log
    connection: Connection,
    one: Endpoint,
    by: str,
    verb: str,
    now: datetime,
    details: dict[str, Any] | None = None,
) -> None:
    record_change(
        connection,
        tenant_id=one.tenant_id,
        actor=by,
        action=f"webhook.{verb}",
        subject=one.id,
        details=details,
        at=now,
    )


def _check_url(url: str, form: str, rules: Rules) -> None:
    if form == "email":
        if not rules.has_mail:
            raise ValidationError("the service sends no e-mail: its operator has not set SMTP_URL")
        if not (url.startswith(MAILTO) and ADDRESS.fullmatch(url.removeprefix(MAILTO))):
            raise ValidationError("the url must be one address, as mailto:ops@example.com")
        return
    try:
        parse_target(url, rules.networks)
    except TargetError as error:
        raise ValidationError(f"the url {error}", {"field": "url"}) from None


def _check(kinds: Sequence[str] | None, quiet: Quiet | None) -> None:
    if kinds is not None and (not kinds or set(kinds) - set(KINDS) or len(set(kinds)) < len(kinds)):
        raise ValidationError(
            f"kinds must name some of {', '.join(KINDS)}, each once", {"field": "kinds"}
        )
    if quiet is None:
        return
    try:
        parse_zone(quiet.zone)
    except ValueError as error:
        raise ValidationError(f"quiet.zone {error}", {"field": "quiet.zone"}) from None
    if quiet.begin == quiet.end:
        raise ValidationError("quiet.from and quiet.to must differ; use enabled to stop sending")


def _ordered(kinds: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if kinds is None else tuple(kind for kind in KINDS if kind in kinds)


def _kinds(kinds: Sequence[str] | None) -> dict[str, Any]:
    ordered = _ordered(kinds)
    return {"kinds": None if ordered is None else " ".join(ordered)}


def _quiet(quiet: Quiet | None) -> dict[str, Any]:
    if quiet is None:
        return dict.fromkeys(("quiet_from", "quiet_to", "quiet_zone"))
    return {"quiet_from": quiet.begin, "quiet_to": quiet.end, "quiet_zone": quiet.zone}


def _target(url: str) -> str:
    """The host of a URL, for the audit log: a path may hold a secret, and an address a person."""
    if url.startswith(MAILTO):
        return url.rpartition("@")[2]
    return url.split("/")[2] if url.count("/") > 1 else ""
