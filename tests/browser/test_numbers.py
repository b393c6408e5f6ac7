"""The overview shows the same numbers as the API."""

import random
import re
from datetime import timedelta

import pytest

TABLE = "[data-card=days] .numbers"
DAY = timedelta(days=1)
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"]


def numbers(texts):
    return [int(re.match(r"[\d,]+", text)[0].replace(",", "")) for text in texts]


def shown(person):
    """The numbers of the bars, of the table below them, and of the first tile."""
    said = person.evaluate(
        "[...document.querySelectorAll('.bars > *')].map(bar => bar.getAttribute('aria-label'))"
    )
    bars = numbers(text.split(", ", 1)[1] for text in said)
    table = numbers(person.texts(f"{TABLE} tbody td:nth-child(2)"))
    assert table == bars
    return bars, numbers(person.texts(".tiles > :first-child .n"))[0]


@pytest.mark.parametrize(("choice", "days"), [("7d", 7), ("28d", 28), ("13w", 91)])
def test_the_days_are_those_of_the_api(person, filled, choice, days):
    person.sign_in(f"/dashboard?range={choice}")
    points = filled.answer(
        f"/analytics/tokens?from={filled.now.date() - (days - 1) * DAY}&to=2026-04-15"
    )
    counts = [point["count"] for point in points]
    assert shown(person) == (counts, sum(counts))
    tops = person.evaluate(
        "[...document.querySelectorAll('.bars use')].map(bar => bar.getAttribute('y'))"
    )
    heights = [100 - float(top.removesuffix("%")) for top in tops]
    highest = max(heights) / max(counts)
    assert heights == pytest.approx([highest * count for count in counts], abs=0.1)


def test_random_ranges_and_zones_are_those_of_the_api(person, filled):
    """Ten of them, over the changes of clocks in March and April."""
    person.sign_in()
    dice = random.Random(4)
    for _ in range(10):
        last = filled.now.date() - dice.randrange(25) * DAY
        first = last - dice.randrange(1, 28) * DAY
        query = f"from={first}&to={last}&zone={dice.choice(ZONES)}"
        person.open(f"/dashboard?{query}")
        counts = [point["count"] for point in filled.answer(f"/analytics/tokens?{query}")]
        assert shown(person) == (counts, sum(counts)), query


def test_twelve_months_are_bars_of_weeks(person, filled):
    person.sign_in("/dashboard?range=12m")
    points = filled.answer("/analytics/tokens?from=2025-04-17&to=2026-04-15")
    counts = [point["count"] for point in points]
    weeks = [sum(counts[begin : begin + 7]) for begin in range(0, 364, 7)]
    assert shown(person) == (weeks, sum(counts))


@pytest.mark.quick
def test_the_calendar_is_that_of_the_api(person, filled):
    person.sign_in()
    points = filled.answer("/analytics/tokens?days=63")
    counts = person.one(".year").get_attribute("data-counts").split(" ")
    assert [int(count, 36) for count in counts if count] == [point["count"] for point in points]
    squares = person.evaluate(
        "[...document.querySelectorAll('.year path:not(.dot)')].map(path => path.getAttribute('d'))"
    )
    lengths = [int(length) for path in squares for length in re.findall(r"h(\d+)", path)]
    assert sum(length + 1 for length in lengths) == 6 * len(points)


def test_an_uncounted_day_differs_from_a_silent_day(person, filled):
    """A day that is not counted yet looks different from a silent day."""
    filled.now += DAY
    person.sign_in()
    rows = dict(
        zip(
            person.texts(f"{TABLE} tbody th"),
            zip(
                person.texts(f"{TABLE} tbody td:nth-child(2)"),
                person.texts(f"{TABLE} tbody td:last-child"),
                strict=True,
            ),
            strict=True,
        )
    )
    assert rows["Thu 16 Apr"][0] == "–"  # noqa: RUF001 - as on the page
    assert rows["Thu 16 Apr"][1].startswith("not counted yet")
    assert rows["Wed 1 Apr"][0] == "0"


def test_the_chosen_zone_is_kept(person, filled):
    """A choice is sent at once, and a later page without it has it still."""
    person.sign_in()
    person.evaluate(
        "(() => { const zone = document.querySelector('[name=zone]'); zone.value = 'Asia/Kolkata';"
        " zone.dispatchEvent(new Event('change')); })()"
    )
    person.until(lambda: "zone=Asia" in person.place)
    assert "hours run from :30 to :30" in person.one(".end-note").text
    person.open("/dashboard")
    assert person.one("[name=zone]").get_attribute("value") == "Asia/Kolkata"
