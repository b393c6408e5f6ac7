"""Budgets: what the statement reads, however many agents and budgets there are."""

from datetime import UTC, date, datetime, timedelta

import pytest
import sqlalchemy as sa

from app.alerts import budgets
from app.alerts.budgets import list_budgets, set_budget
from app.intake.organization_settings import (
    DaysOff,
    OrganizationSettings,
    Price,
    options_between,
    store_settings,
)
from app.storage.database import Database
from app.storage.tables import rollup_state
from tests.support.settings import NOW, TENANT, make_settings
from tests.support.summaries import fill
from tests.test_cost import explained, rows_read

DAY = timedelta(days=1)


def put(database, tokens, *, agent=None, period="month"):
    set_budget(database, TENANT, agent, period, tokens, now=NOW, by="tester")


def listed(database, now=NOW, **options):
    with database.reading_for(TENANT) as connection:
        return list_budgets(connection, TENANT, now, options_between, **options)


def work(database, tokens=10, *, finer=True):
    """Tokens from 8 to 18 hours on each weekday since the middle of February."""
    begin = datetime(2026, 2, 16, tzinfo=UTC)
    days = (begin + number * DAY for number in range((NOW - begin).days + 1))
    hours = (
        day + hour * timedelta(hours=1)
        for day in days
        if day.weekday() < 5
        for hour in range(8, 18)
    )
    fill(database, [(at, "agent-1", tokens) for at in hours if at <= NOW], finer=finer)


def test_without_a_budget_and_a_price_nothing_is_computed(database):
    work(database)
    found = listed(database)
    assert (found.budgets, found.month_used, found.cost(found.month_used)) == ([], None, None)


def test_a_price_alone_shows_the_month(database):
    work(database)
    settings = OrganizationSettings(price=Price(2.0, "EUR"))
    store_settings(database, TENANT, settings, NOW, by="tester")
    found = listed(database)
    assert found.month_used == 10 * 100 + 50  # ten weekdays, and five hours of today
    assert found.cost(found.month_used) == pytest.approx(2.1)
    assert found.month_projected == pytest.approx(22 * 100, rel=0.02)


def test_the_rest_of_today_follows_the_hours_of_its_weekday(database):
    """Half of the working hours are over at half past twelve, and none is left in the evening."""
    work(database)
    put(database, 1000, period="day")
    assert listed(database).budgets[0].projected == pytest.approx(100, abs=10)
    late = NOW.replace(hour=20)
    ended = sa.update(rollup_state).values(last_finished=late)
    database.write(lambda connection: connection.execute(ended))
    assert listed(database, late).budgets[0].projected == 50


def test_a_day_off_is_not_expected_to_have_tokens(database):
    work(database)
    put(database, 10**6)
    before = listed(database).budgets[0].projected
    days = DaysOff(dates=[date(2026, 4, 17), date(2026, 4, 20)])
    store_settings(database, TENANT, OrganizationSettings(days_off=days), NOW, by="tester")
    assert before - listed(database).budgets[0].projected == pytest.approx(200, rel=0.05)


def test_without_hours_a_day_is_even(database):
    work(database, finer=False)
    put(database, 1000, period="day")
    expected = 50 + 100 * (1 - 12.5 / 24)
    assert listed(database).budgets[0].projected == pytest.approx(expected, rel=0.05)


def test_only_one_agent_is_read_for_its_page(database):
    work(database)
    for agent in (None, "agent-1", "agent-2"):
        put(database, 5, agent=agent)
    found = listed(database, only="agent-1").budgets
    assert [(one.agent_id, one.used) for one in found] == [("agent-1", 1050)]
    found = listed(database, only=budgets.ORGANIZATION).budgets
    assert [one.agent_id for one in found] == [None]


def test_before_the_first_count_nothing_is_used(database):
    put(database, 5)
    found = listed(database)
    assert (found.budgets[0].used, found.counted_at, found.uses()) == (0, None, [])


def test_an_agents_days_read_no_other_agents(postgresql_url):
    """The days of agents with a budget are found by the whole key."""
    days, agents, with_budget = 50, 500, 5
    database = Database(make_settings(postgresql_url).database_url)
    row = "SELECT 'tenant-7', date '2026-01-01' + day"
    for statement in (
        f"INSERT INTO daily_issuance {row}, 9 FROM generate_series(1, {days}) AS day",
        f"INSERT INTO daily_agent_issuance {row}, 'agent-' || agent, 1, 1 FROM"
        f" generate_series(1, {days}) AS day, generate_series(1, {agents}) AS agent",
        "INSERT INTO budgets SELECT 'tenant-7', 'agent-' || agent, 'day', 9, now(), 'u' FROM"
        f" generate_series(1, {with_budget}) AS agent",
        "ANALYZE",
    ):
        database.write(lambda connection, text=statement: connection.execute(sa.text(text)))
    values = {"tenant_id": "tenant-7", **budgets.parameters(date(2026, 2, 20))}
    plan = explained(database, budgets._statement(has_agent=False), values)
    assert 200 <= rows_read(plan, "daily_agent_issuance") <= 2 * days * with_budget
    database.dispose()
