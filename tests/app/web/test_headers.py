"""Response headers for caching, embedding and origins; trust in proxies."""

import json
import signal
import subprocess
import sys
import time
import urllib.request

import pytest
from flask import request

from app.config.settings import ROOT, Settings
from app.errors import SettingsError
from app.factory import create_app
from app.reports import trend
from tests.support.processes import free_port
from tests.support.settings import NOW, child_environ, environment, make_settings
from tests.support.tokens import bearer

TOKENS, AGENTS = "/api/v1/analytics/tokens", "/api/v1/analytics/agents"
NAMES = "/api/v1/agents"
READS = [TOKENS, AGENTS, f"{AGENTS}/activity", NAMES]
EVENTS, DESCRIPTION = "/api/v1/events", "/api/v1/openapi.json"
PAGE, OTHER_PAGE = "https://app.example.com", "http://localhost:8080"
LOOKALIKES = [
    *("null", "*", "https://app.example.com.evil.example", "https://evil.example"),
    *("https://appxexample.com", "https://app-example.com", "https://evil-app.example.com"),
    *("http://app.example.com", "https://app.example.com:444", "https://app.example.com:443"),
    *("https://sub.app.example.com", "https://user@app.example.com", "https://app.example.com/"),
    *("https://app.example.com@evil.example", "https://evil.example/https://app.example.com"),
    *("https://app.example.co", "app.example.com", "https://app.example.com, https://evil.example"),
    *(f"{PAGE} {OTHER_PAGE}", f"{OTHER_PAGE}0", "http://localhost", "file://", "https://*"),
]


@pytest.fixture
def serve(sqlite_url):
    """A client of the service with more settings."""
    apps = []

    def serve(probe=None, **variables):
        app = create_app(make_settings(sqlite_url, **variables), clock=lambda: NOW)
        app.config["PROPAGATE_EXCEPTIONS"] = False
        if probe is not None:
            app.add_url_rule("/probe", view_func=probe)
        apps.append(app)
        return app.test_client()

    yield serve
    for app in apps:
        app.extensions["analytics"].database.dispose()


def allowed(answer):
    """The headers about other origins."""
    return {name: text for name, text in answer.headers if name.startswith("Access-Control-")}


def preflight(client, origin, path=TOKENS, method="GET"):
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "X-Evil"}
    return client.options(path, headers={"Origin": origin} | asked)


@pytest.mark.parametrize("path", READS)
def test_reports_are_private_and_revalidated(client, path):
    """Reports may only be cached privately and are revalidated on each use."""
    answer = client.get(path, headers=bearer())
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "private, no-cache"
    assert "Authorization" in answer.headers["Vary"]
    same = client.get(path, headers=bearer() | {"If-None-Match": answer.headers["ETag"]})
    assert (same.status_code, same.data) == (304, b"")
    for name in ("Cache-Control", "Vary", "ETag"):
        assert same.headers[name] == answer.headers[name]


def broken(*_arguments, **_named):
    raise RuntimeError("broken")


@pytest.fixture
def answers(client, monkeypatch):
    """One answer for each way to get one."""
    found = {
        "numbers": client.get(TOKENS, headers=bearer()),
        "HEAD": client.head(TOKENS, headers=bearer()),
        "a bad parameter": client.get(f"{TOKENS}?days=0", headers=bearer()),
        "no token": client.get(TOKENS),
        "no scope": client.post(EVENTS, json={}, headers=bearer()),
        "no route": client.get("/nowhere"),
        "no route of the API": client.get("/api/v1/nowhere", headers=bearer()),
        "no such method": client.delete(TOKENS, headers=bearer()),
        "OPTIONS": client.options(TOKENS),
        "a file": client.get("/static/nowhere.css"),
        "health": client.get("/health"),
        "ready": client.get("/ready"),
        "description": client.get(DESCRIPTION),
        "page": client.get("/docs"),
        "sign-in": client.get("/signin"),
        "a page for who signed in": client.get("/dashboard"),
        "a form without its session": client.post("/signin"),
    }
    monkeypatch.setattr(trend, "daily_tokens", broken)
    found["a bug"] = client.get(TOKENS, headers=bearer())
    return found


def test_every_answer_forbids_sniffing_referrers_and_frames(answers):
    statuses = {answer.status_code for answer in answers.values()}
    assert statuses == {200, 303, 400, 401, 403, 404, 405, 500}
    for name, answer in answers.items():
        policy = answer.headers.getlist("Content-Security-Policy")
        assert len(policy) == 1, name
        directives = [part.strip() for part in policy[0].split(";")]
        assert {"default-src 'none'", "frame-ancestors 'none'"} <= set(directives), name
        assert "unsafe" not in policy[0], name
        assert answer.headers.getlist("X-Content-Type-Options") == ["nosniff"], name
        assert answer.headers.getlist("Referrer-Policy") == ["no-referrer"], name


def test_no_error_is_stored_by_a_cache(answers):
    errors = {name: answer for name, answer in answers.items() if answer.status_code >= 400}
    assert len(errors) >= 8
    for name, answer in errors.items():
        assert (name, answer.headers["Cache-Control"]) == (name, "no-store")
        assert "ETag" not in answer.headers
        assert answer.mimetype == "text/html" or answer.json["code"], name


# Other origins


def test_without_a_setting_no_origin_is_answered(client):
    for origin in (PAGE, "null", "http://localhost"):
        for path in (*READS, DESCRIPTION, "/health", "/docs", "/api/v1/nowhere"):
            answer = client.get(path, headers=bearer() | {"Origin": origin})
            assert allowed(answer) == {}
        refused = preflight(client, origin)
        assert (refused.status_code, allowed(refused)) == (405, {})


def test_only_named_origins_may_read_and_none_with_credentials(serve):
    client = serve(CORS_ORIGINS=f"{PAGE}, {OTHER_PAGE}")
    for origin in (PAGE, OTHER_PAGE):
        for headers in (bearer(), {}):
            answer = client.get(TOKENS, headers=headers | {"Origin": origin})
            assert answer.headers.getlist("Access-Control-Allow-Origin") == [origin]
            assert "Origin" in answer.vary
            assert "Access-Control-Allow-Credentials" not in answer.headers
            assert "*" not in "".join(allowed(answer).values())
    for path in ("/health", "/ready", "/docs", "/nowhere"):
        assert allowed(client.get(path, headers={"Origin": PAGE})) == {}


def test_a_preflight_of_a_named_origin_needs_no_token(serve):
    """It is answered without a token, and allows each method that a route of the API has."""
    client = serve(CORS_ORIGINS=PAGE)
    rules = client.application.url_map.iter_rules()
    of_api = (one.methods for one in rules if one.rule.startswith("/api/v1/"))
    methods = set().union(*of_api) - {"HEAD", "OPTIONS"}
    for path, method in ((TOKENS, "GET"), (EVENTS, "POST"), (f"{NAMES}/a", "PUT")):
        answer = preflight(client, PAGE, path, method)
        assert (answer.status_code, answer.data) == (204, b"")
        shown = allowed(answer)
        assert shown["Access-Control-Allow-Origin"] == PAGE
        assert set(shown["Access-Control-Allow-Methods"].split(", ")) == methods
        assert "x-evil" not in shown.get("Access-Control-Allow-Headers", "").lower()
        assert "Access-Control-Allow-Credentials" not in shown
    assert client.options(TOKENS, headers={"Origin": PAGE}).status_code == 405


@pytest.mark.parametrize("method", ["get", "preflight"])
def test_an_origin_that_only_resembles_a_named_one_gets_nothing(serve, method):
    client = serve(CORS_ORIGINS=f"{PAGE} {OTHER_PAGE}")
    for origin in LOOKALIKES:
        if method == "get":
            answer = client.get(TOKENS, headers=bearer() | {"Origin": origin})
        else:
            answer = preflight(client, origin)
        assert (origin, answer.headers.get("Access-Control-Allow-Origin")) == (origin, None)


@pytest.mark.parametrize(
    "value",
    [
        *("*", "null", "https://*.example.com", "app.example.com", "https://", "ftp://example.com"),
        *(f"{PAGE}/", f"{PAGE}/path", f"{PAGE}:port", f"{PAGE}, *", "https://user@example.com"),
        *("https://APP.example.com", "http.*", "https://.*", "https://app.example.com?"),
    ],
)
def test_a_bad_origin_is_refused_by_name(sqlite_url, value):
    with pytest.raises(SettingsError, match=r"^CORS_ORIGINS "):
        Settings.from_environ(environment(sqlite_url, CORS_ORIGINS=value))


# Proxies

FORWARDED = {
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "444",
    "X-Forwarded-Prefix": "/evil",
    "X-Forwarded-Ssl": "on",
    "X-Forwarded-Protocol": "ssl",
    "Forwarded": "for=203.0.113.9;proto=https;host=evil.example",
    "X-Real-Ip": "203.0.113.9",
    "Script-Name": "/evil",
}


def seen():
    """What the service takes for the client and for its own address."""
    return {"client": request.remote_addr, "url": request.url, "root": request.script_root}


def test_what_a_client_says_of_proxies_is_ignored(serve):
    client = serve(seen)
    assert client.get("/probe", headers=FORWARDED).json == client.get("/probe").json
    assert client.get("/probe").json["url"] == "http://localhost/probe"


def test_as_many_proxies_are_believed_as_are_trusted(serve):
    for hops, address in ((1, "203.0.113.2"), (2, "203.0.113.1")):
        client = serve(seen, TRUSTED_PROXIES=str(hops))
        forwarded = FORWARDED | {
            "X-Forwarded-For": "198.51.100.6, 203.0.113.1, 203.0.113.2",
            "X-Forwarded-Proto": "http, https, https",
            "X-Forwarded-Host": "evil.example, analytics.example, analytics.example",
            "X-Forwarded-Port": "444, 8443, 8443",
            "X-Forwarded-Prefix": "/evil, /tokens, /tokens",
        }
        assert client.get("/probe", headers=forwarded).json == {
            "client": address,
            "url": "https://analytics.example:8443/tokens/probe",
            "root": "/tokens",
        }


PROBE = """
from flask import request
from wsgi import app

app.add_url_rule("/probe", view_func=lambda: {"url": request.url, "client": request.remote_addr})
"""


def fetch(port, headers):
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/probe", headers=headers)
    with urllib.request.urlopen(asked, timeout=10) as answer:
        return json.load(answer)


@pytest.fixture
def gunicorn(sqlite_url, tmp_path):
    """The deployed server with a route that tells what it sees."""
    (tmp_path / "probed.py").write_text(PROBE)
    port = free_port()
    command = ["gunicorn", "--pythonpath", f"{tmp_path},{ROOT}", "-w", "1", "probed:app"]
    server = subprocess.Popen(
        [sys.executable, "-m", *command], cwd=ROOT, env=child_environ(sqlite_url, PORT=str(port))
    )
    give_up = time.monotonic() + 60
    try:
        while True:
            try:
                fetch(port, {})
                break
            except OSError:
                assert server.poll() is None
                assert time.monotonic() < give_up
                time.sleep(0.1)
        yield port
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


@pytest.mark.slow
def test_gunicorn_takes_no_scheme_or_path_from_a_client(gunicorn):
    plain = fetch(gunicorn, {})
    assert plain == {"url": f"http://127.0.0.1:{gunicorn}/probe", "client": "127.0.0.1"}
    for name, value in FORWARDED.items():
        assert (name, fetch(gunicorn, {name: value})) == (name, plain)
