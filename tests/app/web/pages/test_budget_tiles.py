"""Budgets and costs on the overview and on an agent's page."""

import pytest

from app.alerts.budgets import set_budget
from app.detection import Kind, Range
from app.intake.organization_settings import OrganizationSettings, Price, store_settings
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
