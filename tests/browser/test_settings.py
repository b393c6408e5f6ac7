"""The settings pages in a browser: by keyboard, without scripts, light and dark, on a phone."""

import pytest
from selenium.webdriver.common.keys import Keys

from tests.browser.axe import findings
from tests.browser.person import PHONE, WIDE
from tests.support.pages import DASHBOARD

SETTINGS = f"{DASHBOARD}/settings"
PAGES = [SETTINGS, *(f"{SETTINGS}/{name}" for name in ("budgets", "webhooks", "links", "keys"))]
PAGES.append(f"{SETTINGS}/audit")
FOCUSED = "document.activeElement"
WIDTH = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"


@pytest.fixture
def admin(person, filled):
    person.sign_in(scope="analytics:admin analytics:read")
    return person


def fill(admin):
    """A line in each list, with an id as long as it gets."""
    admin.open(f"{SETTINGS}/budgets")
    admin.write("#field-tokens", "5")
    admin.write("#field-agent", "W" * 255)
    admin.follow("form .first")
    admin.open(f"{SETTINGS}/links")
    admin.evaluate("document.querySelector('#field-expires').value = '2026-05-01'")
    admin.follow("form .first")
    admin.open(f"{SETTINGS}/webhooks")
    admin.write("#field-url", f"https://{'w' * 50}.example/{'x' * 200}")
    admin.follow("form .first")


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_the_settings_keep_nobody_out(admin, size):
    """axe finds nothing, light and dark, and no page scrolls sideways."""
    fill(admin)
    hook = admin.evaluate("document.querySelector('[action$=\"/test\"]').getAttribute('action')")
    admin.screen(*size)
    for path in (*PAGES, hook.removesuffix("/test"), f"{SETTINGS}/keys?revoke=x"):
        admin.open(path)
        assert admin.evaluate(WIDTH), path
        for scheme in ("light", "dark"):
            admin.prefer(scheme, motion="reduce")
            assert findings(admin) == [], (path, scheme)


def test_a_problem_is_read_with_its_field(admin):
    admin.open(SETTINGS)
    admin.write("#field-price", "free")
    admin.follow("form .first")
    assert findings(admin) == []
    assert admin.one("#field-price").get_attribute("value") == "free"
    assert "must be a number" in admin.one("#problem-price").text
    admin.expect("status of 400")


def test_a_form_works_by_keyboard_alone(admin):
    admin.open(SETTINGS)
    for _ in range(40):
        if admin.evaluate(f"{FOCUSED}.id") == "field-price":
            break
        admin.keys(Keys.TAB)
    admin.keys("2.50", Keys.TAB, "EUR", Keys.ENTER)
    admin.wait_for(f"{SETTINGS}?saved=1")
    assert admin.one("#field-price").get_attribute("value") == "2.5"


def test_everything_works_without_scripts(person, filled):
    person.forbid_scripts()
    person.sign_in(scope="analytics:admin analytics:read")
    person.open(f"{SETTINGS}/keys")
    person.follow("form .first")
    assert person.one("pre.command").text.startswith("agk_")
    person.open(f"{SETTINGS}/keys")
    person.follow(".items .button")
    person.follow(".ask .danger")
    assert "revoked" in person.one(".items").text
    person.open(f"{SETTINGS}/audit")
    assert person.texts(".items strong") == ["API key revoked", "API key created"]
