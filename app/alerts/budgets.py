"""Budgets: sets, lists and deletes them, and says how they are used and where that leads.

A budget limits the tokens of an organization, or of one agent, in each UTC day or month. One
statement reads the budgets of an organization with all counts that they need. An organization
without a budget and without a price costs only the look into two small tables.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, cast, get_args

import msgspec
import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection
from sqlalchemy.dialects import postgresql, sqlite

from app.dates import last_day, month_of
from app.detection import Options
from app.detection.budgets import BudgetUse
from app.detection.findings import BudgetNumbers
from app.detection.projection import (
    USUAL_DAYS,
    Course,
    course,
    like_days,
    part_of_day,
    project,
)
from app.errors import RefusedError, UnavailableError, ValidationError
from app.ids import is_id
from app.reports.findings import NamedAgent
from app.storage.audit import record_change
from app.storage.database import Database
from app.storage.driver import Reading, fetch
from app.storage.tables import (
    agents,
    budgets,
    daily_agent_issuance,
    daily_issuance,
    hourly_issuance,
    monthly_agent_issuance,
    organization_settings,
    rollup_state,
)
from app.storage.types import as_utc

Period = Literal["day", "month"]
PERIODS: tuple[Period, ...] = get_args(Period)
# The budgets of an organization. Reading so many takes 0.7 s: they need 40,000 rows of counts.
MAX_BUDGETS = 1000
MAX_TOKENS = 10**15
ORGANIZATION = ""
# The hours of today are compared with those of so many days like it.
PROFILE_WEEKS = 4

# The kinds of rows of the statement.
_BUDGET, _SETTINGS, _DAYS, _HOURS, _AGENT_DAYS, _AGENT_MONTH, _NAME = range(7)
_DAY, _HOUR = timedelta(days=1), timedelta(hours=1)
_PROFILES = [f"profile_{number}" for number in range(2 * PROFILE_WEEKS)]
_TENANT = sa.bindparam("tenant_id", type_=sa.Text)

# The settings of an organization, from a row with their columns, with the days off from a first to
# a last day.
OptionsBetween = Callable[[Any, date, date], Options]
Tokens = Annotated[int, msgspec.Meta(ge=1, le=MAX_TOKENS)]


@dataclass(frozen=True, slots=True)
class Budget:
    """A budget, and how it is used.

    Attributes:
        agent_id: ``None`` for the organization.
        used: the tokens of the period so far; ``None`` while the table of agents' days is filled
            after an upgrade, for the day of an agent.
        projected: those at the end of the period.
        crosses_on: the UTC day on which they reach the budget; ``None`` if they do not.
    """

    agent_id: str | None
    period: Period
    tokens: int
    used: int | None
    projected: int | None
    crosses_on: date | None

    @property
    def remaining(self) -> int | None:
        """What is left, at least 0."""
        return None if self.used is None else max(self.tokens - self.used, 0)


@dataclass(frozen=True)
class BudgetReport:
    """The budgets of an organization: its own first, then those of agents, by id.

    Attributes:
        month_used, month_projected: the tokens of the organization in this month so far, and at its
            end; ``None`` if nothing asks for them: no budget and no price.
        options: the settings of the organization.
        counted_at: when tokens were last counted.
        named: the agents whose names were asked for, of those with a name or a lifetime.
    """

    budgets: list[Budget]
    today: date
    month_used: int | None
    month_projected: int | None
    options: Options
    counted_at: datetime | None
    named: list[NamedAgent] = field(default_factory=list)

    def cost(self, tokens: int | None) -> float | None:
        """The price of tokens; ``None`` without a price."""
        price = self.options.price_per_thousand
        return None if price is None or tokens is None else tokens / 1000 * price

    def of(self, agent_id: str | None) -> list[Budget]:
        """The budgets of an agent, or of the organization."""
        return [one for one in self.budgets if one.agent_id == agent_id]

    def uses(self) -> list[BudgetUse]:
        """The budgets whose use is known, as they are judged."""
        if self.counted_at is None:
            return []
        return [
            BudgetUse(
                one.agent_id or ORGANIZATION,
                BudgetNumbers(one.period, one.tokens, one.projected, one.crosses_on),
                *period_of(one.period, self.today),
                one.used,
                self.counted_at,
            )
            for one in self.budgets
            if one.used is not None and one.projected is not None
        ]


def period_of(period: str, today: date) -> tuple[datetime, datetime]:
    """The present day or month, half-open."""
    first = last = today
    if period == "month":
        first = month_of(today)
        last = last_day(first)
    return _midnight(first), _midnight(last) + _DAY


def list_budgets(  # noqa: PLR0913 - whose budgets, and what else the page needs
    connection: Connection,
    tenant_id: str,
    now: datetime,
    options_between: OptionsBetween,
    *,
    only: str | None = None,
    names_of: Sequence[str] = (),
) -> BudgetReport:
    """The budgets of an organization, and how they are used, in one statement.

    Args:
        options_between: see :data:`OptionsBetween`.
        only: those of one agent, or of the organization (``ORGANIZATION``). Default: all.
        names_of: agents whose names a page needs as well.

    Raises:
        UnavailableError: the state row is missing.
    """
    today = now.astimezone(UTC).date()
    values: dict[str, Any] = {"tenant_id": tenant_id, **parameters(today)}
    if only is not None:
        values["agent_id"] = only
    if names_of:
        values["named"] = list(names_of)
        statement = _statement(has_agent=only is not None, has_names=True)
        rows: Sequence[Any] = connection.execute(statement, values).all()
    else:
        rows = fetch(connection, _statement(has_agent=only is not None), values)
    counts = _Counts.read(rows, options_between, today)
    return _report(counts, today, now)


def parameters(today: date) -> dict[str, date]:
    """The parameters of the statement but for the organization and the agent."""
    return {
        "first": min(month_of(today), today - USUAL_DAYS * _DAY),
        "today": today,
        "month": month_of(today),
        **dict(zip(_PROFILES, _profile_days(today), strict=True)),
    }


def set_budget(  # noqa: PLR0913 - the parts of a budget
    database: Database,
    tenant_id: str,
    agent_id: str | None,
    period: str,
    tokens: int,
    *,
    now: datetime,
    by: str,
) -> None:
    """Set a budget of an organization or of an agent, in place of an earlier one.

    Args:
        agent_id: ``None`` for the organization. It need not have a token yet.
        by: the actor, for the audit log.

    Raises:
        ValidationError: the agent, the period or the number is invalid.
        RefusedError: the organization has ``MAX_BUDGETS`` others.
    """
    _check(agent_id, period)
    if not 1 <= tokens <= MAX_TOKENS:
        raise ValidationError(f"the tokens of a budget must be 1 to {MAX_TOKENS}")
    key = {"tenant_id": tenant_id, "agent_id": agent_id or ORGANIZATION, "period": period}
    values = {"tokens": tokens, "set_at": now, "set_by": by}
    upsert = postgresql.insert if database.is_postgresql else sqlite.insert
    column = budgets.c
    others = sa.select(sa.func.count()).where(
        column.tenant_id == tenant_id,
        sa.or_(column.agent_id != key["agent_id"], column.period != period),
    )
    statement = upsert(budgets).values(**key, **values)
    statement = statement.on_conflict_do_update(index_elements=list(key), set_=values)

    def work(connection: Connection) -> None:
        database.name_tenants(connection, {tenant_id})
        if (connection.scalar(others) or 0) >= MAX_BUDGETS:
            raise RefusedError(f"the organization has {MAX_BUDGETS} budgets; delete one first")
        connection.execute(statement)
        record_change(
            connection,
            tenant_id=tenant_id,
            actor=by,
            action="budget.set",
            subject=agent_id or tenant_id,
            details={"agentId": agent_id, "period": period, "tokens": tokens},
            at=now,
        )

    database.write(work)


def delete_budget(  # noqa: PLR0913 - as above
    database: Database,
    tenant_id: str,
    agent_id: str | None,
    period: str,
    *,
    now: datetime,
    by: str,
) -> int | None:
    """Delete a budget. Returns its tokens, or ``None`` if there is none.

    Args:
        agent_id, by: as for :func:`set_budget`.

    Raises:
        ValidationError: the agent or the period is invalid.
    """
    _check(agent_id, period)
    column = budgets.c
    here = sa.and_(
        column.tenant_id == tenant_id,
        column.agent_id == (agent_id or ORGANIZATION),
        column.period == period,
    )

    def work(connection: Connection) -> int | None:
        database.name_tenants(connection, {tenant_id})
        tokens = connection.scalar(sa.select(column.tokens).where(here).with_for_update())
        if tokens is None:
            return None
        connection.execute(sa.delete(budgets).where(here))
        record_change(
            connection,
            tenant_id=tenant_id,
            actor=by,
            action="budget.deleted",
            subject=agent_id or tenant_id,
            details={"agentId": agent_id, "period": period},
            at=now,
        )
        return tokens

    return database.write(work)


def _check(agent_id: str | None, period: str) -> None:
    if period not in PERIODS:
        raise ValidationError("the period of a budget must be day or month")
    if agent_id is not None and not is_id(agent_id):
        raise ValidationError(
            "the agent of a budget must be 1 to 255 characters without control characters"
        )


class _Set(NamedTuple):
    """A stored budget."""

    agent_id: str
    period: Period
    tokens: int


@dataclass
class _Counts:
    """What the statement has found.

    Attributes:
        days: the tokens of the organization's days.
        hours: those of its hours, by day.
        agent_days, agent_months: those of agents with a budget, by day and in this month.
        agents_from: the first day from which the days of agents are complete; ``None``: all are.
        is_filling: whether a backfill is filling the finer tables.
    """

    options: Options
    counted_at: datetime | None
    agents_from: date | None
    is_filling: bool
    budgets: list[_Set] = field(default_factory=list)
    days: dict[date, int] = field(default_factory=dict)
    hours: dict[date, list[int]] = field(default_factory=dict)
    agent_days: dict[str, dict[date, int]] = field(default_factory=dict)
    agent_months: dict[str, int] = field(default_factory=dict)
    named: list[NamedAgent] = field(default_factory=list)

    @classmethod
    def read(cls, rows: Sequence[Any], options_between: OptionsBetween, today: date) -> "_Counts":
        """The counts in the rows of the statement.

        Raises:
            UnavailableError: the state row is missing.
        """
        settings = next((row for row in rows if row[0] == _SETTINGS), None)
        if settings is None:
            raise UnavailableError(
                "budgets are unavailable: rollup_state has no row; restore the database from a"
                " backup"
            )
        _, days_off, price, agents_from, is_filling, lifetime, counted_at = settings
        row = _SettingsRow(days_off, price, lifetime)
        found = cls(
            options_between(row, today - USUAL_DAYS * _DAY, last_day(month_of(today))),
            as_utc(counted_at),
            _date(agents_from),
            bool(is_filling),
        )
        for kind, agent, period, day, hour, issued, _ in rows:
            if kind == _BUDGET:
                found.budgets.append(_Set(agent, cast("Period", period), issued))
            elif kind == _DAYS:
                found.days[_day(day)] = issued
            elif kind == _HOURS:
                found.hours.setdefault(_day(day), [0] * 24)[hour] = issued
            elif kind == _AGENT_DAYS:
                found.agent_days.setdefault(agent, {})[_day(day)] = issued
            elif kind == _AGENT_MONTH:
                found.agent_months[agent] = issued
        found.named = [NamedAgent(row[1], row[2], row[5]) for row in rows if row[0] == _NAME]
        found.budgets.sort(key=lambda one: (one.agent_id, PERIODS.index(one.period)))
        return found


class _SettingsRow(NamedTuple):
    """The columns of ``organization_settings`` that matter here."""

    days_off: str | None
    price: str | None
    token_lifetime: int | None


def _use(budget: _Set, course: Course, today: date) -> Budget:
    """How a budget is used."""
    if budget.period == "day":
        first, used, days = today, course.today, [course.today + course.rest]
    else:
        first, used, days = month_of(today), course.used, course.month
    projected, crosses_on = project(budget.tokens, first, days)
    return Budget(
        budget.agent_id or None, budget.period, budget.tokens, used, projected, crosses_on
    )


def _report(counts: _Counts, today: date, now: datetime) -> BudgetReport:
    part = _part_of_today(counts, today, now)
    is_needed = bool(counts.budgets) or counts.options.price_per_thousand is not None
    whole = course(counts.days, today, part, counts.options.days_off) if is_needed else None
    found = []
    for budget in counts.budgets:
        if budget.agent_id == ORGANIZATION:
            own = whole
        else:
            own = _agent_course(counts, budget.agent_id, today, part)
        if own is None:
            found.append(_unknown(counts, budget, whole, today))
        else:
            found.append(_use(budget, own, today))
    return BudgetReport(
        found,
        today,
        None if whole is None else whole.used,
        None if whole is None else round(sum(whole.month)),
        counts.options,
        counts.counted_at,
        counts.named,
    )


def _agent_course(counts: _Counts, agent_id: str, today: date, part: float) -> Course | None:
    """The days of an agent; ``None`` if they are not complete."""
    if counts.is_filling:
        return None
    if counts.agents_from is not None and counts.agents_from > month_of(today):
        return None
    # The hours of a single agent are not known; it runs while the organization does.
    return course(counts.agent_days.get(agent_id, {}), today, part, counts.options.days_off)


def _unknown(counts: _Counts, budget: _Set, whole: Course | None, today: date) -> Budget:
    """The use by an agent whose days are not complete: its share of the organization's month."""
    used = counts.agent_months.get(budget.agent_id, 0)
    if budget.period == "day" or whole is None:
        return Budget(budget.agent_id, budget.period, budget.tokens, None, None, None)
    share = used / max(whole.used, 1)
    past = [round(share * tokens) for tokens in whole.past]
    own = Course(
        past, used - sum(past), share * whole.rest, [share * tokens for tokens in whole.coming]
    )
    return _use(budget, own, today)


def _part_of_today(counts: _Counts, today: date, now: datetime) -> float:
    """The part of a usual day that has come by the last count."""
    at = min(counts.counted_at or now, now)
    hours = max((at - _midnight(today)) / _HOUR, 0.0)
    # Hours are complete if they are all of the day's tokens.
    profiles = [
        counts.hours[day]
        for day in like_days(today, counts.options.days_off)
        if day in counts.hours and sum(counts.hours[day]) == counts.days.get(day)
    ]
    return part_of_day(profiles, hours)


def _profile_days(today: date) -> list[date]:
    """The days whose hours may be like today's: those of its weekday, and Sundays."""
    sunday = today - (today.isoweekday() % 7) * _DAY
    weeks = range(1, PROFILE_WEEKS + 1)
    return [
        *(today - week * timedelta(weeks=1) for week in weeks),
        *(sunday - (week - (sunday < today)) * timedelta(weeks=1) for week in weeks),
    ]


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _day(value: date | str) -> date:
    return date.fromisoformat(value) if isinstance(value, str) else value


def _date(value: date | str | None) -> date | None:
    return None if value is None else _day(value)


@cache
def _statement(*, has_agent: bool, has_names: bool = False) -> Reading:
    """Budgets, settings and state, and the counts that they need, as rows of one shape."""
    budget, setting = budgets.c, organization_settings.c
    ours = [budget.tenant_id == _TENANT]
    if has_agent:
        ours.append(budget.agent_id == sa.bindparam("agent_id", type_=sa.Text))
    # Not EXISTS: PostgreSQL would go through the table, to find the first one soon.
    number = sa.select(sa.func.count(budget.agent_id)).where(*ours).scalar_subquery()
    has_budget = number > 0
    has_price = sa.exists(
        sa.select(sa.literal(1))
        .select_from(organization_settings)
        .where(setting.tenant_id == _TENANT, setting.price.is_not(None))
    )
    first, today = sa.bindparam("first", type_=sa.Date), sa.bindparam("today", type_=sa.Date)
    own = (
        sa.select(setting.days_off, setting.price, setting.token_lifetime)
        .where(setting.tenant_id == _TENANT)
        .subquery("settings")
    )
    state = rollup_state.c
    with_budget = sa.select(budget.agent_id).where(*ours, budget.agent_id != ORGANIZATION)
    day, hour = daily_issuance.c, hourly_issuance.c
    agent_day, agent_month = daily_agent_issuance.c, monthly_agent_issuance.c
    kept = sa.select(day.date).where(day.tenant_id == _TENANT, day.date.between(first, today))
    parts = [
        _row(_BUDGET, text=budget.agent_id, other=budget.period, number=budget.tokens)
        .select_from(budgets)
        .where(*ours),
        _row(
            _SETTINGS,
            text=own.c.days_off,
            other=own.c.price,
            day=state.agents_from,
            hour=sa.case((state.backfilled < state.backfill_end, 1), else_=0),
            number=own.c.token_lifetime,
            moment=state.last_finished,
        ).select_from(rollup_state.outerjoin(own, sa.true())),
        _row(_DAYS, day=day.date, number=day.issued)
        .select_from(daily_issuance)
        .where(
            day.tenant_id == _TENANT,
            day.date.between(first, today),
            sa.or_(has_budget, has_price),
        ),
        _row(_HOURS, day=hour.date, hour=hour.hour, number=hour.issued)
        .select_from(hourly_issuance)
        .where(
            hour.tenant_id == _TENANT,
            hour.date.in_([sa.bindparam(name, type_=sa.Date) for name in _PROFILES]),
            sa.or_(has_budget, has_price),
        ),
        # Each day and agent is one row of the key; a range of days would have all agents.
        _row(_AGENT_DAYS, text=agent_day.agent_id, day=agent_day.date, number=agent_day.issued)
        .select_from(daily_agent_issuance)
        .where(
            agent_day.tenant_id == _TENANT,
            has_budget,
            agent_day.date.in_(kept),
            agent_day.agent_id.in_(with_budget),
        ),
        _row(_AGENT_MONTH, text=agent_month.agent_id, number=agent_month.issued)
        .select_from(monthly_agent_issuance)
        .where(
            agent_month.tenant_id == _TENANT,
            agent_month.month == sa.bindparam("month", type_=sa.Date),
            agent_month.agent_id.in_(with_budget),
        ),
    ]
    if has_names:
        agent, named = agents.c, sa.bindparam("named", expanding=True, type_=sa.Text)
        name = _row(_NAME, text=agent.agent_id, other=agent.name, number=agent.token_lifetime)
        parts.append(
            name.select_from(agents).where(agent.tenant_id == _TENANT, agent.agent_id.in_(named))
        )
    return sa.union_all(*parts)


def _row(  # noqa: PLR0913 - the columns of the statement
    kind: int,
    *,
    text: ColumnElement[Any] | None = None,
    other: ColumnElement[Any] | None = None,
    day: ColumnElement[Any] | None = None,
    hour: ColumnElement[Any] | None = None,
    number: ColumnElement[Any] | None = None,
    moment: ColumnElement[Any] | None = None,
) -> Any:
    """A SELECT with a column for each argument; those that are left out are null."""
    columns = (
        ("text", text, sa.Text()),
        ("other", other, sa.Text()),
        ("day", day, sa.Date()),
        ("hour", hour, sa.SmallInteger()),
        ("number", number, sa.BigInteger()),
        ("moment", moment, rollup_state.c.last_finished.type),
    )
    return sa.select(
        sa.literal(kind).label("kind"),
        *(
            # A null has no type of its own, and PostgreSQL would take it for text.
            (sa.cast(sa.null(), own) if one is None else one).label(name)
            for name, one, own in columns
        ),
    )
