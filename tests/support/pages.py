"""A person at a browser, for the tests of pages."""

import re
from typing import Any
from urllib.parse import urljoin, urlsplit

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.support.tokens import token

COOKIE = "analytics_session"
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
DASHBOARD, SIGNIN, SIGNOUT = "/dashboard", "/signin", "/signout"


class Browser:
    """Keeps cookies, sends forms as they are on the page; follows no redirect by itself."""

    def __init__(self, client: FlaskClient, base: str = "http://127.0.0.1:5000") -> None:
        self.client = client
        self.base = base

    @property
    def app(self) -> Flask:
        return self.client.application

    def another(self) -> "Browser":
        """One at the same service, with cookies of its own."""
        return Browser(self.app.test_client(), self.base)

    def get(self, path: str, **options: Any) -> TestResponse:
        return self.client.get(path, base_url=self.base, **({"headers": HTML} | options))

    def post(self, path: str, **fields: str) -> TestResponse:
        return self.client.post(path, base_url=self.base, headers=HTML, data=fields)

    def send(self, page: str, path: str, **fields: str) -> TestResponse:
        """The form of ``page`` for ``path``, with the CSRF token that is in it."""
        return self.post(path, csrf_token=csrf_token(self.get(page).text), **fields)

    def sign_in(self, text: str | None = None, **claims: Any) -> TestResponse:
        """Paste a token."""
        return self.send(SIGNIN, SIGNIN, token=token(**claims) if text is None else text)

    def cookie(self) -> str | None:
        found = self.client.get_cookie(COOKIE, domain=str(urlsplit(self.base).hostname))
        return found and found.value


def csrf_token(page: str) -> str:
    found = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert found, page
    return found[1]


def place(answer: TestResponse) -> str:
    """Where a redirect leads: a path of the service, or another's URL."""
    assert answer.status_code in (302, 303), answer.text
    return answer.headers["Location"]


def heading(browser: Browser) -> str | None:
    """Whose dashboard the browser shows; ``None`` when it has to sign in first."""
    answer = browser.get(DASHBOARD)
    found = re.search(r'<span class="tenant"><bdi>(.*?)</bdi></span>', answer.text)
    return found[1] if found and answer.status_code == 200 else None


def set_cookies(answer: TestResponse) -> list[str]:
    return [text for text in answer.headers.getlist("Set-Cookie") if COOKIE in text]


def is_local(location: str) -> bool:
    """Whether a browser that follows it stays with the service, as browsers read URLs."""
    base = "http://service.test/signin"
    return urlsplit(urljoin(base, location.replace("\\", "/"))).netloc == "service.test"
