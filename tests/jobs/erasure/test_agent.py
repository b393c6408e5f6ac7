"""Erasure of an agent: its id is nowhere, and all numbers are exact."""

import itertools
import threading
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import msgspec
import pytest
import sqlalchemy as sa

from app.alerts.budgets import set_budget
from app.detection import Finding, Kind, Part, Share, State, Usual, finding_id
from app.detection.bounds import AgentUsual
from app.detection.findings import BudgetNumbers
from app.errors import RefusedError, UnavailableError
from app.intake.agent_names import NameBody, set_agent
from app.intake.events import Event
from app.intake.store import store_events
from app.storage.audit import changes, record_change
from app.storage.outbox import (
    OPENED,
    Document,
    FindingEvent,
    enqueue_events,
    enqueue_message,
)
from app.storage.tables import (
    agents,
    budgets,
    client_organizations,
    daily_agent_issuance,
    detection_state,
    erasures,
    findings,
    monthly_agent_issuance,
    usual,
    webhook_messages,
)
from jobs.erasure import agent as erasing
from jobs.erasure.agent import Erased, erase_agent
from jobs.erasure.organization import delete_organization
from jobs.recount.rebuild import rebuild
from jobs.recount.resume import resume
from tests.jobs.erasure.conftest import OF_TENANTS, OLD, OTHER, contents, drift, dying
from tests.support.findings import SPIKE, stored

pytestmark = pytest.mark.slow

AT = datetime(2026, 4, 1, 10, tzinfo=UTC)
START = SPIKE.start
# Columns of texts in tables of organizations. An erasure must change those that can hold the id of
# an agent. Say here what a new one holds, and let jobs/erasure/agent.py change it if it must.
CHANGED = {
    *("agents.name", "audit_log.actor", "audit_log.subject", "audit_log.details"),
    *("erasures.replacement", "findings.acknowledged_by", "findings.content", "findings.id"),
    "budgets.set_by",
    *("client_organizations.client_id", "page_sessions.subject", "share_links.created_by"),
    *("usual.states", "usual.usuals", "webhook_endpoints.created_by"),
    *("webhook_messages.body", "webhook_messages.content", "webhook_messages.document"),
    *("webhook_messages.finding_id", "webhook_messages.id"),
}
WITHOUT_AGENTS = {
    *("api_keys.id", "api_keys.note", "api_keys.scopes", "api_keys.sha256", "audit_log.action"),
    *("findings.acknowledged_severity", "findings.kind", "findings.resolution"),
    *("findings.severity", "findings.status", "issuance_events.event_id"),
    *("organization_summaries.days", "organization_summaries.weeks"),
    *("organization_settings.days_off", "organization_settings.price"),
    *("share_links.id", "share_links.views", "budgets.period"),
    *("webhook_endpoints.disabled_reason", "webhook_endpoints.format", "webhook_endpoints.id"),
    *(
        "webhook_endpoints.digest",
        "webhook_endpoints.kinds",
        "webhook_endpoints.min_severity",
        "webhook_endpoints.quiet_from",
    ),
    *("webhook_endpoints.quiet_to", "webhook_endpoints.quiet_zone", "webhook_endpoints.url"),
    *("webhook_messages.endpoint_id", "webhook_messages.error", "webhook_messages.finding_status"),
    *("webhook_messages.kind", "webhook_messages.resolution", "webhook_messages.severity"),
    "webhook_messages.status",
    # The provider's own session; tokens and forms that only the service can decrypt, for hours.
    *("page_sessions.id", "page_sessions.sid", "page_sessions.sealed", "page_sessions.form"),
    *("page_sessions.organizations", "page_sessions.scopes"),
    *("rollup_corrections.corrected_by", "rollup_corrections.table_name", "usual.delays"),
    "findings.note",  # a person's text: the command names the findings whose notes have the id
}


def erase(database, agent=OLD):
    return erase_agent(database, "t", agent, by="tester")


def finding(**changes):
    made = replace(SPIKE, part=Part.AGENT, agent=OLD, kind=Kind.NEW_AGENT, start=START)
    made = replace(made, agents=(Share(OLD, 1, 2, 0.5), Share(OTHER, 1, 2, 0.5)), **changes)
    return replace(made, id=finding_id("t", made.key, made.start))


@pytest.fixture
def known(filled):
    """The agent is in every place that an organization has for it."""
    about, beside = finding(), finding(part=Part.ORGANIZATION, agent="", kind=Kind.SPIKE)
    for one in (about, beside):
        members = {name: getattr(one, name) for name in Finding.__dataclass_fields__}
        stored(filled, members, tenant="t")
    set_agent(filled, "t", OLD, NameBody("Alice's laptop", 60), AT, by=OLD)
    each = AgentUsual(1.0, 1, -1.0, 1.0, is_regular=False, unused=0)
    day = Usual(date(2026, 5, 1), is_known=False, is_old=True, agents={OLD: each, OTHER: each})
    texts = {
        "usuals": msgspec.json.encode({"2026-05-01": day}).decode(),
        "states": msgspec.json.encode({"2026-04-30": State((about, beside))}).decode(),
    }

    def put(connection):
        connection.execute(sa.update(usual).where(usual.c.tenant_id == "t").values(texts))
        ours = sa.and_(findings.c.tenant_id == "t", findings.c.id == about.id)
        connection.execute(sa.update(findings).where(ours).values(acknowledged_by=OLD))
        client = sa.update(client_organizations).where(client_organizations.c.tenant_id == "t")
        connection.execute(client.values(client_id=OLD))
        noted = sa.and_(findings.c.tenant_id == "t", findings.c.id == beside.id)
        connection.execute(sa.update(findings).where(noted).values(note=f"it was {OLD}"))
        for details in ({"agentId": OLD, "tokens": 5}, {"agentId": OTHER}):
            record_change(
                connection,
                tenant_id="t",
                actor="u",
                action="budget.set",
                subject="t",
                details=details,
                at=AT,
            )

    filled.write(put)
    return filled


@pytest.mark.quick
def test_every_column_of_texts_is_known():
    """So a new column cannot be forgotten by an erasure."""
    texts = {
        f"{table.name}.{column.name}"
        for table in OF_TENANTS
        for column in table.c
        if isinstance(column.type, sa.String) and column.name not in ("tenant_id", "agent_id")
    }
    assert texts == CHANGED | WITHOUT_AGENTS


@pytest.mark.quick
def test_the_id_is_nowhere(known):
    """Not in JSON either; what others have, and what agents of the same id do, stays."""
    others = contents(known, "other")
    before = contents(known, "t")
    done = erase(known)
    (noted,) = done.notes
    assert done == Erased(known=True, events=9, notes=(noted,))
    after = contents(known, "t")
    escaped = msgspec.json.encode(OLD).decode()
    for name, rows in after.items():
        shown = [value for row in rows for value in row if isinstance(value, str)]
        assert OLD not in shown, name
        assert not any(escaped in text for text in shown), name
        assert not any("Alice" in text for text in shown), name
        if name not in ("audit_log", "erasures"):
            assert len(rows) == len(before[name]), name
    assert contents(known, "other") == others
    assert drift(known) == []
    assert resume(known).buckets == 0


def test_one_random_id_takes_its_place(known):
    """Of the same shape everywhere: events, buckets, the agent's row and findings."""
    erase(known)
    with known.reading() as connection:
        ids = {
            table.name: set(
                connection.scalars(sa.select(table.c.agent_id).where(table.c.tenant_id == "t"))
            )
            for table in OF_TENANTS
            if "agent_id" in table.c and table is not erasures
        }
        rows = connection.execute(sa.select(findings).where(findings.c.tenant_id == "t")).all()
        text = connection.scalar(sa.select(usual.c.states).where(usual.c.tenant_id == "t"))
        agent = connection.execute(sa.select(agents).where(agents.c.tenant_id == "t")).all()
    (new,) = ids["monthly_agent_issuance"] - {OTHER}
    assert len(new) == 36
    assert ids["issuance_events"] == ids["daily_agent_issuance"] == {new, OTHER}
    assert {(one.name, one.token_lifetime) for one in agent if one.agent_id == new} == {(None, 60)}
    (about,) = (row for row in rows if row.agent_id == new)
    decoded = msgspec.json.decode(about.content, type=Finding)
    assert decoded.agent == decoded.agents[0].agent_id == new
    assert about.id == decoded.id == finding_id("t", decoded.key, decoded.start)
    assert about.acknowledged_by == new
    states = msgspec.json.decode(text, type=dict[str, State])
    assert decoded.id in {one.id for one in states["2026-04-30"].findings}


@pytest.mark.quick
def test_a_budget_stays_with_its_findings(filled):
    """Each finding has the id that the next pass gives it; otherwise it would be told again."""
    ids = set()
    for period in ("day", "month"):
        set_budget(filled, "t", OLD, period, 5, now=AT, by=OLD)
        numbers = BudgetNumbers(period, 5, 9, AT.date())
        made = finding(kind=Kind.BUDGET, budget=numbers, start=AT)
        made = replace(made, id=finding_id("t", made.key, AT, period))
        members = {name: getattr(made, name) for name in Finding.__dataclass_fields__}
        stored(filled, members, tenant="t")
    erase(filled)
    with filled.reading() as connection:
        of_agent = sa.select(budgets).where(budgets.c.tenant_id == "t", budgets.c.agent_id != "")
        rows = connection.execute(of_agent).all()
        kind = findings.c.kind == "budget"
        ids = set(connection.scalars(sa.select(findings.c.id).where(kind)))
    (new,) = {row.agent_id for row in rows}
    assert new != OLD
    assert {row.set_by for row in rows} == {new}
    key = (Kind.BUDGET, Part.AGENT, new)
    assert ids == {finding_id("t", key, AT, period) for period in ("day", "month")}


@pytest.mark.quick
def test_messages_that_wait_name_the_new_agent(known):
    """Their ids and bodies are made anew. A document may name it anywhere, so it is dropped."""
    old = finding()

    def enqueue(connection):
        ours = sa.and_(findings.c.tenant_id == "t", findings.c.id == old.id)
        connection.execute(sa.update(findings).where(ours).values(version=1))
        enqueue_events(connection, [FindingEvent("t", old.id, OPENED)], AT)
        enqueue_message(
            connection,
            tenant_id="t",
            endpoint_ids=None,
            message_id="digest",
            kind="digest.week",
            document=Document("Week", f"Most tokens: {OLD}"),
            now=AT,
        )
        body = sa.update(webhook_messages).where(webhook_messages.c.finding_id == old.id)
        connection.execute(body.values(body=f"{{{OLD}}}"))

    known.write(enqueue)
    erase(known)
    with known.reading() as connection:
        message = webhook_messages.c
        ours = sa.select(webhook_messages).where(message.tenant_id == "t")
        rows = {row.kind: row for row in connection.execute(ours)}
    told, digest = rows[OPENED], rows["digest.week"]
    decoded = msgspec.json.decode(told.content, type=Finding)
    assert decoded.agent not in {OLD, ""}
    assert told.id == f"{decoded.id}.1.w"
    assert (told.status, told.body, told.finding_id) == ("waiting", None, decoded.id)
    assert (digest.status, digest.document, digest.body) == ("dropped", None, None)
    assert OLD not in str(rows)


@pytest.mark.quick
def test_what_was_found_under_both_ids_becomes_one(known):
    """After an interruption a scheduler may find under the new id what it had found before.

    The finding with the marks stays. Its next message has an id that no receiver knows.
    """
    old = finding()
    twin = replace(old, agent="new-id", agents=(Share("new-id", 1, 2, 0.5),))
    twin = replace(twin, id=finding_id("t", twin.key, twin.start))
    members = {name: getattr(twin, name) for name in Finding.__dataclass_fields__}
    stored(known, members, tenant="t")
    states = msgspec.json.encode({"2026-04-30": State((old, twin))}).decode()
    row, of_tenant = findings.c, findings.c.tenant_id == "t"

    def interrupt(connection):
        replaced = {"tenant_id": "t", "agent_id": OLD, "replacement": "new-id", "begun_at": AT}
        connection.execute(sa.insert(erasures).values(replaced))
        for one, version in ((old, 1), (twin, 3)):
            change = sa.update(findings).where(of_tenant, row.id == one.id)
            connection.execute(change.values(version=version))
            enqueue_events(connection, [FindingEvent("t", one.id, OPENED)], AT)
        change = sa.update(usual).where(usual.c.tenant_id == "t")
        connection.execute(change.values(states=states))

    known.write(interrupt)
    erase(known)
    with known.reading() as connection:
        rows = connection.execute(sa.select(findings).where(of_tenant, row.agent_id == "new-id"))
        (left,) = rows.all()
        message = webhook_messages.c
        told = connection.scalars(sa.select(message.id).where(message.finding_id == twin.id)).all()
        text = connection.scalar(sa.select(usual.c.states).where(usual.c.tenant_id == "t"))
    assert (left.id, left.acknowledged_by, left.version) == (twin.id, "new-id", 3)
    assert told == [f"{twin.id}.1.w"]
    (state,) = msgspec.json.decode(text, type=dict[str, State]).values()
    assert [one.id for one in state.findings] == [twin.id]


def has_begun(database):
    """Whether an erasure of the agent has begun and not ended; later it would be another one."""
    note = sa.select(erasures.c.replacement).where(
        erasures.c.tenant_id == "t", erasures.c.agent_id == OLD
    )
    with database.reading() as connection:
        return connection.scalar(note) is not None


def test_an_erasure_that_dies_anywhere_goes_on(filled, issue, roll_up):
    """After each death verify is clean, and the next try uses the same new id."""
    ids = set()
    for statement in itertools.count(1):
        try:
            with dying(filled, statement):
                erase(filled)
        except ConnectionError:
            free = sa.update(detection_state).values(claimed_until=None)
            filled.write(lambda connection, free=free: connection.execute(free))
            assert drift(filled) == []
            if statement % 10 == 0 and has_begun(filled):
                issue("2026-04-03T00:00:00Z", 2, tenant="t", agent=OLD)
                assert roll_up().outcome == "done"
        else:
            break
        with filled.reading() as connection:
            ids |= set(connection.scalars(sa.select(daily_agent_issuance.c.agent_id)))
    assert statement > 20
    assert len(ids - {OLD, OTHER}) == 1
    with filled.reading() as connection:
        found = set(connection.scalars(sa.select(monthly_agent_issuance.c.agent_id)))
        assert connection.scalar(sa.select(sa.func.count()).select_from(erasures)) == 2
    assert found == ids
    assert drift(filled) == []
    assert resume(filled).buckets == 0


def test_events_that_come_meanwhile_are_erased_too(filled, issue, roll_up, monkeypatch):
    """Counted or pending: their buckets are merged with those that were moved before."""
    before = stored_counts(filled)

    def months(database, swap):
        found = original(database, swap)
        for month in found:
            yield month
            issue("2026-04-01T07:00:00Z", tenant="t", agent=OLD)
            roll_up()
        issue("2026-04-01T08:00:00Z", tenant="t", agent=OLD)

    original = erasing._months
    monkeypatch.setattr(erasing, "_months", months)
    assert erase(filled).events == 12
    with filled.reading() as connection:
        mine = sa.select(sa.func.count()).where(monthly_agent_issuance.c.agent_id == OLD)
        assert connection.scalar(mine.where(monthly_agent_issuance.c.tenant_id == "t")) == 0
    assert drift(filled) == []
    assert roll_up().events == 1
    assert drift(filled) == []
    assert stored_counts(filled) == before + 3 + 6


def stored_counts(database):
    with database.reading() as connection:
        issued = sa.cast(sa.func.sum(monthly_agent_issuance.c.issued), sa.BigInteger)
        return connection.scalar(sa.select(issued))


def test_an_agent_that_goes_on_gets_its_old_id_again(filled, roll_up):
    """So its provider must stop first; a second erasure gives another random id."""
    erase(filled)
    store_events(filled, [Event("t", "later", OLD, AT, "Alice")])
    roll_up()
    assert drift(filled) == []
    assert erase(filled).events == 1
    with filled.reading() as connection:
        ours = sa.select(monthly_agent_issuance.c.agent_id).distinct()
        ids = set(connection.scalars(ours.where(monthly_agent_issuance.c.tenant_id == "t")))
    assert len(ids) == 3
    assert OLD not in ids


def test_a_rebuild_that_began_before_computes_again(filled):
    """A wrong bucket of the agent is repaired where it is now."""
    spoil = sa.update(monthly_agent_issuance).values(issued=1)
    ours = sa.and_(
        monthly_agent_issuance.c.agent_id == OLD,
        monthly_agent_issuance.c.tenant_id == "t",
        monthly_agent_issuance.c.month == date(2026, 4, 1),
    )
    filled.write(lambda connection: connection.execute(spoil.where(ours)))
    erased = []

    def on_step(done, steps):
        if done == steps - 1 and not erased:
            erased.append(erase(filled))

    rebuild(filled, date(2026, 4, 1), date(2026, 4, 1), on_step=on_step)
    assert drift(filled) == []


def test_unknown_agents_and_others_of_the_same_id_stay(filled):
    before = contents(filled, "t"), contents(filled, "other")
    assert erase(filled, "nobody") == Erased(known=False)
    assert erase_agent(filled, "nobody", OLD, by="tester") == Erased(known=False)
    assert (contents(filled, "t"), contents(filled, "other")) == before


def test_an_erasure_is_recorded_without_the_ids(filled):
    """Who knows the old id can find that it was erased, and not what has become of it."""
    erase(filled)
    with filled.snapshot() as connection:
        (found,) = (one for one in changes(connection) if one.action == "agent.erased")
        ids = set(connection.scalars(sa.select(monthly_agent_issuance.c.agent_id)))
    assert found.subject.startswith("sha256:")
    assert found.details == {"events": 9}
    assert (found.tenant_id, found.actor) == ("t", "tester")
    (new,) = ids - {OLD, OTHER}
    assert new not in repr(found)


def test_a_deletion_under_way_refuses_an_erasure(filled):
    """The deletion takes the agent with it."""
    stop = threading.Event()
    stop.set()
    delete_organization(filled, "t", by="tester", stop=stop)
    with pytest.raises(RefusedError, match="finish `flask organizations delete`"):
        erase(filled)


def test_a_scheduler_that_judges_is_awaited(filled, monkeypatch):
    """Its claim is respected, and given back afterwards."""
    monkeypatch.setattr(erasing, "WAIT_SECONDS", 0.1)
    until = datetime.now(UTC) + timedelta(seconds=50)
    held = sa.insert(detection_state).values(id=1, claimed_until=until)
    filled.write(lambda connection: connection.execute(held))
    with pytest.raises(UnavailableError, match="run this again"):
        erase(filled)
    free = sa.update(detection_state).values(claimed_until=None)
    filled.write(lambda connection: connection.execute(free))
    assert erase(filled).known
    with filled.reading() as connection:
        assert connection.scalar(sa.select(detection_state.c.claimed_until)) is None
