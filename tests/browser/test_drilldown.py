"""The pages of a day, an agent and a finding in a browser: axe, keyboard, narrow screens, forms."""

from datetime import timedelta

import pytest
from selenium.webdriver.common.keys import Keys

from app.detection import Kind, Part, Share
from tests.browser.axe import findings
from tests.browser.person import PHONE, WIDE
from tests.support.findings import stored
from tests.support.pages import DASHBOARD

AGENT = f"{DASHBOARD}/agent?agentId=batch"
FINDING = f"{DASHBOARD}/findings/{'0' * 32}"
SCOPES = "analytics:admin agents:write"
LONG = "W" * 255


@pytest.fixture
def pages(filled):
    """The address of a page of each kind; names and notes are as long as they can be."""
    filled.issue(agent="a" * 255, name=LONG)
    filled.roll_up()
    share = Share("a" * 255, 3900, 780, 0.83)
    loop = {"kind": Kind.RETRY_LOOP, "part": Part.AGENT, "agent": "batch", "agents": (share,)}
    stored(filled.database, loop)
    day = f"{DASHBOARD}/days/{filled.now.date()}"
    spike = f"{DASHBOARD}/days/{filled.now.date() - timedelta(days=6)}?zone=Asia/Kolkata"
    return (day, spike, AGENT, f"{DASHBOARD}/agent?agentId={'a' * 255}", FINDING)


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_the_pages_are_accessible_and_fit(person, pages, size):
    """axe finds nothing in light and dark, and nothing is wider than the screen."""
    person.screen(*size)
    person.sign_in(scope=SCOPES)
    for path in pages:
        person.open(path)
        person.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert person.evaluate("document.documentElement.scrollWidth") == size[0], path
        for scheme in ("light", "dark"):
            person.prefer(scheme, motion="reduce")
            assert findings(person) == [], (path, scheme)


def test_arrow_keys_reach_each_hour(person, pages):
    person.sign_in(scope=SCOPES)
    person.open(pages[0])
    marks = "[...document.querySelectorAll('[data-card=hours] .bars > *')]"
    labels = person.evaluate(f"{marks}.map(one => one.getAttribute('aria-label'))")
    assert len(labels) == 24
    person.evaluate(f"{marks}[0].focus()")
    for label in labels:
        focused = person.evaluate("document.activeElement.getAttribute('aria-label')")
        assert focused == label
        assert (
            person.evaluate("document.querySelector('.tip').textContent").replace("\n", ", ")
            == label
        )
        person.keys(Keys.ARROW_RIGHT)


def test_what_is_typed_survives_a_refresh(person, filled, pages):
    """The form of a page is not replaced, and what is counted meanwhile is shown."""
    person.sign_in(scope=SCOPES)
    person.open(AGENT)
    before = person.texts("[data-card=tiles]")
    person.write("[name=name]", "typed")
    filled.now += timedelta(seconds=1)
    filled.issue(agent="batch", times=7)
    filled.roll_up()
    person.evaluate("void document.dispatchEvent(new Event('visibilitychange'))")
    person.until(lambda: person.texts("[data-card=tiles]") != before)
    assert "typed" in person.evaluate("document.querySelector('[name=name]').value")


def test_a_finding_is_marked_without_scripts(person, pages):
    person.sign_in(scope=SCOPES)
    person.forbid_scripts()
    person.open(FINDING)
    person.write("textarea", "a load test")
    person.follow("button[value='1']")
    assert "Saved." in person.one("[role=status]").text
    assert "a load test" in person.one("textarea").get_attribute("value")
