"""Signing in, out, and in again when the token has ended."""

import json
import logging
import time

from selenium.webdriver import Keys

from tests.browser.serving import fill
from tests.support.code_flow import provided
from tests.support.idp import Issuer
from tests.support.pages import DASHBOARD, SIGNIN
from tests.support.scripted_idp import ScriptedProvider
from tests.support.tokens import token


def test_a_pasted_token_opens_the_page_that_was_asked_for(person, filled):
    person.sign_in("/dashboard?range=7d&vs=year")
    assert person.texts("h1 ~ p .tenant") == ["org-a"]
    assert len(person.all(".bars > *")) == 7


def test_a_link_signs_in_and_leaves_no_token_behind(person, filled, caplog):
    """The token behind the # is in no address, no history entry and no log line."""
    caplog.set_level(logging.DEBUG, "app")
    secret = token()
    person.open(f"/signin/link#{secret}")
    person.wait_for(DASHBOARD)
    assert person.texts(".tenant") == ["org-a"]
    assert "#" not in person.browser.current_url
    history = person.cdp("Page.getNavigationHistory")
    assert secret not in json.dumps(history)
    lines = [str(vars(record)) for record in caplog.records if record.name.startswith("app")]
    assert any("/signin" in line for line in lines)
    assert not any(secret in line for line in lines)


def test_a_link_replaces_the_session_that_is_there(person, filled):
    """A link that is opened again, in the same tab, signs in as the organization of its token."""
    person.sign_in()
    person.open("/signin/link")
    person.open(f"/signin/link#{token('org-b')}")
    person.wait_for(DASHBOARD)
    assert person.texts(".tenant") == ["org-b"]


def test_a_link_without_scripts_offers_to_paste(person, filled):
    person.forbid_scripts()
    person.open(f"/signin/link#{token()}")
    assert "Paste the" in person.texts("noscript")[0]
    person.paste(token())
    person.wait_for(DASHBOARD)


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
        assert person.texts("h1 ~ p .tenant") == ["org-of-ada"]


def test_a_person_chooses_is_renewed_and_signs_out(serve, sit_down):
    """A real browser follows each way to the provider and back, also from a form."""
    with ScriptedProvider(claims={"orgs": ["org-a", "org-b"], "groups": "x"}) as provider:
        provider.described = {"end_session_endpoint": f"{provider.url}/bye"}
        provider.token = {"expires_in": 6}
        site = serve(**provider.variables(OIDC_ADMIN_CLAIM="groups:x"))
        fill(site)
        person = sit_down(site)
        person.open(DASHBOARD)
        person.press("a.button")
        person.wait_for("/signin/organization")
        person.press("main button")
        person.wait_for(DASHBOARD)
        assert person.texts("h1 ~ p .tenant") == ["org-a"]
        person.open("/dashboard/agent?agentId=batch")
        ends = time.time() + 7
        (field,) = person.all("input[name=name]")
        person.until(lambda: time.time() > ends)
        field.send_keys("Billing", Keys.ENTER)
        person.wait_for("/signin/form")
        assert person.texts("dd") == ["BatchBilling"]
        person.press("main button")
        person.until(lambda: "saved=1" in person.browser.current_url)
        person.press(".bar form button")
        person.wait_for(SIGNIN)
        assert [one.path for one in provider.asked].count("/bye") == 1
        person.press("a.button")
        person.until(lambda: "/signin/organization" in person.browser.current_url)
        prompts = [asked.get("prompt") for asked in provider.codes_asked]
        assert prompts == [None, "none", "select_account"]


def test_an_expired_token_leads_back_after_signing_in(person, filled):
    """After a token expires, signing in again opens the requested page."""
    ends = int(time.time()) + 6
    person.sign_in(exp=ends)
    person.until(lambda: time.time() > ends)
    person.press(".seg a:last-of-type")
    person.wait_for(SIGNIN)
    person.paste(token())
    person.wait_for("/dashboard?range=12m")


def test_signing_out_shows_nothing_of_it_behind_the_back_button(person, filled):
    person.sign_in()
    person.press(".bar form button")
    person.wait_for(SIGNIN)
    person.browser.back()
    person.wait_for(SIGNIN)
    person.open(DASHBOARD)
    person.wait_for(SIGNIN)
