"""The way through an identity provider, as a browser goes it."""

from http.client import HTTPConnection
from urllib.parse import parse_qs, urlsplit

from werkzeug.test import TestResponse

from tests.support.idp import TIMEOUT_SECONDS, Issuer
from tests.support.idp_grants import BROWSER
from tests.support.pages import Browser, place

OIDC, CALLBACK = "/signin/oidc", "/signin/callback"


def provided(issuer: Issuer, **variables: str) -> dict[str, str]:
    """The variables of a service whose people sign in at ``issuer``."""
    return {
        "JWT_JWKS_URL": issuer.jwks_url,
        "JWT_ISSUER": issuer.url,
        "JWT_AUDIENCE": issuer.audience,
        "OIDC_ISSUER": issuer.url,
        "OIDC_CLIENT_ID": BROWSER.client_id,
    } | variables


def consent(url: str) -> str:
    """Where the provider sends the browser back to."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.netloc, timeout=TIMEOUT_SECONDS)
    connection.request("GET", f"{parts.path}?{parts.query}")
    answer = connection.getresponse()
    location = answer.headers["Location"]
    connection.close()
    assert location, answer.status
    return location


def asked(answer: TestResponse) -> dict[str, str]:
    """What the redirect to the provider asks of it."""
    return parameters(place(answer))


def parameters(url: str) -> dict[str, str]:
    return {name: value for name, (value,) in parse_qs(urlsplit(url).query).items()}


def go(browser: Browser) -> str:
    """To the provider and back to the service's door."""
    back = consent(place(browser.get(OIDC)))
    assert back.startswith(f"{browser.base}{CALLBACK}?")
    return back.removeprefix(browser.base)


def sign_in(browser: Browser) -> TestResponse:
    """The whole way."""
    return browser.get(go(browser))


def check_problem(answer: TestResponse, status: int, said: str) -> None:
    """The sign-in page, with a sentence and a way to try again."""
    assert (answer.status_code, answer.mimetype) == (status, "text/html")
    assert said in answer.text
    assert f'href="{OIDC}"' in answer.text
    assert answer.headers["Cache-Control"] == "no-store"
