"""Light and dark, narrow and wide, moving and still."""

from datetime import timedelta

import pytest

from tests.browser.person import PHONE, WIDE

PAGES = (
    "/signin",
    "/docs",
    "/dashboard",
    "/dashboard?range=12m",
    "/dashboard?range=13w&zone=Asia/Kolkata&vs=year",
)
WALL = (2560, 1440)


def lightness(colour):
    """Of ``rgb(…)``: 0 for black, 255 for white."""
    parts = [float(part) for part in colour.strip("rgba()").split(",")[:3]]
    return sum(parts) / 3


@pytest.mark.parametrize("path", PAGES)
def test_dark_mode_is_dark_and_light_mode_light(person, filled, path):
    person.sign_in()
    shades = {}
    for scheme in ("light", "dark"):
        person.prefer(scheme)
        person.open(path)
        shades[scheme] = [
            lightness(person.evaluate(f"getComputedStyle(document.body).{name}"))
            for name in ("backgroundColor", "color")
        ]
    assert shades["light"][0] - shades["light"][1] > 200
    assert shades["dark"][1] - shades["dark"][0] > 200


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_shade_has_a_colour_of_its_own(person, filled, scheme):
    person.prefer(scheme)
    person.sign_in()
    colours = person.evaluate(
        "[...document.querySelectorAll('#calendar .key rect')]"
        ".map(shade => getComputedStyle(shade).fill)"
    )
    assert len(set(colours)) == len(colours) == 7


@pytest.mark.parametrize("size", [PHONE, WIDE, WALL], ids=["phone", "wide", "wall"])
def test_no_page_scrolls_sideways(person, filled, size):
    filled.issue(agent="a" * 255, name="W" * 255)
    filled.issue(times=99)
    filled.roll_up()
    filled.now += timedelta(hours=1)  # so that the warning is there, too
    person.screen(*size)
    person.sign_in()
    for path in PAGES:
        person.open(path)
        person.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert person.evaluate("document.documentElement.scrollWidth") == size[0], path
        assert sideways(person) == [], path


def sideways(person):
    """What has to be scrolled sideways to be seen as a whole."""
    return person.evaluate("""
        [...document.body.querySelectorAll("*")].filter(one =>
            one.scrollWidth > one.clientWidth + 1
            && ["auto", "scroll"].includes(getComputedStyle(one).overflowX)
            && !one.matches(".scroll, .seg")  // a year, and chips, on a phone
        ).map(one => one.outerHTML.slice(0, 200))""")


def test_a_long_organization_scrolls_nothing_on_a_phone(person, site):
    person.screen(*PHONE)
    person.sign_in(organization="o" * 255)
    assert person.evaluate("document.documentElement.scrollWidth") == PHONE[0]


def test_findings_are_beside_the_days_where_there_is_room(person, filled):
    person.sign_in()

    def tops():
        return person.evaluate(
            "['days', 'attention']"
            ".map(id => document.getElementById(id).getBoundingClientRect().top)"
        )

    assert tops()[0] == tops()[1]
    person.screen(*PHONE)
    assert tops()[0] < tops()[1]


def test_nothing_moves_for_who_wants_no_motion(person, filled):
    person.sign_in()
    durations = "getComputedStyle(document.querySelector('.b')).transitionDuration"
    assert person.evaluate(durations) != "0s"
    person.prefer(motion="reduce")
    assert person.evaluate(durations) == "0s"
