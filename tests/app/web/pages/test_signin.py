"""Signing in with a pasted access token: the rules of the API decide, and the token is not kept."""

import base64
import hashlib
import logging
import re
import time
import zlib
from http.cookies import SimpleCookie

import pytest
from itsdangerous import URLSafeTimedSerializer

from app.auth.page_sessions import find_session, stored_id
from app.web.pages.signin import pasted_token
from app.web.responses import PAGE_POLICY
from tests.support.pages import COOKIE, DASHBOARD, HTML, SIGNIN, SIGNOUT, place, set_cookies
from tests.support.settings import KEY
from tests.support.tokens import bearer, token

UNUSABLE = {
    "another key": lambda: token(key="k" * 40),
    "expired": lambda: token(exp=int(time.time()) - 1),
    "no expiry": lambda: token(drop="exp"),
    "for ever": lambda: token(exp=float("inf")),
    "an ID token": lambda: token(token_use="id"),
    "cut": lambda: token()[:-4],
    "no token": lambda: "correct horse battery staple",
    "markup": lambda: "<script>alert(1)</script>",
    "not ASCII": lambda: "töken",
    "with its header": lambda: "Bearer: " + token(),
}
LINK = "/signin/link"
SIGNIN_SCRIPT = '<script src="/static/signin.js" defer>'


def content(cookie):
    """What anybody who has the cookie can read in it."""
    text = cookie.lstrip(".").split(".")[0]
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return zlib.decompress(raw) if cookie.startswith(".") else raw


def test_a_pasted_token_opens_the_page_that_was_asked_for(browser):
    assert place(browser.get("/")) == DASHBOARD
    assert place(browser.get(f"{DASHBOARD}?days=7")) == SIGNIN
    assert place(browser.sign_in()) == f"{DASHBOARD}?days=7"
    page = browser.get(DASHBOARD)
    assert (page.status_code, page.mimetype) == (200, "text/html")
    assert "org-a" in page.text
    assert place(browser.get(SIGNIN)) == DASHBOARD


def test_a_token_may_be_pasted_with_the_terminals_line_breaks(browser):
    text = token()
    assert place(browser.sign_in(f"  {text[:70]}\r\n{text[70:]}\n")) == DASHBOARD


@pytest.mark.parametrize(
    "around",
    [
        *("TOKEN={}", "export TOKEN='{}'", 'ACCESS_TOKEN="{}"', "token = {};", "Bearer {}"),
        *('"Bearer {}"', "bearer  {}", "Authorization: Bearer {}", "'Authorization: Bearer {}'"),
        *("\u201c{}\u201d", "\n TOKEN={}\n\n", "`{}`".replace("`", "'"), 'Bearer "{}"'),
    ],
)
def test_a_token_may_be_pasted_as_it_is_printed(browser, around):
    """A token may be pasted with the text that stands around it in a shell or in a header."""
    assert place(browser.sign_in(around.format(token()))) == DASHBOARD


def test_a_long_text_in_place_of_a_token_is_refused_soon():
    """The time to find a token grows with the length of the text, and not with its square."""
    for text in ("'" * 60_000 + "x", "x" * 60_000, " " * 60_000 + "x", "token=" * 10_000):
        began = time.process_time()
        pasted_token(text)
        assert time.process_time() - began < 1


FORMS = {
    "no boundary": ("multipart/form-data", b"token=x"),
    "a boundary that does not come": ("multipart/form-data; boundary=x", b"token=x"),
    "a part without an end": (
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="token"\r\n\r\nabc',
    ),
    "a part without a name": (
        "multipart/form-data; boundary=x",
        b"--x\r\nContent-Disposition: form-data\r\n\r\nabc\r\n--x--\r\n",
    ),
    "a file": (
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="token"; filename="t"\r\n\r\nabc\r\n--x--',
    ),
    "a header that is none": (
        "multipart/form-data; boundary=x",
        b"--x\r\n\xff\xfe\x00:\r\n\r\nabc\r\n--x--\r\n",
    ),
    "many parts": (
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 1500 + b"--x--\r\n",
    ),
    "an unknown charset": (
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="token"\r\n'
        b"Content-Type: text/plain; charset=nonsense\r\n\r\nabc\r\n--x--\r\n",
    ),
    "a boundary of another charset": ("multipart/form-data; boundary=\xff", b"--\xff\r\n"),
    "bytes that are not UTF-8": ("application/x-www-form-urlencoded", b"token=\xff%FF%&&=\x00"),
    "JSON": ("application/json", b'{"token": "x"}'),
    "no type": ("", b"\x00\x01"),
    "a type that is none": (";;;charset", b"token=x"),
}


@pytest.mark.parametrize("path", [SIGNIN, SIGNOUT])
@pytest.mark.parametrize(("kind", "body"), FORMS.values(), ids=FORMS)
def test_a_form_that_cannot_be_parsed_is_no_server_error(browser, path, kind, body):
    """A body that is no form, or a broken one, is refused on a page, and begins no session."""
    answer = browser.client.post(
        path, data=body, headers=HTML | {"Content-Type": kind}, base_url=browser.base
    )
    assert answer.status_code in (303, 400, 413)
    assert place(browser.get(DASHBOARD)) == SIGNIN


@pytest.mark.parametrize("make", UNUSABLE.values(), ids=UNUSABLE)
def test_a_token_that_the_api_refuses_begins_no_session(browser, make, caplog):
    """A token that the API refuses begins no session and is neither shown nor logged."""
    caplog.set_level(logging.DEBUG)
    text = make()
    answer = browser.sign_in(text)
    assert answer.status_code == 401
    assert re.search(r'role="alert">The token [^<]+\.<', answer.text)
    (field,) = re.findall(r'<input id="token"[^>]*>', answer.text)
    assert "value=" not in field
    shown = answer.text + str(answer.headers) + caplog.text
    assert text not in shown
    assert place(browser.get(DASHBOARD)) == SIGNIN


def test_nothing_pasted_is_said_so(browser):
    answer = browser.sign_in(" \n")
    assert (answer.status_code, "Paste an access token first." in answer.text) == (400, True)


@pytest.mark.parametrize("pasted", ["agk_{}", "Bearer agk_{}", "Authorization: Bearer agk_{}"])
def test_a_key_begins_no_session(browser, pasted):
    """A session would outlive the key when it is revoked."""
    answer = browser.sign_in(pasted.format("k" * 44))
    assert (answer.status_code, "A key cannot sign in" in answer.text) == (400, True)
    assert "k" * 44 not in answer.text
    assert place(browser.get(DASHBOARD)) == SIGNIN


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"drop": "organization_id"}, "has no organization"),
        ({"organization_id": 7}, "organization is invalid"),
    ],
    ids=["none", "malformed"],
)
def test_a_token_without_an_organization_begins_no_session(browser, claims, said):
    """A token without a usable organization gets 403 and begins no session."""
    browser.get(f"{DASHBOARD}?days=7")
    answer = browser.sign_in(**claims)
    assert (answer.status_code, said in answer.text) == (403, True)
    assert browser.get(SIGNIN).status_code == 200
    assert place(browser.sign_in()) == f"{DASHBOARD}?days=7"


def test_the_cookie_holds_an_id_alone(browser):
    """The cookie has a random id, of which the database has the hash; nothing has the token."""
    text = token(sub="ada", scope="events:write analytics:admin")
    browser.sign_in(text)
    held = content(browser.cookie())
    for part in (text, *text.split("."), "ada", "org-a"):
        assert part.encode() not in held
    with browser.client.session_transaction(base_url=browser.base) as session:
        assert {"id", "expires"} == session.keys()
        stored = find_session(
            browser.app.extensions["analytics"].database, stored_id(session["id"])
        )
    assert (stored.tenant_id, stored.subject) == ("org-a", "ada")
    assert (stored.scopes, stored.sealed) == ({"analytics:admin"}, None)


def test_the_longest_names_fit_into_a_cookie(browser):
    longest = "".join(chr(0x10000 + 7919 * number % 0xF0000) for number in range(255))
    browser.sign_in(organization_id=longest, sub=longest * 9)
    page = browser.get(DASHBOARD)
    assert (page.status_code, longest in page.text) == (200, True)
    assert len(browser.cookie()) < 3800


def test_a_session_ends_with_its_token_and_after_its_hours(browser):
    for seconds, expected in ((600, 600), (10**8, 12 * 3600)):
        ends = int(time.time()) + seconds
        answer = browser.sign_in(exp=ends)
        (cookie,) = set_cookies(answer)
        expires = SimpleCookie(cookie)[COOKIE]["expires"]
        stamp = time.mktime(time.strptime(expires, "%a, %d %b %Y %H:%M:%S GMT")) - time.timezone
        assert expected - 30 < stamp - time.time() <= expected
        assert stamp <= ends
        browser.send(DASHBOARD, SIGNOUT)


def test_a_session_whose_token_expires_is_over_at_the_next_page(browser, monkeypatch):
    browser.sign_in()
    kept = browser.cookie()
    assert browser.get(DASHBOARD).status_code == 200
    present = time.time()
    monkeypatch.setattr("app.web.pages.sessions.time.time", lambda: present + 601)
    browser.client.set_cookie(COOKIE, kept, domain="127.0.0.1")
    assert place(browser.get(f"{DASHBOARD}?days=7")) == SIGNIN
    browser.client.set_cookie(COOKIE, kept, domain="127.0.0.1")
    assert place(browser.post(SIGNOUT)) == SIGNIN


def test_signing_out_ends_the_session_and_removes_the_cookie(browser):
    browser.sign_in()
    answer = browser.send(DASHBOARD, SIGNOUT)
    assert place(answer) == SIGNIN
    assert browser.cookie() is None
    assert place(browser.get(DASHBOARD)) == SIGNIN


def test_signing_in_keeps_nothing_of_the_session_before(browser):
    browser.sign_in(organization_id="org-b")
    with browser.client.session_transaction(base_url=browser.base) as session:
        session["planted"] = "by somebody else"
    crossing = browser.send(DASHBOARD, SIGNIN, token=token())
    assert place(crossing) == DASHBOARD
    with browser.client.session_transaction(base_url=browser.base) as session:
        assert "planted" not in session
    assert "org-a" in browser.get(DASHBOARD).text


def test_a_copied_cookie_is_worthless_after_signing_out(browser):
    """Signing out, or in again, ends the session for every copy of its cookie."""
    browser.sign_in()
    copies = [browser.cookie()]
    browser.send(DASHBOARD, SIGNIN, token=token())
    copies.append(browser.cookie())
    browser.send(DASHBOARD, SIGNOUT)
    assert [shown(browser, copy) for copy in copies] == [303, 303]


def test_each_session_sees_its_own_tenant(browser):
    """Each session sees its own tenant, even if the request names another."""
    browsers = {"org-a": browser, "org-b": browser.another()}
    for name, visitor in browsers.items():
        visitor.sign_in(organization_id=name)
    for name, visitor in browsers.items():
        (other,) = browsers.keys() - {name}
        headers = HTML | bearer(other) | {"X-Tenant-Id": other}
        page = visitor.get(
            f"{DASHBOARD}?tenant_id={other}&organization_id={other}", headers=headers
        )
        assert (name in page.text, other in page.text) == (True, False)


def test_a_cookie_that_somebody_made_up_or_altered_is_nobodys(browser):
    options = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
    browser.sign_in()
    with browser.client.session_transaction(base_url=browser.base) as session:
        made = dict(session)

    def signed(key, **changes):
        signer = URLSafeTimedSerializer(key, salt="cookie-session", signer_kwargs=options)
        return signer.dumps(made | changes)

    ours = signed(KEY)
    assert shown(browser, ours) == 200
    old = signed(KEY, id=None, tenant="org-a", subject="eve")  # as before there was a table
    invented = [signed(KEY, id="x" * 43), signed(KEY, id=7), old]
    forged = [signed(KEY[::-1]), ours.rpartition(".")[0], f"{ours[:-6]}AAAAAA", ours[1:], "x"]
    assert [shown(browser, cookie) for cookie in (*invented, *forged)] == [303] * 8


def shown(browser, cookie):
    """The status of the dashboard with this cookie."""
    browser.client.set_cookie(COOKIE, cookie, domain="127.0.0.1")
    return browser.get(DASHBOARD).status_code


def test_a_session_is_no_way_into_the_api(browser):
    browser.sign_in()
    answer = browser.get("/api/v1/analytics/tokens")
    assert (answer.status_code, answer.json["code"]) == (401, "UNAUTHORIZED")
    assert set_cookies(answer) == []


def test_pages_count_against_the_tenants_rate_limit(visit):
    browser = visit(RATE_LIMIT="2/minute")
    browser.sign_in()
    answers = [browser.get(DASHBOARD) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert (answers[2].mimetype, int(answers[2].headers["Retry-After"]) > 0) == ("text/html", True)


@pytest.mark.parametrize("allowed", ["0", "1"])
def test_tokens_are_taken_where_the_setting_allows_it(visit, allowed):
    browser = visit(DASHBOARD_TOKEN_LOGIN=allowed)
    page = browser.get(SIGNIN)
    assert ("<form" in page.text) == (allowed == "1")
    assert ("Sign-in is not configured" in page.text) == (allowed == "0")
    assert ("DASHBOARD_TOKEN_LOGIN=1" in page.text) == (allowed == "0")
    if allowed == "0":
        other = visit()
        form = other.get(SIGNIN)
        browser.client.set_cookie(COOKIE, other.cookie(), domain="127.0.0.1")
        fields = dict(re.findall(r'name="(csrf_token)" value="([^"]+)"', form.text))
        assert browser.post(SIGNIN, token=token(), **fields).status_code == 404
        assert place(browser.get(DASHBOARD)) == SIGNIN


def test_the_page_of_the_link_signs_in_again(browser):
    """The link's page has the form and its script, also for a browser with a session."""
    for _ in range(2):
        page = browser.get(LINK)
        assert page.status_code == 200
        assert page.headers["Cache-Control"] == "no-store"
        assert page.headers["Content-Security-Policy"] == PAGE_POLICY
        assert re.findall(r"<script[^>]*>", page.text) == [SIGNIN_SCRIPT]
        assert "<noscript>" in page.text
        fields = dict(re.findall(r'name="(csrf_token)" value="([^"]+)"', page.text))
        assert place(browser.post(SIGNIN, token=token("org-b"), **fields)) == DASHBOARD
    assert "org-b" in browser.get(DASHBOARD).text
    assert "<script" not in browser.another().get(SIGNIN).text


@pytest.mark.parametrize(
    "variables",
    [
        {"DASHBOARD_TOKEN_LOGIN": "0"},
        {"APP_ENV": "production", "ALLOW_SQLITE": "1", "DASHBOARD_TOKEN_LOGIN": "1"},
    ],
    ids=["no token login", "production"],
)
def test_the_link_signs_in_during_development_only(visit, variables):
    assert visit(**variables).get(LINK).status_code == 404


def test_the_provider_is_not_asked_where_none_is_set(browser):
    for path in ("/signin/oidc", "/signin/callback?code=c&state=s"):
        assert browser.get(path).status_code == 404


def test_the_line_of_a_request_names_who_signed_in(browser, caplog):
    caplog.set_level(logging.INFO, "app.request")
    browser.sign_in(sub="ada")
    browser.get(DASHBOARD)
    lines = [record.fields for record in caplog.records if record.name == "app.request"]
    assert [(line["tenant"], line["subject"]) for line in lines] == [
        (None, None),
        ("org-a", "ada"),
        ("org-a", "ada"),
    ]


@pytest.mark.parametrize("path", [SIGNIN, DASHBOARD])
def test_a_page_is_kept_by_no_cache_and_runs_nothing_of_others(browser, path):
    browser.sign_in()
    if path == SIGNIN:
        browser.send(DASHBOARD, SIGNOUT)
    page = browser.get(path)
    assert page.status_code == 200
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["Content-Security-Policy"] == PAGE_POLICY
    assert "Cookie" in page.headers["Vary"]
    assert not re.search(r"<script(?! src=\"/static/)|<style|\bstyle=|\bon[a-z]+=", page.text)
