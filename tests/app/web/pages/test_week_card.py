"""The card of the week: its numbers are the API's, in words, in few bytes."""

import html
import random
import re
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.pages import DASHBOARD, Browser
from tests.support.settings import NOW
from tests.support.statements import statements
from tests.support.summaries import fill
from tests.support.tokens import bearer

ZONES = ["UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns", "Pacific/Auckland"]
NAMES = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
DASH = "\N{EN DASH}"


@pytest.fixture
def browser(client):
    browser = Browser(client)
    browser.sign_in()
    return browser


@pytest.fixture
def months(database):
    """Months of events at random hours, more on workdays."""
    dice = random.Random(3)
    begin = NOW - timedelta(days=120)
    events = []
    for hour in range(120 * 24):
        when = begin + timedelta(hours=hour, minutes=-30)
        for _ in range(dice.randrange(2 if when.isoweekday() < 6 else 1, 4)):
            events.append((when, f"agent-{dice.randrange(3)}"))
    fill(database, events)
    fill(database, [(NOW, "theirs")] * 999, tenant="org-b")


def card(browser, query):
    page = browser.get(f"{DASHBOARD}?{query}")
    assert page.status_code == 200, page.text
    found = re.search(r'<section [^>]*data-card="week".*?</section>', page.text, re.DOTALL)
    return html.unescape(found[0])


def test_cells_are_those_of_the_api(client, browser, months):
    """In random ranges of several zones, each cell, row and column has the API's number."""
    dice = random.Random(5)
    for zone in ZONES:
        last = (NOW - timedelta(days=dice.randrange(60))).date()
        first = last - timedelta(days=dice.choice((0, 6, 27, 60)))
        query = f"from={first}&to={last}&zone={zone}"
        data = client.get(f"/api/v1/analytics/agents/activity?{query}", headers=bearer()).json
        counts = {(one["dow"], one["hour"]): one["count"] for one in data["data"]}
        text = card(browser, query)
        titles = dict(re.findall(r'title="([^"]+): ([\d,]+|\N{EN DASH})"', text))
        minute = {"Asia/Kolkata": ":30", "America/St_Johns": ":30"}.get(zone)
        for dow in range(7):
            total = 0
            for hour in range(24):
                at = f"{hour}{minute}" if minute else f"{hour}{DASH}{hour + 1}"
                shown = titles[f"{NAMES[dow]} {at}"]
                count = counts.get((dow, hour), 0)
                assert shown in ({f"{count:,}"} if count else {"0", DASH})
                total += count
            assert titles[NAMES[dow]] == f"{total:,}"
        assert f"{first.day} " in text
        assert zone in text


def test_a_card_is_small(browser, months):
    for query in ("range=12m", "range=12m&zone=Asia/Kolkata", "range=28d&vs=year"):
        assert 5_000 < len(card(browser, query).encode()) < 11_000


def test_facts_are_in_words(browser, database):
    """Facts compare averages: today is not over, and Wednesday comes once more than the others."""
    events = []
    for ago in range(15):
        day = NOW - timedelta(days=ago)
        for hour in range(24):
            at = day.replace(hour=hour, minute=0)
            if at < NOW - timedelta(hours=1):
                events += [(at, "a")] * (5 if hour == 9 else 2 if 6 <= hour < 22 else 1)
    fill(database, [one for one in events if one[0].hour not in (2, 3, 4)])
    text = card(browser, "from=2026-04-01&to=2026-04-15")
    assert f"Monday 9{DASH}10 <small>5 tokens on average" in text
    assert f"Monday 2{DASH}3 <small>0</small>" in text
    assert f"Monday 2{DASH}4 <small>0 tokens in two hours" in text
    assert "Not every day of the week comes as often" in text
    assert f'title="Wed 12{DASH}13: ' in text
    share = re.search(r"Weekends</dt><dd>([\d.]+)", text)[1]
    assert abs(float(share) - 100 * 4 / 14.5) < 1


def test_days_that_are_not_counted_say_so(browser, database):
    """Hours that are not over on the only such day have a dash, and are no quiet hours."""
    fill(database, [(NOW - timedelta(hours=2), "a")])
    text = card(browser, "from=2026-04-15&to=2026-04-15")
    assert f"Wed 10{DASH}11: 1" in text
    assert f"Wed 11{DASH}12: 0" in text
    assert f"Wed 13{DASH}14: {DASH}" in text
    assert f"Tue 10{DASH}11: {DASH}" in text
    assert "Best two hours" in text


def test_an_empty_week_has_no_facts(browser, database):
    fill(database, [(datetime(2025, 1, 1, tzinfo=UTC), "a")])
    text = card(browser, "range=7d")
    assert "Busiest" not in text
    assert ">none<" in text


def test_the_week_is_one_statement(browser, months):
    with statements(browser.app.extensions["analytics"].database) as sent:
        browser.get(f"{DASHBOARD}?range=12m&zone=Europe/Berlin")
    assert len([one for one in sent if "EXTRACT" in one or "STRFTIME" in one.upper()]) == 1
