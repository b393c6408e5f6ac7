"""Everything without a mouse."""

import pytest
from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys

from tests.support.pages import DASHBOARD, SIGNIN
from tests.support.tokens import token

REACHABLE = "a[href], button, input:not([type=hidden]), select, summary, textarea, [tabindex]"
EVERYTHING = (
    f"[...document.querySelectorAll({REACHABLE!r})].filter("
    "one => one.checkVisibility() && one.getAttribute('tabindex') !== '-1')"
)
FOCUSED = "document.activeElement"
OUTLINE = f"getComputedStyle({FOCUSED}).outlineStyle"
TIP = "document.querySelector('.tip')"
YEAR = ".year .days"


@pytest.fixture
def inside(person, filled):
    person.sign_in()
    return person


def tip(person):
    """What the box says; ``None`` while it is hidden."""
    return person.evaluate(f"{TIP}.hidden ? null : {TIP}.textContent")


def tab_to(person, selector):
    """Tab on until an element has the focus."""
    for _ in range(90):
        if person.evaluate(f"{FOCUSED}.matches({selector!r})"):
            return
        person.keys(Keys.TAB)
    pytest.fail(f"{selector} is out of reach")


def test_tab_reaches_everything_in_order(inside):
    """The Tab key reaches every control in document order and shows the focus."""
    count = inside.evaluate(f"{EVERYTHING}.length")
    assert count > 15
    for place in range(count):
        inside.keys(Keys.TAB)
        assert inside.evaluate(f"{EVERYTHING}.indexOf({FOCUSED})") == place
        # Marks have a frame of their own.
        if not inside.evaluate(f"{FOCUSED}.matches('.bars > *, {YEAR}')"):
            assert inside.evaluate(OUTLINE) != "none"


def test_every_day_can_be_read(inside, filled):
    """By Tab and the arrow keys alone: each bar and each day of the calendar says its number."""
    tab_to(inside, ".bars > *")
    inside.keys(Keys.HOME)
    read = []
    for _ in range(28):
        read.append(tip(inside).split("\n")[1])
        inside.keys(Keys.RIGHT)
    points = filled.answer("/analytics/tokens?days=28")
    assert [int(text.split(" ")[0]) for text in read] == [point["count"] for point in points]
    tab_to(inside, YEAR)
    inside.keys(Keys.HOME)
    read = [inside.evaluate(f"{FOCUSED}.ariaValueText")]
    for _ in range(62):
        inside.keys(Keys.DOWN)
        read.append(inside.evaluate(f"{FOCUSED}.ariaValueText"))
    assert tip(inside) == "Wed, 15 Apr 2026\n14 tokens"
    points = filled.answer("/analytics/tokens?days=63")
    assert [int(text.split(" ")[-2]) for text in read] == [point["count"] for point in points]
    assert read[-1] == "Wed, 15 Apr 2026, 14 tokens"


def test_arrows_walk_through_the_days_whose_values_are_shown(inside):
    inside.prefer(motion="reduce")  # colours change at once
    tab_to(inside, ".bars > *")
    assert tip(inside).startswith("Thu 19 Mar\n")
    fill = f"getComputedStyle({FOCUSED}).getPropertyValue('--fill')"
    focused = inside.evaluate(fill)
    inside.keys(Keys.RIGHT)
    assert tip(inside).startswith("Fri 20 Mar\n")
    assert inside.evaluate(fill) == focused
    other = "document.querySelector('.bars > :nth-child(9)')"
    others = f"getComputedStyle({other}).getPropertyValue('--fill')"
    assert inside.evaluate(others) != focused
    inside.keys(Keys.END, Keys.RIGHT)
    assert tip(inside).split("\n")[:2] == ["Wed 15 Apr", "14 tokens, so far"]
    inside.keys(Keys.HOME, Keys.LEFT)
    assert tip(inside).startswith("Thu 19 Mar\n")
    inside.keys(Keys.TAB)
    assert tip(inside) is None
    backwards = ActionChains(inside.browser).key_down(Keys.SHIFT).send_keys(Keys.TAB)
    backwards.key_up(Keys.SHIFT).perform()
    assert tip(inside).startswith("Thu 19 Mar\n")


def test_enter_opens_a_day(inside):
    tab_to(inside, ".bars > *")
    inside.keys(Keys.END, Keys.ENTER)
    inside.wait_for("/dashboard/days/2026-04-15")
    inside.open(DASHBOARD)
    tab_to(inside, YEAR)
    inside.keys(Keys.LEFT, Keys.ENTER)
    inside.wait_for("/dashboard/days/2026-04-08")


def test_escape_hides_the_value_and_leaves_the_focus(inside):
    for selector, key in ((".bars > *", Keys.RIGHT), (YEAR, Keys.LEFT)):
        tab_to(inside, selector)
        assert tip(inside) is not None
        inside.keys(Keys.ESCAPE)
        assert tip(inside) is None
        assert inside.evaluate(f"{FOCUSED}.matches({selector!r})")
        inside.keys(key)
        assert tip(inside) is not None


def test_the_value_stays_on_the_screen_at_both_ends(inside):
    inside.screen(360, 740)
    tab_to(inside, ".bars > *")
    for key in (Keys.HOME, Keys.END):
        inside.keys(key)
        box = inside.evaluate(f"{TIP}.getBoundingClientRect().toJSON()")
        assert 0 <= box["left"] < box["right"] <= 360
        assert box["top"] >= 0


def test_a_value_is_shown_only_under_the_mouse(inside):
    """The page shows one tooltip for the value under the mouse, and no second one by `title`."""
    plot = inside.evaluate("document.querySelector('.p').getBoundingClientRect().toJSON()")
    place = {"x": plot["left"] + plot["width"] * 4.5 / 28, "y": plot["top"] + 5}
    inside.cdp("Input.dispatchMouseEvent", type="mouseMoved", **place)
    assert tip(inside).startswith("Mon 23 Mar\n")
    assert inside.all(".bars title") == []
    inside.point(inside.one("h1"))
    assert tip(inside) is None


def test_a_range_and_a_comparison_are_chosen_by_keys(inside):
    tab_to(inside, ".seg a")
    inside.keys(Keys.ENTER)
    inside.wait_for("/dashboard?range=7d")
    tab_to(inside, "[name=vs]")
    inside.keys(Keys.DOWN)  # a choice is sent at once
    inside.until(lambda: "vs=year" in inside.place)
    assert len(inside.all(".bars > *")) == 7


def test_signing_in_and_out_takes_no_mouse(person, filled):
    person.open(DASHBOARD)
    person.wait_for(SIGNIN)
    assert person.evaluate(f"{FOCUSED}.id") == "token"
    person.keys(token(), Keys.TAB, Keys.ENTER)
    person.wait_for(DASHBOARD)
    tab_to(person, ".bar form button")
    person.keys(Keys.ENTER)
    person.wait_for(SIGNIN)


def test_the_numbers_open_by_a_key(inside):
    tab_to(inside, "[data-card=days] .numbers summary")
    inside.keys(Keys.SPACE)
    assert inside.one("[data-card=days] .numbers table").is_displayed()
