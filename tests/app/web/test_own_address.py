"""The service's own address: below a path, on another port, and from PUBLIC_URL."""

import html
import re
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.code_flow import provided
from tests.support.pages import COOKIE, DASHBOARD, HTML, SIGNIN, csrf_token, place, set_cookies
from tests.support.tokens import token

URL = "https://example.com:8443/tokens"
FORGED = HTML | {
    "Host": "evil.example",
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "444",
    "X-Forwarded-Prefix": "/evil",
    "X-Forwarded-Proto": "http",
}
MOUNTS = {
    "a public URL": ({"PUBLIC_URL": "http://example.com/tokens/"}, {}),
    "a proxy's prefix": ({"TRUSTED_PROXIES": "1"}, {"X-Forwarded-Prefix": "/tokens"}),
    "a prefix with a slash": ({"TRUSTED_PROXIES": "1"}, {"X-Forwarded-Prefix": "/tokens/"}),
}


def without_path(inner):
    """A proxy that removes ``/tokens`` from the path of a request."""

    def proxy(environ, start_response):
        environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix("/tokens")
        return inner(environ, start_response)

    return proxy


@pytest.fixture(params=MOUNTS.values(), ids=MOUNTS)
def mount(request):
    return request.param


@pytest.fixture(params=["path kept", "path removed"])
def mounted(request, mount, visit):
    """A function that requests a path of a service below ``/tokens``."""
    variables, headers = mount
    browser = visit(**variables)
    if request.param == "path removed":
        browser.app.wsgi_app = without_path(browser.app.wsgi_app)

    def send(path, method="GET", **options):
        given = {"base_url": "http://example.com", "headers": HTML | headers} | options
        return browser.client.open(f"/tokens{path}", method=method, **given)

    return send


def test_everything_stays_below_the_path(mounted):
    """Redirects, links, forms, files and the cookie stay below the path of the service."""
    assert place(mounted("/")) == f"/tokens{DASHBOARD}"
    wanted = mounted(f"{DASHBOARD}?days=7")
    assert place(wanted) == f"/tokens{SIGNIN}"
    form = mounted(SIGNIN)
    fields = {"csrf_token": csrf_token(form.text), "token": token()}
    signed_in = mounted(SIGNIN, "POST", data=fields)
    assert place(signed_in) == f"/tokens{DASHBOARD}?days=7"
    page = mounted(DASHBOARD)
    assert page.status_code == 200
    for answer in (wanted, form, signed_in):
        (cookie,) = set_cookies(answer)
        assert "Path=/tokens" in [part.strip() for part in cookie.split(";")]
    links = re.findall(r'(?:href|src|action)="([^"#]+)', form.text + page.text)
    assert len(links) > 5
    assert [link for link in links if not link.startswith("/tokens/")] == []
    assert mounted("/api/v1/openapi.json").json["servers"][0]["url"].endswith("/tokens")
    assert mounted("/api/v1/nowhere").status_code == 404


def test_a_mount_by_the_server_is_heeded(visit):
    """A WSGI server may mount the service below a path, as gunicorn does with SCRIPT_NAME."""
    browser = visit()
    mount = {"environ_overrides": {"SCRIPT_NAME": "/tokens"}}
    assert place(browser.get(DASHBOARD, **mount)) == f"/tokens{SIGNIN}"
    form = browser.get(SIGNIN, **mount)
    fields = {"csrf_token": csrf_token(form.text), "token": token()}
    answer = browser.client.post(SIGNIN, data=fields, headers=HTML, base_url=browser.base, **mount)
    assert place(answer) == f"/tokens{DASHBOARD}"


def test_a_public_url_holds_against_every_header(visit):
    """With PUBLIC_URL neither Host nor a proxy's header decides where links lead."""
    browser = visit(PUBLIC_URL=URL, TRUSTED_PROXIES="1")
    browser.base = URL
    browser.sign_in()
    page = browser.get(DASHBOARD, headers=FORGED | {"Host": "example.com:8443"})
    assert page.status_code == 200
    assert f'curl -sS -X POST "{URL}/api/v1/events"' in html.unescape(page.text)
    assert "evil" not in page.text
    (cookie,) = set_cookies(browser.another().get(SIGNIN, headers=FORGED))
    parts = [part.strip() for part in cookie.split(";")]
    assert parts[0].startswith(f"__Secure-{COOKIE}=")  # __Host- needs the path /
    assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/tokens"} <= set(parts)


def test_the_redirect_uri_is_the_public_one(visit, issuer):
    """The identity provider sends people back to PUBLIC_URL, whatever Host says."""
    browser = visit(PUBLIC_URL=URL, **provided(issuer))
    asked = urlsplit(place(browser.get("/signin/oidc", headers=FORGED)))
    assert parse_qs(asked.query)["redirect_uri"] == [f"{URL}/signin/callback"]


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        ("example.com", "8443", "example.com:8443"),
        ("example.com", "443", "example.com"),  # the port of https
        ("example.com:9000", "443", "example.com:9000"),  # as the browser wrote it
        ("[::1]", "8443", "[::1]:8443"),
        ("[::1]:9000", "8443", "[::1]:9000"),
        ("example.com", "8443, 9443", "example.com:9443"),
        *(("example.com", bad, "example.com") for bad in ("", "x", "-1", "0", "123456", "80 80")),
    ],
)
def test_a_proxys_port_completes_the_host(visit, issuer, host, port, expected):
    """X-Forwarded-Port is the port of links if the host has none."""
    browser = visit(TRUSTED_PROXIES="1", **provided(issuer))
    headers = HTML | {"Host": host, "X-Forwarded-Port": port, "X-Forwarded-Proto": "https"}
    asked = urlsplit(place(browser.client.get("/signin/oidc", headers=headers)))
    assert parse_qs(asked.query)["redirect_uri"] == [f"https://{expected}/signin/callback"]


@pytest.mark.parametrize(
    "prefix",
    [
        *("//evil.example", "evil", "/\\evil", "/a//b", "/a b", "/%2e", "/..", "/a/../b", "/."),
        *("https://evil.example", "/a?b", "/a#b", "/ü", "/", ""),
    ],
)
def test_a_prefix_that_is_no_path_is_ignored(visit, prefix):
    """A prefix that could lead to another host, or is no plain path, is ignored."""
    headers = HTML | {"X-Forwarded-Prefix": prefix.encode().decode("latin-1")}
    browser = visit(TRUSTED_PROXIES="1")
    assert place(browser.get("/", headers=headers)) == DASHBOARD


def test_without_trusted_proxies_no_header_moves_the_service(visit):
    browser = visit()
    assert place(browser.get("/", headers=FORGED)) == DASHBOARD
