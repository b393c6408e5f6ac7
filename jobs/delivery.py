"""Delivery: sends the messages of the outbox to the endpoints of organizations.

A process claims an endpoint for some seconds, and sends its messages one after the other. So the
messages of an endpoint are in order, and a slow endpoint keeps back its own only. The claim has a
number, the turn: a process that was paused for longer than its claim stores nothing. No transaction
is open while a message is sent.

**At least once.** What was sent is recorded afterwards, a few messages together. A process that is
killed in between leaves them waiting, and they are sent again with the same ``webhook-id`` and the
same body.

**In order.** A message about a finding waits while an earlier one about it waits for the same
endpoint. It goes on when that one is delivered, parked or dropped.

**Failures.** A message is tried again after 10 seconds, and then three times as late each time, up
to two hours, with jitter. After 24 hours it is parked. After some failures in a row the endpoint
rests, longer each time, up to half an hour. A thread then costs one attempt for each rest.
"""

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from app.alerts import payloads
from app.alerts.mail import MailError, mail, send
from app.alerts.signing import SigningKeys, signed_headers
from app.alerts.targets import Resolver, TargetError, post
from app.alerts.webhooks import MAILTO, Endpoint, quiet_until, read_endpoint
from app.config.settings import Settings
from app.dates import utc_now
from app.detection import Finding, Part
from app.intake.organization_settings import options_of, settings_of
from app.provider_http import trusted_certificates
from app.reports.findings import findings_at
from app.storage.database import Database
from app.storage.failures import concerns_all
from app.storage.outbox import DELIVERED, DROPPED, PARKED, TRIED, Document, done, drop_waiting
from app.storage.tables import findings, webhook_endpoints, webhook_messages
from app.storage.types import database_now
from app.telemetry import logs

log = logging.getLogger("jobs")

# Endpoints that a process sends to at once.
THREADS = 8
# How long a claim lasts without a sign, and how much of it must be left before a message is sent.
CLAIM_SECONDS, SPARE_SECONDS = 40.0, 15.0
# For how long an endpoint is sent to before others have their turn, and messages read at once.
TURN_SECONDS, BATCH = 10.0, 20
# What was sent is recorded after so many seconds. A kill sends as much of it again.
RECORD_SECONDS = 0.25
# A tick ends after so many seconds, and the next one goes on.
TICK_SECONDS = 50.0
POLL_SECONDS = 0.5
# The first wait after a failure, the factor, and the longest. All with jitter.
RETRY_SECONDS, RETRY_FACTOR, MAX_RETRY_SECONDS = 10.0, 3.0, 7200.0
# After so many failures in a row the endpoint rests: at first for so long, and at most.
MANY_FAILURES, REST_SECONDS, MAX_REST_SECONDS = 5, 30.0, 1800.0
# The bounds of what a receiver may ask for by Retry-After.
RETRY_AFTER_SECONDS = (1.0, 3600.0)
FAILED = "failed"
OUTCOMES = (DELIVERED, FAILED, PARKED, DROPPED)
GONE = 410
TEST = "test"

T = TypeVar("T")
_ENDPOINT, _MESSAGE, _FINDING = webhook_endpoints.c, webhook_messages.c, findings.c
_CONTENT, _DOCUMENT = msgspec.json.Decoder(Finding), msgspec.json.Decoder(Document)
_SUCCESS = range(200, 300)


@dataclass
class Delivered:
    """What a tick has done: attempts by outcome."""

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


class _Key(NamedTuple):
    tenant_id: str
    id: str


class _Message(NamedTuple):
    id: str
    kind: str
    body: str
    attempts: int
    expires_at: datetime


class _Turn(NamedTuple):
    """A claim of an endpoint, and the messages to send now."""

    number: int
    endpoint: Endpoint
    messages: list[_Message]


class _Result(NamedTuple):
    """How an attempt ended; ``error`` is ``None`` if the message was taken."""

    error: str | None = None
    status: int | None = None
    retry_after: float | None = None

    @property
    def is_gone(self) -> bool:
        """Whether the receiver says that the endpoint does not exist any more."""
        return self.status == GONE


class _Sent(NamedTuple):
    message: _Message
    result: _Result


class _Snapshot(NamedTuple):
    """A finding at the moment of a change, with the columns of its table."""

    id: str
    status: str
    opened_at: datetime
    detected_at: datetime
    updated_at: datetime
    resolved_at: datetime | None
    resolution: str | None
    begins_at: datetime
    ends_at: datetime
    agent_id: str | None
    content: str
    acknowledged_severity: str | None
    acknowledged_by: str | None
    note: str | None


def deliver(
    database: Database,
    settings: Settings,
    stop: threading.Event | None = None,
    *,
    tick_seconds: float = TICK_SECONDS,
    resolve: Resolver | None = None,
) -> Delivered:
    """Send what is due, until nothing is or the time is over.

    Args:
        stop: when set, the messages under way are finished, and no other is begun.
        resolve: asks a name server, for tests.
    """
    began = time.monotonic()
    delivery = _Delivery(database, settings, stop or threading.Event(), resolve)
    delivery.run(began + tick_seconds)
    delivery.done.seconds = time.monotonic() - began
    return delivery.done


class _Delivery:
    """One tick in progress."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        stop: threading.Event,
        resolve: Resolver | None,
    ) -> None:
        self.done = Delivered()
        self._database = database
        self._settings = settings
        self._stop = stop
        self._resolve = resolve
        self._keys = SigningKeys(settings.secret_key, settings.secret_key_fallbacks)
        # A tick uses one connection, however many threads wait for receivers.
        self._turn = threading.Lock()

    def run(self, give_up: float) -> None:
        """Send to the endpoints that are due, some at a time, the one served longest ago first."""
        if not (due := self._due()):
            return
        self._certificates = trusted_certificates(self._settings)
        running: dict[Future[None], _Key] = {}
        with ThreadPoolExecutor(THREADS, "delivery") as pool:
            while due or running:
                for key in due[: THREADS - len(running)]:
                    running[pool.submit(self._serve, key)] = key
                ended, _ = wait(running, POLL_SECONDS, FIRST_COMPLETED)
                for future in ended:
                    key = running.pop(future)
                    if (error := future.exception()) is not None:
                        self._put_off(key, error)
                is_over = self._stop.is_set() or time.monotonic() > give_up
                busy = set(running.values())
                due = [] if is_over else [key for key in self._due() if key not in busy]

    def _due(self) -> list[_Key]:
        """Endpoints with a message that is due, which nobody is sending to."""
        now = database_now()
        waiting = sa.select(_MESSAGE.id).where(
            _MESSAGE.tenant_id == _ENDPOINT.tenant_id,
            _MESSAGE.endpoint_id == _ENDPOINT.id,
            _MESSAGE.next_at <= now,
            sa.not_(_is_behind()),
        )
        statement = (
            sa.select(_ENDPOINT.tenant_id, _ENDPOINT.id)
            .where(_is_free(now), sa.exists(waiting.correlate(webhook_endpoints)))
            .order_by(_ENDPOINT.claimed_until.nulls_first(), _ENDPOINT.id)
            .limit(2 * THREADS)
        )
        with self._turn, self._database.reading() as connection:
            return [_Key(*row) for row in connection.execute(statement)]

    def _write(self, work: Callable[[Connection], T]) -> T:
        with self._turn:
            return self._database.write(work)

    def _serve(self, key: _Key) -> None:
        """Claim an endpoint and send its messages, for some seconds."""
        give_up = time.monotonic() + TURN_SECONDS
        turn = self._write(partial(self._claim, key=key))
        while turn is not None:
            sent, may_go_on = self._send_some(turn)
            go_on = may_go_on and time.monotonic() < give_up and not self._stop.is_set()
            record = partial(self._record, key=key, number=turn.number, sent=sent, go_on=go_on)
            turn = self._write(record)

    def _put_off(self, key: _Key, error: BaseException) -> None:
        """Let an endpoint that cannot be served rest, so that it keeps back no other.

        Raises:
            BaseException: the failure, if it is of all.
        """
        if not isinstance(error, Exception) or concerns_all(error):
            raise error
        fields = {"outcome": FAILED, "endpoint": key.id, "error": type(error).__name__}
        log.error("webhook endpoint", exc_info=error, extra={"fields": fields})
        self.done.outcomes[FAILED] += 1

        def work(connection: Connection) -> None:
            now = _now(connection)
            served = sa.case((_ENDPOINT.claimed_until > now, _ENDPOINT.claimed_until), else_=now)
            rest = now + timedelta(seconds=MAX_REST_SECONDS)
            update = sa.update(webhook_endpoints).where(_is(key))
            connection.execute(update.values(claimed_until=served, paused_until=rest))

        self._write(work)

    def _send_some(self, turn: _Turn) -> tuple[list[_Sent], bool]:
        """Send messages, until it is time to record what was sent.

        Returns also whether to go on after that: this process was not paused for too long, so that
        another one may have the claim.
        """
        began = time.monotonic()
        sent: list[_Sent] = []
        for message in turn.messages:
            passed = time.monotonic() - began
            if passed > CLAIM_SECONDS - SPARE_SECONDS:
                return sent, False
            if self._stop.is_set() or passed > RECORD_SECONDS:
                break
            result = self._attempt(turn.endpoint, message)
            sent.append(_Sent(message, result))
            if result.error is not None:  # the endpoint may have to rest
                break
        return sent, bool(turn.messages)

    def _claim(self, connection: Connection, *, key: _Key) -> _Turn | None:
        now = _now(connection)
        claimed = (
            sa.update(webhook_endpoints)
            .where(_is(key), _is_free(now))
            .values(turn=_ENDPOINT.turn + 1, claimed_until=_until(now))
        )
        if connection.execute(claimed).rowcount == 0:
            return None
        row = connection.execute(sa.select(webhook_endpoints).where(_is(key))).one()
        endpoint = read_endpoint(row)
        self._park(connection, endpoint, now)
        return self._take(connection, endpoint, row.turn, now)

    def _record(
        self,
        connection: Connection,
        *,
        key: _Key,
        number: int,
        sent: Sequence[_Sent],
        go_on: bool,
    ) -> _Turn | None:
        """Store how attempts ended, and take the next messages.

        Returns ``None`` if the claim was lost, or has ended since the endpoint rests or others
        have their turn.
        """
        now = _now(connection)
        one = sa.select(webhook_endpoints).where(_is(key), _ENDPOINT.turn == number)
        row = connection.execute(one.with_for_update()).one_or_none()
        if row is None:
            return None
        failures, rest, gone = row.failures, None, False
        for _message, result in sent:
            failures = 0 if result.error is None else failures + 1
            rest = None if result.error is None else _rest(now, failures, result)
            gone = gone or result.is_gone
        values: dict[str, Any] = {"failures": failures, "paused_until": rest}
        if gone:
            values |= {"disabled_at": now, "disabled_reason": "the receiver answered 410 Gone"}
        go_on = go_on and rest is None and not gone and row.disabled_at is None
        # Not null at the end: the endpoint that was served longest ago is the next.
        values["claimed_until"] = _until(now) if go_on else now
        connection.execute(sa.update(webhook_endpoints).where(_is(key)).values(values))
        self._note(connection, key, sent, now)
        if gone:
            drop_waiting(connection, key.tenant_id, key.id, now)
        return self._take(connection, read_endpoint(row), number, now) if go_on else None

    def _note(
        self, connection: Connection, key: _Key, sent: Sequence[_Sent], now: datetime
    ) -> None:
        """Store the outcomes in the rows of the messages that were not dropped meanwhile."""
        rows: dict[str, list[dict[str, Any]]] = {}
        for message, result in sent:
            outcome, columns = _outcome(message, result, now)
            rows.setdefault(outcome, []).append(columns | {"of_id": message.id})
            self.done.outcomes[DROPPED if result.is_gone else outcome] += 1
        here = sa.and_(
            _MESSAGE.tenant_id == key.tenant_id,
            _MESSAGE.id == sa.bindparam("of_id"),
            _MESSAGE.next_at.is_not(None),
        )
        for some in rows.values():
            connection.execute(sa.update(webhook_messages).where(here), some)

    def _take(
        self, connection: Connection, endpoint: Endpoint, number: int, now: datetime
    ) -> _Turn:
        _defer(connection, endpoint, now)
        key = _Key(endpoint.tenant_id, endpoint.id)
        rows = connection.execute(_heads(key, now)).all()
        bodies = {one.id: one.body for one in rows if one.body is not None}
        bodies |= self._written(connection, endpoint, [one for one in rows if one.body is None])
        messages = [
            _Message(one.id, one.kind, bodies[one.id], one.attempts, one.expires_at)
            for one in rows
            if one.id in bodies
        ]
        return _Turn(number, endpoint, messages)

    def _park(self, connection: Connection, endpoint: Endpoint, now: datetime) -> None:
        """Give up what was tried long enough. What waited only for a scheduler is tried."""
        expired = [_waits_for(endpoint), _MESSAGE.expires_at <= now]
        if not endpoint.failures:
            expired.append(_MESSAGE.attempts > 0)
        error = sa.func.coalesce(_MESSAGE.error, "the endpoint was unavailable")
        values = done(PARKED, now) | {"error": error}
        parked = sa.update(webhook_messages).where(*expired).values(values)
        if (number := connection.execute(parked).rowcount) > 0:
            self.done.outcomes[PARKED] += number

    def _written(
        self, connection: Connection, endpoint: Endpoint, rows: Sequence[Any]
    ) -> dict[str, str]:
        """What to send, by message. It is stored, so that each attempt sends the same.

        A message that cannot be written is parked, so that it does not keep back the others.
        """
        bodies: dict[str, str] = {}
        try:
            shown = self._findings(connection, endpoint, rows)
        except (msgspec.MsgspecError, ValueError, LookupError):
            # At least one of them cannot be read. Each is read alone.
            shown = {}
        for row in rows:
            try:
                alone = shown or self._findings(connection, endpoint, [row])
                bodies[row.id] = self._rendered(self._message(endpoint, row, alone), endpoint)
            except (msgspec.MsgspecError, ValueError, LookupError) as error:
                kind = type(error).__name__
                logs.write(log, logging.ERROR, "webhook message", outcome=PARKED, error=kind)
                values = done(PARKED, _now(connection))
                values["error"] = "the message could not be written"
                connection.execute(_change_of(endpoint, row.id).values(values))
                self.done.outcomes[PARKED] += 1
        if bodies:
            change = _change_of(endpoint, sa.bindparam("of_id"))
            stored = [{"of_id": name, "body": body} for name, body in bodies.items()]
            connection.execute(change, stored)
        return bodies

    def _findings(
        self, connection: Connection, endpoint: Endpoint, rows: Sequence[Any]
    ) -> dict[str, Any]:
        """The findings that messages are about, as JSON of the API has them, by message."""
        about = [row for row in rows if row.content is not None]
        lifetime = self._settings.token_lifetime_seconds
        found = findings_at(
            connection,
            endpoint.tenant_id,
            [_snapshot(row) for row in about],
            lambda tenant: options_of(settings_of(connection, tenant), lifetime),
        )
        return {row.id: msgspec.to_builtins(one) for row, one in zip(about, found, strict=True)}

    def _message(self, endpoint: Endpoint, row: Any, shown: dict[str, Any]) -> payloads.Message:
        what = row.id, row.kind, row.created_at, endpoint.tenant_id
        if row.content is None:
            return payloads.document_message(*what, _DOCUMENT.decode(row.document))
        link = None
        if self._settings.public_url is not None:
            link = f"{self._settings.public_url}/dashboard/findings/{row.finding_id}"
        return payloads.finding_message(*what, shown[row.id], link)

    def _rendered(self, message: payloads.Message, endpoint: Endpoint) -> str:
        if endpoint.format == "email":
            sender = self._settings.smtp_from or "analytics@localhost"
            return mail(message, sender, endpoint.url.removeprefix(MAILTO)).decode("ascii")
        write = {"slack": payloads.slack, "teams": payloads.teams}.get(
            endpoint.format, payloads.standard
        )
        return write(message).decode()

    def _attempt(self, endpoint: Endpoint, message: _Message) -> _Result:
        body = message.body.encode()
        try:
            if endpoint.format == "email":
                self._send_mail(endpoint, body)
                return _Result()
            headers = signed_headers(
                self._keys, endpoint.secret_number, message.id, body, utc_now()
            )
            answer = post(
                endpoint.url,
                {"Content-Type": "application/json", **headers},
                body,
                certificates=self._certificates,
                allowed=self._settings.webhook_allow,
                resolve=self._resolve,
            )
        except MailError as error:
            return _Result(str(error), error.status)
        except TargetError as error:
            return _Result(str(error))
        except Exception as error:  # a strange target must not keep back the others
            kind = type(error).__name__
            logs.write(log, logging.ERROR, "webhook attempt", outcome=FAILED, error=kind)
            return _Result("the message could not be sent")
        if answer.status in _SUCCESS:
            return _Result(None, answer.status)
        return _Result(f"the answer was {answer.status}", answer.status, answer.retry_after)

    def _send_mail(self, endpoint: Endpoint, body: bytes) -> None:
        server, sender = self._settings.smtp_url, self._settings.smtp_from
        if server is None or sender is None:
            raise MailError("SMTP_URL is not set")
        send(server, self._certificates, sender, endpoint.url.removeprefix(MAILTO), body)


def _outcome(message: _Message, result: _Result, now: datetime) -> tuple[str, dict[str, Any]]:
    """The outcome of an attempt, and the columns of the message."""
    columns: dict[str, Any] = {"attempts": message.attempts + 1, "last_status": result.status}
    if result.error is None:
        return DELIVERED, done(DELIVERED, now) | columns | {"error": None}
    columns["error"] = result.error
    longer = RETRY_FACTOR ** min(message.attempts, 20)  # a power of more may be too large
    seconds = min(RETRY_SECONDS * longer, MAX_RETRY_SECONDS)
    again = now + timedelta(seconds=_jittered(seconds))
    if again >= message.expires_at:
        return PARKED, done(PARKED, now) | columns
    return FAILED, columns | {"next_at": again}


def _rest(now: datetime, failures: int, result: _Result) -> datetime | None:
    """Until when no message is sent to an endpoint that failed."""
    seconds = 0.0
    if failures >= MANY_FAILURES:
        longer = 2.0 ** min(failures - MANY_FAILURES, 20)
        seconds = _jittered(min(REST_SECONDS * longer, MAX_REST_SECONDS))
    if result.retry_after is not None:
        least, most = RETRY_AFTER_SECONDS
        seconds = max(seconds, min(max(result.retry_after, least), most))
    return now + timedelta(seconds=seconds) if seconds else None


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.8, 1.2)  # noqa: S311 - jitter, not a secret


def _is(key: _Key) -> sa.ColumnElement[bool]:
    return sa.and_(_ENDPOINT.tenant_id == key.tenant_id, _ENDPOINT.id == key.id)


def _may_send(now: Any) -> sa.ColumnElement[bool]:
    rested = sa.or_(_ENDPOINT.paused_until.is_(None), _ENDPOINT.paused_until <= now)
    return sa.and_(_ENDPOINT.disabled_at.is_(None), rested)


def _is_free(now: Any) -> sa.ColumnElement[bool]:
    unclaimed = sa.or_(_ENDPOINT.claimed_until.is_(None), _ENDPOINT.claimed_until <= now)
    return sa.and_(_may_send(now), unclaimed)


def _waits_for(endpoint: Endpoint) -> sa.ColumnElement[bool]:
    return sa.and_(
        _MESSAGE.tenant_id == endpoint.tenant_id,
        _MESSAGE.endpoint_id == endpoint.id,
        _MESSAGE.next_at.is_not(None),
    )


def _is_behind() -> sa.ColumnElement[bool]:
    """Whether an earlier message about the same finding waits for the same endpoint."""
    earlier = webhook_messages.alias("earlier")
    waiting = sa.select(earlier.c.id).where(
        earlier.c.tenant_id == _MESSAGE.tenant_id,
        earlier.c.finding_id == _MESSAGE.finding_id,
        earlier.c.endpoint_id == _MESSAGE.endpoint_id,
        earlier.c.version < _MESSAGE.version,
        earlier.c.next_at.is_not(None),
    )
    return sa.exists(waiting.correlate(webhook_messages))


def _heads(key: _Key, now: datetime) -> sa.Select[Any]:
    """Messages that are due, of each finding the first one that waits."""
    joined = webhook_messages.outerjoin(
        findings,
        sa.and_(
            _FINDING.tenant_id == _MESSAGE.tenant_id,
            _FINDING.id == _MESSAGE.finding_id,
        ),
    )
    marks = (_FINDING.acknowledged_severity, _FINDING.acknowledged_by, _FINDING.note)
    return (
        sa.select(*_MESSAGE, *marks)
        .select_from(joined)
        .where(
            _MESSAGE.tenant_id == key.tenant_id,
            _MESSAGE.endpoint_id == key.id,
            _MESSAGE.next_at <= now,
            sa.not_(_is_behind()),
        )
        .order_by(_MESSAGE.next_at, _MESSAGE.id)
        .limit(BATCH)
    )


def _defer(connection: Connection, endpoint: Endpoint, now: datetime) -> None:
    """Let what is due wait until the quiet hours end, except what is about a critical finding.

    What was tried before has no more time for it, nor has what waits for an endpoint that fails, so
    that it is parked in the end.
    """
    if endpoint.quiet is None or (until := quiet_until(endpoint.quiet, now)) is None:
        return
    has_time = _MESSAGE.attempts == 0 if endpoint.failures == 0 else sa.false()
    other = webhook_messages.alias("other")
    critical = sa.select(other.c.finding_id).where(
        other.c.tenant_id == endpoint.tenant_id,
        other.c.endpoint_id == endpoint.id,
        other.c.next_at.is_not(None),
        other.c.severity == "critical",
    )
    connection.execute(
        sa.update(webhook_messages)
        .where(
            _waits_for(endpoint),
            _MESSAGE.next_at <= now,
            _MESSAGE.kind != TEST,
            sa.or_(_MESSAGE.finding_id.is_(None), _MESSAGE.finding_id.not_in(critical)),
        )
        .values(
            next_at=until,
            expires_at=sa.case((has_time, until + TRIED), else_=_MESSAGE.expires_at),
        )
    )


def _snapshot(row: Any) -> _Snapshot:
    judged = _CONTENT.decode(row.content)
    return _Snapshot(
        row.finding_id,
        row.finding_status,
        judged.opened_at,
        row.detected_at,
        row.updated_at,
        row.resolved_at,
        row.resolution,
        judged.start,
        judged.end,
        judged.agent if judged.part is Part.AGENT else None,
        row.content,
        row.acknowledged_severity,
        row.acknowledged_by,
        row.note,
    )


def _change_of(endpoint: Endpoint, message_id: Any) -> sa.Update:
    here = sa.and_(_MESSAGE.tenant_id == endpoint.tenant_id, _MESSAGE.id == message_id)
    return sa.update(webhook_messages).where(here)


def _until(now: datetime) -> datetime:
    return now + timedelta(seconds=CLAIM_SECONDS)


def _now(connection: Connection) -> datetime:
    now: datetime = connection.execute(sa.select(database_now())).scalar_one()
    return now
