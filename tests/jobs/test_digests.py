"""Digests by the jobs: each once for each endpoint and period, if jobs compete or are killed."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
import sqlalchemy as sa

import jobs.digests
from app.alerts import digests
from app.alerts.webhooks import (
    EndpointBody,
    EndpointChange,
    Rules,
    change_endpoint,
    create_endpoint,
)
from app.storage.tables import erasures, rollup_state, webhook_messages
from jobs.digests import Added, add_digests
from jobs.scheduler import TASKS, digests_tick
from tests.support.settings import TENANT
from tests.support.summaries import fill

MONDAY = datetime(2026, 4, 13, tzinfo=UTC)  # after the week 15
DUE = MONDAY + digests.SETTLED
RULES = Rules(has_mail=True)
RUNNING = threading.Event()
KINDS = {"mailto:ops@example.com": "email", "https://hooks.example/x": "slack"}


@pytest.fixture
def endpoint(database):
    def endpoint(digest="weekly", url="mailto:ops@example.com", tenant=TENANT):
        body = EndpointBody(url, KINDS[url], digest=digest)
        return create_endpoint(database, tenant, body, MONDAY, rules=RULES, by="tester")

    return endpoint


@pytest.fixture
def counted(database):
    def counted(at=DUE, tenant=TENANT):
        fill(database, [(MONDAY - timedelta(days=2), "agent-1", 9)], tenant=tenant, counted_at=at)

    return counted


@pytest.fixture
def messages(database):
    def messages():
        with database.reading() as connection:
            rows = connection.execute(sa.select(webhook_messages).order_by(webhook_messages.c.id))
            return rows.all()

    return messages


@pytest.fixture
def add(database, settings):
    return lambda now=DUE, stop=RUNNING: add_digests(database, settings, stop, now)


def test_each_endpoint_gets_its_digest_once(endpoint, counted, messages, add):
    """The id is made of the period and the endpoint. Others of the organization get nothing."""
    counted()
    mail, chat, none = endpoint(), endpoint(url="https://hooks.example/x"), endpoint(None)
    assert add() == Added(2, 1)
    assert add(DUE + timedelta(days=1)) == Added(0, 0)
    found = {one.endpoint_id: one for one in messages()}
    assert found.keys() == {mail.id, chat.id}
    assert none.id not in found
    assert found[mail.id].id == f"digest-week-2026-W15.{mail.id}"
    assert found[mail.id].kind == "digest.week"
    document = msgspec.json.decode(found[mail.id].document)
    assert document["subject"].startswith("org-a: 9 tokens in week 15 of 2026")
    assert document["html"].startswith("<!doctype html>")
    assert document["data"]["tokenCount"] == 9
    brief = msgspec.json.decode(found[chat.id].document)
    assert brief.get("html") is None
    assert len(brief["text"].strip().split("\n\n")) <= 3


def test_a_month_is_sent_after_the_month(endpoint, counted, messages, add):
    endpoint("monthly")
    counted(DUE)
    assert add(DUE) == Added(1, 1)
    assert messages()[0].id.startswith("digest-month-2026-03.")


@pytest.mark.parametrize(
    "now", [DUE - timedelta(seconds=1), MONDAY + digests.NEWS["weekly"] + timedelta(seconds=1)]
)
def test_a_digest_is_sent_when_it_is_settled_and_news(endpoint, counted, add, now):
    endpoint()
    counted(now)
    assert add(now) == Added(0, 0)


def test_a_week_that_is_not_counted_is_not_sent(endpoint, counted, database, add):
    endpoint()
    counted(MONDAY - timedelta(seconds=1))
    assert add() == Added(0, 0)
    later = sa.update(rollup_state).values(last_finished=DUE)
    database.write(lambda connection: connection.execute(later))
    assert add() == Added(1, 1)


def test_schedulers_at_once_add_one_message(endpoint, counted, messages, add):
    counted()
    endpoint()
    with ThreadPoolExecutor(4) as threads:
        added = list(threads.map(lambda _: add().messages, range(4)))
    assert len(messages()) == 1
    assert sum(added) == 1


def test_a_pass_that_dies_leaves_the_rest_to_the_next(
    endpoint, counted, messages, add, monkeypatch
):
    """Nothing is half: a message is added in one transaction, or not at all."""
    counted()
    counted(tenant="org-b")
    endpoint()
    endpoint(tenant="org-b")
    once = digests.enqueue_message

    def fail(connection, **options):
        once(connection, **options)
        if options["tenant_id"] == TENANT:
            raise KeyboardInterrupt  # killed before the commit

    monkeypatch.setattr(digests, "enqueue_message", fail)
    with pytest.raises(KeyboardInterrupt):
        add()
    assert messages() == []
    monkeypatch.setattr(digests, "enqueue_message", once)
    assert add() == Added(2, 2)


def test_one_failure_keeps_no_other_organization_waiting(
    endpoint, counted, messages, add, monkeypatch
):
    counted()
    counted(tenant="org-b")
    endpoint()
    endpoint(tenant="org-b")
    once = digests.enqueue_message

    def fail(connection, **options):
        if options["tenant_id"] == TENANT:
            raise ValueError("broken")
        return once(connection, **options)

    monkeypatch.setattr(digests, "enqueue_message", fail)
    with pytest.raises(ValueError, match="broken"):
        add()
    assert [one.tenant_id for one in messages()] == ["org-b"]


@pytest.fixture
def three_organizations(endpoint, counted):
    """Each with more endpoints than are read at once."""
    for tenant in (TENANT, "org-b", "org-c"):
        counted(tenant=tenant)
        for url in (*KINDS, *KINDS):
            endpoint(url=url, tenant=tenant)


@pytest.mark.usefixtures("three_organizations")
@pytest.mark.parametrize("fault", ["fails", "is not whole"])
def test_digests_that_cannot_be_made_keep_nobody_waiting(messages, add, monkeypatch, fault):
    """The next pass tries all that have got none."""
    monkeypatch.setattr("jobs.digests.BATCH", 2)
    make = jobs.digests.organization_digest

    def make_others(connection, tenant, *others):
        if tenant != TENANT:
            return make(connection, tenant, *others)
        if fault == "fails":
            raise ValueError("broken")
        return msgspec.structs.replace(make(connection, tenant, *others), counted=6)

    monkeypatch.setattr("jobs.digests.organization_digest", make_others)
    if fault == "fails":
        with pytest.raises(ValueError, match="broken"):
            add()
    else:
        assert add().messages == 8
    assert Counter(one.tenant_id for one in messages()) == {"org-b": 4, "org-c": 4}
    monkeypatch.setattr("jobs.digests.organization_digest", make)
    assert add().messages == 4
    assert len({one.id for one in messages()}) == 12


def test_disabled_and_erased_ones_get_nothing(endpoint, counted, database, add):
    counted()
    stopped = endpoint()
    off = EndpointChange(enabled=False)
    change_endpoint(database, TENANT, stopped.id, off, MONDAY, rules=RULES, by="tester")
    endpoint(tenant="org-b")
    begun = sa.insert(erasures).values(tenant_id="org-b", agent_id="", begun_at=MONDAY)
    database.write(lambda connection: connection.execute(begun))
    assert add() == Added(0, 0)


def test_a_stop_ends_the_pass(endpoint, counted, add):
    counted()
    endpoint()
    stop = threading.Event()
    stop.set()
    assert add(stop=stop) == Added(0, 0)


def test_the_scheduler_has_the_task(database, settings, caplog, monkeypatch):
    """A failure is logged, and ends nothing."""
    assert digests_tick in [task.run for task in TASKS]
    digests_tick(database, settings, RUNNING)

    def fail(*_arguments):
        raise ValueError

    monkeypatch.setattr("jobs.scheduler.add_digests", fail)
    digests_tick(database, settings, RUNNING)
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "digests"
    ]
