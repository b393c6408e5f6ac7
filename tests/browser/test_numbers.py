"""The pages show the same numbers as the API."""

import re
from datetime import timedelta

import pytest

from tests.browser.serving import MARKUP


def numbers(texts):
    return [int(text.replace(",", "")) for text in texts]


@pytest.mark.parametrize("days", [7, 30, 90])
def test_the_days_are_those_of_the_api(person, filled, days):
    person.sign_in(f"/dashboard?days={days}")
    points = filled.answer(f"/analytics/tokens?days={days}")
    counts = [point["count"] for point in points]
    assert len(counts) == days
    assert numbers(person.texts(".days tbody td:nth-child(2)")) == counts[::-1]
    said = person.evaluate(
        "[...document.querySelectorAll('.bars g')].map(bar => bar.getAttribute('aria-label'))"
    )
    assert numbers(re.search(r": ([\d,]+)", text)[1] for text in said) == counts
    assert numbers(person.texts(".figure strong")) == [sum(counts)]
    heights = person.evaluate(
        "[...document.querySelectorAll('.bars path:last-child')].map(bar => bar.getBBox().height)"
    )
    expected = [96 * count / max(counts) for count in counts]
    assert heights == pytest.approx(expected, abs=0.06)


@pytest.mark.quick
def test_the_week_is_that_of_the_api(person, filled):
    person.sign_in()
    answered = filled.answer("/analytics/agents/activity")
    cells = {(cell["dow"], cell["hour"]): cell["count"] for cell in answered}
    shown = numbers(person.texts(".heat tbody td"))
    assert shown == [
        cells.get((dow, hour), 0) for dow in (1, 2, 3, 4, 5, 6, 0) for hour in range(24)
    ]
    assert len(set(shown)) > 2


@pytest.mark.parametrize("months_ago", [0, 1])
def test_the_agents_are_those_of_the_api(person, filled, months_ago):
    month = ("2026-04", "2026-03")[months_ago]
    person.sign_in(f"/dashboard?month={month}")
    agents = filled.answer(f"/analytics/agents?month={month}")
    shown = zip(
        person.texts(".agents tbody th"),
        numbers(person.texts(".agents td:nth-child(3)")),
        strict=True,
    )
    assert [(text.split()[-1], count) for text, count in shown] == [
        (agent["agentId"], agent["tokenCount"]) for agent in agents
    ]
    assert agents


def test_a_name_with_markup_is_shown_as_text(person, filled):
    """A name that contains markup is shown as text and has no effect."""
    person.sign_in("/dashboard?q=markup")
    assert person.texts(".agents tbody th") == [f"{MARKUP} markup"]
    assert person.all("main img") == []
    person.open("/dashboard?q=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E")
    assert person.one("[name=q]").get_attribute("value") == MARKUP
    assert person.all("main img") == []


def test_an_uncounted_day_differs_from_a_silent_day(person, filled):
    """A day that is not counted yet looks different from a silent day."""
    filled.now += timedelta(days=1)
    person.sign_in("/dashboard?days=30")
    rows = dict(
        zip(
            person.texts(".days tbody th"),
            zip(
                person.texts(".days tbody td:nth-child(2)"),
                person.texts(".days tbody td:nth-child(3)"),
                strict=True,
            ),
            strict=True,
        )
    )
    assert rows["Thu 16 Apr"] == ("–", "not counted yet")  # noqa: RUF001 - as on the page
    assert rows["Wed 1 Apr"] == ("0", "")


def test_a_zone_of_whole_hours_moves_the_week(person, filled):
    person.sign_in()
    utc = numbers(person.texts(".heat tbody td"))
    choose_zone(person, "Europe/Berlin")
    assert numbers(person.texts(".heat tbody td")) == utc[-2:] + utc[:-2]
    assert "Europe/Berlin is 2 hours ahead of UTC today" in person.one("#week ~ p.hint").text
    assert "Europe/Berlin" in person.one(".heat caption").get_attribute("textContent")


def test_a_zone_of_half_hours_leaves_utc(person, filled):
    """A time zone of half hours is refused with an explanation, and the hours stay in UTC."""
    person.sign_in()
    utc = numbers(person.texts(".heat tbody td"))
    choose_zone(person, "Asia/Kolkata")
    assert "Asia/Kolkata is 5:30 hours ahead of UTC." in person.one("#week ~ .problem").text
    assert numbers(person.texts(".heat tbody td")) == utc


def choose_zone(person, zone):
    person.one("[name=zone]").send_keys(zone)
    person.follow("form[action$='#week'] button")
    assert person.one("[name=zone]").get_attribute("value") == zone


def test_each_form_keeps_the_choices_of_the_others(person, filled):
    """The forms for months, search and order keep each other's choices."""
    person.sign_in("/dashboard?days=7&zone=Europe/Berlin")
    person.one("[name=q]").send_keys("a")
    person.one("[name=sort] option:last-child").click()
    person.follow("form[action$='#agents'] button")
    assert person.texts(".agents tbody th small") == ["batch", "markup"]
    assert person.one("[name=zone]").get_attribute("value") == "Europe/Berlin"
    assert len(person.all(".bars g")) == 7
    person.one("[name=months] option[value='3']").click()
    person.follow("form[action$='#week'] button")
    assert person.one("[name=q]").get_attribute("value") == "a"
    assert person.one("[name=months]").get_attribute("value") == "3"
