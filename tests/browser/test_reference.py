"""The API reference in a browser: search by keyboard, commands to copy, and no scripts."""

import pytest
from selenium.webdriver.common.keys import Keys

from tests.browser.axe import findings
from tests.browser.person import PHONE, WIDE

SHOWN = "[...document.querySelectorAll('[data-part]')].filter(one => one.checkVisibility()).length"
FOCUSED = "document.activeElement"


@pytest.fixture
def reader(person):
    person.open("/docs")
    return person


def test_the_search_is_used_by_keyboard(reader):
    """A slash leads to the field, words narrow the page and its contents, Enter leads to a part."""
    everything = reader.evaluate(SHOWN)
    assert everything > 40
    reader.keys("/")
    assert reader.evaluate(f"{FOCUSED}.id") == "q"
    reader.keys("revoke key")
    shown = reader.evaluate(SHOWN)
    assert 0 < shown < 10
    assert reader.texts("#found") == [f"{shown} of {everything} parts have all words"]
    visible = "[...document.querySelectorAll('.contents a')].filter(a => a.checkVisibility())"
    links = reader.evaluate(f"{visible}.map(a => a.textContent)")
    assert "DELETE /keys/{keyId}" in links
    assert "GET /analytics/tokens" not in links
    assert findings(reader) == []
    reader.keys(Keys.ENTER)
    assert reader.evaluate(f"{FOCUSED}.id") == "keys_list_keys"
    reader.keys("/", Keys.ESCAPE)
    assert reader.evaluate(SHOWN) == everything


def test_nothing_found_is_said(reader):
    reader.keys("/", "no such words at all")
    assert reader.evaluate(SHOWN) == 0
    assert reader.texts("#found")[0].startswith("0 of ")


def test_a_link_to_a_hidden_part_shows_it(reader):
    """The link to a type clears the search that hides the type."""
    reader.keys("/", "hour of the week dow")
    reader.until(lambda: not reader.one("#Problem").is_displayed())
    reader.evaluate("document.querySelector('a[href=\"#errors\"]').hidden = false")
    reader.evaluate("document.querySelector('main a[href=\"#errors\"]').click()")
    assert reader.one("#errors").is_displayed()


def test_a_command_is_copied(reader):
    """The button beside a command puts it into the clipboard, and says so."""
    reader.cdp("Browser.grantPermissions", permissions=["clipboardReadWrite"])
    reader.press(".copied button")
    reader.until(lambda: reader.texts("p[role=status].hidden") == ["Copied"])
    copied = reader.evaluate("navigator.clipboard.readText()")
    assert copied == reader.texts("pre.command")[0]
    assert copied.startswith(f"curl -sS '{reader.site.url}/api/v1/analytics/tokens?")


def test_the_page_is_whole_without_scripts(person):
    person.forbid_scripts()
    person.open("/docs")
    assert not person.one("#search").is_displayed()
    assert person.all(".copied") == []
    hidden = "[...document.querySelectorAll('main *')].filter(one => !one.checkVisibility()).length"
    assert person.evaluate(hidden) == 0


@pytest.mark.parametrize("size", [PHONE, (768, 1024), WIDE], ids=["phone", "tablet", "wide"])
def test_the_contents_fit_every_screen(reader, size):
    """The page never scrolls sideways, and its contents are at the left where there is room."""
    reader.screen(*size)
    widths = reader.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert widths[0] <= widths[1]
    nav, main = (
        reader.evaluate(f"document.querySelector({name!r}).getBoundingClientRect().toJSON()")
        for name in (".contents", "main")
    )
    beside = size[0] > 52 * 16
    assert (nav["right"] <= main["left"]) == beside
    assert (nav["bottom"] <= main["top"]) == (not beside)
