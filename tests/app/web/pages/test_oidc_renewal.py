"""Sessions of an identity provider: renewed while it lasts, and ended for good."""

import re
import threading
import time
from html import unescape

import pytest
import sqlalchemy as sa

from app.auth import page_sessions as sessions_module
from app.storage.tables import page_sessions
from jobs.retention import purge_events
from tests.support.code_flow import CALLBACK, OIDC, asked, parameters
from tests.support.pages import COOKIE, DASHBOARD, SIGNIN, SIGNOUT, csrf_token, heading, place
from tests.support.scripted_idp import LOGOUT_EVENT, sign_in

BACKCHANNEL, FORM = "/signout/backchannel", "/signin/form"
AGENT = "/dashboard/agent?agentId=a1"
LAPSED = 400  # seconds, after which an access token of 300 is over


@pytest.fixture
def visit(visit_provider):
    return visit_provider


@pytest.fixture
def later(monkeypatch):
    """Let time pass for the service; the provider's keeps up."""
    real, passed = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + passed[0])

    def later(seconds):
        passed[0] += seconds

    return later


def rows(browser):
    database = browser.app.extensions["analytics"].database
    with database.reading() as connection:
        return connection.execute(sa.select(page_sessions)).all()


def with_cookie(browser, cookie):
    copy = browser.another()
    copy.client.set_cookie(COOKIE, cookie, domain="127.0.0.1")
    return copy


def grants(provider):
    return [form["grant_type"] for form in provider.forms("/token")]


# Refresh tokens


def test_a_refresh_token_renews_the_session_unseen(visit, provider, later):
    """Each refresh token is used once, and the next one is stored, encrypted."""
    provider.refreshes = True
    browser = visit(**provider.variables(OIDC_SCOPE="openid offline_access"))
    sign_in(provider, browser)
    for _ in range(3):
        later(LAPSED)
        assert heading(browser) == "org-a"
        assert heading(browser) == "org-a"
    assert grants(provider) == ["authorization_code", *["refresh_token"] * 3]
    used = [form["refresh_token"] for form in provider.forms("/token")[1:]]
    assert len(set(used)) == 3
    (row,) = rows(browser)
    held = " ".join(map(str, row))
    for secret in (*used, *provider.refresh_tokens, "eyJhbGciOi"):
        assert secret not in held + browser.cookie()


def test_a_renewal_brings_what_the_provider_says_now(visit, provider, later):
    """Scopes and organizations are those of now, and the choice stays while it is among them."""
    provider.refreshes, provider.claims = True, {"orgs": ["org-a", "org-b"], "groups": ["x"]}
    browser = visit(**provider.variables(OIDC_ADMIN_CLAIM="groups:x"))
    sign_in(provider, browser)
    browser.send("/signin/organization", "/signin/organization", organization="org-b")
    later(LAPSED)
    provider.claims |= {"groups": []}
    assert heading(browser) == "org-b"
    assert rows(browser)[0].scopes == ""
    later(LAPSED)
    provider.claims = {"orgs": "org-c"}
    assert heading(browser) == "org-c"
    later(LAPSED)
    provider.claims = {"orgs": []}
    assert browser.get(DASHBOARD).status_code == 403
    assert (place(browser.get(DASHBOARD)), rows(browser)) == (SIGNIN, [])


def test_a_renewal_may_bring_no_id_token(visit, provider, later):
    """Then userinfo says what the person may do now, and the first ID token what it does not."""
    provider.refreshes = True
    browser = visit(**provider.variables())
    sign_in(provider, browser)
    provider.token, provider.info = {"id_token": None}, {"orgs": "org-b"}
    later(LAPSED)
    assert heading(browser) == "org-b"
    provider.info = {}
    later(LAPSED)
    assert heading(browser) == "org-a"


def test_one_request_uses_a_refresh_token(visit, provider, later):
    """Requests of a session at the same time do not use a refresh token twice."""
    provider.refreshes = True
    browser = visit(**provider.variables())
    sign_in(provider, browser)
    later(301)
    answers, go_on, own = [], threading.Event(), provider._document

    def slow(path, form):
        if form.get("grant_type") == "refresh_token":
            go_on.wait(5)
        return own(path, form)

    provider._document = slow
    copy = with_cookie(browser, browser.cookie())
    first = threading.Thread(target=lambda: answers.append(heading(copy)))
    first.start()
    for _ in range(200):
        if "refresh_token" in grants(provider):
            break
        time.sleep(0.02)
    assert heading(browser) == "org-a"  # it does not wait
    later(20)
    assert browser.get(DASHBOARD).status_code == 503  # but not for long
    go_on.set()
    first.join()
    assert answers == ["org-a"]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_refused_refresh_token_leads_to_the_provider(visit, provider, later, method):
    """A revoked session is over here, until the provider signs the person in again."""
    provider.refreshes = True
    browser = visit(**provider.variables())
    sign_in(provider, browser)
    form = csrf_token(browser.get(DASHBOARD).text)
    provider.refresh_tokens.clear()
    later(LAPSED)
    if method == "GET":
        url = place(browser.get(f"{DASHBOARD}?days=7"))
    else:
        url = left(browser.post(AGENT, csrf_token=form, name="n"))
    assert parameters(url)["response_type"] == "code"
    assert "prompt" not in parameters(url)
    assert parameters(place(browser.get(DASHBOARD)))["prompt"] == "none"
    assert rows(browser)[0].sealed is None
    back = provider.consent(url).removeprefix(browser.base)
    assert place(browser.get(back)) == (f"{DASHBOARD}?days=7" if method == "GET" else FORM)


def test_an_unavailable_provider_renews_nothing(visit, provider, later):
    """The session is neither renewed nor lost."""
    provider.refreshes = True
    browser = visit(**provider.variables())
    sign_in(provider, browser)
    later(LAPSED)
    provider.instead["/token"] = (500, {}, b"")
    for _ in range(2):
        assert browser.get(DASHBOARD).status_code == 503
    del provider.instead["/token"]
    assert heading(browser) == "org-a"


@pytest.mark.parametrize("changed", [{"sub": "eve"}, {"aud": "evil"}, {"iss": "https://x.test"}])
def test_a_wrong_id_token_of_a_renewal_ends_the_session(visit, provider, later, changed):
    provider.refreshes = True
    browser = visit(**provider.variables())
    sign_in(provider, browser)
    later(LAPSED)
    provider.claims |= changed
    assert browser.get(DASHBOARD).status_code == 403
    assert rows(browser) == []


# Without a refresh token


def test_without_a_refresh_token_the_provider_is_asked_silently(visit, provider, later):
    """The browser comes back to the same page with the same choice."""
    provider.claims = {"orgs": ["org-a", "org-b"]}
    browser = visit(**provider.variables())
    sign_in(provider, browser)
    browser.send("/signin/organization", "/signin/organization", organization="org-b")
    (before,) = rows(browser)
    later(LAPSED)
    url = place(browser.get(f"{DASHBOARD}?days=7"))
    assert parameters(url)["prompt"] == "none"
    back = provider.consent(url).removeprefix(browser.base)
    assert place(browser.get(back)) == f"{DASHBOARD}?days=7"
    assert heading(browser) == "org-b"
    (after,) = rows(browser)
    assert before.renew_at < after.renew_at
    assert before.expires_at == after.expires_at  # without a page the session becomes no longer


def test_several_tabs_are_renewed_at_once(visit, provider, later):
    """Each goes on where it was, although the tabs have begun with the same cookie."""
    browser = visit(**provider.variables())
    sign_in(provider, browser)
    later(LAPSED)
    cookie, ways = browser.cookie(), {}
    for days in ("7", "28"):
        tab = with_cookie(browser, cookie)
        path = f"{DASHBOARD}?days={days}"
        ways[path] = provider.consent(place(tab.get(path))).removeprefix(browser.base)
    for path, back in ways.items():
        assert place(browser.get(back)) == path
    assert browser.get(back).status_code == 403  # the code is used up
    assert heading(browser) == "org-a"


def test_a_silent_sign_in_is_for_its_session(visit, provider, later):
    """Another browser, and this one after a sign-out, cannot finish it."""
    browser = visit(**provider.variables())
    other = browser.another()
    sign_in(provider, browser)
    sign_in(provider, other)
    form = csrf_token(browser.get(DASHBOARD).text)
    later(LAPSED)
    back = provider.consent(place(browser.get(DASHBOARD))).removeprefix(browser.base)
    assert other.get(back).status_code == 400
    browser.post(SIGNOUT, csrf_token=form)
    assert browser.get(back).status_code == 400
    assert heading(browser) is None


def test_a_provider_that_must_ask_shows_its_page_at_once(visit, provider, later):
    """Our own page is not between, and the session is a new one then."""
    browser = visit(**provider.variables())
    sign_in(provider, browser)
    (before,) = rows(browser)
    later(LAPSED)
    silent = place(browser.get(f"{DASHBOARD}?days=7"))
    url = place(browser.get(provider.refuse(silent, "login_required").removeprefix(browser.base)))
    assert "prompt" not in parameters(url)
    back = provider.consent(url).removeprefix(browser.base)
    assert place(browser.get(back)) == f"{DASHBOARD}?days=7"
    (after,) = rows(browser)
    assert after.expires_at > before.expires_at


def test_another_person_gets_nothing_of_the_one_before(visit, provider, later):
    """Neither the choice nor the form, if the provider signs somebody else in."""
    provider.claims = {"orgs": ["org-a", "org-b"]}
    browser = visit(**provider.variables())
    sign_in(provider, browser)
    browser.send("/signin/organization", "/signin/organization", organization="org-b")
    form = csrf_token(browser.get(DASHBOARD).text)
    later(LAPSED)
    url = left(browser.post(AGENT, csrf_token=form, name="private"))
    provider.subject = "eve"
    back = provider.consent(url).removeprefix(browser.base)
    assert place(browser.get(back)) == "/signin/organization"
    assert place(browser.get(FORM)) == DASHBOARD


def left(answer):
    """Where a page leads that a form has led to."""
    found = re.search(r'http-equiv="refresh" content="0;url=([^"]+)"', answer.text)
    assert (answer.status_code, bool(found)) == (200, True), answer.text
    return unescape(found[1])


def test_a_form_comes_back_after_a_renewal(visit, provider, later):
    """What was typed is shown once the provider has signed the person in, to be sent again."""
    browser = visit(**provider.variables())
    sign_in(provider, browser)
    form = csrf_token(browser.get(DASHBOARD).text)
    later(LAPSED)
    typed = "<Billing> & \u00e9"
    url = left(browser.post(AGENT, csrf_token=form, name=typed, lifetime="60"))
    assert typed not in str(rows(browser))
    assert place(browser.get(provider.consent(url).removeprefix(browser.base))) == FORM
    page = browser.get(FORM).text
    assert f'action="{AGENT}"' in page
    fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', page))
    assert unescape(fields.pop("name")) == typed
    assert fields.pop("lifetime") == "60"
    answer = browser.post(AGENT, name=typed, lifetime="60", **fields)
    assert answer.status_code == 403  # the form has arrived: this person may not name agents
    assert place(browser.get(FORM)) == DASHBOARD


def test_a_form_without_its_token_is_not_kept(visit, provider, later):
    browser = visit(**provider.variables())
    sign_in(provider, browser)
    later(LAPSED)
    assert browser.post(AGENT, name="planted").status_code == 400
    assert rows(browser)[0].form is None


def test_a_refresh_of_cards_does_not_follow_the_provider(visit, provider, later):
    """The answer to the script asks it to load its page again, which then goes to the provider."""
    browser = visit(**provider.variables())
    sign_in(provider, browser)
    later(LAPSED)
    told = place(browser.get(f"{DASHBOARD}?live=1"))
    assert told == f"{SIGNIN}?live=1"
    assert browser.get(told).status_code == 200
    assert parameters(place(browser.get(DASHBOARD)))["prompt"] == "none"


def test_a_session_lasts_its_hours_and_no_longer(visit, provider, later):
    provider.refreshes = True
    browser = visit(**provider.variables(SESSION_HOURS="2"))
    sign_in(provider, browser)
    kept = browser.cookie()
    later(2 * 3600 - 60)
    assert heading(browser) == "org-a"
    later(61)
    assert place(with_cookie(browser, kept).get(DASHBOARD)) == SIGNIN


# Signing out


def test_signing_out_ends_the_providers_session_too(visit, provider):
    """RP-Initiated Logout 1.0, and afterwards the provider lets people choose their account."""
    provider.refreshes = True
    provider.described = {
        "end_session_endpoint": f"{provider.url}/bye?x=1",
        "revocation_endpoint": f"{provider.url}/revoke",
    }
    browser = visit(**provider.variables())
    sign_in(provider, browser)
    kept = browser.cookie()
    url = left(browser.send(DASHBOARD, SIGNOUT))
    assert url.startswith(f"{provider.url}/bye?x=1&")
    sent = parameters(url)
    assert sent["post_logout_redirect_uri"] == f"{browser.base}{SIGNIN}"
    assert sent["client_id"] == "dashboard"
    assert sent["id_token_hint"].startswith("eyJ")
    assert provider.forms("/revoke")[0]["token"] in provider.refresh_tokens
    assert rows(browser) == []
    assert place(with_cookie(browser, kept).get(DASHBOARD)) == SIGNIN
    assert browser.get(SIGNIN).status_code == 200
    assert asked(browser.get(OIDC))["prompt"] == "select_account"
    sign_in(provider, browser)
    assert "prompt" not in asked(browser.another().get(OIDC))


@pytest.mark.parametrize(
    ("prompts", "asked_for"),
    [(None, "select_account"), (["none", "login"], "login"), ([], None)],
)
def test_the_next_sign_in_asks_for_the_account(visit, provider, prompts, asked_for):
    """As far as the provider says that it can. An error does not repeat it."""
    provider.described = {"prompt_values_supported": prompts}
    browser = visit(**provider.variables())
    sign_in(provider, browser)
    assert place(browser.send(DASHBOARD, SIGNOUT)) == SIGNIN
    url = place(browser.get(OIDC))
    assert parameters(url).get("prompt") == asked_for
    browser.get(provider.refuse(url, "invalid_request").removeprefix(browser.base))
    assert "prompt" not in asked(browser.get(OIDC))


@pytest.mark.parametrize("path", ["/revoke", "/.well-known/openid-configuration"])
def test_an_unavailable_provider_keeps_nobody_signed_in(visit, provider, path):
    provider.refreshes = True
    provider.described = {"revocation_endpoint": f"{provider.url}/revoke"}
    browser = visit(**provider.variables())
    sign_in(provider, browser)
    form = csrf_token(browser.get(DASHBOARD).text)
    browser.app.extensions["analytics_provider"].client._fetched = float("-inf")
    provider.instead[path] = (302, {"Location": "/"}, b"")
    assert place(browser.post(SIGNOUT, csrf_token=form)) == SIGNIN
    assert rows(browser) == []


# Back-channel logout


def logout(browser, token):
    return browser.client.post(BACKCHANNEL, data={"logout_token": token}, base_url=browser.base)


def test_the_provider_ends_a_persons_sessions(visit, provider):
    browser, others = visit(**provider.variables()), []
    sign_in(provider, browser)
    provider.subject = "eve"
    others.append(browser.another())
    sign_in(provider, others[0])
    answer = logout(browser, provider.logout_token(sub="ada"))
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    assert "Set-Cookie" not in answer.headers
    assert (place(browser.get(DASHBOARD)), heading(others[0])) == (SIGNIN, "org-a")


def test_the_provider_ends_one_session_of_a_person(visit, provider):
    """A session of the provider ends those here that it began, and others go on."""
    browsers = [visit(**provider.variables())]
    browsers += [browsers[0].another(), browsers[0].another()]
    for sid, browser in zip(("s1", "s2", None), browsers, strict=True):
        provider.claims = {"orgs": "org-a", "sid": sid}
        sign_in(provider, browser)
    assert logout(browsers[0], provider.logout_token(sid="s1", sub=None)).status_code == 200
    assert [heading(browser) for browser in browsers] == [None, "org-a", "org-a"]
    # Here the ID token did not name the session, so all of the person are meant.
    assert logout(browsers[0], provider.logout_token(sid="s3")).status_code == 200
    assert [heading(browser) for browser in browsers] == [None, "org-a", None]


def test_a_replayed_logout_ends_no_later_session(visit, provider):
    """A logout token ends the sessions that began before it, by the provider's clock."""
    browser = visit(**provider.variables())
    sign_in(provider, browser)
    token = provider.logout_token(iat=int(time.time()) - 5)
    provider.claims |= {"iat": int(time.time()) - 1}
    sign_in(provider, browser)
    assert logout(browser, token).status_code == 200
    assert heading(browser) == "org-a"


@pytest.mark.parametrize(
    "claims",
    [
        *({"iss": "https://evil.test"}, {"aud": "evil"}, {"nonce": "n"}, {"events": None}),
        *({"events": {"http://x.test": {}}}, {"events": {LOGOUT_EVENT: 1}}, {"jti": None}),
        *({"sub": None}, {"sub": 7}, {"iat": None}, {"iat": 1}, {"iat": 9e9}, {"exp": 1}),
    ],
    ids=str,
)
def test_a_wrong_logout_token_ends_nothing(visit, provider, claims):
    browser = visit(**provider.variables())
    sign_in(provider, browser)
    answer = logout(browser, provider.logout_token(**claims))
    assert (answer.status_code, answer.json) == (400, {"error": "invalid_request"})
    assert heading(browser) == "org-a"


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "x" * 70_000], ids=["", "x", "abc", "huge"])
def test_what_is_no_logout_token_asks_nobody(visit, provider, token):
    """No keys are fetched for a token that could not be one."""
    browser = visit(**provider.variables())
    assert logout(browser, token).status_code == 400
    assert provider.asked == []


def test_invented_keys_are_not_fetched_often(visit, provider):
    """Anybody can send logout tokens, so that an unknown kid starts a fetch only now and then."""
    browser = visit(**provider.variables())
    claims = {"iss": provider.url, "aud": "dashboard", "iat": int(time.time()), "jti": "j"}
    claims |= {"events": {LOGOUT_EVENT: {}}, "sub": "ada"}
    for number in range(5):
        assert logout(browser, provider.sign(claims, kid=f"k{number}")).status_code == 400
    assert [one.path for one in provider.asked].count("/jwks") == 1


def test_without_a_provider_there_is_no_backchannel(visit):
    assert logout(visit(), "x").status_code == 404


# The table


def test_a_changed_key_still_opens_what_the_former_one_sealed(visit, provider, later):
    """SECRET_KEY_FALLBACKS keeps sessions and their refresh tokens."""
    provider.refreshes = True
    old, new = "o" * 40, "n" * 40
    browser = visit(**provider.variables(SECRET_KEY=old))
    sign_in(provider, browser)
    same = visit(**provider.variables(SECRET_KEY=new, SECRET_KEY_FALLBACKS=old))
    same.client.set_cookie(COOKIE, browser.cookie(), domain="127.0.0.1")
    later(LAPSED)
    assert heading(same) == "org-a"
    assert grants(provider)[-1] == "refresh_token"
    other = visit(**provider.variables(SECRET_KEY=new))
    other.client.set_cookie(COOKIE, browser.cookie(), domain="127.0.0.1")
    assert place(other.get(DASHBOARD)) == SIGNIN


def test_sessions_that_are_over_are_purged(visit, provider):
    browser = visit(**provider.variables())
    sign_in(provider, browser)
    sign_in(provider, browser.another())
    database = browser.app.extensions["analytics"].database
    past = sa.update(page_sessions).where(page_sessions.c.id == rows(browser)[0].id)
    over = past.values(expires_at=rows(browser)[0].created_at)
    database.write(lambda connection: connection.execute(over))
    purge_events(database, retention_days=90)
    assert len(rows(browser)) == 1


def test_a_text_by_another_key_opens_nothing():
    sealed = sessions_module.Sealer(["k" * 40]).seal(sessions_module.ProviderTokens("i", "r"))
    other = sessions_module.Sealer(["x" * 40])
    assert other.tokens(sealed) == sessions_module.ProviderTokens()
    assert (other.form(None), other.form("nothing")) == (None, None)


def test_a_callback_of_nobody_keeps_the_session(visit, provider):
    browser = visit(**provider.variables())
    sign_in(provider, browser)
    assert browser.get(f"{CALLBACK}?code=c&state=s").status_code == 400
    assert heading(browser) == "org-a"
