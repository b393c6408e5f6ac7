"""The outbox: each endpoint gets each change that it wants once, and none of another tenant."""

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from app.alerts.webhooks import EndpointBody, Rules, create_endpoint
from app.detection import Kind, Severity
from app.storage.outbox import (
    KEPT,
    OPENED,
    RESOLVED,
    UPDATED,
    Document,
    FindingEvent,
    enqueue_events,
    enqueue_message,
    event_kind,
    forget_old_messages,
)
from app.storage.tables import findings, webhook_endpoints, webhook_messages
from tests.support.findings import SPIKE, stored
from tests.support.settings import TENANT
from tests.support.statements import statements

NOW = datetime(2026, 4, 15, tzinfo=UTC)
URL = "https://example.com/"


@pytest.fixture
def add(database):
    def add(tenant=TENANT, **members):
        body = EndpointBody(URL, **members)
        return create_endpoint(database, tenant, body, NOW, rules=Rules(), by="u").id

    return add


@pytest.fixture
def tell(database):
    """Returns the endpoints that get a message about a change of a finding."""

    def tell(kind, finding, *, at=NOW, tenant=TENANT, urgent=False):
        def work(connection):
            ours = sa.and_(findings.c.tenant_id == tenant, findings.c.id == finding.id)
            version = findings.c.version + 1
            connection.execute(sa.update(findings).where(ours).values(version=version))
            enqueue_events(connection, [FindingEvent(tenant, finding.id, kind, urgent)], at)
            number = sa.select(findings.c.version).where(ours).scalar_subquery()
            message = webhook_messages.c
            told = sa.select(message.endpoint_id).where(
                message.tenant_id == tenant,
                message.finding_id == finding.id,
                message.version == number,
            )
            return set(connection.scalars(told))

        return database.write(work)

    return tell


def test_kinds_and_severity_decide(database, add, tell):
    every, silences = add(), add(kinds=["silence", "new_agent"])
    grave, worst = add(min_severity="warning"), add(min_severity="critical")
    spike, silence, low = stored(
        database, {}, {"kind": Kind.SILENCE, "severity": Severity.CRITICAL},
        {"severity": Severity.INFO},
    )  # fmt: skip
    assert tell(OPENED, spike) == {every, grave}
    assert tell(OPENED, silence) == {every, silences, grave, worst}
    assert tell(OPENED, low) == {every}


def test_an_update_is_left_out_during_the_cool_down(database, add, tell):
    """What opens, resolves or is urgent is not. The cool-down begins with the last message."""
    hour, none = add(cooldown_minutes=60), add(cooldown_minutes=0)
    found, other = stored(database, {}, {})
    minutes = timedelta(minutes=1)
    assert tell(OPENED, found) == {hour, none}
    assert tell(UPDATED, found, at=NOW + 59 * minutes) == {none}
    assert tell(UPDATED, other, at=NOW + 59 * minutes) == {hour, none}
    assert tell(UPDATED, found, at=NOW + 61 * minutes) == {hour, none}
    assert tell(UPDATED, found, at=NOW + 62 * minutes, urgent=True) == {hour, none}
    assert tell(RESOLVED, found, at=NOW + 63 * minutes) == {hour, none}
    assert tell(OPENED, found, at=NOW + 64 * minutes) == {hour, none}


def test_what_was_noticed_late_is_not_sent(database, add, tell):
    """Later than 48 hours after it was opened; nor are its later changes."""
    endpoint = add()
    late, just = stored(database, {}, {})
    for one, hours in ((late, 49), (just, 47)):
        detected = SPIKE.opened_at + timedelta(hours=hours)
        change = sa.update(findings).where(findings.c.id == one.id)
        database.write(
            lambda connection, change=change, at=detected: connection.execute(
                change.values(detected_at=at)
            )
        )
    assert tell(OPENED, late) == tell(RESOLVED, late) == set()
    assert tell(OPENED, just) == {endpoint}


def test_an_organization_gets_its_own_only(database, add, tell):
    """Even of a finding with the same id."""
    ours, theirs = add(), add(tenant="org-b")
    (mine,) = stored(database, {})
    (other,) = stored(database, {}, tenant="org-b")
    assert mine.id == other.id
    assert tell(OPENED, mine) == {ours}
    assert tell(OPENED, other, tenant="org-b") == {theirs}


def test_a_disabled_endpoint_is_told_nothing(database, add, tell):
    add()
    (found,) = stored(database, {})
    disable = sa.update(webhook_endpoints).values(disabled_at=NOW)
    database.write(lambda connection: connection.execute(disable))
    assert tell(OPENED, found) == set()


def test_the_same_change_is_added_once(database, add):
    add()
    (found,) = stored(database, {})
    events = [FindingEvent(TENANT, found.id, OPENED)] * 2
    for _ in range(2):
        database.write(lambda connection: enqueue_events(connection, events, NOW))
    with database.reading() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(webhook_messages)) == 1


def test_without_endpoints_one_statement_is_sent(database):
    """However many findings change, and in however many organizations."""
    events = [
        FindingEvent(f"org-{number % 100}", f"{number:032x}", OPENED) for number in range(500)
    ]
    with statements(database) as sent:
        database.write(lambda connection: enqueue_events(connection, events, NOW))
    assert len([one for one in sent if "webhook" in one]) == 1


def test_many_findings_are_added_by_one_statement(database, add):
    for _ in range(3):
        add()
    found = stored(database, *({} for _ in range(400)))
    events = [FindingEvent(TENANT, one.id, OPENED) for one in found]
    with statements(database) as sent:
        database.write(lambda connection: enqueue_events(connection, events, NOW))
    assert len([one for one in sent if "webhook" in one]) == 2
    with database.reading() as connection:
        number = connection.scalar(sa.select(sa.func.count()).select_from(webhook_messages))
    assert number == 1200


def test_a_document_goes_to_chosen_endpoints(database, add):
    one, other = add(), add(min_severity="critical")
    add(tenant="org-b")

    def enqueue(message_id, endpoint_ids):
        return database.write(
            lambda connection: enqueue_message(
                connection,
                tenant_id=TENANT,
                endpoint_ids=endpoint_ids,
                message_id=message_id,
                kind="digest.week",
                document=Document("s", "t"),
                now=NOW,
            )
        )

    assert enqueue("a", [other]) == 1
    assert enqueue("b", None) == 2
    assert enqueue("b", None) == 0
    assert enqueue("c", []) == 0
    with database.reading() as connection:
        ids = set(connection.scalars(sa.select(webhook_messages.c.id)))
    assert ids == {f"a.{other}", f"b.{one}", f"b.{other}"}


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (None, "open", OPENED),
        (None, "resolved", RESOLVED),
        ("open", "open", UPDATED),
        ("open", "resolved", RESOLVED),
        ("resolved", "open", OPENED),
        ("resolved", "resolved", UPDATED),
    ],
)
def test_the_kind_of_a_change(before, after, kind):
    assert event_kind(before, after) == kind


def test_old_messages_are_forgotten_unless_they_wait(database, add, tell):
    add()
    old, waiting, new = stored(database, {}, {}, {})
    for one, age in ((old, KEPT), (waiting, KEPT), (new, timedelta())):
        tell(OPENED, one, at=NOW - age - timedelta(seconds=1))
    done = sa.update(webhook_messages).where(webhook_messages.c.finding_id != waiting.id)
    database.write(lambda connection: connection.execute(done.values(next_at=None)))
    assert database.write(lambda connection: forget_old_messages(connection, NOW)) == 1
    with database.reading() as connection:
        left = set(connection.scalars(sa.select(webhook_messages.c.finding_id)))
    assert left == {waiting.id, new.id}
