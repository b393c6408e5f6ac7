"""Findings of budgets: opened, updated and resolved by the passes of detection."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

from app.alerts.budgets import delete_budget, set_budget
from app.storage.tables import detection_state, findings
from jobs.findings.recompute import recompute_findings
from tests.jobs.findings.conftest import DAY, FIRST, at
from tests.support.settings import TENANT
from tests.support.statements import statements

# A day of conftest's work has 200 tokens, 120 of them of agent-1.
OF_DAY, OF_AGENT = 200, 120


def put(life, tokens, now, *, agent=None, period="month"):
    set_budget(life.database, TENANT, agent, period, tokens, now=now, by="tester")


def budgets_of(life):
    columns = findings.c["agent_id", "severity", "status", "resolution", "content", "id"]
    statement = (
        sa.select(*columns).where(findings.c.kind == "budget").order_by(findings.c.begins_at)
    )
    with life.database.reading() as connection:
        return connection.execute(statement).all()


@pytest.fixture
def today(life, weeks):
    """The 9th of February 2026, at its beginning, after five weeks of steady work."""
    today = weeks(5)
    life.tick(at(today))
    return today


def test_a_budget_rises_by_update_and_is_over_with_its_month(life, today):
    put(life, 25 * OF_DAY, at(today))
    life.work(today)
    life.tick(at(today, 19))
    (first,) = budgets_of(life)
    assert (first.severity, first.status) == ("info", "open")
    seen = []
    day = today
    while day.month == today.month:
        day += DAY
        life.work(day)
        life.tick(at(day, 19))
        seen.append(budgets_of(life)[0].severity)
    assert [one for place, one in enumerate(seen) if seen[:place].count(one) == 0] == [
        "info",
        "warning",
        "critical",
    ]
    ids = {row.id for row in budgets_of(life)}
    assert first.id in ids
    over = budgets_of(life)[0]
    assert (over.id, over.status, over.resolution) == (first.id, "resolved", "period over")


def test_a_day_of_an_agent_has_a_finding_of_its_own(life, today):
    put(life, 60, at(today), agent="agent-1", period="day")
    life.work(today)
    life.tick(at(today, 13))
    found = [row for row in budgets_of(life) if row.status == "open"]
    assert [(row.agent_id, row.severity) for row in found] == [("agent-1", "critical")]
    life.work(today + DAY)
    life.tick(at(today + DAY, 9))
    rows = budgets_of(life)
    assert len(rows) == 2
    assert (rows[0].status, rows[0].resolution) == ("resolved", "period over")


def test_a_new_budget_is_judged_without_new_events(life, today):
    life.work(today)
    life.tick(at(today, 19))
    put(life, OF_DAY, at(today, 19))
    forget_new = sa.update(detection_state).values(last_finished=at(today, 18))
    life.database.write(lambda connection: connection.execute(forget_new))
    life.judge()
    assert [row.severity for row in budgets_of(life)] == ["critical"]


def test_a_deleted_or_larger_budget_resolves_its_finding(life, today):
    put(life, OF_DAY, at(today))
    put(life, OF_AGENT, at(today), agent="agent-1")
    life.work(today)
    life.tick(at(today, 12))
    assert {row.status for row in budgets_of(life)} == {"open"}
    put(life, 10**6, at(today))
    delete_budget(life.database, TENANT, "agent-1", "month", now=at(today), by="tester")
    life.tick(at(today, 14) + timedelta(minutes=5))
    found = [(row.status, row.resolution) for row in budgets_of(life)]
    assert found == [("resolved", "budget changed")] * 2


def test_an_organization_without_budgets_pays_one_statement(life, today):
    """For a batch of organizations, whatever they have."""
    life.work(today)
    life.run(at(today, 10))
    with statements(life.database) as sent:
        life.judge()
    assert len([one for one in sent if "FROM budgets" in one and "UNION" in one]) == 1
    assert len([one for one in sent if "budgets" in one]) <= 2


def test_a_recompute_leaves_budgets_alone(life, today):
    put(life, OF_DAY, at(today))
    life.work(today)
    life.tick(at(today, 19))
    before = budgets_of(life)
    assert before
    recompute_findings(life.database, life.settings, FIRST, today)
    assert budgets_of(life) == before
    life.work(today + DAY)
    life.tick(at(today + 2 * DAY, 3))
    assert [row.status for row in budgets_of(life)] == ["open"]


def test_an_organization_without_events_is_over_too(life, today):
    """The hourly pass resolves the finding of a month that has ended."""
    put(life, OF_DAY, at(today))
    life.work(today)
    life.tick(at(today, 19))
    later = today.replace(month=3, day=1)
    life.tick(at(later, 6))
    assert budgets_of(life)[0].resolution == "period over"
