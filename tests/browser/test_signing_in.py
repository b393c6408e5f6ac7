"""Signing in, out, and in again when the token has ended."""

import time

from selenium.webdriver import Keys

from tests.support.code_flow import provided
from tests.support.idp import Issuer
from tests.support.pages import DASHBOARD, SIGNIN
from tests.support.tokens import token


def test_a_pasted_token_opens_the_page_that_was_asked_for(person, filled):
    person.sign_in("/dashboard?days=7&sort=name")
    assert person.texts("h1 ~ p") == ["org-a"]
    assert len(person.all(".bars g")) == 7


def test_enter_sends_a_pasted_line(person, filled):
    """A line as the terminal prints it is pasted, and Enter signs in."""
    person.open(DASHBOARD)
    person.evaluate("document.getElementById('token').focus()")
    person.cdp("Input.insertText", text=f"TOKEN={token()}\n")
    person.keys(Keys.ENTER)
    person.wait_for(DASHBOARD)


def test_a_bad_token_is_refused_with_a_reason(person, filled):
    """A bad token is refused with a reason, and a good one then signs in."""
    person.open(DASHBOARD)
    person.paste("no.good.token")
    person.until(lambda: person.all("#problem"))
    assert person.one("#problem").text
    assert person.one("#token").get_attribute("aria-invalid") == "true"
    assert person.one("#token").get_attribute("value") == ""
    person.expect("status of 401")
    person.paste(token())
    person.wait_for(DASHBOARD)


def test_signing_in_at_a_provider_shows_the_organization(serve, sit_down):
    """Signing in at an identity provider shows the dashboard of the organization in its token."""
    with Issuer() as issuer:
        site = serve(**provided(issuer))
        site.issue(tenant="org-of-ada")
        site.roll_up()
        issuer.claims = {"organization_id": "org-of-ada"}
        person = sit_down(site)
        person.open("/dashboard?days=90")
        person.press("a.button")
        person.wait_for("/dashboard?days=90")
        assert person.texts("h1 ~ p") == ["org-of-ada"]


def test_an_expired_token_leads_back_after_signing_in(person, filled):
    """After a token expires, signing in again opens the requested page."""
    ends = int(time.time()) + 6
    person.sign_in(exp=ends)
    person.until(lambda: time.time() > ends)
    person.press("nav.choices a:last-child")
    person.wait_for(SIGNIN)
    person.paste(token())
    person.wait_for("/dashboard?days=90")


def test_signing_out_shows_nothing_of_it_behind_the_back_button(person, filled):
    person.sign_in()
    person.press("header button")
    person.wait_for(SIGNIN)
    person.browser.back()
    person.wait_for(SIGNIN)
    person.open(DASHBOARD)
    person.wait_for(SIGNIN)
