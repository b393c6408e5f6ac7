"""The fence: a read without its tenant's predicate is refused before it is sent."""

import json
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from sqlalchemy import and_, not_, or_, select

from app.dates import month_of
from app.reports import activity, agent_list, hours, status, summary, trend, usage
from app.reports import base as queries
from app.reports.agent_list import Wanted
from app.reports.agents import SORTS, agents_page
from app.reports.days import Days
from app.reports.finer import Span
from app.storage import tenant_guard
from app.storage.tables import (
    daily_issuance,
    metadata,
    monthly_agent_issuance,
    organization_summaries,
    organization_summary_state,
    rollup_state,
)
from app.storage.tenant_guard import TenantGuardError
from tests.support.settings import NOW, TENANT
from tests.support.tokens import bearer

THEIRS = "org-of-somebody-else"
TABLES = [table for table in metadata.sorted_tables if "tenant_id" in table.c]
DAY, USAGE = daily_issuance.c, monthly_agent_issuance.c
OURS = DAY.tenant_id == TENANT
ALIAS = daily_issuance.alias("days")
SAMPLE = sa.tablesample(daily_issuance, 100)
OPEN = select(DAY.issued)
CLOSED = OPEN.where(OURS)
# Reads a table of nobody's, around something else.
STATE = select(rollup_state.c.id)

REFUSED = {
    "another's value": OPEN.where(DAY.tenant_id == THEIRS),
    "the value of none": OPEN.where(DAY.tenant_id == sa.bindparam("tenant_id", None)),
    "ours, then another's value": CLOSED.union(OPEN.where(DAY.tenant_id == THEIRS)),
    "its own column": OPEN.where(DAY.tenant_id == DAY.tenant_id),
    "another column": OPEN.where(sa.cast(DAY.issued, sa.Text) == TENANT),
    "one of several": OPEN.where(DAY.tenant_id.in_([TENANT, THEIRS])),
    "a pattern": OPEN.where(DAY.tenant_id.like(TENANT)),
    "not equal": OPEN.where(DAY.tenant_id != TENANT),
    "negated": OPEN.where(not_(OURS)),
    "negated with more": OPEN.where(not_(and_(OURS, DAY.issued > 0))),
    "OR-ed": OPEN.where(or_(OURS, DAY.issued > 0)),
    "OR-ed within AND": OPEN.where(DAY.issued > 0, or_(OURS, DAY.issued > 0)),
    "AND-ed within OR": OPEN.where(or_(and_(OURS, DAY.issued > 0), DAY.issued > 0)),
    "compared with false": OPEN.where(OURS.is_(sa.false())),
    "after grouping": select(DAY.tenant_id).group_by(DAY.tenant_id).having(OURS),
    "a subquery": select(OPEN.subquery()),
    "a subquery filtered outside": select(OPEN.add_columns(DAY.tenant_id).subquery("s")).where(
        sa.column("tenant_id") == TENANT
    ),
    "a lateral subquery": select(OPEN.lateral()),
    "a CTE": select(OPEN.cte()),
    "a recursive CTE": select(CLOSED.cte(recursive=True).union_all(OPEN)),
    "a CTE that is not used": STATE.add_cte(OPEN.cte()),
    "EXISTS": STATE.where(sa.exists(OPEN)),
    "EXISTS beside ours": CLOSED.where(sa.exists(select(USAGE.issued))),
    "EXISTS by correlation": CLOSED.where(
        sa.exists(select(USAGE.issued).where(USAGE.tenant_id == DAY.tenant_id))
    ),
    "IN": STATE.where(rollup_state.c.id.in_(OPEN)),
    "a scalar subquery": select(select(sa.func.max(DAY.issued)).scalar_subquery()),
    "a scalar subquery in the order": STATE.order_by(OPEN.limit(1).scalar_subquery()),
    "a scalar subquery in the limit": STATE.limit(OPEN.limit(1).scalar_subquery()),
    "a scalar subquery in CASE": select(sa.case((sa.exists(OPEN), 1), else_=0)),
    "the first arm of a union": sa.union_all(OPEN, CLOSED),
    "the last arm of a union": sa.union_all(CLOSED, OPEN),
    "an arm of EXCEPT": sa.except_(OPEN, CLOSED),
    "an arm below an arm": sa.union(CLOSED, select(sa.union(CLOSED, OPEN).subquery())),
    "an alias": select(ALIAS.c.issued),
    "an alias beside the table": select(ALIAS.c.issued, DAY.issued).where(OURS),
    "the table beside its alias": select(ALIAS.c.issued, DAY.issued).where(
        ALIAS.c.tenant_id == TENANT
    ),
    "a join partner": CLOSED.join(monthly_agent_issuance, USAGE.month == DAY.date),
    "an outer join partner": CLOSED.outerjoin(
        monthly_agent_issuance, USAGE.tenant_id == DAY.tenant_id
    ),
    "ours in the ON alone": OPEN.join(rollup_state, OURS),
    "a self join": select(DAY.issued).join(ALIAS, ALIAS.c.tenant_id == DAY.tenant_id).where(OURS),
    "a second table": CLOSED.add_columns(USAGE.issued),
    "a table sample": select(SAMPLE.c.issued),
    "text": sa.text("SELECT issued FROM daily_issuance WHERE tenant_id = 'org-a'"),
    "text in a condition": CLOSED.where(sa.text("1 = 1")),
    "text as a source": select(sa.text("*")).select_from(sa.text("daily_issuance")),
    "text with columns": select(sa.text("SELECT 1 AS n").columns(sa.column("n")).subquery()),
    "an insert": sa.insert(daily_issuance).values(tenant_id=TENANT, date=NOW.date(), issued=1),
    "an update": sa.update(daily_issuance).where(OURS).values(issued=1),
    "a delete": sa.delete(daily_issuance).where(OURS),
}

USAGE_OF_OURS = USAGE.tenant_id == TENANT
ALLOWED = {
    "ours": CLOSED,
    "ours among others": OPEN.where(and_(DAY.issued > 0, and_(OURS, DAY.issued < 9))),
    "an alias": select(ALIAS.c.issued).where(ALIAS.c.tenant_id == TENANT),
    "a subquery": select(CLOSED.subquery()),
    "a CTE": select(CLOSED.cte()),
    "EXISTS": STATE.where(sa.exists(CLOSED)),
    "a scalar subquery": select(CLOSED.limit(1).scalar_subquery()),
    "a union": sa.union_all(CLOSED, CLOSED),
    "a join": CLOSED.join(monthly_agent_issuance, USAGE.month == DAY.date).where(USAGE_OF_OURS),
    "nobody's table": STATE,
}


@pytest.fixture
def fenced(database):
    """Runs one statement on a tenant's connection."""

    def fenced(statement, tenant=TENANT, **parameters):
        with database.reading_for(tenant) as connection:
            return connection.execute(statement, parameters).all()

    return fenced


@pytest.fixture
def both_tenants(issue, roll_up):
    issue("2026-04-14T09:00", 2, tenant=TENANT, agent="ours")
    issue("2026-04-14T09:00", 613, tenant=THEIRS, agent="theirs")
    roll_up()


@pytest.mark.parametrize("statement", REFUSED.values(), ids=REFUSED)
def test_a_statement_that_could_show_anothers_rows_is_refused(statement):
    with pytest.raises(TenantGuardError):
        tenant_guard.check(statement, {}, TENANT)


def test_what_is_refused_is_not_sent(fenced):
    for statement in REFUSED.values():
        with pytest.raises(TenantGuardError):
            fenced(statement)


def test_every_table_with_a_tenant_wants_its_predicate(fenced):
    assert len(TABLES) >= 4
    for table in TABLES:
        with pytest.raises(TenantGuardError, match=table.name):
            fenced(select(table))
        assert fenced(select(table).where(table.c.tenant_id == TENANT)) == []


@pytest.fixture
def as_operator(database):
    """Runs one statement on an operator's connection."""

    def as_operator(statement, **parameters):
        with database.reading_organizations() as connection:
            return connection.execute(statement, parameters).all()

    return as_operator


LIST = organization_summaries.c
EVERY = select(LIST.tenant_id)
OF_OPERATORS = {
    "the list": EVERY,
    "an alias": select(organization_summaries.alias("list").c.tenant_id),
    "a subquery": select(EVERY.subquery()),
    "with its state": EVERY.join(organization_summary_state, sa.true()),
    "one of it": EVERY.where(LIST.tenant_id == THEIRS),
}
BEYOND = {
    "a join with another table": EVERY.join(daily_issuance, DAY.tenant_id == LIST.tenant_id),
    "EXISTS": EVERY.where(sa.exists(select(DAY.issued).where(DAY.tenant_id == LIST.tenant_id))),
    "a scalar subquery": select(LIST.tenant_id, select(DAY.issued).limit(1).scalar_subquery()),
    "a union": sa.union_all(EVERY, select(DAY.tenant_id)),
    "a table of this name elsewhere": select(
        sa.table("organization_summaries", sa.column("tenant_id"), schema="other").c.tenant_id
    ),
    "another table by this alias": select(
        daily_issuance.alias("organization_summaries").c.tenant_id
    ),
    "text": sa.text("SELECT tenant_id FROM organization_summaries"),
    "a change": sa.delete(organization_summaries),
}


def test_an_operator_reads_the_list_of_all_organizations(as_operator):
    """It is the one table that a connection reads for all tenants."""
    for statement in OF_OPERATORS.values():
        assert as_operator(statement) == []


def test_an_operator_reads_no_other_table(as_operator, fenced):
    """Beside the list, and after it on the same pooled connection, all is as for no tenant."""
    for statement in (*BEYOND.values(), *REFUSED.values(), CLOSED):
        with pytest.raises(TenantGuardError):
            as_operator(statement)
    for table in TABLES:
        if table is not organization_summaries:
            with pytest.raises(TenantGuardError, match=table.name):
                as_operator(select(table))
            with pytest.raises(TenantGuardError, match="another tenant"):
                as_operator(select(table).where(table.c.tenant_id == TENANT))
    for tenant in (TENANT, None):
        for statement in OF_OPERATORS.values():
            with pytest.raises(TenantGuardError):
                fenced(statement, tenant)


def test_a_statement_with_its_predicate_everywhere_runs(fenced):
    for statement in ALLOWED.values():
        fenced(statement)


def test_the_value_that_counts_is_the_one_that_is_sent(fenced):
    statement = OPEN.where(DAY.tenant_id == queries.TENANT)
    assert fenced(statement, tenant_id=TENANT) == []
    for theirs in (THEIRS, TENANT.upper(), f"{TENANT} ", "", None):
        with pytest.raises(TenantGuardError, match="another tenant"):
            fenced(statement, tenant_id=theirs)


def test_the_sent_value_is_judged_and_not_the_default():
    """The guard judges the value that is sent, not the default of the statement's parameter."""
    statement = OPEN.where(DAY.tenant_id == sa.bindparam("tenant_id", TENANT))
    tenant_guard.check(statement, {}, TENANT)
    with pytest.raises(TenantGuardError, match="another tenant"):
        tenant_guard.check(statement, {"tenant_id": THEIRS}, TENANT)


@pytest.mark.usefixtures("both_tenants")
def test_each_tenants_read_is_checked_again(fenced):
    """A statement that is allowed for one tenant is checked again for the next."""
    assert fenced(CLOSED) == [(2,)]
    with pytest.raises(TenantGuardError):
        fenced(CLOSED, THEIRS)
    assert fenced(CLOSED) == [(2,)]


@pytest.mark.parametrize("tenant", [None, ""], ids=repr)
def test_a_connection_for_no_tenant_reads_no_tenants_table(fenced, tenant):
    for statement in (OPEN, CLOSED):
        with pytest.raises(TenantGuardError):
            fenced(statement, tenant)
    assert fenced(STATE, tenant) == [(1,)]


def test_a_predicate_for_none_is_none(fenced):
    with pytest.raises(TenantGuardError):
        fenced(OPEN.where(DAY.tenant_id == queries.TENANT), None, tenant_id=None)


@pytest.mark.usefixtures("both_tenants")
@pytest.mark.parametrize(
    ("tenant", "agent", "count"), [(TENANT, "ours", 2), (THEIRS, "theirs", 613)]
)
def test_the_reads_pass_for_the_tenant_that_they_are_given(database, tenant, agent, count):
    today, month = NOW.date(), month_of(NOW.date())
    with database.reading_for(tenant) as connection:
        days = trend.token_trend(connection, tenant, last=today, days=90)
        cells = [
            activity.agent_activity(connection, tenant, last=month, months=months)
            for months in (None, 1)
        ]
        agents = [
            usage.agent_usage(connection, tenant, month=month, limit=limit) for limit in (9, 1)
        ]
        pages = [
            agents_page(connection, tenant, limit=9, text=text, sort=sort)
            for text in (None, "S")
            for sort in SORTS
        ]
        span = Span(Days(today - timedelta(days=5), today, ZoneInfo("Asia/Tokyo")))
        ranges = [
            trend.agent_tokens(connection, tenant, agent, span),
            hours.hourly_tokens(connection, tenant, span),
            activity.activity_of_days(connection, tenant, span),
        ]
        listed = [
            agent_list.agent_list(connection, tenant, span, Wanted(9, text=text, sort=sort))
            for text in (None, "S")
            for sort in agent_list.SORTS
        ]
        week = activity.week_of_days(connection, tenant, span, compared=span.days.before)
        whole = summary.summary(connection, tenant, span)
        (used,) = usage.usage_of_days(connection, tenant, span, limit=9).points
        assert status.status(connection, tenant).pending_events == 0
    assert [sum(point.count for point in report.points) for report in ranges] == [count] * 3
    assert (whole.total, used.token_count) == (count, count)
    assert sum(point.count for point in days.points) == count
    assert [[point.count for point in report.points] for report in cells] == [[count]] * 2
    both = [*agents, *pages]
    assert [[point.token_count for point in report.points] for report in both] == [[count]] * 6
    assert [[one.count for one in found.agents] for found in listed] == [[count]] * 8
    assert {found.total for found in listed} == {sum(week.totals)} == {count}
    with database.snapshot_for(tenant) as connection:
        for read in (usage.whole_usage, usage.named_usage):
            (rows,) = read(connection, tenant, month=month)
            assert [row[-1] for row in rows] == [count]
            with pytest.raises(TenantGuardError):
                list(read(connection, "org-c", month=month))


def without_a_predicate():
    return queries.with_state(select(DAY.date, DAY.issued, DAY.tenant_id))


def with_anothers():
    found = select(DAY.date, DAY.issued).where(DAY.tenant_id == THEIRS)
    return queries.with_state(found)


@pytest.mark.usefixtures("both_tenants")
@pytest.mark.parametrize("statement", [without_a_predicate(), with_anothers()], ids=["all", "one"])
def test_a_read_without_its_predicate_is_500(client, monkeypatch, statement):
    """A report whose query lacks its tenant predicate returns 500 and no data."""
    path = "/api/v1/analytics/tokens"
    assert client.get(path, headers=bearer()).status_code == 200
    monkeypatch.setattr(trend, "_TREND", statement)
    answer = client.get(path, headers=bearer())
    assert (answer.status_code, json.loads(answer.data)) == (
        500,
        {"code": "INTERNAL_ERROR", "message": "an unexpected error occurred"},
    )
    monkeypatch.undo()
    assert client.get(path, headers=bearer()).json["data"][-2]["count"] == 2
