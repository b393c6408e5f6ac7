"""axe-core finds nothing on any page, in any state that people see it in."""

from datetime import timedelta

import pytest

from tests.app.pages import DASHBOARD, SIGNIN
from tests.browser.axe import findings
from tests.browser.person import PHONE, WIDE
from tests.browser.serving import fill


@pytest.fixture(params=["light", "dark"])
def scheme(request):
    return request.param


@pytest.fixture(params=[WIDE, PHONE], ids=["wide", "phone"])
def viewer(request, person, scheme):
    person.screen(*request.param)
    person.prefer(scheme)
    return person


def test_the_sign_in_page_keeps_nobody_out(viewer):
    viewer.open(SIGNIN)
    assert findings(viewer) == []
    viewer.paste("no.good.token")
    viewer.until(lambda: viewer.all("#problem"))
    assert findings(viewer) == []
    assert len(viewer.console()) == 1


def test_the_dashboard_keeps_nobody_out(viewer, filled):
    viewer.sign_in()
    assert findings(viewer) == []
    viewer.open("/dashboard?days=90&zone=Asia/Kolkata&agents=all")
    viewer.press("summary")
    assert findings(viewer) == []


def test_the_empty_page_keeps_nobody_out(viewer, site):
    viewer.sign_in()
    assert findings(viewer) == []


def test_the_page_of_old_numbers_keeps_nobody_out(viewer, filled):
    filled.now += timedelta(hours=3)
    viewer.sign_in()
    assert viewer.all("[role=alert]")
    assert findings(viewer) == []


def test_an_error_page_keeps_nobody_out(viewer, site):
    viewer.sign_in()
    viewer.open(DASHBOARD + "?days=91")
    assert findings(viewer) == []
    assert len(viewer.console()) == 1


def test_the_reference_of_the_api_keeps_nobody_out(viewer):
    viewer.open("/docs")
    assert findings(viewer) == []
