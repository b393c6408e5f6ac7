"""Everything without a mouse."""

import pytest
from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys

from tests.support.pages import DASHBOARD, SIGNIN
from tests.support.tokens import token

REACHABLE = "a[href], button, input:not([type=hidden]), select, summary, textarea, [tabindex='0']"
FOCUSED = "document.activeElement"
OUTLINE = f"getComputedStyle({FOCUSED}).outlineStyle"
TIP = "document.querySelector('.tip')"


@pytest.fixture
def inside(person, filled):
    person.sign_in()
    return person


def tip(person):
    """What the box says; ``None`` while it is hidden."""
    return person.evaluate(f"{TIP}.hidden ? null : {TIP}.textContent")


def tab_to(person, selector):
    """Tab on until an element has the focus."""
    for _ in range(60):
        if person.evaluate(f"{FOCUSED}.matches({selector!r})"):
            return
        person.keys(Keys.TAB)
    pytest.fail(f"{selector} is out of reach")


def test_tab_reaches_everything_in_order(inside):
    """The Tab key reaches every control in document order and shows the focus."""
    everything = f"[...document.querySelectorAll({REACHABLE!r})]"
    count = inside.evaluate(f"{everything}.length")
    assert count > 15
    for place in range(count):
        inside.keys(Keys.TAB)
        assert inside.evaluate(f"{everything}.indexOf({FOCUSED})") == place
        if not inside.evaluate(f"{FOCUSED}.matches('.bars g')"):
            assert inside.evaluate(OUTLINE) != "none"


def test_arrows_walk_through_the_days_whose_values_are_shown(inside):
    fill = f"getComputedStyle({FOCUSED}.querySelector('path:last-child')).fill"
    inside.prefer(motion="reduce")  # colours change at once
    tab_to(inside, ".bars g:last-child")
    assert tip(inside) == "Wed 15 Apr: 14, so far"
    focused = inside.evaluate(fill)
    inside.keys(Keys.LEFT)
    assert tip(inside).startswith("Tue 14 Apr: ")
    assert inside.evaluate(fill) == focused
    others = "getComputedStyle(document.querySelector('.bars g:nth-child(3) path:last-child')).fill"
    assert inside.evaluate(others) != focused
    inside.keys(Keys.HOME)
    assert tip(inside).startswith("Tue 17 Mar: ")
    inside.keys(Keys.LEFT)
    assert tip(inside).startswith("Tue 17 Mar: ")
    inside.keys(Keys.END, Keys.RIGHT)
    assert tip(inside).startswith("Wed 15 Apr: ")


def test_arrows_walk_through_the_hours_in_all_four_directions(inside):
    tab_to(inside, ".heat td")
    assert tip(inside) == "Monday 0–1: 0"  # noqa: RUF001 - as on the page
    inside.keys(Keys.DOWN, Keys.RIGHT, Keys.RIGHT)
    assert tip(inside).startswith("Tuesday 2–3: ")  # noqa: RUF001
    inside.keys(Keys.UP, Keys.LEFT)
    assert tip(inside).startswith("Monday 1–2: ")  # noqa: RUF001
    inside.keys(Keys.TAB)
    assert tip(inside) is None
    ActionChains(inside.browser).key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(
        Keys.SHIFT
    ).perform()
    assert tip(inside).startswith("Monday 1–2: ")  # noqa: RUF001


def test_escape_hides_the_value_and_leaves_the_focus(inside):
    tab_to(inside, ".heat td")
    assert tip(inside) is not None
    inside.keys(Keys.ESCAPE)
    assert tip(inside) is None
    assert inside.evaluate(f"{FOCUSED}.matches('.heat td')")
    inside.keys(Keys.RIGHT)
    assert tip(inside) is not None


def test_the_value_stays_on_the_screen_at_both_ends(inside):
    inside.screen(360, 740)
    tab_to(inside, ".bars g")
    for key in (Keys.HOME, Keys.END):
        inside.keys(key)
        box = inside.evaluate(f"{TIP}.getBoundingClientRect().toJSON()")
        assert 0 <= box["left"] < box["right"] <= 360
        assert box["top"] >= 0


def test_a_value_is_shown_only_under_the_mouse(inside):
    """The page shows one tooltip for the value under the mouse, and no second one by `title`."""
    cell = inside.one(".heat tbody tr:nth-child(3) td:nth-child(6)")
    inside.point(cell)
    assert tip(inside).startswith("Wednesday 4–5: ")  # noqa: RUF001
    assert cell.get_attribute("title") == ""
    inside.point(inside.one("h1"))
    assert tip(inside) is None


def test_signing_in_and_out_takes_no_mouse(person, filled):
    person.open(DASHBOARD)
    person.wait_for(SIGNIN)
    assert person.evaluate(f"{FOCUSED}.id") == "token"
    person.keys(token(), Keys.TAB, Keys.ENTER)
    person.wait_for(DASHBOARD)
    tab_to(person, "header button")
    person.keys(Keys.ENTER)
    person.wait_for(SIGNIN)


def test_the_numbers_open_and_a_form_is_sent_by_keys(inside):
    tab_to(inside, "summary")
    inside.keys(Keys.SPACE)
    assert inside.one(".days").is_displayed()
    tab_to(inside, "[name=q]")
    before = inside.one("html")
    inside.keys("batch", Keys.ENTER)
    inside.until(lambda: inside.one("html") != before)
    assert inside.texts(".agents tbody th small") == ["batch"]
