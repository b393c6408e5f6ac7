"""The page updates itself and does not disturb its reader."""

from datetime import timedelta

import pytest

from tests.support.pages import SIGNIN

# Timers of the page run a hundred times as fast.
HURRY = "const wait = setInterval; window.setInterval = (run, ms) => wait(run, ms / 100);"
TOTAL = ".tiles > :first-child .n"
DAYS = "[data-card=days]"
LAST = ".bars > :last-child"
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


def turns(person):
    """Wait for some refreshes."""
    person.evaluate(f"new Promise(done => setTimeout(done, {TURNS * 150}))")


def last_bar(person):
    # In one look, because a refresh may replace it.
    return person.evaluate(f"document.querySelector({LAST!r}).getAttribute('aria-label')")


def test_what_is_counted_shows_up_by_itself(hurried, site):
    assert hurried.texts(TOTAL) == ["5"]
    more(site)
    hurried.until(lambda: hurried.texts(TOTAL) == ["7"])
    hurried.until(lambda: "7 tokens" in last_bar(hurried))
    assert len(hurried.all(".bars > *")) == 28
    assert hurried.all(".bars title") == []


def test_only_cards_that_changed_are_replaced(hurried, site):
    """The others keep their elements, and an unchanged page costs no body."""
    calm = hurried.one("[data-card=attention]")
    more(site)
    hurried.until(lambda: hurried.texts(TOTAL) == ["7"])
    assert hurried.one("[data-card=attention]") == calm
    # A refresh during the run may have had the new total with the days before it.
    hurried.until(lambda: "7 tokens" in last_bar(hurried))
    kept = hurried.one(DAYS)
    turns(hurried)
    assert hurried.one(DAYS) == kept
    sizes = hurried.evaluate(
        "performance.getEntriesByType('resource').filter(one => one.initiatorType == 'fetch')"
        ".map(one => one.encodedBodySize).slice(-3)"
    )
    assert sizes == [0, 0, 0]


def test_an_old_answer_never_follows_a_newer_one(hurried, site):
    """The page asks again only after an answer, so a slow one brings no old numbers back."""
    hurried.evaluate("""{
        const send = window.fetch, held = new Promise(done => { window.release = done; });
        window.asked = 0;
        window.fetch = async (...of) => {
            window.asked += 1;
            const answer = await send(...of);
            await held;
            return answer;
        };
    }""")
    hurried.until(lambda: hurried.evaluate("window.asked") == 1)
    more(site)
    turns(hurried)
    assert hurried.evaluate("window.asked") == 1
    assert hurried.texts(TOTAL) == ["5"]
    hurried.evaluate("window.release()")
    hurried.until(lambda: hurried.texts(TOTAL) == ["7"])


def test_the_first_event_ends_the_empty_page(hurried, site):
    hurried.press(".bar form button")
    hurried.wait_for(SIGNIN)
    hurried.sign_in(organization="org-new")
    assert "No tokens yet" in " ".join(hurried.texts("h2"))
    site.issue(tenant="org-new")
    site.roll_up()
    hurried.until(lambda: hurried.texts(TOTAL) == ["1"])


@pytest.mark.parametrize("selector", [LAST, f"{DAYS} .numbers summary"])
def test_nothing_changes_under_who_types_or_reads(hurried, site, selector):
    """A card with the focus stays; the others are replaced."""
    hurried.evaluate(f"document.querySelector({selector!r}).focus()")
    kept = hurried.one(selector)
    more(site)
    hurried.until(lambda: hurried.texts(TOTAL) == ["7"])
    turns(hurried)
    assert hurried.one(selector) == kept
    assert "5 tokens" in last_bar(hurried)
    hurried.evaluate("document.activeElement.blur()")
    hurried.until(lambda: "7 tokens" in last_bar(hurried))


def test_a_choice_that_is_not_sent_survives_a_refresh(hurried, site):
    hurried.press(".dates summary")
    hurried.evaluate("document.querySelector('[name=from]').value = '2026-03-01'")
    more(site)
    hurried.until(lambda: hurried.texts(TOTAL) == ["7"])
    assert hurried.evaluate("document.querySelector('[name=from]').value") == "2026-03-01"
    assert hurried.one("[name=from]").is_displayed()


def test_who_comes_back_to_the_page_sees_what_is_new_at_once(person, filled):
    person.sign_in()
    before = person.texts(TOTAL)
    more(filled)
    person.evaluate("void document.dispatchEvent(new Event('visibilitychange'))")
    person.until(lambda: person.texts(TOTAL) != before)


def test_open_numbers_stay_open(hurried, site):
    hurried.evaluate(f"document.querySelector('{DAYS} .numbers').open = true")
    more(site)
    hurried.until(lambda: "7 tokens" in last_bar(hurried))
    assert hurried.one(f"{DAYS} .numbers table").is_displayed()


def test_the_age_turns_stale(hurried, site):
    """The dot counts the age, even while no run finishes."""
    site.now += timedelta(minutes=2)
    hurried.until(lambda: "stale" in hurried.one("#age").get_attribute("class"))
    assert "2 min" in hurried.one("#age").text
    site.roll_up()
    hurried.until(lambda: "stale" not in hurried.one("#age").get_attribute("class"))


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
