"""People sign in at two real providers, work, sign out and come back, by browser."""

import time

import pytest

from tests.providers.running import OIDC_PROVIDER
from tests.providers.signing_in import Colleague, register, variables
from tests.support.pages import DASHBOARD, SIGNIN

# The shortest time for which the service believes a provider's answer is 5 seconds.
TOKEN_SECONDS, OVER_SECONDS = 2, 5.5
CHOICE = "/signin/organization"
CHANGE = f'a[href="{CHOICE}"]'


@pytest.fixture
def come(serve, sit_down, provider):
    """Somebody comes to a service with the settings of the provider's page."""

    def come(client=None, **more):
        site = serve(**variables(provider, **more))
        for tenant in ("org-a", "org-b"):
            site.issue(tenant=tenant)
        site.roll_up()
        register(provider, site, **(client or {}))
        return Colleague(sit_down(site), provider)

    return come


def wait_past_the_token():
    time.sleep(OVER_SECONDS)


def test_people_come_and_go(come):
    """One signs in and out; another one comes after, chooses an organization, and changes it."""
    somebody = come()
    person = somebody.person
    somebody.sign_in("ada")
    person.wait_for(DASHBOARD)
    assert somebody.organization() == "org-a"
    assert not person.all(CHANGE)
    somebody.sign_out()
    assert somebody.sessions() == []
    somebody.start()
    somebody.log_in("bob")
    person.wait_for(CHOICE)
    assert person.texts("option") == ["org-a", "org-b"]
    person.evaluate("document.getElementById('organization').value = 'org-b'")
    person.press("form button")
    person.wait_for(DASHBOARD)
    assert somebody.organization() == "org-b"
    (session,) = somebody.sessions()
    assert "analytics:admin" in session.scopes
    person.press(CHANGE)
    person.wait_for(CHOICE)
    person.evaluate("document.getElementById('organization').value = 'org-a'")
    person.press("form button")
    person.wait_for(DASHBOARD)
    assert somebody.organization() == "org-a"


def test_a_person_without_an_organization_is_told(come):
    somebody = come()
    somebody.start()
    somebody.log_in("eve")
    somebody.person.until(lambda: somebody.person.all("#problem"))
    assert "organization" in somebody.person.texts("#problem")[0]
    somebody.person.console()


def test_work_goes_on_past_the_tokens_end(come, provider):
    """The session is renewed with a refresh token, which the provider rotates; keys change, too."""
    provider.tell("live", AccessToken=TOKEN_SECONDS)
    somebody = come()
    person = somebody.person
    somebody.sign_in("ada")
    person.wait_for(DASHBOARD)
    sealed = {one.sealed for one in somebody.sessions()}
    for query in ("?range=7d", "?range=13w"):
        wait_past_the_token()
        provider.tell("rotate")
        person.open(f"{DASHBOARD}{query}")
        person.wait_for(f"{DASHBOARD}{query}")
        assert somebody.organization() == "org-a"
        sealed |= {one.sealed for one in somebody.sessions()}
    assert len(sealed) == 3
    cookies = " ".join(str(one) for one in person.browser.get_cookies())
    assert not any(text in cookies for text in sealed)


def test_a_session_that_the_provider_ended_leads_to_its_login(come, provider):
    """After the token's end the person has to log in, and is back where they were."""
    provider.tell("live", AccessToken=TOKEN_SECONDS)
    somebody = come()
    person = somebody.person
    somebody.sign_in("ada")
    person.wait_for(DASHBOARD)
    provider.tell("revoke")
    wait_past_the_token()
    person.open(f"{DASHBOARD}?range=7d")
    somebody.log_in("ada")
    person.wait_for(f"{DASHBOARD}?range=7d")


def test_a_copied_cookie_is_worthless_after_signing_out(come):
    somebody = come()
    person = somebody.person
    somebody.sign_in("ada")
    person.wait_for(DASHBOARD)
    copied = person.browser.get_cookie("analytics_session")
    somebody.sign_out()
    person.browser.add_cookie({name: copied[name] for name in ("name", "value", "path")})
    person.open(DASHBOARD)
    person.wait_for(SIGNIN)


def test_without_a_refresh_token_the_renewal_is_silent(come, provider):
    """The browser goes through the provider, which shows no page."""
    if provider.kind != OIDC_PROVIDER:
        pytest.skip("django-oauth-toolkit issues a refresh token with each code")
    provider.tell("live", AccessToken=TOKEN_SECONDS)
    somebody = come({"grant_types": ["authorization_code"]})
    person = somebody.person
    somebody.sign_in("ada")
    person.wait_for(DASHBOARD)
    wait_past_the_token()
    person.open(f"{DASHBOARD}?range=7d")
    person.wait_for(f"{DASHBOARD}?range=7d")
    assert somebody.organization() == "org-a"


def test_signing_out_at_the_provider_ends_the_session_here(come, provider):
    """The provider says so itself (back-channel logout)."""
    if provider.kind != OIDC_PROVIDER:
        pytest.skip("django-oauth-toolkit has no back-channel logout")
    somebody = come()
    person = somebody.person
    somebody.sign_in("ada")
    person.wait_for(DASHBOARD)
    person.browser.get(f"{provider.issuer}/session/end")
    person.press("button[name=logout]")
    person.until(lambda: somebody.sessions() == [])
    person.console()
    person.open(DASHBOARD)
    person.wait_for(SIGNIN)
