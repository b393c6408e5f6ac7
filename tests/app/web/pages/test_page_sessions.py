"""The pages' sessions: forms, cookies, redirects and access."""

import time

import pytest
from flask import Flask

from app.web.pages import sessions, signin
from tests.support.pages import (
    COOKIE,
    DASHBOARD,
    HTML,
    SIGNIN,
    SIGNOUT,
    csrf_token,
    is_local,
    place,
    set_cookies,
)
from tests.support.tokens import token

# Pages for everybody, and the callback, which asks for what only who began has.
OPEN = {"/", "/dashboard/", SIGNIN, "/signin/oidc", "/signin/callback", "/docs"}
# The provider calls the last one, with a token of its own.
OPEN |= {"/signin/link", "/signin/form", "/signout/backchannel"}
OPEN |= {"/favicon.ico", "/robots.txt", "/shared/<text:link>"}
FOR_PROGRAMS = ("/api/", "/health", "/ready", "/static/")
PROXIED = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"}


def page_rules(app: Flask):
    return [rule for rule in app.url_map.iter_rules() if not rule.rule.startswith(FOR_PROGRAMS)]


# Who is let in


def test_every_page_not_named_as_open_needs_a_session(browser):
    """Every page that is not named as open redirects to the sign-in page."""
    assert place(browser.get("/signin/form")) == DASHBOARD
    guarded = [
        (rule.rule, method)
        for rule in page_rules(browser.app)
        if rule.rule not in OPEN
        for method in rule.methods
    ]
    assert {(DASHBOARD, "GET"), (SIGNOUT, "POST")} <= set(guarded)
    for path, method in guarded:
        assert place(browser.client.open(path, method=method)) == SIGNIN


# Forms


def test_every_form_is_refused_without_its_sessions_token(browser):
    forms = [rule.rule for rule in page_rules(browser.app) if "POST" in rule.methods]
    forms.remove("/signout/backchannel")
    assert {SIGNIN, SIGNOUT} <= set(forms)
    other = browser.another()
    browser.sign_in()
    other.sign_in()
    foreign = csrf_token(other.get(DASHBOARD).text)
    csrf_token(browser.get(DASHBOARD).text)
    for path in forms:
        for fields in ({}, {"csrf_token": ""}, {"csrf_token": "x.y.z"}, {"csrf_token": foreign}):
            answer = browser.post(path, token=token(organization_id="org-b"), **fields)
            assert (path, fields, answer.status_code) == (path, fields, 400)
    page = browser.get(DASHBOARD)
    assert ("org-a" in page.text, "org-b" in page.text) == (True, False)


def test_nobody_is_signed_in_by_a_form_from_elsewhere(browser):
    answer = browser.post(SIGNIN, token=token())
    assert answer.status_code == 400
    assert "This form has expired; reload the page and try again." in answer.text
    assert place(browser.get(DASHBOARD)) == SIGNIN
    assert place(browser.post(SIGNIN, token=token(), csrf_token=csrf_token(answer.text)))


def test_a_form_stays_good_as_long_as_its_session(visit, monkeypatch):
    browser = visit(SESSION_HOURS="24")
    browser.sign_in(exp=int(time.time()) + 80_000)
    form = csrf_token(browser.get(DASHBOARD).text)
    present = time.time()
    monkeypatch.setattr(time, "time", lambda: present + 70_000)
    assert place(browser.post(SIGNOUT, csrf_token=form)) == SIGNIN
    assert browser.cookie() is None


def test_signing_out_twice_is_signed_out(browser):
    browser.sign_in()
    form = csrf_token(browser.get(DASHBOARD).text)
    for _ in range(2):
        assert place(browser.post(SIGNOUT, csrf_token=form)) == SIGNIN


def test_signing_out_needs_a_form(browser):
    browser.sign_in()
    assert browser.get(SIGNOUT).status_code == 405
    assert browser.get(DASHBOARD).status_code == 200


def test_a_form_is_no_place_for_megabytes(browser):
    answer = browser.send(SIGNIN, SIGNIN, token="x" * sessions.MAX_FORM_BYTES)
    assert (answer.status_code, answer.mimetype) == (413, "text/html")


# Cookies


@pytest.mark.parametrize("scheme", ["http", "https", "https by a proxy"])
def test_scripts_and_other_sites_get_no_cookie_and_tls_keeps_it(visit, scheme):
    base = "https://analytics.test" if scheme == "https" else "http://analytics.test"
    client = visit(TRUSTED_PROXIES="1").client
    headers = HTML | (PROXIED if "proxy" in scheme else {})
    form = client.get(SIGNIN, base_url=base, headers=headers)
    fields = {"csrf_token": csrf_token(form.text), "token": token()}
    if "proxy" in scheme:  # as the browser has it, which speaks TLS with the proxy
        client.set_cookie(f"__Host-{COOKIE}", value_of(form), domain="analytics.test")
    signed_in = client.post(SIGNIN, base_url=base, headers=headers, data=fields)
    assert place(signed_in) == DASHBOARD
    for answer in (form, signed_in):
        (cookie,) = set_cookies(answer)
        flags = {part.strip() for part in cookie.split(";")[1:]}
        assert cookie.startswith(COOKIE if scheme == "http" else f"__Host-{COOKIE}")
        assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= flags
        assert ("Secure" in flags) == (scheme != "http")
        assert not [flag for flag in flags if flag.startswith("Domain")]


def value_of(answer):
    return set_cookies(answer)[0].split(";")[0].partition("=")[2]


def test_a_scheme_that_no_trusted_proxy_names_is_not_believed(browser):
    (cookie,) = set_cookies(browser.get(SIGNIN, headers=PROXIED))
    assert "Secure" not in cookie


def test_the_cookie_before_signing_in_ends_with_the_browser(browser):
    """Before signing in, the session cookie has no expiry and ends with the browser."""
    (cookie,) = set_cookies(browser.get(SIGNIN))
    assert "expires" not in cookie.lower()
    assert "max-age" not in cookie.lower()


@pytest.mark.parametrize(
    "path",
    ["/health", "/ready", "/docs", "/api/v1/openapi.json", "/favicon.ico", "/robots.txt"],
)
def test_what_needs_no_session_opens_none(browser, path):
    browser.sign_in()
    answer = browser.get(path)
    assert answer.status_code == 200
    assert "Cookie" not in answer.headers.get("Vary", "")
    assert set_cookies(answer) == []


# Where people are sent


@pytest.mark.parametrize("path", ["/", "/dashboard/"])
def test_the_service_and_a_slash_too_many_lead_to_the_dashboard(browser, path):
    assert place(browser.get(path)) == DASHBOARD
    assert place(browser.get(f"{path}?days=7&q=a%26b")) == f"{DASHBOARD}?days=7&q=a%26b"


def test_browsers_and_crawlers_get_their_files(browser):
    """Browsers ask for an icon, and crawlers for rules, without a session."""
    icon, rules = browser.get("/favicon.ico"), browser.get("/robots.txt")
    assert (icon.status_code, icon.mimetype) == (200, "image/svg+xml")
    assert (rules.mimetype, rules.text) == ("text/plain", "User-agent: *\nDisallow: /\n")
    for answer in (icon, rules):
        assert answer.headers["Cache-Control"] == "public, max-age=86400"


@pytest.mark.parametrize(
    ("path", "query", "afterwards"),
    [
        ("/page/a b?c", "", "/page/a%20b%3Fc"),
        ("/page/\\evil.test", "", "/page/%5Cevil.test"),
        ("/page/\u00e9", "", "/page/%C3%A9"),
        ("/page/x", "next=//evil.test&y=%2F", "/page/x?next=//evil.test&y=%2F"),
        ("/page/x", "next=/\\evil.test", DASHBOARD),
        ("/page/x", "q" * 2000, DASHBOARD),
        ("//evil.test", "", "/evil.test"),
        ("///evil.test", "", "/evil.test"),
        ("/\\evil.test", "", "/%5Cevil.test"),
    ],
)
def test_signing_in_opens_the_requested_page(browser, path, query, afterwards):
    """Signing in opens the requested page, and never one of another site."""
    browser.app.add_url_rule("/<path:name>", "any", lambda name: signin.require_session())
    environ = {"PATH_INFO": path.encode().decode("latin-1"), "QUERY_STRING": query}
    begun = browser.get("/x", environ_overrides=environ)
    assert place(begun) == SIGNIN
    found = place(browser.sign_in())
    assert (found, is_local(found)) == (afterwards, True)


@pytest.mark.parametrize(
    "path",
    [
        *("//evil.test", "/\\evil.test", "\\\\evil.test", "https://evil.test", "//evil.test/%2e"),
        *(
            "javascript:alert(1)",
            "evil.test",
            "/\t/evil.test",
            "/x\r\nLocation: x",
            "",
            "@evil.test",
        ),
        *("/a\\..\\\\evil", "https:evil.test", "///evil.test", " /x"),
    ],
)
def test_a_wanted_path_that_is_none_of_ours_is_not_followed(browser, path):
    browser.get(DASHBOARD)
    with browser.client.session_transaction(base_url=browser.base) as session:
        session["wanted"] = path
    assert place(browser.sign_in()) == DASHBOARD


def test_signing_in_does_not_return_to_an_expired_form(browser):
    """Signing in leads to the last requested page, not to a form sent without a session."""
    browser.get(f"{DASHBOARD}?days=7")
    browser.post(SIGNOUT)
    assert place(browser.sign_in()) == f"{DASHBOARD}?days=7"
