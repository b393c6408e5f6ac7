"""APP_ENV=production: what is convenient in development stops the start, by name."""

import re
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.config import ROOT, Settings
from app.errors import SettingsError
from tests.conftest import KEY, child_environ, migrate
from tests.test_end_to_end import call, free_port, poll, process

OTHER_KEY = "another key for the tests, longer than 32 bytes"
PUBLIC_KEY = (
    Ed25519PrivateKey.generate()
    .public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    .decode()
)
JWKS = "https://idp.example/jwks"
GOOD = {
    "APP_ENV": "production",
    "DATABASE_URL": "postgresql://db.example/analytics",
    "SECRET_KEY": OTHER_KEY,
    "JWT_SECRET_KEY": KEY,
}
CLAIMS = {"JWT_ISSUER": "https://idp.example", "JWT_AUDIENCE": "analytics"}
KNOWN = [
    "change-me-change-me-change-me-change-me",
    "CHANGEME-32-bytes-or-more-please-do-it",
    "your-256-bit-secret-your-256-bit-secret",
    "a-string-secret-at-least-256-bits-long",
    "django-insecure-0t9y8u7i6o5p4a3s2d1f0g9h",
    "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf",
]


def start(**changed):
    """Settings with some variables changed; ``None`` takes one away."""
    given = {name: value for name, value in (GOOD | changed).items() if value is not None}
    return Settings.from_environ(given)


def refusal(**changed):
    with pytest.raises(SettingsError) as refused:
        start(**changed)
    return str(refused.value)


def test_with_everything_right_it_starts():
    assert start().production
    public = {"JWT_SECRET_KEY": None, **CLAIMS}
    assert start(**public, JWT_PUBLIC_KEY=PUBLIC_KEY).jwt_secret_key is None
    assert start(**public, JWT_JWKS_URL=JWKS).jwt_jwks_url == JWKS


def test_without_a_source_of_keys_it_names_them_all():
    message = refusal(JWT_SECRET_KEY=None)
    for name in ("JWT_SECRET_KEY", "JWT_PUBLIC_KEY", "JWT_PUBLIC_KEY_FILE", "JWT_JWKS_URL"):
        assert re.search(rf"\b{name}\b", message)


def test_two_sources_of_keys_are_refused():
    message = refusal(JWT_JWKS_URL=JWKS, **CLAIMS)
    assert "JWT_SECRET_KEY" in message
    assert "JWT_JWKS_URL" in message


@pytest.mark.parametrize("name", ["SECRET_KEY", "JWT_SECRET_KEY"])
@pytest.mark.parametrize("value", [*KNOWN, "x" * 31])
def test_a_short_or_known_secret_is_refused_and_not_repeated(name, value):
    message = refusal(**{name: value})
    assert re.search(rf"\b{name}\b", message)
    assert value not in message


def test_no_secret_key_is_refused():
    assert re.search(r"\bSECRET_KEY\b", refusal(SECRET_KEY=None))


@pytest.mark.parametrize("source", [{"JWT_PUBLIC_KEY": PUBLIC_KEY}, {"JWT_JWKS_URL": JWKS}])
@pytest.mark.parametrize("name", sorted(CLAIMS))
def test_a_public_source_needs_issuer_and_audience_or_an_explicit_none(source, name):
    given = {"JWT_SECRET_KEY": None, **source, **CLAIMS}
    assert name in refusal(**given | {name: None})
    assert getattr(start(**given | {name: "none"}), name.lower()) is None


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("http://idp.example/jwks", False),
        ("http://127.0.0.1.example/jwks", False),
        ("file:///etc/jwks", False),
        ("http://127.0.0.1:8080/jwks", True),
        ("http://[::1]/jwks", True),
        ("http://localhost/jwks", True),
    ],
)
def test_keys_come_over_tls_or_from_this_host(url, good):
    given = {"JWT_SECRET_KEY": None, **CLAIMS, "JWT_JWKS_URL": url}
    if good:
        assert start(**given).jwt_jwks_url == url
    else:
        assert "JWT_JWKS_URL" in refusal(**given)


def test_sqlite_is_refused_unless_it_is_allowed():
    url = "sqlite:////srv/analytics.db"
    message = refusal(DATABASE_URL=url)
    assert "DATABASE_URL" in message
    assert "ALLOW_SQLITE" in message
    assert "DATABASE_URL" in refusal(DATABASE_URL=url, ALLOW_SQLITE="0")
    assert start(DATABASE_URL=url, ALLOW_SQLITE="1").production


@pytest.mark.parametrize("value", ["1", "true", "yes"])
def test_debugging_is_refused(value):
    assert "FLASK_DEBUG" in refusal(FLASK_DEBUG=value)
    assert start(FLASK_DEBUG="0").production


def environ(url, **changed):
    """A production environment for a process."""
    given = child_environ(url, APP_ENV="production", ALLOW_SQLITE="1", SECRET_KEY=OTHER_KEY)
    given |= {"PORT": str(free_port()), **changed}
    return {name: value for name, value in given.items() if value}


def run(*command, environ):
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


PROCESSES = {"gunicorn": ["gunicorn", "wsgi:app"], "jobs": ["jobs"]}
every_process = pytest.mark.parametrize("process_name", PROCESSES)


@every_process
@pytest.mark.parametrize("revision", ["base", "0001"])
def test_a_schema_that_is_not_current_stops_the_start(database_url, process_name, revision):
    migrate(database_url, "base")
    if revision != "base":
        migrate(database_url, revision)
    variables = environ(database_url)
    done = run(*PROCESSES[process_name], environ=variables)
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert "DATABASE_URL" in line
    assert "flask db upgrade" in line
    assert run("flask", "db", "upgrade", environ=variables).returncode == 0


@every_process
@pytest.mark.parametrize(
    ("variable", "value"),
    [("JWT_SECRET_KEY", KNOWN[0]), ("FLASK_DEBUG", "1"), ("ALLOW_SQLITE", "")],
)
def test_an_unsafe_setting_stops_the_process_in_one_line(sqlite_url, process_name, variable, value):
    done = run(*PROCESSES[process_name], environ=environ(sqlite_url, **{variable: value}))
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert variable in line


def test_a_safe_production_serves(database_url):
    variables = environ(database_url)
    with process("gunicorn", "wsgi:app", environ=variables):
        url = f"http://127.0.0.1:{variables['PORT']}/ready"
        assert poll(lambda: call(url), lambda answer: answer[0] == 200)[0] == 200
