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
    days = filled.answer("/analytics/tokens?days=30")
    titles = scriptless.texts(".bars title")
    assert [int(text.split(": ")[1].split(",")[0]) for text in titles] == [
        day["count"] for day in days
    ]
    assert len(scriptless.texts(".heat tbody td[title]")) == 168
    scriptless.press("summary")
    assert scriptless.one(".days").is_displayed()
    agents = filled.answer("/analytics/agents")
    assert len(scriptless.all(".agents tbody tr")) == len(agents)


def test_links_and_forms_work(scriptless):
    scriptless.follow("nav.choices a")
    assert len(scriptless.all(".bars g")) == 7
    scriptless.one("[name=q]").send_keys("mail")
    scriptless.follow("form[action$='#agents'] button")
    assert scriptless.texts(".agents tbody th") == ["mailer"]
    scriptless.one("[name=zone]").send_keys("Asia/Tokyo")
    scriptless.follow("form[action$='#week'] button")
    assert "Asia/Tokyo" in scriptless.texts(".heat caption")[0]
    scriptless.press("header button")
    scriptless.wait_for(SIGNIN)
    scriptless.open(DASHBOARD)
    scriptless.wait_for(SIGNIN)
