"""The frame of pages: refreshes, the zone's cookie, and whose numbers are shown."""

import re

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


VALUES = {"day": "2026-04-14", "finding_id": "0" * 32, "endpoint_id": "A" * 12}


def test_no_page_shows_another_organization_without_the_scope(client, issue, roll_up):
    """Every page and file of the dashboard, with each of its methods; new ones are walked, too."""
    issue(NOW, tenant="org-b", agent="their-agent")
    roll_up()
    browser = Browser(client)
    browser.sign_in(scope="analytics:admin agents:write")
    walked = 0
    for rule in client.application.url_map.iter_rules():
        if not rule.rule.startswith("/dashboard") or rule.endpoint == "signin.slash":
            continue
        path = rule.rule
        for name in rule.arguments:
            path = re.sub(rf"<(\w+:)?{name}>", VALUES[name], path)
        query = "organizationId=org-b&agentId=their-agent"
        for method in rule.methods & {"GET", "POST"}:
            if method == "GET":
                answer = browser.get(f"{path}?{query}")
            else:
                answer = browser.send(DASHBOARD, f"{path}?{query}", name="x", note="x")
            assert answer.status_code == 403, (method, path)
            assert "their-agent" not in answer.text
            walked += 1
    assert walked >= 13
