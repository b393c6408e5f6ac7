"""Exports of cards in a browser, and pages on paper."""

import pytest
from selenium.webdriver.common.keys import Keys

from tests.browser.person import PHONE
from tests.support.pages import DASHBOARD

CARD = "[data-card=days]"
SUMMARY = f"{CARD} .export summary"
A4 = 726  # the width of A4 in CSS pixels, less the margins


@pytest.fixture
def inside(person, filled):
    person.sign_in()
    return person


def test_a_command_is_copied_by_keyboard(inside):
    """One key opens the command, copies it, and says so."""
    inside.cdp("Browser.grantPermissions", permissions=["clipboardReadWrite"])
    inside.evaluate(f"document.querySelector('{SUMMARY}').focus()")
    inside.keys(Keys.ENTER)
    inside.until(lambda: inside.texts("p[role=status].hidden") == ["Copied"])
    shown = inside.texts(f"{CARD} .export pre")
    assert inside.one(f"{CARD} .export pre").is_displayed()
    assert [inside.evaluate("navigator.clipboard.readText()")] == shown
    assert f"{inside.site.url}/api/v1/analytics/tokens?from=" in shown[0]


def test_a_browser_may_forbid_copying(inside):
    """Without a clipboard, as on pages without TLS, the command is selected."""
    inside.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    inside.evaluate("document.execCommand = () => false")
    inside.press(SUMMARY)
    inside.until(lambda: inside.texts("p[role=status].hidden")[0].startswith("Selected"))
    assert inside.evaluate("getSelection().toString()").startswith("curl -sS ")


def test_a_command_can_be_read_without_scripts(person, filled):
    person.forbid_scripts()
    person.sign_in()
    person.screen(*PHONE)
    person.press(SUMMARY)
    assert person.one(f"{CARD} .export pre").is_displayed()
    box = f"document.querySelector('{CARD} .export pre').getBoundingClientRect()"
    assert 0 < person.evaluate(f"{box}.left") < person.evaluate(f"{box}.right") <= PHONE[0]


@pytest.mark.parametrize("query", ["", "?range=12m&zone=Asia/Kolkata"])
def test_paper_has_the_period_and_every_number(inside, filled, query):
    """In print: the heading, the zone, the chart and its numbers, in light colours, uncut."""
    inside.open(DASHBOARD + query)
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    inside.cdp("Emulation.setEmulatedMedia", media="print", features=features)
    inside.screen(A4, 1000)
    assert inside.one(".head p").is_displayed()
    assert inside.one(".end-note").is_displayed()
    for selector in (".bar", ".range", ".export"):
        assert not inside.one(selector).is_displayed(), selector
    box = inside.evaluate(f"document.querySelector('{CARD} .p').getBoundingClientRect().toJSON()")
    assert 0 <= box["left"] < box["right"] <= A4
    rows = f"[...document.querySelectorAll('{CARD} .numbers tbody tr')]"
    drawn = inside.evaluate(f"{rows}.filter(row => row.checkVisibility()).length")
    assert drawn == inside.evaluate(f"document.querySelectorAll('{CARD} .bars > *').length") > 0
    assert inside.evaluate("document.documentElement.scrollWidth") <= A4
    assert inside.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)"
    )
    assert inside.cdp("Page.printToPDF")["data"]
