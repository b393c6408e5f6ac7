"""The page updates itself and does not disturb its reader."""

from datetime import timedelta

import pytest

from tests.support.pages import SIGNIN

# Timers of the page run a hundred times as fast.
HURRY = "const wait = setInterval; window.setInterval = (run, ms) => wait(run, ms / 100);"
TOTAL = ".figure strong"
TURNS = 10


@pytest.fixture
def hurried(person, site):
    """Somebody whose page asks for news every 150 ms."""
    site.issue(times=5)
    site.roll_up()
    script = person.cdp("Page.addScriptToEvaluateOnNewDocument", source=HURRY)
    person.sign_in()
    yield person
    person.cdp("Page.removeScriptToEvaluateOnNewDocument", identifier=script["identifier"])


def more(site):
    site.now += timedelta(seconds=1)
    site.issue(times=2)
    site.roll_up()


def requests(person):
    """How often the page asked for news."""
    entries = "performance.getEntriesByType('resource')"
    return person.evaluate(f"{entries}.filter(one => one.initiatorType == 'fetch').length")


def test_what_is_counted_shows_up_by_itself(hurried, site):
    assert hurried.texts(TOTAL) == ["5"]
    more(site)
    hurried.until(lambda: hurried.texts(TOTAL) == ["7"])
    bars = hurried.all(".bars g[role=img]")
    assert len(bars) == 30
    assert hurried.all(".bars title") == []


def test_the_first_event_ends_the_empty_page(hurried, site):
    hurried.press("header button")
    hurried.wait_for(SIGNIN)
    hurried.sign_in(organization="org-new")
    assert hurried.texts("#empty") == ["No tokens yet"]
    site.issue(tenant="org-new")
    site.roll_up()
    hurried.until(lambda: hurried.texts(TOTAL) == ["1"])


@pytest.mark.parametrize("selector", ["[name=q]", ".heat tbody td", "summary"])
def test_nothing_changes_under_who_types_or_reads(hurried, site, selector):
    hurried.evaluate(f"document.querySelector({selector!r}).focus()")
    before = requests(hurried)
    kept = hurried.one(selector)
    more(site)
    turns = hurried.evaluate(f"new Promise(done => setTimeout(done, {TURNS * 150}))")
    assert turns is None
    assert hurried.texts(TOTAL) == ["5"]
    assert requests(hurried) <= before + 1  # one may have been on its way
    assert hurried.one(selector) == kept
    hurried.evaluate("document.activeElement.blur()")
    hurried.until(lambda: hurried.texts(TOTAL) == ["7"])


def test_what_was_typed_or_chosen_survives_a_refresh(hurried, site):
    """Numbers change beside a form with a text or a choice that was not sent yet."""
    hurried.write("[name=q]", "agent")
    for name, value in (("months", "3"), ("sort", "id")):
        hurried.press(f"[name={name}] option[value='{value}']")
    hurried.evaluate("document.activeElement.blur()")
    more(site)
    hurried.until(lambda: hurried.texts(TOTAL) == ["7"])
    values = (
        "['q', 'months', 'sort', 'zone'].map(name => document.getElementsByName(name)[0].value)"
    )
    assert hurried.evaluate(values) == ["agent", "3", "id", ""]
    more(site)
    hurried.until(lambda: hurried.texts(TOTAL) == ["9"])
    assert hurried.evaluate(values) == ["agent", "3", "id", ""]


def test_who_comes_back_to_the_page_sees_what_is_new_at_once(person, filled):
    person.sign_in()
    before = person.texts(TOTAL)
    more(filled)
    person.evaluate("void document.dispatchEvent(new Event('visibilitychange'))")
    person.until(lambda: person.texts(TOTAL) != before)


def test_open_numbers_stay_open(hurried, site):
    hurried.evaluate("document.querySelector('details').open = true")
    more(site)
    hurried.evaluate(f"new Promise(done => setTimeout(done, {TURNS * 150}))")
    assert hurried.one(".days").is_displayed()


def test_an_ended_session_leads_to_the_sign_in_page(hurried):
    """The page opens the sign-in page by itself after its session ends."""
    hurried.cdp("Network.clearBrowserCookies")
    hurried.wait_for(SIGNIN)


def test_the_page_survives_an_unavailable_service(hurried, site):
    """The page stays as it was while the service is unavailable, and updates afterwards."""
    hurried.cdp("Network.enable")
    offline = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    hurried.cdp("Network.emulateNetworkConditions", offline=True, **offline)
    more(site)
    hurried.until(lambda: any("ERR_INTERNET_DISCONNECTED" in line for line in hurried.console()))
    assert hurried.texts(TOTAL) == ["5"]
    hurried.cdp("Network.emulateNetworkConditions", offline=False, **offline)
    hurried.until(lambda: hurried.texts(TOTAL) == ["7"])
    hurried.console()
