"""Signing in as deployed: gunicorn, an access log, every detail logged, and none of it a secret."""

from http.cookiejar import CookieJar
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, HTTPRedirectHandler, Request, build_opener

import pytest

from tests.support.code_flow import CALLBACK, OIDC, consent, parameters, provided
from tests.support.idp import Issuer, client_credentials
from tests.support.idp_grants import AccessTokens
from tests.support.pages import DASHBOARD, SIGNIN, csrf_token
from tests.support.processes import PATIENCE_SECONDS, call, free_port, poll, process
from tests.support.settings import child_environ


class NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_arguments):
        return None


class Visitor:
    """A browser over HTTP that follows no redirect by itself."""

    def __init__(self, base):
        self.base = base
        self.jar = CookieJar()
        self.opener = build_opener(HTTPCookieProcessor(self.jar), NoRedirects())

    def open(self, path, **fields):
        body = urlencode(fields).encode() if fields else None
        request = Request(self.base + path, body, {"Accept": "text/html"})
        try:
            answer = self.opener.open(request, timeout=PATIENCE_SECONDS)
        except HTTPError as error:
            answer = error
        with answer:
            return answer.status, answer.headers.get("Location"), answer.read().decode()


@pytest.fixture
def issued(monkeypatch):
    """Every access token that the issuer gives out."""
    tokens = []
    make = AccessTokens.__call__

    def kept(*arguments, **options):
        answer = make(*arguments, **options)
        tokens.append(answer["access_token"])
        return answer

    monkeypatch.setattr(AccessTokens, "__call__", kept)
    return tokens


def walk(visitor, issuer):
    """Sign in by the provider, then by a token; what was secret on the way."""
    status, away, _ = visitor.open(OIDC)
    assert status == 303
    back = consent(away).removeprefix(visitor.base)
    assert back.startswith(CALLBACK)
    assert visitor.open(back)[:2] == (303, DASHBOARD)
    assert visitor.open(back)[0] == 400
    _, _, page = visitor.open(DASHBOARD)
    assert '<span class="tenant"><bdi>org-a</bdi></span>' in page
    assert visitor.open("/signout", csrf_token=csrf_token(page))[:2] == (303, SIGNIN)
    _, _, page = visitor.open(SIGNIN)
    pasted = client_credentials(issuer)
    form = {"csrf_token": csrf_token(page), "token": pasted}
    assert visitor.open(SIGNIN, **form)[:2] == (303, DASHBOARD)
    assert visitor.open(DASHBOARD)[0] == 200
    question = parameters(away)
    return {pasted, *parameters(back).values(), question["state"], question["nonce"]}


def test_signing_in_leaves_no_secret_in_logs_or_cookies(sqlite_url, issued):
    """No token, code or state is in a log or a cookie, even at the most verbose log level."""
    port = free_port()
    options = ("--access-logfile", "-", "--log-level", "debug")
    with Issuer() as issuer:
        environ = child_environ(
            sqlite_url,
            PORT=str(port),
            LOG_LEVEL="DEBUG",
            LOG_FORMAT="text",
            WEB_WORKERS="1",
            **provided(issuer),
        )
        with process("gunicorn", *options, "wsgi:app", environ=environ) as server:
            base = f"http://127.0.0.1:{port}"
            poll(lambda: call(f"{base}/ready"), lambda answer: answer[0] == 200)
            visitor = Visitor(base)
            secrets = walk(visitor, issuer)
            logged = server.log.read_text()
            cookies = "".join(str(cookie.value) for cookie in visitor.jar)
    assert f'"GET {CALLBACK} HTTP/1.1" 303' in logged
    assert f"route={CALLBACK} status=303" in logged
    assert "code_verifier" not in logged
    assert len(issued) == 2
    secrets |= {part for token in issued for part in (token, token.split(".")[2])}
    assert len(secrets) == 7
    for secret in secrets:
        assert secret not in logged
        assert secret not in cookies
