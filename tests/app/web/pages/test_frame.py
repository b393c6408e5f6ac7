"""The frame of pages: refreshes, the zone's cookie, and whose numbers are shown."""

import pytest

from tests.support.pages import DASHBOARD, HTML, SIGNIN, Browser, place
from tests.support.settings import NOW

LIVE = f"{DASHBOARD}?live=1"


@pytest.fixture
def browser(client):
    browser = Browser(client)
    browser.sign_in()
    return browser


def test_a_refresh_is_the_cards_or_304(browser, issue, roll_up):
    issue(NOW)
    roll_up()
    page, cards = browser.get(DASHBOARD), browser.get(LIVE)
    assert "<html" in page.text
    assert "<html" not in cards.text
    assert cards.text.strip() in page.text
    known = HTML | {"If-None-Match": cards.headers["ETag"]}
    again = browser.get(LIVE, headers=known)
    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["X-Counted-Age"] == cards.headers["X-Counted-Age"]
    issue(NOW)
    roll_up()
    assert browser.get(LIVE, headers=known).status_code == 200


def test_a_chosen_zone_is_kept(browser):
    assert "Asia/Kolkata" not in selected(browser.get(DASHBOARD).text)
    browser.get(f"{DASHBOARD}?zone=Asia/Kolkata")
    assert "Asia/Kolkata" in selected(browser.get(DASHBOARD).text)
    assert browser.get(f"{DASHBOARD}?zone=Nowhere").status_code == 400
    assert "Asia/Kolkata" in selected(browser.get(DASHBOARD).text)


def selected(page):
    return [part.split("</option>")[0] for part in page.split("<option selected>")[1:]]


def test_an_operator_reads_other_organizations(client, issue, roll_up):
    """Only a session with analytics:read:any may name an organization; the page says whose."""
    issue(NOW, times=7, tenant="org-b")
    roll_up()
    plain, operator = Browser(client), Browser(client).another()
    plain.sign_in()
    operator.sign_in(scope="analytics:read:any")
    other = f"{DASHBOARD}?organizationId=org-b"
    assert plain.get(other).status_code == 403
    page = operator.get(other)
    assert page.status_code == 200
    assert "7 tokens" in page.text
    assert "<strong><bdi>org-b</bdi></strong>" in page.text
    assert "<strong><bdi>org-b</bdi></strong>" not in operator.get(DASHBOARD).text
    assert operator.get(f"{DASHBOARD}?organizationId=%00").status_code == 400


def test_a_page_needs_a_session(client):
    assert place(Browser(client).get(f"{DASHBOARD}?range=7d")) == SIGNIN
