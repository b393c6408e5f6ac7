"""Erasure of an agent: a random id takes the place of its own in every table (``flask agents
erase``).

**Why the numbers stay exact.** One transaction takes a month of the agent. It locks the state row,
gives the agent's events of this month the new id, whether they are counted or not, and moves the
agent's buckets of this month to it. So after each commit the buckets of both ids equal a recount.
Runs only add: an event that was counted before is in a bucket that moves with it, and one that was
not counted is counted under the new id later. If the new id has a bucket by then, the moved one is
added to it, and masks of hours are merged by OR. The watermark, the totals of organizations and
``purged_months`` do not depend on agents. The number of corrections changes, so that a rebuild
which has computed differences before computes them again.

The last transaction takes the events and buckets that have come meanwhile, and all other tables.
It removes the note in ``erasures``, which keeps both ids. After a kill, the next call finds the
note, and goes on with the same new id. Afterwards nothing links the two ids: the audit log has the
SHA-256 of the old one, and not the new one.

No scheduler judges findings meanwhile, since an agent would seem to stop and another one to begin.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from hashlib import sha256
from typing import Any, NamedTuple
from uuid import uuid4

import msgspec
import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from app.detection import Finding, Part, State, Usual, finding_id
from app.errors import RefusedError, UnavailableError
from app.storage.audit import record_change
from app.storage.database import Database
from app.storage.locks import LockedError
from app.storage.outbox import DROPPED, done
from app.storage.tables import (
    agents,
    audit_log,
    budgets,
    client_organizations,
    erasures,
    findings,
    issuance_events,
    metadata,
    monthly_agent_issuance,
    page_sessions,
    rollup_state,
    share_links,
    usual,
    webhook_endpoints,
    webhook_messages,
)
from app.storage.types import database_now
from jobs.counting.buckets import issued_month
from jobs.counting.refusals import refuse_refused
from jobs.counting.state import being_deleted, read_state
from jobs.counting.tables import SUMMARY_TABLES, SummaryTable
from jobs.counting.watermark import candidate_or_refusal
from jobs.findings.claim import Claim, Keeper, LostClaimError, await_claim

AGENT = "agent_id"
WAIT_SECONDS = 120.0

_COUNTED = [summary for summary in SUMMARY_TABLES if AGENT in summary.keys]
# The other tables with a column for an agent, apart from those below.
_PLAIN = [
    table
    for table in metadata.sorted_tables
    if AGENT in table.c
    and table not in (issuance_events, agents, findings, erasures)
    and table not in [summary.table for summary in _COUNTED]
]
# Tables that keep findings as JSON, and their column for the id of the finding.
_FINDINGS: list[tuple[Table[Any], sa.Column[Any]]] = [
    (findings, findings.c.id),
    (webhook_messages, webhook_messages.c.finding_id),
]
# Clients: an agent may be one. The first two have changed something.
_AUTHORS: list[tuple[Table[Any], sa.Column[Any]]] = [
    (findings, findings.c.acknowledged_by),
    (share_links, share_links.c.created_by),
    (budgets, budgets.c.set_by),
    (webhook_endpoints, webhook_endpoints.c.created_by),
    # The client loses its organization, because nothing may name it any more.
    (client_organizations, client_organizations.c.client_id),
    (page_sessions, page_sessions.c.subject),
]
_FINDING = msgspec.json.Decoder(Finding)
_STATES = msgspec.json.Decoder(dict[str, State])
_USUALS = msgspec.json.Decoder(dict[str, Usual])


@dataclass(frozen=True)
class Erased:
    """What an erasure has changed.

    ``known``: whether the organization has such an agent. ``events``: how many events have the new
    id. ``notes``: the ids of findings whose notes contain the old id, which are left as they are.
    """

    known: bool
    events: int = 0
    notes: tuple[str, ...] = ()


class _Swap(NamedTuple):
    """The ids of an erasure."""

    tenant_id: str
    old: str
    new: str

    def of(self, table: Table[Any]) -> ColumnElement[bool]:
        """The condition that a row is of the agent."""
        return sa.and_(table.c.tenant_id == self.tenant_id, table.c[AGENT] == self.old)

    def id(self, agent_id: str) -> str:
        """The new id in place of the old one; other ids stay."""
        return self.new if agent_id == self.old else agent_id

    def mentioned(self, text: ColumnElement[Any]) -> ColumnElement[bool]:
        """The condition that JSON may contain the old id."""
        return text.contains(msgspec.json.encode(self.old).decode(), autoescape=True)


def erase_agent(
    database: Database,
    tenant_id: str,
    agent_id: str,
    *,
    by: str,
    on_events: Callable[[int], None] = lambda _events: None,
) -> Erased:
    """Give an agent a random id in every table. After an interruption, call it again.

    Args:
        by: the actor, for the audit log.
        on_events: called between two transactions with the number of changed events.

    Raises:
        RefusedError: counting is refused, or the organization is being deleted.
        UnavailableError: a scheduler judges findings all the time, or has taken over.
    """
    with database.reading() as connection:
        state = read_state(connection)
        known = _is_known(connection, tenant_id, agent_id)
    if not known:
        return Erased(known=False)
    candidate_or_refusal(database, state)
    swap = database.write(partial(_begin, tenant_id=tenant_id, agent_id=agent_id))
    claim = await_claim(database, WAIT_SECONDS)
    try:
        return _erase(database, swap, claim, by, on_events)
    except LostClaimError:
        raise UnavailableError("a scheduler has taken over judging; run this again") from None
    finally:
        # Schedulers need not wait until the claim ends.
        with suppress(LostClaimError, LockedError, SQLAlchemyError):
            claim.release(database)


def _erase(
    database: Database, swap: _Swap, claim: Claim, by: str, on_events: Callable[[int], None]
) -> Erased:
    keeper, events = Keeper(database, claim), 0
    for month in _months(database, swap):
        keeper.keep()
        events += database.write(partial(_swap_counts, swap=swap, month=month))
        on_events(events)
    return database.write(partial(_end, swap=swap, claim=claim, by=by, events=events))


def _is_known(connection: Connection, tenant_id: str, agent_id: str) -> bool:
    """Whether a row of the organization has the agent. Events come last: they have no index."""
    swap = _Swap(tenant_id, agent_id, "")
    with_agents = [table for table in metadata.sorted_tables if AGENT in table.c]
    with_agents.sort(key=lambda table: table is issuance_events)
    return any(
        connection.execute(sa.select(table.c.tenant_id).where(swap.of(table)).limit(1)).first()
        for table in with_agents
    )


def _begin(connection: Connection, *, tenant_id: str, agent_id: str) -> _Swap:
    """Note the erasure and its new id, or read those of an interrupted one."""
    refuse_refused(read_state(connection, lock=True))
    if tenant_id in being_deleted(connection):
        raise RefusedError(
            "the organization is being deleted; finish `flask organizations delete` instead"
        )
    note = erasures.c.tenant_id == tenant_id, erasures.c.agent_id == agent_id
    new = connection.scalar(sa.select(erasures.c.replacement).where(*note))
    if new is None:
        new = str(uuid4())
        values = {"tenant_id": tenant_id, "agent_id": agent_id, "replacement": new}
        connection.execute(sa.insert(erasures).values(begun_at=database_now(), **values))
    return _Swap(tenant_id, agent_id, new)


def _months(database: Database, swap: _Swap) -> list[date]:
    """The months in which events of the agent are counted."""
    month = monthly_agent_issuance.c.month
    statement = sa.select(month).where(swap.of(monthly_agent_issuance)).order_by(month)
    with database.reading() as connection:
        return list(connection.scalars(statement))


def _swap_counts(connection: Connection, *, swap: _Swap, month: date | None) -> int:
    """Change the events and buckets of one month, or of all; returns the number of events."""
    state = read_state(connection, lock=True)
    refuse_refused(state)
    theirs = [swap.of(issuance_events)]
    if month is not None:
        theirs.append(issued_month == month)
    events = connection.execute(
        sa.update(issuance_events).where(*theirs).values(agent_id=swap.new)
    ).rowcount
    for summary in _COUNTED:
        within = sa.true() if month is None else summary.within([(month, month)])
        _move_buckets(connection, summary, swap, sa.and_(swap.of(summary.table), within))
    connection.execute(sa.update(rollup_state).values(corrections=state.corrections + 1))
    return events


def _move_buckets(
    connection: Connection, summary: SummaryTable, swap: _Swap, theirs: ColumnElement[bool]
) -> None:
    """Add the buckets of the old id to those of the new one, and delete them."""
    table = summary.table
    upsert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    values = (
        sa.literal(swap.new, table.c[AGENT].type) if name == AGENT else table.c[name]
        for name in summary.columns
    )
    move = upsert(table).from_select(summary.columns, sa.select(*values).where(theirs))
    added = move.excluded
    masks = {name: table.c[name].bitwise_or(added[name]) for name in summary.masks}
    connection.execute(
        move.on_conflict_do_update(
            index_elements=list(summary.keys),
            set_={"issued": table.c.issued + added.issued} | masks,
        )
    )
    connection.execute(sa.delete(table).where(theirs))


def _end(connection: Connection, *, swap: _Swap, claim: Claim, by: str, events: int) -> Erased:
    """Change what has come meanwhile and all other tables, and record the erasure."""
    events += _swap_counts(connection, swap=swap, month=None)
    claim.renew(connection)
    for table in _PLAIN:
        connection.execute(sa.update(table).where(swap.of(table)).values(agent_id=swap.new))
    # A name says as much as an id.
    unnamed = {"agent_id": swap.new, "name": None}
    connection.execute(sa.update(agents).where(swap.of(agents)).values(unnamed))
    for table, key in _FINDINGS:
        _swap_findings(connection, swap, table, key)
    _swap_messages(connection, swap)
    for table, author in _AUTHORS:
        mine = sa.and_(table.c.tenant_id == swap.tenant_id, author == swap.old)
        connection.execute(sa.update(table).where(mine).values({author.name: swap.new}))
    _swap_usual(connection, swap)
    _swap_audit_log(connection, swap)
    connection.execute(sa.delete(erasures).where(swap.of(erasures)))
    record_change(
        connection,
        tenant_id=swap.tenant_id,
        actor=by,
        action="agent.erased",
        subject=f"sha256:{sha256(swap.old.encode()).hexdigest()}",
        details={"events": events},
        at=connection.execute(sa.select(database_now())).scalar_one(),
    )
    return Erased(known=True, events=events, notes=_notes(connection, swap))


def _swap_findings(
    connection: Connection, swap: _Swap, table: Table[Any], key: sa.Column[Any]
) -> None:
    """Change the findings in a table, and their ids, which are made of the agent's.

    The old id of a finding would be found by hashing the agent's.
    """
    ours = table.c.tenant_id == swap.tenant_id
    primary = [column for column in table.primary_key if column.name != "tenant_id"]
    rows = connection.execute(
        sa.select(*primary, table.c.content).where(ours, swap.mentioned(table.c.content))
    ).all()
    for row in rows:
        finding = _swapped(swap, _FINDING.decode(row.content))
        values = {key.name: finding.id, "content": msgspec.json.encode(finding).decode()}
        if AGENT in table.c and finding.part is Part.AGENT:
            values[AGENT] = finding.agent
        if table is findings and finding.id != row.id:
            values |= _without_twin(connection, swap.tenant_id, finding.id)
        here = (column == row[number] for number, column in enumerate(primary))
        connection.execute(sa.update(table).where(ours, *here).values(values))


def _without_twin(connection: Connection, tenant_id: str, finding: str) -> dict[str, Any]:
    """Delete the finding that has this id already, with its messages; returns columns to set.

    It was found under the new id after an interruption. The one under the old id has the marks of
    persons, and goes on with a version that no message has.
    """
    row, message = findings.c, webhook_messages.c
    twin = row.tenant_id == tenant_id, row.id == finding
    version = connection.scalar(sa.select(row.version).where(*twin))
    if version is None:
        return {}
    told = message.tenant_id == tenant_id, message.finding_id == finding
    connection.execute(sa.delete(webhook_messages).where(*told))
    connection.execute(sa.delete(findings).where(*twin))
    return {"version": sa.case((row.version < version, version), else_=row.version)}


def _swap_messages(connection: Connection, swap: _Swap) -> None:
    """Change the ids of messages, which are made of the findings', and what they would send.

    A message that waits is written anew from its finding. One without a finding may name the agent
    anywhere in its text, so it is not sent any more.
    """
    message = webhook_messages.c
    ours = message.tenant_id == swap.tenant_id
    version = sa.cast(message.version, sa.Text)
    made = message.finding_id + "." + version + "." + message.endpoint_id
    change = sa.update(webhook_messages).where(ours)
    connection.execute(change.where(message.finding_id.is_not(None)).values(id=made))
    now = connection.execute(sa.select(database_now())).scalar_one()
    dropped = done(DROPPED, now) | {"error": "an agent was erased"}
    connection.execute(change.where(message.document.is_not(None)).values(dropped))
    connection.execute(change.where(message.body.is_not(None)).values(body=None))


def _swapped(swap: _Swap, finding: Finding) -> Finding:
    agent = swap.id(finding.agent)
    shares = tuple(replace(one, agent_id=swap.id(one.agent_id)) for one in finding.agents)
    found = replace(finding, agent=agent, agents=shares)
    if agent == finding.agent:
        return found
    period = "" if found.budget is None else found.budget.period
    return replace(found, id=finding_id(swap.tenant_id, found.key, found.start, period))


def _swapped_all(swap: _Swap, state: State) -> list[Finding]:
    return [_swapped(swap, finding) for finding in state.findings]


def _swap_usual(connection: Connection, swap: _Swap) -> None:
    column = usual.c
    ours = column.tenant_id == swap.tenant_id
    row = connection.execute(sa.select(column.usuals, column.states).where(ours)).one_or_none()
    if row is None:
        return
    usuals = {
        day: replace(one, agents={swap.id(agent): its for agent, its in one.agents.items()})
        for day, one in _USUALS.decode(row.usuals).items()
    }
    states = {
        # By id, because one may have been found under both ids.
        day: State(tuple({one.id: one for one in _swapped_all(swap, state)}.values()))
        for day, state in _STATES.decode(row.states).items()
    }
    values = {"usuals": msgspec.json.encode(usuals), "states": msgspec.json.encode(states)}
    texts = {name: text.decode() for name, text in values.items()}
    connection.execute(sa.update(usual).where(ours).values(texts))


def _swap_audit_log(connection: Connection, swap: _Swap) -> None:
    """Change the rows that are about the agent or made by it. Its name is removed."""
    column = audit_log.c
    ours = column.tenant_id == swap.tenant_id
    about = sa.or_(
        column.actor == swap.old, column.subject == swap.old, swap.mentioned(column.details)
    )
    for row in connection.execute(sa.select(audit_log).where(ours, about)).all():
        details = None if row.details is None else msgspec.json.decode(row.details)
        if row.subject == swap.old and details is not None:
            details.pop("name", None)
        values = {
            "actor": swap.id(row.actor),
            "subject": swap.id(row.subject),
            "details": _details(swap, details),
        }
        connection.execute(sa.update(audit_log).where(column.id == row.id).values(values))


def _details(swap: _Swap, details: Mapping[str, Any] | None) -> str | None:
    if details is None:
        return None
    changed = {
        name: swap.new if name in ("agentId", "agent") and value == swap.old else value
        for name, value in details.items()
    }
    return msgspec.json.encode(changed).decode()


def _notes(connection: Connection, swap: _Swap) -> tuple[str, ...]:
    """The findings whose notes contain the old id. A note is a person's text, so it stays."""
    column = findings.c
    mentioned = column.note.contains(swap.old, autoescape=True)
    ids: Iterable[str] = connection.scalars(
        sa.select(column.id).where(column.tenant_id == swap.tenant_id, mentioned)
    )
    return tuple(sorted(ids))
