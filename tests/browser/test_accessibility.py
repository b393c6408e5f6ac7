"""axe-core finds nothing on any page: in light and dark, wide and narrow, in each of its states."""

from datetime import timedelta

import pytest

from tests.browser.axe import findings
from tests.browser.person import PHONE, WIDE
from tests.support.pages import DASHBOARD, SIGNIN


@pytest.fixture(params=[WIDE, PHONE], ids=["wide", "phone"])
def viewer(request, person):
    person.screen(*request.param)
    return person


def check(viewer):
    for scheme in ("light", "dark"):
        viewer.prefer(scheme, motion="reduce")  # colours change at once
        assert findings(viewer) == [], scheme


def test_the_sign_in_page_keeps_nobody_out(viewer):
    viewer.open(SIGNIN)
    check(viewer)
    viewer.paste("no.good.token")
    viewer.until(lambda: viewer.all("#problem"))
    check(viewer)
    viewer.expect("status of 401")


@pytest.mark.parametrize("query", ["", "?range=13w&zone=Asia/Kolkata&vs=year", "?range=12m"])
def test_the_dashboard_keeps_nobody_out(viewer, filled, query):
    viewer.sign_in(DASHBOARD + query)
    check(viewer)
    viewer.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    check(viewer)


def test_the_empty_page_keeps_nobody_out(viewer, site):
    viewer.sign_in()
    assert viewer.all("#empty")
    check(viewer)


def test_the_page_of_old_numbers_keeps_nobody_out(viewer, filled):
    filled.now += timedelta(hours=3)
    viewer.sign_in()
    assert viewer.all("[role=alert]")
    check(viewer)


def test_an_error_page_keeps_nobody_out(viewer, site):
    viewer.sign_in()
    viewer.open(DASHBOARD + "?range=91d")
    check(viewer)
    viewer.expect("status of 400")


def test_the_reference_of_the_api_keeps_nobody_out(viewer):
    viewer.open("/docs")
    check(viewer)
