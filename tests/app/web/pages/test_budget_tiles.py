"""Budgets and costs on the overview and on an agent's page."""

from datetime import date

import pytest
import sqlalchemy as sa

from app.alerts.budgets import set_budget
from app.detection import Kind, Part, Range, Share
from app.detection.findings import BudgetNumbers
from app.intake.organization_settings import OrganizationSettings, Price, store_settings
from app.storage.tables import rollup_state
from tests.app.web.pages.test_dashboard import some_days, text_of, tile
from tests.support.findings import stored
from tests.support.pages import DASHBOARD, Browser
from tests.support.settings import NOW, TENANT
from tests.support.statements import statements
from tests.support.summaries import fill

AGENT = f"{DASHBOARD}/agent?agentId=agent-1"


@pytest.fixture
def browser(client):
    browser = Browser(client)
    browser.sign_in()
    return browser


@pytest.fixture
def busy(database):
    fill(database, some_days())


def put(database, tokens, *, agent=None, period="month", tenant=TENANT):
    set_budget(database, tenant, agent, period, tokens, now=NOW, by="tester")


def price(database):
    settings = OrganizationSettings(price=Price(2.5, "EUR"))
    store_settings(database, TENANT, settings, NOW, by="tester")


@pytest.mark.usefixtures("busy")
def test_nothing_is_shown_without_a_budget_and_a_price(browser):
    for path in (DASHBOARD, AGENT):
        assert 'data-card="budgets"' not in browser.get(path).text


@pytest.mark.usefixtures("busy")
def test_the_budgets_of_the_organization_are_on_the_overview(browser, database):
    """A reader needs no scope to see them. Those of others, and of agents, are elsewhere."""
    put(database, 40_000)
    put(database, 5_000_000, period="day")
    put(database, 77_777, agent="agent-1")
    put(database, 88_888, tenant="org-b")
    page = browser.get(DASHBOARD)
    month = tile(page, "Budget of April 2026")
    assert "of 40,000" in month
    assert "expected" in month
    assert "crossed on" in month
    assert "of 5,000,000" in tile(page, "Budget of today")
    assert "77,777" not in page.text
    assert "88,888" not in page.text
    assert "of 77,777" in tile(browser.get(AGENT), "Budget of April 2026")


@pytest.mark.usefixtures("busy")
def test_a_budget_that_is_used_up_says_so(browser, database):
    put(database, 10)
    month = tile(browser.get(DASHBOARD), "Budget of April 2026")
    assert "It is used up." in month
    assert "0 left" in month


@pytest.mark.usefixtures("busy")
def test_a_price_shows_what_the_month_costs(browser, database):
    price(database)
    waste = {"kind": Kind.TOKEN_WASTE, "observed": 7700, "usual": Range(700, 700, 700)}
    stored(database, waste | {"detail": "waste"})
    cost = tile(browser.get(DASHBOARD), "Cost of April 2026")
    assert cost.count("EUR") == 3
    assert "tokens that are not kept cost 75.00 EUR a month" in cost  # 1,000 a day for 30 days
    assert "EUR" in tile(browser.get(AGENT), "Cost of April 2026")


@pytest.mark.usefixtures("busy")
def test_budgets_cost_one_statement(browser, database):
    price(database)
    put(database, 10_000)
    put(database, 1000, agent="agent-1")
    stored(database, {})
    for path in (DASHBOARD, f"{DASHBOARD}?range=13w&zone=America/New_York", AGENT):
        with statements(browser.app.extensions["analytics"].database) as sent:
            assert "Budget of" in text_of(browser.get(path))
        assert len([one for one in sent if "budgets" in one]) == 1
        assert len(sent) <= 6, path


@pytest.mark.usefixtures("busy")
def test_while_tables_are_filled_budgets_are_one_statement(browser, database):
    """A budget of an agent's day then says that it is not known yet."""
    put(database, 10_000)
    put(database, 1000, agent="agent-1", period="day")
    filling = sa.update(rollup_state).values(backfilled=1, backfill_end=9)
    database.write(lambda connection: connection.execute(filling))
    for path in (DASHBOARD, f"{DASHBOARD}?range=13w&zone=Asia/Kolkata", f"{AGENT}&zone=Asia/Tokyo"):
        with statements(browser.app.extensions["analytics"].database) as sent:
            text = text_of(browser.get(path))
        assert "Budget of" in text
        assert len([one for one in sent if "budgets" in one]) == 1
    assert "known when the tables are filled" in text


@pytest.mark.usefixtures("busy")
def test_the_finding_of_a_budget_has_a_page(browser, database):
    numbers = BudgetNumbers("month", 1000, 2000, date(2026, 4, 20))
    share = Share("agent-1", 900, 0, 1.0)
    stored(
        database,
        {
            "kind": Kind.BUDGET,
            "part": Part.AGENT,
            "agent": "agent-1",
            "agents": (share,),
            "usual": None,
            "detail": "most",
            "observed": 900,
            "budget": numbers,
        },
    )
    text = text_of(browser.get(f"{DASHBOARD}/findings/{0:032x}"))
    assert "Budget of agent-1" in text
    assert "90 % of the budget of Apr 2026 are used: 900 of 1,000 tokens" in text
    assert "90 % of the budget" in text_of(browser.get(DASHBOARD))
