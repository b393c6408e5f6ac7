"""Webhooks while schedulers are killed: each message is seen once, in order, and signed."""

import multiprocessing
import random
import time
from datetime import UTC, datetime
from itertools import groupby
from threading import Event, Thread

import pytest
import sqlalchemy as sa

from app.alerts.signing import SigningKeys, secret_of
from app.alerts.webhooks import EndpointBody, Rules, create_endpoint, rules_of
from app.config.settings import Settings
from app.storage.database import Database
from app.storage.outbox import OPENED, RESOLVED, FindingEvent, enqueue_events
from app.storage.tables import findings, webhook_messages
from app.storage.types import database_now
from jobs import delivery
from tests.support.findings import stored
from tests.support.receivers import half, receiving, verified
from tests.support.settings import KEY, TENANT, environment, make_settings

FINDINGS, KILLS, SCHEDULERS = 1000, 50, 2
LOCAL = {"WEBHOOK_ALLOW": "127.0.0.0/8"}
KINDS = (OPENED, RESOLVED)
# The processes are forked from one that has imported everything, so that each is at work at once.
PROCESSES = multiprocessing.get_context("forkserver")


def deliver_for_ever(environ):
    """Deliver again and again, as a scheduler does.

    The waits are shorter, so that the test does not last for hours.
    """
    delivery.CLAIM_SECONDS, delivery.SPARE_SECONDS = 1.5, 0.7
    delivery.RETRY_SECONDS, delivery.MAX_RETRY_SECONDS = 0.05, 0.5
    delivery.REST_SECONDS, delivery.MAX_REST_SECONDS = 0.05, 0.3
    delivery.POLL_SECONDS = 0.05
    settings = Settings.from_environ(environ)
    database = Database(settings.database_url, pool_size=2)
    while True:
        delivery.deliver(database, settings)
        time.sleep(0.05)


def store_changes(database, found):
    """Open, update and resolve findings, some at a time, as the task of findings does."""
    for start in range(0, len(found), 100):
        some = found[start : start + 100]
        for kind in KINDS:

            def work(connection, some=some, kind=kind):
                ids = [one.id for one in some]
                change = sa.update(findings).where(findings.c.id.in_(ids))
                connection.execute(change.values(version=findings.c.version + 1))
                now = connection.scalar(sa.select(database_now()))
                events = [FindingEvent(TENANT, one.id, kind) for one in some]
                enqueue_events(connection, events, now)

            database.write(work)


def kill_and_start(environ, stop, killed):
    """Keep two schedulers running, and kill one of them again and again."""
    dice = random.Random(7)
    running = [start(environ) for _ in range(SCHEDULERS)]
    try:
        while not stop.is_set():
            if len(killed) < KILLS:
                time.sleep(dice.uniform(0.2, 1.0))
                victim = dice.randrange(SCHEDULERS)
                assert running[victim].is_alive(), "a scheduler has ended by itself"
                running[victim].kill()
                running[victim].join()
                killed.append(victim)
                running[victim] = start(environ)
            else:
                stop.wait(0.1)
    finally:
        for one in running:
            one.kill()
            one.join()


def start(environ):
    process = PROCESSES.Process(target=deliver_for_ever, args=(environ,), daemon=True)
    process.start()
    return process


@pytest.mark.timeout(280)
def test_each_message_is_seen_once_in_order_and_signed(database, database_url):
    """1,000 findings go to three receivers: one is slow, one fails half of the time, one is dead.

    Meanwhile two schedulers are killed 50 times. A receiver that drops the ids that it has seen
    sees each change once.
    """
    settings = make_settings(database_url, **LOCAL)
    rules: Rules = rules_of(settings)
    now = datetime.now(UTC)
    found = stored(database, *({} for _ in range(FINDINGS)))
    stop, killed = Event(), []
    environ = environment(database_url, **LOCAL)
    PROCESSES.set_forkserver_preload([__name__])
    with receiving(slow=0.005) as slow, receiving(answer=half()) as failing:
        made = [
            create_endpoint(
                database, TENANT, EndpointBody(url, cooldown_minutes=0), now, rules=rules, by="u"
            )
            for url in (slow.url, failing.url, "http://127.0.0.1:9/dead")
        ]
        killing = Thread(target=kill_and_start, args=(environ, stop, killed))
        killing.start()
        began = time.monotonic()
        try:
            store_changes(database, found)
            while time.monotonic() - began < 240 and killing.is_alive():
                answering = made[0].id, made[1].id
                if len(killed) >= KILLS and not waiting(database, answering):
                    break
                time.sleep(0.2)
        finally:
            stop.set()
            killing.join()
        took = round(time.monotonic() - began)
        print(f"{took} s, {len(slow.seen)} and {len(failing.seen)} requests")
    assert len(killed) == KILLS
    keys = SigningKeys(KEY)
    for receiver, endpoint in ((slow, made[0]), (failing, made[1])):
        secret = secret_of(keys, endpoint.secret_number)
        assert all(verified(secret, one) for one in receiver.seen)
        first = list({one.id: one for one in receiver.accepted}.values())
        assert len(first) == len(KINDS) * FINDINGS
        assert {len({body.body for body in same}) for same in by_id(receiver.seen)} == {1}
        kinds = {}
        for one in first:
            kinds.setdefault(one.json["data"]["finding"]["id"], []).append(one.json["type"])
        assert set(map(tuple, kinds.values())) == {KINDS}
        assert len(kinds) == FINDINGS
    assert waiting(database, [made[2].id]) == len(KINDS) * FINDINGS


def by_id(received):
    ordered = sorted(received, key=lambda one: one.id)
    return (list(same) for _, same in groupby(ordered, key=lambda one: one.id))


def waiting(database, endpoint_ids):
    message = webhook_messages.c
    number = (
        sa.select(sa.func.count())
        .select_from(webhook_messages)
        .where(message.endpoint_id.in_(endpoint_ids), message.next_at.is_not(None))
    )
    with database.reading() as connection:
        return connection.scalar(number)
