"""A tenant's share of requests: its own, over all routes, and counted when the token is valid."""

import shutil
import socket
import subprocess
import time

import limits
import pytest

from app.config.settings import Settings
from app.errors import SettingsError
from app.factory import create_app
from app.web import rate_limit
from tests.support.processes import PATIENCE_SECONDS, free_port
from tests.support.settings import NOW, environment, make_settings
from tests.support.tokens import bearer

READS = [f"/api/v1/analytics/{name}" for name in ("tokens", "agents", "agents/activity")]
EVENTS = "/api/v1/events"
EVENT = {"id": "e1", "agentId": "a", "issuedAt": "2026-04-14T09:00:00Z"}
THEIRS = "org-of-somebody-else"
PASSWORD = "hunter2-of-the-operator"
REDIS = shutil.which("redis-server")


@pytest.fixture
def serve(sqlite_url):
    """A client of the service with limits; each call is another process's application."""
    apps = []

    def serve(rate="3/minute", **variables):
        settings = make_settings(sqlite_url, RATE_LIMIT=rate, **variables)
        apps.append(create_app(settings, clock=lambda: NOW))
        return apps[-1].test_client()

    yield serve
    for app in apps:
        app.extensions["analytics"].database.dispose()


def read(client, tenant="org-a", path=READS[0], **claims):
    return client.get(path, headers=bearer(tenant, **claims))


def write(client, *arguments, **claims):
    return client.post(EVENTS, json=EVENT, headers=bearer(*arguments, **claims))


def statuses(answers):
    return [answer.status_code for answer in answers]


def test_without_a_setting_nothing_is_limited(client):
    for _ in range(30):
        answer = read(client)
        assert answer.status_code == 200
        assert not [name for name, _ in answer.headers if "RateLimit" in name]


def test_a_tenant_has_its_requests_over_all_routes_together(serve):
    client = serve()
    assert write(client, "org-a", "events:write").status_code == 202
    assert statuses(read(client, path=path) for path in READS) == [200, 200, 429]
    assert write(client, "org-a", "events:write").status_code == 429


def test_who_is_beyond_the_limit_is_told_when_to_come_back(serve):
    client = serve()
    assert statuses(read(client) for _ in range(3)) == [200] * 3
    answer = read(client)
    assert (answer.status_code, answer.json["code"]) == (429, "RATE_LIMIT_EXCEEDED")
    assert set(answer.json) <= {"code", "message", "details"}
    assert 0 < int(answer.headers["Retry-After"]) <= 61
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_another_tenant_is_not_touched(serve):
    client = serve()
    assert statuses(read(client) for _ in range(5)) == [200] * 3 + [429] * 2
    assert statuses(read(client, THEIRS) for _ in range(4)) == [200] * 3 + [429]
    assert statuses(read(client, name) for name in ("org-A", "org-a ", "org")) == [200] * 3


def test_all_clients_of_a_tenant_share_its_requests(serve):
    client = serve()
    found = [read(client, client_id=f"client-{number}", sub="x") for number in range(4)]
    assert statuses(found) == [200] * 3 + [429]


def test_a_request_without_a_valid_token_counts_against_nobody(serve):
    client = serve()
    bad = [{}, bearer(key="another key for the tests, 32 bytes"), bearer(exp=1)]
    for headers in bad * 5:
        assert client.get(READS[0], headers=headers).status_code == 401
        assert client.post(EVENTS, json=EVENT, headers=headers).status_code == 401
    for path in ("/health", "/ready", "/docs", "/api/v1/openapi.json"):
        assert statuses(client.get(path, headers=bearer()) for _ in range(5)) == [200] * 5
    assert statuses(read(client) for _ in range(4)) == [200] * 3 + [429]


def test_refused_requests_with_a_valid_token_count(serve):
    client = serve()
    assert read(client, path=f"{READS[0]}?days=0").status_code == 400
    assert write(client, "org-a").status_code == 403
    assert statuses(read(client) for _ in range(2)) == [200, 429]


def test_a_writer_for_any_organization_has_a_count_of_its_own(serve):
    client = serve()
    event = EVENT | {"organizationId": "org-a"}

    def send(name):
        headers = bearer(None, "events:write:any", drop="organization_id", client_id=name)
        return client.post(EVENTS, json=event, headers=headers)

    assert statuses(send("collector") for _ in range(4)) == [202] * 3 + [429]
    assert statuses(send("other") for _ in range(4)) == [202] * 3 + [429]
    assert statuses(read(client, name) for name in ("org-a", "collector")) == [200] * 2


# Clocks


@pytest.fixture
def host_clock(monkeypatch):
    """Sets the host's clock, as an operator or NTP does, by seconds from now."""
    wall, shift = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: wall() + shift[0])

    def set_by(seconds):
        shift[0] = seconds

    return set_by


@pytest.mark.parametrize("seconds", [-86_400, -3_600, -61, 61, 3_600, 86_400])
def test_setting_the_host_clock_stops_and_frees_nobody(serve, host_clock, seconds):
    """The limit goes by the monotonic clock, whatever happens to the time of day."""
    client = serve("3/minute")
    headers = {name: bearer(name, exp=int(time.time()) + 10 * 86_400) for name in ("a", "b")}

    def codes(name, times):
        return statuses(client.get(READS[0], headers=headers[name]) for _ in range(times))

    assert codes("a", 4) == [200] * 3 + [429]
    assert codes("b", 1) == [200]
    headers = {name: bearer(name, exp=int(time.time()) + 10 * 86_400) for name in ("a", "b")}
    host_clock(seconds)
    answer = client.get(READS[0], headers=headers["a"])
    assert answer.status_code == 429
    assert 0 < int(answer.headers["Retry-After"]) <= 60
    assert codes("b", 3) == [200, 200, 429]


def test_a_window_passes_after_the_clock_was_set_back(serve, host_clock):
    """A caller beyond its limit waits for its window, and not for the old time of day."""
    client = serve("1/second")
    headers = bearer(iat=1, exp=int(time.time()) + 86_400)
    assert client.get(READS[0], headers=headers).status_code == 200
    host_clock(-3_600)
    give_up = time.monotonic() + PATIENCE_SECONDS
    while client.get(READS[0], headers=headers).status_code == 429:
        assert time.monotonic() < give_up
        time.sleep(0.05)


# Several rates


def test_a_refused_request_uses_up_no_rate(serve, monkeypatch):
    """Of two rates, the larger one counts only requests that the smaller one lets through."""
    now = [1000.0]
    monkeypatch.setattr(rate_limit.time, "monotonic", lambda: now[0])
    client = serve("2/second;5/minute")
    assert statuses(read(client) for _ in range(20)) == [200] * 2 + [429] * 18
    now[0] += 1
    assert statuses(read(client) for _ in range(20)) == [200] * 2 + [429] * 18
    now[0] += 1
    assert statuses(read(client) for _ in range(3)) == [200, 429, 429]
    now[0] += 57
    assert read(client).status_code == 429
    now[0] += 1
    assert statuses(read(client) for _ in range(3)) == [200, 200, 429]


def test_the_headers_are_of_the_rate_that_is_used_up(serve, monkeypatch):
    """A refused caller learns from the headers which of its rates is used up."""
    now = [1000.0]
    monkeypatch.setattr(rate_limit.time, "monotonic", lambda: now[0])
    client = serve("2/second;3/minute")
    assert statuses(read(client) for _ in range(2)) == [200] * 2
    answer = read(client)
    assert (answer.status_code, answer.headers["X-RateLimit-Limit"]) == (429, "2")
    assert answer.headers["Retry-After"] == "1"
    now[0] += 1
    assert read(client).status_code == 200
    answer = read(client)
    assert (answer.status_code, answer.headers["X-RateLimit-Limit"]) == (429, "3")
    assert 50 < int(answer.headers["Retry-After"]) <= 60


def test_callers_that_fell_silent_are_forgotten(monkeypatch):
    """The memory of the limit follows the callers of the last windows, not all there ever were."""
    now = [1000.0]
    monkeypatch.setattr(rate_limit.time, "monotonic", lambda: now[0])
    window, (rate,) = rate_limit.MovingWindow(), limits.parse_many("3/minute")
    for number in range(1000):
        assert window.hit(rate, f"tenant {number}")
    now[0] += 121
    assert window.test(rate, "tenant 1")
    assert vars(window)["_requests"] == {}


@pytest.mark.parametrize("value", ["often", "3", "3/fortnight", "-1/minute", "3/minute;often", "*"])
def test_a_bad_rate_is_refused_by_name(sqlite_url, value):
    with pytest.raises(SettingsError, match=r"^RATE_LIMIT "):
        Settings.from_environ(environment(sqlite_url, RATE_LIMIT=value))


@pytest.mark.parametrize(
    "value",
    [
        *(f"memcached://u:{PASSWORD}@h", f"http://u:{PASSWORD}@h", f"redis:{PASSWORD}@h"),
        *(PASSWORD, "memory", f"mongodb://u:{PASSWORD}@h", f"REDIS://u:{PASSWORD}@h"),
    ],
)
def test_a_bad_storage_is_refused_by_name_only(sqlite_url, value):
    variables = environment(sqlite_url, RATE_LIMIT="3/minute", RATE_LIMIT_STORAGE=value)
    with pytest.raises(SettingsError, match=r"^RATE_LIMIT_STORAGE ") as refused:
        Settings.from_environ(variables)
    assert PASSWORD not in str(refused.value)


def test_a_storages_password_is_not_shown(sqlite_url):
    storage = f"redis://u:{PASSWORD}@h"
    settings = make_settings(sqlite_url, RATE_LIMIT="3/minute", RATE_LIMIT_STORAGE=storage)
    assert PASSWORD not in repr(settings)


# Shared between processes


@pytest.fixture
def redis(tmp_path):
    """A Redis of the test's own: its URL, and its process."""
    if REDIS is None:
        pytest.skip("redis-server is missing")
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    server = subprocess.Popen([REDIS, *options], stdout=subprocess.DEVNULL)
    give_up = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            assert time.monotonic() < give_up
            time.sleep(0.05)
    yield f"redis://127.0.0.1:{port}/0", server
    server.kill()
    server.wait()


def test_processes_with_one_redis_share_a_tenants_count(serve, redis):
    first, second = (serve(RATE_LIMIT_STORAGE=redis[0]) for _ in range(2))
    assert statuses(read(client) for client in (first, second, first)) == [200] * 3
    for client in (first, second):
        answer = read(client)
        assert (answer.status_code, answer.json["code"]) == (429, "RATE_LIMIT_EXCEEDED")
        assert int(answer.headers["Retry-After"]) > 0
        assert read(client, THEIRS).status_code == 200


def test_requests_are_counted_without_redis(serve, redis):
    """If Redis dies, requests are still answered and counted."""
    url, server = redis
    client = serve(RATE_LIMIT_STORAGE=url)
    assert read(client).status_code == 200
    server.kill()
    server.wait()
    begun = time.monotonic()
    assert statuses(read(client) for _ in range(4)) == [200] * 3 + [429]
    assert statuses(read(client, THEIRS) for _ in range(2)) == [200] * 2
    assert time.monotonic() - begun < 10


def test_without_a_redis_from_the_start_requests_are_answered(serve):
    client = serve(RATE_LIMIT_STORAGE=f"redis://u:{PASSWORD}@127.0.0.1:{free_port()}/0")
    assert statuses(read(client) for _ in range(4)) == [200] * 3 + [429]
