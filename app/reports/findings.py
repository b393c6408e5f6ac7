"""Findings: what is unusual in an organization, newest first, one page at a time.

``jobs.findings`` stores them. The names of agents are those of the moment of the read.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from functools import cache
from itertools import groupby
from operator import attrgetter
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection, Row, Select

from app.detection import Finding as Judged
from app.detection import Kind, Options, Severity, advice, is_muted, summary
from app.ids import Id
from app.reports.base import TENANT, Count, Point
from app.storage.outbox import LATE
from app.storage.tables import agents, findings, organization_settings

KINDS = tuple(kind.value for kind in Kind)
STATUSES = ("open", "resolved", "all")
STREAMED = 500  # rows of the database at a time
_SPIKES = (Kind.SPIKE, Kind.RETRY_LOOP)
_MOST_SPIKES = 200  # of one page

# Reads the settings of an organization.
OptionsOf = Callable[[str], Options]

_CONTENT = msgspec.json.Decoder(Judged)


class UsualRange(Point, frozen=True):
    """The usual tokens: ``low`` to ``high``, and ``typical`` between them."""

    low: Count
    typical: Count
    high: Count


class FindingAgent(Point, frozen=True):
    """An agent that explains a finding; ``share`` is its part of the excess or loss."""

    agent_id: Id
    agent_name: Id | None
    observed: Count
    usual: Count
    share: Annotated[float, msgspec.Meta(ge=0, le=1)]


def _member(name: str) -> str:
    """The name of a member in JSON, where ``from`` is possible."""
    head, *rest = name.split("_")
    return {"begins_at": "from", "ends_at": "to"}.get(name) or head + "".join(
        map(str.capitalize, rest)
    )


class Finding(Point, frozen=True, rename=_member):
    """What is unusual, in numbers and in one sentence, and what to check.

    ``from`` and ``to`` are the unusual period. ``openedAt`` is when the counts first showed it,
    and ``detectedAt`` when it was noticed. ``usual`` is null where nothing is usual. ``agents``
    are those that explain it, and ``share`` is their part of the excess or of the loss.
    """

    id: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
    kind: Kind
    severity: Literal["info", "warning", "critical"]
    status: Literal["open", "resolved"]
    opened_at: datetime
    detected_at: datetime
    updated_at: datetime
    resolved_at: datetime | None
    resolution: str | None
    begins_at: datetime
    ends_at: datetime
    observed: Count
    usual: UsualRange | None
    scope: Literal["organization", "agent"]
    agents: list[FindingAgent]
    summary: str
    advice: str
    acknowledged: bool
    acknowledged_by: str | None
    note: str | None

    @property
    def is_late(self) -> bool:
        """Whether it was noticed so late that it is not sent to anybody."""
        return self.detected_at - self.opened_at > LATE


class Cursor(NamedTuple):
    """The last finding of a page: the next page begins behind it."""

    opened_at: datetime
    id: str


@dataclass(frozen=True)
class FindingsFilter:
    """Which findings: all that match each part that is given.

    Attributes:
        status: one of STATUSES.
        first, last: days in UTC; findings whose period overlaps them.
    """

    status: str = "open"
    kind: str | None = None
    agent_id: str | None = None
    first: date | None = None
    last: date | None = None

    def parameters(self) -> dict[str, Any]:
        """The values of the parts that are given."""
        begin = None if self.first is None else datetime.combine(self.first, time(), UTC)
        # Not the next midnight, which the last day of the calendar does not have.
        end = None if self.last is None else datetime.combine(self.last, time.max, UTC)
        status = None if self.status == "all" else self.status
        given: dict[str, Any] = {"status": status, "kind": self.kind, "agent_id": self.agent_id}
        given |= {"begin": begin, "end": end}
        return {name: value for name, value in given.items() if value is not None}


class Period(NamedTuple):
    """The unusual period of a finding; ``is_shared`` if it is one of the whole organization."""

    begins_at: datetime
    ends_at: datetime
    is_shared: bool


class Attention(NamedTuple):
    """What needs attention: open findings, the gravest first, and how many there are in all.

    ``spikes``: the periods of the spikes and retry loops of the days that were asked for, open and
    resolved ones.
    """

    findings: list[Finding]
    total: int
    spikes: list[Period]


class NamedAgent(NamedTuple):
    """An agent's name, and for how many seconds it can keep a token."""

    agent_id: str
    name: str | None
    token_lifetime: int | None


class FindingsPage(NamedTuple):
    """A page of findings, and the cursor of the next page, if there is one."""

    findings: list[Finding]
    next_cursor: Cursor | None


def findings_page(  # noqa: PLR0913 - which findings, and which page of them
    connection: Connection,
    tenant_id: str,
    wanted: FindingsFilter,
    options_of: OptionsOf,
    *,
    limit: int,
    after: Cursor | None = None,
) -> FindingsPage:
    """The findings of an organization that match, newest first, at most ``limit``.

    Args:
        options_of: reads the organization's settings, for sentences; without names and agents'
            lifetimes. Only called if there is a finding.
    """
    parameters = wanted.parameters() | {"tenant_id": tenant_id}
    statement = _page(frozenset(parameters), has_cursor=after is not None)
    if after is not None:
        parameters |= {"after": after.opened_at, "after_id": after.id}
    rows = connection.execute(statement, parameters | {"limit": limit + 1}).all()
    shown = _shown(connection, tenant_id, rows[:limit], options_of)
    last = rows[limit - 1] if len(rows) > limit else None
    return FindingsPage(shown, None if last is None else Cursor(last.opened_at, last.id))


def attention(  # noqa: PLR0913, PLR0917 - whose findings, of when, and how many
    connection: Connection,
    tenant_id: str,
    begin: datetime,
    end: datetime,
    options_from: Callable[[Row[Any]], Options],
    named: Callable[[Sequence[str]], Iterable[NamedAgent]],
    *,
    limit: int,
) -> Attention:
    """The open findings of an organization, and the spikes between two instants.

    Args:
        options_from: the settings for sentences, from a row with the columns of the table
            ``organization_settings``; they are null if there are no settings.
        named: reads those of some agents that have a name or a lifetime. A page reads them together
            with something else.
        limit: of the open findings.
    """
    values = {"tenant_id": tenant_id, "begin": begin, "end": end, "limit": limit}
    rows = connection.execute(_ATTENTION, values).all()
    spikes = [
        Period(row.begins_at, row.ends_at, row.agent_id is None) for row in rows if row.is_spike
    ]
    opened = [row for row in rows if row.content is not None]
    judged = [_CONTENT.decode(row.content) for row in opened]
    shown = []
    if opened:
        options = _with_names(options_from(opened[0]), named(_agents_of(judged)))
        shown = [_read(row, one, options) for row, one in zip(opened, judged, strict=True)]
    return Attention(shown, opened[0].open_count if opened else 0, spikes)


def finding(
    connection: Connection, tenant_id: str, finding_id: str, options_of: OptionsOf
) -> Finding | None:
    """One finding of an organization; ``options_of`` as for :func:`findings_page`."""
    rows = connection.execute(_ONE, {"tenant_id": tenant_id, "id": finding_id}).all()
    return next(iter(_shown(connection, tenant_id, rows, options_of)), None)


def findings_at(
    connection: Connection, tenant_id: str, rows: Sequence[Any], options_of: OptionsOf
) -> list[Finding]:
    """Findings as they were when they changed, with the names of agents of this moment.

    Args:
        rows: each with the columns of ``findings`` as attributes.
    """
    return _shown(connection, tenant_id, rows, options_of)


def all_findings(
    connection: Connection,
    wanted: FindingsFilter,
    tenant_id: str | None,
    options_of: OptionsOf,
) -> Iterator[tuple[str, Finding]]:
    """The findings of every organization that match, each with the organization; for operators.

    Args:
        connection: in a transaction, because the findings are read as a stream.
        tenant_id: only those of one organization.
        options_of: the settings of an organization, as for :func:`findings_page`.
    """
    parameters = wanted.parameters() | ({} if tenant_id is None else {"tenant_id": tenant_id})
    statement = _matching(frozenset(parameters)).order_by(findings.c.tenant_id, *_ORDER)
    options = {"yield_per": STREAMED}
    with connection.execute(statement, parameters, execution_options=options) as found:
        for part in found.partitions():
            for organization, rows in groupby(part, key=attrgetter("tenant_id")):
                for shown in _shown(connection, organization, list(rows), options_of):
                    yield organization, shown


def _matching(given: Set[str]) -> Select[Any]:
    """All findings that match the parameters which are given."""
    column = findings.c
    conditions = {
        "tenant_id": column.tenant_id == TENANT,
        "status": column.status == sa.bindparam("status", type_=sa.Text),
        "kind": column.kind == sa.bindparam("kind", type_=sa.Text),
        "agent_id": column.agent_id == sa.bindparam("agent_id", type_=sa.Text),
        "begin": column.ends_at > sa.bindparam("begin", type_=column.ends_at.type),
        "end": column.begins_at < sa.bindparam("end", type_=column.begins_at.type),
    }
    return sa.select(*column).where(*(conditions[name] for name in sorted(given)))


@cache
def _page(given: frozenset[str], *, has_cursor: bool) -> Select[Any]:
    # Built once for each combination, since the tenant guard remembers the statements it has seen.
    statement = _matching(given).order_by(*_ORDER)
    if has_cursor:
        opened_at, after = findings.c.opened_at, sa.bindparam("after", type_=_MOMENT)
        before = findings.c.id < sa.bindparam("after_id", type_=sa.Text)
        statement = statement.where(sa.or_(opened_at < after, sa.and_(opened_at == after, before)))
    return statement.limit(sa.bindparam("limit", type_=sa.Integer))


def _shown(
    connection: Connection, tenant_id: str, rows: Sequence[Any], options_of: OptionsOf
) -> list[Finding]:
    if not rows:
        return []
    judged = [_CONTENT.decode(row.content) for row in rows]
    named = connection.execute(_AGENTS, {"tenant_id": tenant_id, "ids": _agents_of(judged)})
    options = _with_names(options_of(tenant_id), (NamedAgent(*row) for row in named))
    return [_read(row, one, options) for row, one in zip(rows, judged, strict=True)]


def _agents_of(judged: Sequence[Judged]) -> list[str]:
    """The agents that some findings are about, or that explain them."""
    ids = {one.agent for one in judged} | {part.agent_id for one in judged for part in one.agents}
    return sorted(ids)


def _with_names(options: Options, agents_: Iterable[NamedAgent]) -> Options:
    named = list(agents_)
    return replace(
        options,
        names={one.agent_id: one.name for one in named if one.name is not None},
        token_lifetimes={
            one.agent_id: one.token_lifetime for one in named if one.token_lifetime is not None
        },
    )


def _read(row: Any, judged: Judged, options: Options) -> Finding:
    usual, names = judged.usual, options.names
    severity = row.acknowledged_severity
    return Finding(
        id=row.id,
        kind=judged.kind,
        severity=judged.severity.value,
        status=row.status,
        opened_at=row.opened_at,
        detected_at=row.detected_at,
        updated_at=row.updated_at,
        resolved_at=row.resolved_at,
        resolution=row.resolution,
        begins_at=row.begins_at,
        ends_at=row.ends_at,
        observed=judged.observed,
        usual=None if usual is None else UsualRange(usual.low, usual.typical, usual.high),
        scope="organization" if row.agent_id is None else "agent",
        agents=[
            FindingAgent(one.agent_id, names.get(one.agent_id), one.observed, one.usual, one.share)
            for one in judged.agents
        ],
        summary=summary(judged, options),
        advice=advice(judged),
        acknowledged=is_muted(judged, None if severity is None else Severity(severity)),
        acknowledged_by=row.acknowledged_by,
        note=row.note,
    )


def _attention() -> Select[Any]:
    """Findings that are open, and those that are spikes of the days.

    ``content`` is null but for the gravest open ones, and ``open_count`` is the number of all that
    are open, or of all others. The settings are beside each finding.
    """
    column = findings.c
    is_open = column.status == "open"
    is_spike = sa.and_(
        sa.or_(*(column.kind == kind.value for kind in sorted(_SPIKES))),
        column.ends_at > sa.bindparam("begin", type_=column.ends_at.type),
        column.begins_at < sa.bindparam("end", type_=column.begins_at.type),
    )
    ranks = ((column.severity == one.value, one.rank) for one in Severity if one.rank)
    severity = sa.case(*ranks, else_=0).desc()
    place = sa.func.row_number().over(partition_by=is_open, order_by=(severity, *_ORDER))
    found = (
        sa.select(
            *column,
            is_open.label("is_open"),
            is_spike.label("is_spike"),
            place.label("place"),
            sa.func.count(column.id).over(partition_by=is_open).label("open_count"),
        )
        .where(column.tenant_id == TENANT, sa.or_(is_open, is_spike))
        .subquery("found")
    )
    row, setting = found.c, organization_settings.c
    settings = (
        sa.select(setting.days_off, setting.price, setting.token_lifetime)
        .where(setting.tenant_id == TENANT)
        .subquery("settings")
    )
    is_shown = sa.and_(row.is_open, row.place <= sa.bindparam("limit", type_=sa.Integer))
    columns = [one for one in row if one.name != "content"]
    content = sa.case((is_shown, row.content)).label("content")
    return (
        sa.select(*columns, content, *settings.c)
        .select_from(found.outerjoin(settings, sa.true()))
        .where(sa.or_(is_shown, sa.and_(row.is_spike, row.place <= _MOST_SPIKES)))
        .order_by(row.place)
    )


_MOMENT = findings.c.opened_at.type
_ORDER = (findings.c.opened_at.desc(), findings.c.id.desc())
_ATTENTION = _attention()
_ONE = sa.select(findings).where(
    findings.c.tenant_id == TENANT, findings.c.id == sa.bindparam("id", type_=sa.Text)
)
_AGENTS = sa.select(agents.c.agent_id, agents.c.name, agents.c.token_lifetime).where(
    agents.c.tenant_id == TENANT, agents.c.agent_id.in_(sa.bindparam("ids", expanding=True))
)
