"""Delivery: what is sent, in which order, how often, and what a failure changes."""

import threading
import time
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.policy import default

import pytest
import sqlalchemy as sa

from app.alerts.signing import SigningKeys, secret_of
from app.alerts.webhooks import (
    EndpointBody,
    EndpointChange,
    Quiet,
    change_endpoint,
    create_endpoint,
    deliveries,
    endpoint,
    rotate_secret,
    rules_of,
    send_test,
)
from app.detection import Severity
from app.intake.finding_marks import MarkBody, mark_finding
from app.storage.outbox import (
    OPENED,
    RESOLVED,
    UPDATED,
    Document,
    FindingEvent,
    enqueue_events,
    enqueue_message,
)
from app.storage.tables import findings, webhook_endpoints, webhook_messages
from app.storage.types import database_now
from jobs import delivery
from jobs.delivery import deliver
from tests.support.findings import stored
from tests.support.receivers import half, receiving, receiving_mail, verified
from tests.support.settings import KEY, TENANT, make_settings

NOW = datetime(2026, 4, 15, tzinfo=UTC)
LOCAL = {"WEBHOOK_ALLOW": "127.0.0.0/8"}


@pytest.fixture
def settings(database_url):
    return make_settings(database_url, **LOCAL)


@pytest.fixture
def add(database, settings):
    def add(url, **members):
        body = EndpointBody(url, **members)
        rules = rules_of(settings)
        return create_endpoint(database, TENANT, body, NOW, rules=rules, by="user-1")

    return add


@pytest.fixture
def tell(database):
    """Change findings, and add the messages about them, as the task of findings does."""

    def tell(kind, *found, at=None):
        def work(connection):
            ids = [one.id for one in found]
            version = findings.c.version + 1
            change = sa.update(findings).where(findings.c.id.in_(ids)).values(version=version)
            connection.execute(change)
            now = at or connection.scalar(sa.select(database_now()))
            events = [FindingEvent(TENANT, one.id, kind) for one in found]
            enqueue_events(connection, events, now)

        database.write(work)

    return tell


def log_of(database, made):
    with database.reading() as connection:
        return deliveries(connection, TENANT, made.id)


def make_due(database):
    """Let time pass: what waits is due, and no endpoint rests or is claimed."""

    def work(connection):
        message, now = webhook_messages.c, database_now()
        due = sa.update(webhook_messages).where(message.next_at.is_not(None))
        connection.execute(due.values(next_at=now))
        connection.execute(
            sa.update(webhook_endpoints).values(paused_until=None, claimed_until=None)
        )

    database.write(work)


@pytest.mark.quick
def test_each_change_of_a_finding_is_sent_once(database, settings, add, tell):
    """In order, signed, with an id of its own, in the documented form."""
    found = stored(database, {}, {})
    with receiving() as receiver:
        made = add(receiver.url, cooldown_minutes=0)
        for kind in (OPENED, UPDATED, RESOLVED):
            tell(kind, *found)
        assert deliver(database, settings).outcomes["delivered"] == 6
        assert not deliver(database, settings).outcomes.total()
    secret = secret_of(SigningKeys(KEY), made.secret_number)
    assert all(verified(secret, one) for one in receiver.seen)
    for one in found:
        kinds = [got.json["type"] for got in receiver.seen if got.id.startswith(one.id)]
        assert kinds == [OPENED, UPDATED, RESOLVED]
    ids = {got.id for got in receiver.seen}
    assert ids == {f"{one.id}.{number}.{made.id}" for one in found for number in (1, 2, 3)}
    body = receiver.seen[0].json
    assert set(body) == {"type", "timestamp", "data"}
    assert body["data"]["organizationId"] == TENANT
    assert body["data"]["finding"]["agents"][0]["agentId"] == "agent-1"
    assert {one.status for one in log_of(database, made)} == {"delivered"}
    with database.reading() as connection:
        kept = connection.execute(sa.select(webhook_messages.c["document", "body"])).all()
    assert set(kept) == {(None, None)}


def test_a_failure_is_sent_again_with_the_same_bytes(database, settings, add, tell):
    """Even if the agent has got another name meanwhile; later changes wait behind it."""
    (found,) = stored(database, {})
    with receiving(answer=lambda _received: 500) as receiver:
        made = add(receiver.url, cooldown_minutes=0)
        tell(OPENED, found)
        tell(RESOLVED, found)
        assert deliver(database, settings).outcomes == {"failed": 1}
        assert not deliver(database, settings).outcomes.total()
        receiver.answer = lambda _received: 200
        make_due(database)
        assert deliver(database, settings).outcomes == {"delivered": 2}
    first, again, last = receiver.seen
    assert (first.id, first.body) == (again.id, again.body)
    assert last.json["type"] == RESOLVED
    newest = log_of(database, made)
    assert [(one.event, one.attempts, one.last_status) for one in newest] == [
        (RESOLVED, 1, 200),
        (OPENED, 2, 200),
    ]


def test_a_message_is_parked_after_a_day(database, settings, add, tell):
    """With the reason. The next change of the finding is sent then."""
    (found,) = stored(database, {})
    with receiving(answer=lambda _received: 503) as receiver:
        made = add(receiver.url)
        tell(OPENED, found)
        deliver(database, settings)
        change = sa.update(webhook_messages).values(expires_at=database_now())
        database.write(lambda connection: connection.execute(change))
        make_due(database)
        tell(RESOLVED, found)
        receiver.answer = lambda _received: 200
        assert deliver(database, settings).outcomes == {"parked": 1, "delivered": 1}
    parked = log_of(database, made)[-1]
    assert (parked.status, parked.error) == ("parked", "the answer was 503")
    assert [one.json["type"] for one in receiver.accepted] == [RESOLVED]


def test_what_waited_for_schedulers_only_is_not_parked(database, settings, add, tell):
    (found,) = stored(database, {})
    with receiving() as receiver:
        add(receiver.url)
        with database.reading() as connection:
            now = connection.scalar(sa.select(database_now()))
        tell(OPENED, found, at=now - timedelta(days=3))
        assert deliver(database, settings).outcomes == {"delivered": 1}


def test_an_endpoint_rests_after_failures_in_a_row(database, settings, add, tell):
    """Then one attempt is made for each rest, however many messages wait."""
    found = stored(database, *({} for _ in range(8)))
    with receiving(answer=lambda _received: 500) as receiver:
        made = add(receiver.url)
        tell(OPENED, *found)
        deliver(database, settings)
        attempts = len(receiver.seen)
        assert attempts == delivery.MANY_FAILURES
        with database.reading() as connection:
            resting = endpoint(connection, TENANT, made.id)
        assert resting.failures == attempts
        assert resting.paused_until is not None
        assert not deliver(database, settings).outcomes.total()
        receiver.answer = lambda _received: 200
        make_due(database)
        assert deliver(database, settings).outcomes == {"delivered": 8}
    with database.reading() as connection:
        assert endpoint(connection, TENANT, made.id).failures == 0


def test_a_dead_and_a_slow_endpoint_delay_no_other(database, settings, add, tell):
    found = stored(database, *({} for _ in range(4)))
    with receiving() as good, receiving(slow=0.5) as slow:
        add("http://127.0.0.1:9/dead")
        add(slow.url)
        add(good.url)
        tell(OPENED, *found)
        give_up = time.monotonic() + 30
        thread = threading.Thread(target=deliver, args=(database, settings))
        thread.start()
        while len(good.accepted) < 4 and time.monotonic() < give_up:
            time.sleep(0.01)
        reached = len(slow.accepted)
        thread.join()
    assert len(good.accepted) == 4
    assert reached < 4
    assert len(slow.accepted) == 4


def test_gone_disables_the_endpoint(database, settings, add, tell):
    found = stored(database, {}, {})
    with receiving(answer=lambda _received: 410) as receiver:
        made = add(receiver.url)
        tell(OPENED, *found)
        assert deliver(database, settings).outcomes["dropped"] == 1
        assert len(receiver.seen) == 1
        tell(RESOLVED, *found)
    with database.reading() as connection:
        assert endpoint(connection, TENANT, made.id).disabled_reason.endswith("410 Gone")
    assert {one.status for one in log_of(database, made)} == {"dropped"}


def test_retry_after_is_respected_within_bounds(database, settings, add, tell):
    (found,) = stored(database, {})
    answer = {"Retry-After": "999999"}
    with receiving(answer=lambda _received: 429, headers=answer) as receiver:
        made = add(receiver.url)
        tell(OPENED, found)
        deliver(database, settings)
    with database.reading() as connection:
        rest = endpoint(connection, TENANT, made.id).paused_until
        now = connection.scalar(sa.select(database_now()))
    assert timedelta(minutes=59) < rest - now <= timedelta(minutes=60)


def test_quiet_hours_defer_all_but_what_is_critical(database, settings, add, tell):
    warning, critical = stored(database, {}, {"severity": Severity.CRITICAL})
    with database.reading() as connection:
        now = connection.scalar(sa.select(database_now()))
    begin, end = now - timedelta(hours=1), now + timedelta(hours=1)
    quiet = Quiet(f"{begin:%H:%M}", f"{end:%H:%M}", "UTC")
    with receiving() as receiver:
        made = add(receiver.url, quiet=quiet)
        send_test(database, TENANT, made.id, now, by="user-1")
        tell(OPENED, warning, critical)
        assert deliver(database, settings).outcomes == {"delivered": 2}
        waiting = next(one for one in log_of(database, made) if one.status == "waiting")
        assert timedelta(minutes=58) < waiting.next - now <= timedelta(minutes=60)
        rise = sa.update(findings).where(findings.c.id == warning.id).values(severity="critical")
        database.write(lambda connection: connection.execute(rise))
        tell(RESOLVED, warning)
        make_due(database)
        assert deliver(database, settings).outcomes == {"delivered": 2}
    assert [one.json["type"] for one in receiver.seen][-2:] == [OPENED, RESOLVED]


def test_after_a_rotation_both_secrets_verify(database, settings, add, tell):
    (found,) = stored(database, {})
    with receiving() as receiver:
        made = add(receiver.url)
        keys = SigningKeys(KEY)
        old = secret_of(keys, made.secret_number)
        now = datetime.now(UTC)
        rotated = rotate_secret(database, TENANT, made.id, now, by="user-1")
        tell(OPENED, found)
        deliver(database, settings)
    (got,) = receiver.seen
    new = secret_of(keys, rotated.secret_number)
    assert new != old
    assert verified(old, got)
    assert verified(new, got)


def test_a_claim_that_was_lost_records_nothing(database, settings, add, tell):
    """A process that was paused for too long finds another one at work."""
    (found,) = stored(database, {})

    def steal(_received):
        change = sa.update(webhook_endpoints).values(turn=webhook_endpoints.c.turn + 1)
        database.write(lambda connection: connection.execute(change))
        return 200

    with receiving(answer=steal) as receiver:
        made = add(receiver.url)
        tell(OPENED, found)
        assert not deliver(database, settings).outcomes.total()
        receiver.answer = lambda _received: 200
        make_due(database)
        assert deliver(database, settings).outcomes == {"delivered": 1}
    assert len({one.id for one in receiver.seen}) == 1
    assert [one.status for one in log_of(database, made)] == ["delivered"]


def test_a_disabled_endpoint_gets_nothing_until_it_is_enabled(database, settings, add, tell):
    found = stored(database, {}, {})
    with receiving() as receiver:
        made = add(receiver.url)
        tell(OPENED, found[0])
        rules = rules_of(settings)
        for enabled, told in ((False, found[1]), (True, found[0])):
            change = EndpointChange(enabled=enabled)
            change_endpoint(
                database, TENANT, made.id, change, datetime.now(UTC), rules=rules, by="user-1"
            )
            tell(RESOLVED, told)
            deliver(database, settings)
    assert [one.json["type"] for one in receiver.seen] == [RESOLVED]
    assert [one.status for one in log_of(database, made)] == ["delivered", "dropped"]


def test_a_mark_of_a_person_is_sent(database, settings, add):
    """Acknowledging resolves a finding; a note is no news."""
    (found,) = stored(database, {})
    with receiving() as receiver:
        add(receiver.url)
        for body in (MarkBody(note="seen"), MarkBody(acknowledged=True), MarkBody(note="x")):
            mark_finding(database, TENANT, found.id, body, "user-1", datetime.now(UTC))
        mark_finding(
            database, TENANT, found.id, MarkBody(acknowledged=False), "user-1", datetime.now(UTC)
        )
        deliver(database, settings)
    assert [one.json["type"] for one in receiver.seen] == [RESOLVED, OPENED]
    assert receiver.seen[0].json["data"]["finding"]["resolution"] == "acknowledged"


@pytest.mark.parametrize("form", ["standard", "slack", "teams"])
def test_a_document_is_sent_in_each_format(database, settings, add, form):
    """A second call with the same id adds nothing."""
    document = Document("Week 16", "All is well.\n\nReally.", data={"tokens": 5})
    with receiving() as receiver:
        add(receiver.url, format=form)
        for added in (1, 0):
            number = database.write(
                lambda connection: enqueue_message(
                    connection,
                    tenant_id=TENANT,
                    endpoint_ids=None,
                    message_id="digest-week-2026-W16",
                    kind="digest.week",
                    document=document,
                    now=datetime.now(UTC),
                )
            )
            assert number == added
        assert deliver(database, settings).outcomes == {"delivered": 1}
    assert b"All is well." in receiver.seen[0].body
    assert receiver.seen[0].headers["content-type"] == "application/json"


def test_a_mail_is_read_back_from_a_server(database, database_url, tell):
    (found,) = stored(database, {})
    with receiving_mail() as server:
        mail = {"SMTP_URL": server.url, "SMTP_FROM": "analytics@example.com"}
        settings = make_settings(database_url, **mail)
        body = EndpointBody("mailto:ops@example.com", format="email")
        made = create_endpoint(database, TENANT, body, NOW, rules=rules_of(settings), by="user-1")
        tell(OPENED, found)
        assert deliver(database, settings).outcomes == {"delivered": 1}
    ((sender, recipient, text),) = server.mails
    assert (sender, recipient) == ("analytics@example.com", "ops@example.com")
    mail = message_from_bytes(text, policy=default)
    assert mail["Subject"] == "Opened: spike (warning)"
    assert mail["Message-ID"] == f"<{found.id}.1.{made.id}@example.com>"
    assert mail.get_body(("plain",)).get_content().startswith("Tue 14 Apr: 5,120 tokens")
    assert "<h1" in mail.get_body(("html",)).get_content()


def test_a_refused_mail_waits_with_its_reason(database, database_url, tell):
    (found,) = stored(database, {})
    with receiving_mail(refuses=True) as server:
        mail = {"SMTP_URL": server.url, "SMTP_FROM": "analytics@example.com"}
        settings = make_settings(database_url, **mail)
        body = EndpointBody("mailto:ops@example.com", format="email")
        made = create_endpoint(database, TENANT, body, NOW, rules=rules_of(settings), by="user-1")
        tell(OPENED, found)
        assert deliver(database, settings).outcomes == {"failed": 1}
    (waiting,) = log_of(database, made)
    assert (waiting.last_status, waiting.error) == (550, "the mail server refused the address")


@pytest.mark.quick
def test_two_schedulers_send_each_message_once(database, settings, add, tell, monkeypatch):
    """To receivers of which one fails half of the time. The short form of the test with kills."""
    monkeypatch.setattr(delivery, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(delivery, "REST_SECONDS", 0.01)
    found = stored(database, *({} for _ in range(10)))
    with receiving() as good, receiving(answer=half()) as failing:
        for receiver in (good, failing):
            add(receiver.url, cooldown_minutes=0)
        for kind in (OPENED, RESOLVED):
            tell(kind, *found)
        give_up = time.monotonic() + 20
        while len(failing.accepted) < 20 and time.monotonic() < give_up:
            threads = [
                threading.Thread(target=deliver, args=(database, settings)) for _ in range(2)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    for receiver in (good, failing):
        assert len(receiver.accepted) == 20
        for one in found:
            kinds = [got.json["type"] for got in receiver.accepted if got.id.startswith(one.id)]
            assert kinds == [OPENED, RESOLVED]


def test_an_unusual_message_is_parked_alone(database, settings, add, tell):
    """What cannot be written must not keep back the others."""
    bad, good = stored(database, {}, {})
    broken = sa.update(findings).where(findings.c.id == bad.id).values(content="{}")
    with receiving() as receiver:
        made = add(receiver.url)
        database.write(lambda connection: connection.execute(broken))
        tell(OPENED, bad, good)
        deliver(database, settings)
    assert len(receiver.seen) == 1
    assert sorted(one.status for one in log_of(database, made)) == ["delivered", "parked"]


@pytest.mark.parametrize("step", ["claim", "record"])
def test_endpoints_that_cannot_be_served_keep_back_no_other(  # noqa: PLR0917 - fixtures
    database, settings, add, tell, monkeypatch, caplog, step
):
    """More than threads; each rests, is logged, and is served after the rest."""
    (found,) = stored(database, {})
    with receiving() as strange, receiving() as good:
        bad = {add(strange.url).id for _ in range(delivery.THREADS + 1)}
        add(good.url)

        def fail_for(name, place):
            once = getattr(place, name)

            def broken(*arguments):
                if any(getattr(one, "id", None) in bad for one in arguments):
                    raise OverflowError("broken")
                return once(*arguments)

            monkeypatch.setattr(place, name, broken)

        fail_for("_defer", delivery) if step == "claim" else fail_for("_note", delivery._Delivery)
        tell(OPENED, found)
        assert deliver(database, settings).outcomes["delivered"] == 1
        assert len(good.accepted) == 1
        logged = [record for record in caplog.records if record.message == "webhook endpoint"]
        assert {record.fields["endpoint"] for record in logged} == bad
        assert deliver(database, settings).outcomes.total() == 0
        monkeypatch.undo()
        make_due(database)
        assert deliver(database, settings).outcomes["delivered"] == len(bad)


def test_a_failure_of_the_database_ends_a_tick(database, settings, add, tell, monkeypatch):
    (found,) = stored(database, {})
    add("http://127.0.0.1:9/dead")
    tell(OPENED, found)

    def lost(*_arguments):
        raise sa.exc.TimeoutError

    monkeypatch.setattr(delivery, "_defer", lost)
    with pytest.raises(sa.exc.TimeoutError):
        deliver(database, settings)


@pytest.mark.parametrize("failures", [0, 3])
def test_quiet_hours_give_no_more_time_to_what_was_tried(database, settings, add, tell, failures):
    """Otherwise a dead receiver would be tried for ever, and what follows would wait for it.

    What was not tried has more time only while the endpoint does not fail.
    """
    tried, untried = stored(database, {}, {})
    with database.reading() as connection:
        now = connection.scalar(sa.select(database_now()))
    begin, end = now - timedelta(hours=1), now + timedelta(hours=1)
    made = add("http://127.0.0.1:9/dead", quiet=Quiet(f"{begin:%H:%M}", f"{end:%H:%M}", "UTC"))
    tell(OPENED, tried, untried)
    message = webhook_messages.c
    before = now + timedelta(hours=3)
    once = sa.update(webhook_messages).where(message.finding_id == tried.id)
    once = once.values(attempts=1, expires_at=before)
    failed = sa.update(webhook_endpoints).values(failures=failures)
    database.write(lambda connection: [connection.execute(one) for one in (once, failed)])
    deliver(database, settings)
    with database.reading() as connection:
        rows = connection.execute(sa.select(webhook_messages)).all()
    assert {row.endpoint_id for row in rows} == {made.id}
    expires = {row.finding_id: row.expires_at for row in rows}
    assert expires[tried.id] == before
    has_more = expires[untried.id] - now > timedelta(hours=24, minutes=55)
    assert has_more == (failures == 0)


def test_a_message_that_was_tried_very_often_is_tried_again():
    now = datetime(2026, 4, 15, tzinfo=UTC)
    message = delivery._Message("m", OPENED, "{}", 10_000, now + timedelta(hours=24))
    outcome, columns = delivery._outcome(message, delivery._Result("timeout"), now)
    assert outcome == "failed"
    assert columns["next_at"] - now <= timedelta(seconds=1.2 * delivery.MAX_RETRY_SECONDS)


def test_the_rest_grows_and_is_bounded():
    now = datetime(2026, 4, 15, tzinfo=UTC)
    failed = delivery._Result("timeout")
    rests = [delivery._rest(now, failures, failed) for failures in range(1, 60)]
    assert rests[: delivery.MANY_FAILURES - 1] == [None] * (delivery.MANY_FAILURES - 1)
    assert max(filter(None, rests)) - now <= timedelta(seconds=1.2 * delivery.MAX_REST_SECONDS)


def test_attempts_are_spread_over_a_day():
    """Between 12 and 25 attempts until a message is parked."""
    now = datetime(2026, 4, 15, tzinfo=UTC)
    message = delivery._Message("m", OPENED, "{}", 0, now + timedelta(hours=24))
    outcome, attempts = "failed", 0
    while outcome == "failed":
        outcome, columns = delivery._outcome(message, delivery._Result("timeout"), now)
        attempts = columns["attempts"]
        message = message._replace(attempts=attempts)
        now = columns["next_at"] or now
    assert outcome == "parked"
    assert 12 <= attempts <= 25
