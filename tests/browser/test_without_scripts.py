"""JavaScript off: everything is there, and every form works."""

import pytest

from tests.support.pages import DASHBOARD, SIGNIN


@pytest.fixture
def scriptless(person, filled):
    person.forbid_scripts()
    person.sign_in()
    return person


def test_all_numbers_are_on_the_page(scriptless, filled):
    assert scriptless.all(".tip") == []
    days = filled.answer("/analytics/tokens?days=28")
    titles = scriptless.texts(".bars title")
    assert [int(text.split("\n")[1].split(" ")[0]) for text in titles] == [
        day["count"] for day in days
    ]
    scriptless.press("[data-card=days] .numbers summary")
    assert scriptless.one("[data-card=days] .numbers table").is_displayed()


def test_links_and_forms_work(scriptless):
    scriptless.follow(".seg a")
    assert len(scriptless.all(".bars > *")) == 7
    scriptless.one("[name=zone]").send_keys("Asia/Tokyo")
    scriptless.follow(".range noscript button")
    assert "Asia/Tokyo" in scriptless.one(".end-note").text
    assert len(scriptless.all(".bars > *")) == 7
    scriptless.press(".dates summary")
    scriptless.evaluate("document.querySelector('[name=from]').value = '2026-03-01'")
    scriptless.evaluate("document.querySelector('[name=to]').value = '2026-03-31'")
    scriptless.follow(".dates button")
    assert len(scriptless.all(".bars > *")) == 31
    scriptless.follow(".year a:last-of-type")
    assert "from=2026-03-01&to=2026-03-31" in scriptless.place
    scriptless.follow(".bars a")
    assert scriptless.place.startswith("/dashboard/days/2026-03-01")
    scriptless.press(".bar form button")
    scriptless.wait_for(SIGNIN)
    scriptless.open(DASHBOARD)
    scriptless.wait_for(SIGNIN)
