"""Requests to the identity provider: certificates, time, size, and the cause of a failure."""

import socket
import ssl
import threading
import time
from contextlib import suppress
from urllib.request import Request

import pytest

from app import provider_http
from app.auth import jwks
from app.errors import SettingsError
from app.factory import create_app
from app.provider_http import FetchError, fetch, trusted_certificates
from tests.support.certificates import make_authority
from tests.support.jwks_server import HANGING, body, serving
from tests.support.keys import signer
from tests.support.processes import PATIENCE_SECONDS, free_port
from tests.support.settings import NOW, make_settings

READ = "/api/v1/analytics/tokens"
RSA = signer("RS256", "rsa")
SYSTEM = ssl.create_default_context()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def provider(authority):
    with serving(RSA.jwk(), tls=authority.server_context()) as provider:
        yield provider


@pytest.fixture
def status(sqlite_url, provider):
    """The status of a read at a service with these settings, whose provider uses TLS."""
    apps = []

    def status(**variables):
        settings = make_settings(sqlite_url, JWT_JWKS_URL=provider.url, **variables)
        apps.append(create_app(settings, clock=lambda: NOW))
        return apps[-1].test_client().get(READ, headers=RSA.bearer()).status_code

    yield status
    for app in apps:
        app.extensions["analytics"].database.dispose()


def failure(url, seconds=PATIENCE_SECONDS, certificates=SYSTEM):
    with pytest.raises(FetchError) as failed:
        fetch(Request(url), certificates, seconds)
    return str(failed.value)


VARIABLES = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"]


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_named_authority_is_trusted(status, authority, monkeypatch, variable):
    """Each of the two variables names further authorities, and the other may be set as well."""
    monkeypatch.setattr(jwks, "FETCH_SECONDS", PATIENCE_SECONDS)
    assert status(**{variable: str(authority.file)}) == 200
    system = ssl.get_default_verify_paths().cafile
    if system is not None:
        both = dict.fromkeys(VARIABLES, system) | {variable: str(authority.file)}
        assert status(**both) == 200


def test_an_unknown_authority_is_refused(status, provider, caplog):
    """Without a setting, the system's authorities are trusted, and no other."""
    assert status() == 503
    assert failure(provider.url).startswith("certificate (")
    causes = [record.fields["cause"] for record in caplog.records if hasattr(record, "fields")]
    assert causes[0].startswith("certificate (")


def test_a_certificate_of_another_host_is_refused(provider, authority):
    """The certificate must be of the host in the URL, and the log does not repeat the host."""
    certificates = ssl.create_default_context(cafile=authority.file)
    url = provider.url.replace("127.0.0.1", "localhost")
    assert failure(url, certificates=certificates) == "certificate (Hostname mismatch)"


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("kind", ["missing", "not PEM", "key"])
def test_an_invalid_file_of_authorities_stops_the_start(
    sqlite_url, tmp_path, variable, kind, monkeypatch
):
    """The error names the variable, at the start and not at the first fetch."""
    file = tmp_path / "authority.pem"
    if kind != "missing":
        file.write_text("-----BEGIN NOTHING-----" if kind == "not PEM" else RSA.pem)
    provided = {"JWT_JWKS_URL": "https://idp.example/jwks", variable: str(file)}
    with pytest.raises(SettingsError, match=f"^{variable} "):
        create_app(make_settings(sqlite_url, **provided))
    app = create_app(make_settings(sqlite_url, **{variable: str(file)}))  # needs no provider
    app.extensions["analytics"].database.dispose()


def test_a_folder_of_authorities_may_be_named(sqlite_url, tmp_path):
    """REQUESTS_CA_BUNDLE may name a folder, as for the library that it is named after."""
    assert trusted_certificates(make_settings(sqlite_url, REQUESTS_CA_BUNDLE=str(tmp_path)))


def test_no_connection_has_its_cause():
    """The log tells a refused connection from a name that is not known."""
    assert failure(f"http://127.0.0.1:{free_port()}/") == "connection refused"
    assert failure("http://nowhere.invalid/") == "name not resolved"
    assert failure(f"http://{'x' * 70}.invalid/") == "name not resolved"


def test_tls_against_plain_http_has_its_cause():
    """A provider without TLS has another cause than an invalid certificate."""
    with serving() as plain:
        assert failure(plain.url.replace("http:", "https:")) == "TLS"


@pytest.mark.parametrize("way", HANGING.values(), ids=HANGING)
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
def test_a_response_that_never_ends_is_given_up(authority, way, secure):
    """The time is that of the whole response, not of the wait for the next byte."""
    certificates = ssl.create_default_context(cafile=authority.file)
    with serving(tls=authority.server_context() if secure else None) as provider:
        provider.answer = way
        began = time.monotonic()
        assert failure(provider.url, 1, certificates) == "timeout"
        assert time.monotonic() - began < PATIENCE_SECONDS


def test_a_handshake_that_never_ends_is_given_up():
    """A server that accepts connections and says nothing ends with the time as well."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for scheme in ("http", "https"):
            assert failure(f"{scheme}://127.0.0.1:{port}/", 0.5) == "timeout"


def test_a_proxy_that_answers_slowly_is_given_up(monkeypatch):
    """The exchange with a proxy, before TLS, is a part of the time."""
    ended = threading.Event()

    def drip(listener):
        with listener.accept()[0] as client:
            while not ended.wait(0.1):
                with suppress(OSError):
                    client.send(b"HTTP/1.1 200 OK\r\n"[:1])

    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = f"http://127.0.0.1:{listener.getsockname()[1]}"
        for name in ("https_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, "")
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        began = time.monotonic()
        try:
            assert failure("https://idp.invalid/", 0.5) == "timeout"
            assert time.monotonic() - began < PATIENCE_SECONDS
        finally:
            ended.set()
            thread.join()


def test_no_thread_is_left_after_a_response():
    """The thread that keeps the deadline ends with the response."""
    with serving() as provider:
        answer = fetch(Request(provider.url), SYSTEM, PATIENCE_SECONDS)
    assert answer.body == b'{"keys": []}'
    give_up = time.monotonic() + PATIENCE_SECONDS
    while any(isinstance(thread, threading.Timer) for thread in threading.enumerate()):
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_a_response_of_more_than_a_mebibyte_is_refused():
    """A response is read up to 1 MiB, even if it has no end."""
    with serving() as provider:
        provider.answer = body("x" * provider_http.MAX_RESPONSE_BYTES)
        answer = fetch(Request(provider.url), SYSTEM, PATIENCE_SECONDS)
        assert len(answer.body) == provider_http.MAX_RESPONSE_BYTES
        provider.answer = body("x" * (provider_http.MAX_RESPONSE_BYTES + 1))
        assert failure(provider.url) == "too large"
        provider.answer = without_end
        assert failure(provider.url) == "too large"


def without_end(exchange):
    exchange.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:  # ends when the client hangs up
        exchange.wfile.write(b"x" * 65536)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_returned_and_not_followed(code):
    """No library decides whether a redirect is followed: this client cannot follow one."""
    with serving() as provider, serving() as elsewhere:
        provider.answer = body("", code, location=elsewhere.url)
        assert fetch(Request(provider.url), SYSTEM, PATIENCE_SECONDS).status == code
        assert elsewhere.fetches == 0


def test_a_configured_proxy_is_used(monkeypatch):
    """HTTP_PROXY and NO_PROXY decide which requests go through a proxy."""
    with serving() as proxy:
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("no_proxy", "")
        answer = fetch(Request("http://idp.invalid/jwks"), SYSTEM, PATIENCE_SECONDS)
        assert (answer.status, proxy.fetches) == (200, 1)
        monkeypatch.setenv("no_proxy", "idp.invalid")
        assert failure("http://idp.invalid/jwks") == "name not resolved"
