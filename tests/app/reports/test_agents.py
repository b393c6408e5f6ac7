"""The name of an agent: the newest of its events, unless a name is set later."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from itertools import permutations

import pytest
import sqlalchemy as sa

from app.intake.agent_names import Named, newest_names, set_names
from app.intake.events import Event
from app.intake.store import Stored, store_events
from app.reports import usage
from app.reports.usage import NamedUsage
from app.storage import database as db
from app.storage.tables import agents, issuance_events
from tests.support.settings import TENANT

AT = datetime(2026, 4, 1, tzinfo=UTC)
TICK = timedelta(microseconds=1)


def said(name, at=AT, agent="agent-1", event_id=None, tenant=TENANT):
    return Event(tenant, event_id or f"{agent}-{at}-{name}", agent, at, name)


@pytest.fixture
def names(database):
    """Every stored name, by agent; by tenant and agent when there are several tenants."""

    def names():
        with database.reading() as connection:
            rows = connection.execute(sa.select(agents).order_by(*agents.primary_key)).all()
        tenants = {row.tenant_id for row in rows}
        if len(tenants) > 1:
            return {(row.tenant_id, row.agent_id): row.name for row in rows}
        return {row.agent_id: row.name for row in rows}

    return names


def test_a_name_is_stored_with_the_instant_it_was_said_for(database):
    store_events(database, [said("billing", AT + TICK)])
    with database.reading() as connection:
        rows = connection.execute(sa.select(agents)).all()
    assert rows == [(TENANT, "agent-1", "billing", AT + TICK, None)]


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "in batches"])
def test_the_newest_name_wins_in_whatever_order_it_arrives(database, names, together):
    events = [said(name, AT + number * TICK) for number, name in enumerate(("a", "b", "c"))]
    for number, order in enumerate(permutations(events)):
        agent = f"agent-{number}"
        batch = [event._replace(agent_id=agent, event_id=agent + event[1]) for event in order]
        for part in [batch] if together else [[event] for event in batch]:
            store_events(database, part)
    assert names() == {f"agent-{number}": "c" for number in range(6)}


def test_of_two_names_for_one_instant_the_first_stays(database, names):
    store_events(database, [said("first"), said("second")])
    store_events(database, [said("third")])
    assert names() == {"agent-1": "first"}


def test_an_old_name_that_is_redelivered_stays_old(database, names):
    old = said("old")
    store_events(database, [old])
    store_events(database, [said("new", AT + TICK)])
    assert store_events(database, [old, old]) == Stored(2, 0, 2)
    assert names() == {"agent-1": "new"}


def test_a_repeated_name_beats_an_older_event(database, names):
    """A name repeated by a newer event holds against an event dated between the two."""
    for name, ticks in (("a", 0), ("a", 2), ("b", 1)):
        store_events(database, [said(name, AT + ticks * TICK)])
    assert names() == {"agent-1": "a"}


def test_events_without_names_change_none(database, names):
    store_events(database, [said("billing")])
    store_events(database, [said(None, AT + TICK), said(None, AT + TICK, agent="agent-2")])
    assert names() == {"agent-1": "billing"}


def test_instants_are_compared_across_offsets_and_fractions(database, names):
    """The newest name is found by instant, across offsets and fractions of a second."""
    store_events(database, [said("new", AT + timedelta(hours=1))])
    east = datetime.fromisoformat("2026-04-01T02:30:00+02:00")
    store_events(database, [said("old", east)])
    assert names() == {"agent-1": "new"}
    store_events(database, [said("newest", AT + timedelta(hours=1, microseconds=5))])
    assert names() == {"agent-1": "newest"}


def test_one_agent_of_two_tenants_has_a_name_at_each(database, names):
    store_events(database, [said("a"), said("b", tenant="org-b"), said("old", AT - TICK)])
    assert names() == {(TENANT, "agent-1"): "a", ("org-b", "agent-1"): "b"}


def test_a_batch_that_fails_leaves_no_name(database, names):
    with pytest.raises(sa.exc.IntegrityError):
        store_events(database, [said("good"), said("bad\x01", agent="agent-2")])
    assert names() == {}
    with database.reading() as connection:
        assert connection.execute(sa.select(issuance_events)).all() == []


def test_a_name_that_is_set_wins_over_all_that_was_said_before(database, names):
    store_events(database, [said("said", AT)])
    set_names(database, TENANT, {"agent-1": "set", "agent-2": "new"}, AT + 2 * TICK, by="tester")
    store_events(database, [said("late", AT + TICK), said("same", AT + 2 * TICK)])
    assert names() == {"agent-1": "set", "agent-2": "new"}
    store_events(database, [said("newer", AT + 3 * TICK)])
    assert names() == {"agent-1": "newer", "agent-2": "new"}


def test_a_name_that_is_set_beats_an_event_dated_ahead(database, names):
    """A name that is set wins over the name in an event dated ahead of it."""
    ahead = AT + timedelta(minutes=5)
    store_events(database, [said("ahead", ahead)])
    set_names(database, TENANT, {"agent-1": "set"}, AT, by="tester")
    store_events(database, [said("between", ahead - TICK), said("same", ahead)])
    assert names() == {"agent-1": "set"}
    store_events(database, [said("later", ahead + TICK)])
    assert names() == {"agent-1": "later"}


def test_a_late_event_does_not_restore_a_removed_name(database, names):
    """A late event does not restore a name that was removed."""
    store_events(database, [said("said")])
    set_names(database, TENANT, {"agent-1": None}, AT + 2 * TICK, by="tester")
    store_events(database, [said("late", AT + TICK)])
    assert names() == {"agent-1": None}
    store_events(database, [said("new", AT + 3 * TICK)])
    assert names() == {"agent-1": "new"}


def test_names_are_set_for_one_tenant_alone(database, names):
    store_events(database, [said("a"), said("b", tenant="org-b")])
    set_names(database, TENANT, {"agent-1": None}, AT, by="tester")
    assert names() == {(TENANT, "agent-1"): None, ("org-b", "agent-1"): "b"}
    set_names(database, TENANT, {}, AT, by="tester")


def test_a_batch_has_one_name_for_each_agent_ordered_by_key():
    events = [said("z", agent="b"), said("y", agent="a", tenant="org-b"), said("x", agent="a")]
    assert newest_names([*events, said(None, agent="c")]) == [
        Named(TENANT, "a", "x", AT),
        Named(TENANT, "b", "z", AT),
        Named("org-b", "a", "y", AT),
    ]


def test_batches_in_opposite_order_do_not_deadlock(database, monkeypatch, names):
    """Concurrent batches that name the same agents in opposite order do not deadlock."""
    monkeypatch.setattr(db, "is_conflict", lambda _error: False)  # a deadlock would be raised
    numbers, turns = range(300), 24

    def store(turn):
        order = numbers if turn % 2 else reversed(numbers)
        at = AT + turn * TICK
        events = [said(f"{turn}", at, f"agent-{n:03}", f"{turn}-{n}") for n in order]
        return store_events(database, events).accepted

    def rename(turn):
        order = reversed(numbers) if turn % 2 else numbers
        set_names(database, TENANT, {f"agent-{n:03}": "set" for n in order}, AT - TICK, by="tester")
        return 0

    with ThreadPoolExecutor(12) as pool:
        work = [pool.submit(each, turn) for turn in range(turns) for each in (store, rename)]
        assert sum(done.result() for done in work) == turns * len(numbers)
    assert set(names().values()) <= {"set", f"{turns - 1}"}


def test_named_usage_lists_a_months_agents_most_first(database, issue, roll_up):
    """The usage of a month lists its agents with their names, the most active first."""
    issue(AT, 2, agent="a")
    issue(AT, 2, agent="b")
    issue(AT, 3, agent="named")
    issue(AT - TICK, 9, agent="of March")
    issue(AT, 1, agent="a", tenant="org-b")
    issued = {"named": "billing", "never issued": "x", "b": None}
    set_names(database, TENANT, issued, AT, by="tester")
    set_names(database, "org-b", {"a": "of another"}, AT, by="tester")
    roll_up()
    with database.snapshot_for(TENANT) as connection:
        report = usage.named_usage(connection, TENANT, month=date(2026, 4, 1))
        (rows,) = report
        silent = list(usage.named_usage(connection, TENANT, month=date(2026, 5, 1)))
    expected = [("named", "billing", 3), ("a", None, 2), ("b", None, 2)]
    assert [NamedUsage(*row) for row in rows] == [NamedUsage(*each) for each in expected]
    assert report.counted_at is not None
    assert silent == []
