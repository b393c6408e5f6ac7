"""An identity provider in trouble: a sentence for people, a name in the log, no traceback."""

import json
import logging
import socket
import subprocess
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from app import __version__
from app.auth import jwks as keys
from app.auth import provider
from app.config.settings import ROOT
from app.errors import SettingsError
from tests.support.certificates import make_authority
from tests.support.code_flow import CALLBACK, OIDC, check_problem, go, provided, sign_in
from tests.support.jwks_server import HANGING, PATH, body, serving
from tests.support.pages import DASHBOARD, place
from tests.support.processes import PATIENCE_SECONDS, free_port
from tests.support.settings import child_environ

AWAY = "The identity provider is unavailable or its response is invalid; try again later."
REFUSED = "The identity provider refused the sign-in; try again or ask its administrator."
REFUSED_ANSWER = "s answer was refused; this service"


@pytest.fixture
def browser(visit, issuer, monkeypatch):
    monkeypatch.setattr(keys, "FETCH_SECONDS", PATIENCE_SECONDS)
    return visit(**provided(issuer))


@pytest.fixture
def stand_in():
    """A server in the provider's place: what it answers, and which paths it was asked for."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.reply()

        def do_POST(self):
            self.reply()

        def reply(self):
            server.asked[self.path] += 1
            status, headers, body = server.answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.asked = Counter()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def lost_browser(visit, issuer, stand_in):
    """A browser at a service whose provider is the stand-in."""
    return visit(**provided(issuer, OIDC_ISSUER=stand_in.url))


def request_lines(caplog):
    return [record.fields for record in caplog.records if record.name == "app.request"]


def test_an_unavailable_or_silent_provider_is_503(visit, issuer, monkeypatch):
    """Signing in gets a 503 from an unavailable provider, and the next attempt asks it again."""
    monkeypatch.setattr(provider, "TIMEOUT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port in (free_port(), silent.getsockname()[1]):
            browser = visit(**provided(issuer, OIDC_ISSUER=f"http://127.0.0.1:{port}"))
            for _ in range(2):
                answer = browser.get(OIDC)
                check_problem(answer, 503, AWAY)
                assert int(answer.headers["Retry-After"]) > 0


@pytest.mark.parametrize(
    "answer",
    [
        (500, {}, b"broken"),
        (404, {}, b"{}"),
        (200, {}, b"<html>"),
        (200, {}, b"[]"),
        (200, {}, b"null"),
        (200, {}, b'{"issuer": "https://other.test"}'),
        (200, {}, b"OURS"),
        (200, {}, b"\xff\xfe"),
        (302, {"Location": "/elsewhere"}, b""),
        (307, {"Location": "/elsewhere"}, b"OURS"),
    ],
)
def test_an_invalid_provider_description_is_refused(visit, issuer, stand_in, caplog, answer):
    """An invalid provider description is refused, and its redirects are not followed."""
    caplog.set_level(logging.INFO)
    ours = json.dumps({"issuer": stand_in.url}).encode()
    *head, body = answer
    stand_in.answer = (*head, body.replace(b"OURS", ours))
    browser = visit(**provided(issuer, OIDC_ISSUER=stand_in.url))
    is_json = body[:1] in (b"[", b"n", b"{", b"O") and answer[0] == 200
    for _ in range(2):
        problem = (403, REFUSED_ANSWER) if is_json else (503, AWAY)
        check_problem(browser.get(OIDC), *problem)
    assert set(stand_in.asked) == {"/.well-known/openid-configuration"}
    assert [bool(line["cause"]) for line in request_lines(caplog)] == [True, True]
    assert "Traceback" not in caplog.text


CAUSES = [
    ((500, {}, b"broken"), "status 500"),
    ((404, {}, b"{}"), "status 404"),
    ((302, {"Location": "/elsewhere"}, b""), "status 302"),
    ((200, {}, b"<html>"), "not JSON"),
    ((200, {}, b"x" * (2**20 + 1)), "too large"),
]


@pytest.mark.parametrize("case", CAUSES, ids=lambda case: case[1])
def test_a_failed_request_of_a_sign_in_has_its_cause(lost_browser, stand_in, caplog, case):
    """The log tells an operator what the provider answered, as for a failed fetch of keys."""
    caplog.set_level(logging.INFO)
    stand_in.answer, cause = case
    check_problem(lost_browser.get(OIDC), 503, AWAY)
    assert request_lines(caplog)[-1]["cause"] == cause


def test_an_unreachable_provider_has_its_cause(visit, issuer, caplog):
    """A refused connection and an unknown name have different causes."""
    caplog.set_level(logging.INFO)
    places = [f"http://127.0.0.1:{free_port()}", "http://idp.invalid"]
    for place_of_provider in places:
        browser = visit(**provided(issuer, OIDC_ISSUER=place_of_provider))
        check_problem(browser.get(OIDC), 503, AWAY)
    causes = [line["cause"] for line in request_lines(caplog)]
    assert causes == ["connection refused", "name not resolved"]


@pytest.mark.parametrize("way", HANGING.values(), ids=HANGING)
def test_a_sign_in_waits_for_no_endless_response(visit, issuer, monkeypatch, caplog, way):
    """The limit is for the whole response, however often a byte of it arrives."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(provider, "TIMEOUT_SECONDS", 0.5)
    with serving() as stand_in:
        stand_in.answer = way
        browser = visit(**provided(issuer, OIDC_ISSUER=stand_in.url.removesuffix(PATH)))
        check_problem(browser.get(OIDC), 503, AWAY)
    assert request_lines(caplog)[-1]["cause"] == "timeout"


@pytest.mark.parametrize("variable", [None, "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_signing_in_trusts_the_authorities_of_key_sets(visit, issuer, tmp_path, caplog, variable):
    """One setting decides whose certificates are trusted, for key sets and for sign-in."""
    caplog.set_level(logging.INFO)
    authority = make_authority(tmp_path)
    trusted = {variable: str(authority.file)} if variable else {}
    with serving(tls=authority.server_context()) as stand_in:
        base = stand_in.url.removesuffix(PATH)
        names = ("authorization_endpoint", "token_endpoint", "jwks_uri")
        metadata = {"issuer": base} | dict.fromkeys(names, f"{base}/authorize")
        stand_in.answer = body(json.dumps(metadata))
        browser = visit(**provided(issuer, OIDC_ISSUER=base), **trusted)
        answer = browser.get(OIDC)
        if variable:
            assert answer.headers["Location"].startswith(f"{base}/authorize?")
            assert stand_in.agents == [f"agentidp-analytics/{__version__}"]
        else:
            check_problem(answer, 503, AWAY)
            assert request_lines(caplog)[-1]["cause"].startswith("certificate (")


def test_an_invalid_file_of_authorities_stops_the_start(visit, issuer):
    """The start names the variable, before a person tries to sign in."""
    with pytest.raises(SettingsError, match=r"^SSL_CERT_FILE "):
        visit(**provided(issuer, SSL_CERT_FILE="/nowhere/authority.pem"))


@pytest.mark.parametrize(
    "answer",
    [
        (500, {}, b"broken"),
        (429, {}, b"<html>slow down</html>"),
        (200, {}, b"[]"),
        (200, {}, b"{}"),
        (200, {}, b'{"access_token": "x", "token_type": "Bearer"}'),
        (200, {}, b'{"access_token": "x", "id_token": "y"}'),
        (200, {}, b'{"access_token": 7, "id_token": {}}'),
        (400, {}, b'{"error": "invalid_grant", "error_description": "secret words"}'),
        (401, {}, b'{"error": "invalid_client"}'),
        (400, {}, b'{"error": {"error": ["secret words"]}}'),
        (307, {"Location": "/elsewhere"}, b""),
    ],
)
def test_a_failing_token_endpoint_begins_no_session(issuer, browser, stand_in, caplog, answer):
    """A failing token endpoint shows a sentence and begins no session."""
    caplog.set_level(logging.INFO)
    issuer.described = {"token_endpoint": f"{stand_in.url}/token"}
    stand_in.answer = answer
    problem = (503, AWAY)
    if b'"error"' in answer[2]:
        problem = (403, REFUSED)
    elif answer[0] == 200:
        problem = (403, REFUSED_ANSWER)
    check_problem(sign_in(browser), *problem)
    assert stand_in.asked == {"/token": 1}
    assert request_lines(caplog)[-1]["cause"]
    assert "secret words" not in caplog.text + repr(request_lines(caplog))
    assert browser.get(DASHBOARD).status_code == 303


@pytest.mark.parametrize("error", ["access_denied", "server_error", "<script>", "tok\x1ben"])
def test_the_providers_error_text_is_not_repeated(browser, error, caplog):
    """The provider's description of an error is neither shown nor logged."""
    caplog.set_level(logging.DEBUG)
    browser.get(OIDC)
    text = {"error": error, "error_description": "<b>their words</b>", "state": "s"}
    answer = browser.get(CALLBACK, query_string=text)
    words = {"access_denied": "denied the sign-in", "server_error": "failed; try again in a minute"}
    check_problem(answer, 403, words.get(error, REFUSED))
    logged = caplog.text + repr([vars(record) for record in caplog.records])
    assert "their words" not in answer.text + logged
    known = error in ("access_denied", "server_error")
    assert request_lines(caplog)[-1]["cause"] == (error if known else "unknown error")


def test_a_hanging_provider_holds_half_of_the_threads(visit, issuer):
    """A hanging provider holds at most half of the threads."""
    browser = visit(**provided(issuer, WEB_THREADS="4"))
    door = go(browser)
    turns = browser.app.extensions["analytics_provider"].slots
    with turns, turns:
        for path in (door, OIDC):
            check_problem(browser.get(path), 503, "Too many sign-ins at this moment")
    assert place(sign_in(browser)) == DASHBOARD


def test_unavailable_keys_are_fetched_again(issuer, browser, monkeypatch):
    """Signing in gets a 503 without the provider's keys; the next attempt fetches them."""
    monkeypatch.setattr(keys, "REFETCH_SECONDS", 0)
    door = go(browser)
    issuer.go_away()
    check_problem(browser.get(door), 503, AWAY)
    issuer.come_back()
    assert place(sign_in(browser)) == DASHBOARD


def test_signing_in_is_imported_only_when_needed(sqlite_url):
    """Without a sign-in, its module is not imported."""
    script = "import sys, wsgi; print([m for m in sys.modules if m == 'app.web.pages.oidc'])"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=child_environ(sqlite_url),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
