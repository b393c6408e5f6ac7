"""APP_ENV=production: unsafe settings stop the start, in settings and in real processes."""

import re
import signal
import subprocess
import sys

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.config.settings import KEY_SOURCES, ROOT, Settings
from app.errors import SettingsError
from app.storage.schema import refuse_other_schema
from tests.support.databases import conninfo, migrate
from tests.support.processes import call, free_port, poll, process
from tests.support.settings import child_environ

SECRET = "7b1f6a0e5d9c4b3a8f2e1d0c9b8a7f6e5d4c3b2a"
PUBLIC_KEY = (
    Ed25519PrivateKey.generate()
    .public_key()
    .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    .decode()
)
JWKS_URL = "https://idp.example/jwks.json"
CLAIMS = {"JWT_ISSUER": "https://idp.example", "JWT_AUDIENCE": "analytics"}
SAFE = {
    "APP_ENV": "production",
    "DATABASE_URL": "postgresql://db.example/analytics",
    "SECRET_KEY": SECRET,
    "JWT_SECRET_KEY": SECRET[::-1],
}


def unsafe(**variables):
    """The variables of a good production, changed; an empty one is taken out."""
    return {name: value for name, value in (SAFE | variables).items() if value}


PUBLIC = {"JWT_SECRET_KEY": "", "JWT_PUBLIC_KEY": PUBLIC_KEY}
JWKS = {"JWT_SECRET_KEY": "", "JWT_JWKS_URL": JWKS_URL}
KNOWN = [
    "change-me-change-me-change-me-change-me",
    "CHANGE_ME_BEFORE_YOU_DEPLOY_THIS_SERVICE",
    "please-changeme-in-production-0123456789",
    "change-this-secret-before-production-0123",
    "your-256-bit-secret-your-256-bit-secret",
    "Your-256-Bit-Secret-0123456789-0123456789",
    "your-secret-key-goes-here-0123456789abcdef",
    "a-string-secret-at-least-256-bits-long",
    "0123-a-string-secret-at-least-256-bits-long",
]
# Why a start is refused, the variable to blame, and the change to a good production.
UNSAFE = {
    "no source of keys": ("JWT_SECRET_KEY", {"JWT_SECRET_KEY": ""}),
    "no SECRET_KEY": ("SECRET_KEY", {"SECRET_KEY": ""}),
    "a JWT_SECRET_KEY of 31 bytes": ("JWT_SECRET_KEY", {"JWT_SECRET_KEY": SECRET[:31]}),
    "a SECRET_KEY of 31 bytes": ("SECRET_KEY", {"SECRET_KEY": SECRET[:31]}),
    "a known JWT_SECRET_KEY": ("JWT_SECRET_KEY", {"JWT_SECRET_KEY": KNOWN[0]}),
    "a known SECRET_KEY": ("SECRET_KEY", {"SECRET_KEY": KNOWN[4]}),
    "a public key without issuer": (
        "JWT_ISSUER",
        PUBLIC | {"JWT_AUDIENCE": CLAIMS["JWT_AUDIENCE"]},
    ),
    "a public key without audience": (
        "JWT_AUDIENCE",
        PUBLIC | {"JWT_ISSUER": CLAIMS["JWT_ISSUER"]},
    ),
    "a key set without issuer": ("JWT_ISSUER", JWKS | {"JWT_AUDIENCE": CLAIMS["JWT_AUDIENCE"]}),
    "a key set without audience": ("JWT_AUDIENCE", JWKS | {"JWT_ISSUER": CLAIMS["JWT_ISSUER"]}),
    "a key set over http": (
        "JWT_JWKS_URL",
        JWKS | CLAIMS | {"JWT_JWKS_URL": JWKS_URL.replace("https", "http")},
    ),
    "SQLite": ("DATABASE_URL", {"DATABASE_URL": "sqlite:////nowhere/analytics.db"}),
    "SQLite by default": ("DATABASE_URL", {"DATABASE_URL": ""}),
    "SQLite, not allowed": (
        "DATABASE_URL",
        {"DATABASE_URL": "sqlite:////nowhere/analytics.db", "ALLOW_SQLITE": "0"},
    ),
    "debugging": ("FLASK_DEBUG", {"FLASK_DEBUG": "1"}),
    "debugging by another word": ("FLASK_DEBUG", {"FLASK_DEBUG": "true"}),
}
every_unsafe = pytest.mark.parametrize(("variable", "change"), UNSAFE.values(), ids=UNSAFE)


def refusal(variables):
    with pytest.raises(SettingsError) as refused:
        Settings.from_environ(variables)
    return str(refused.value)


def check_named(message, variable):
    """The message blames the variable first of all, and repeats no secret."""
    assert re.match(rf"(error: )?{variable}\b", message), message
    assert SECRET[:20] not in message
    assert SECRET[::-1][:20] not in message


@every_unsafe
def test_an_unsafe_setting_is_refused_by_name(variable, change):
    check_named(refusal(unsafe(**change)), variable)


@pytest.mark.parametrize("variable", ["SECRET_KEY", "JWT_SECRET_KEY"])
@pytest.mark.parametrize("value", KNOWN)
def test_a_known_default_is_no_secret(variable, value):
    message = refusal(unsafe(**{variable: value}))
    check_named(message, variable)
    assert value not in message
    assert len(value) >= 32, "refused for its length, not for being known"


SAFE_CHANGES = {
    "nothing changed": {},
    "secrets of 32 bytes": {"SECRET_KEY": SECRET[:32], "JWT_SECRET_KEY": SECRET[-32:]},
    "SQLite that is allowed": {
        "DATABASE_URL": "sqlite:////srv/analytics.db",
        "ALLOW_SQLITE": "1",
    },
    "a public key, issuer and audience": PUBLIC | CLAIMS,
    "a key set, issuer and audience": JWKS | CLAIMS,
    "issuer and audience explicitly none": JWKS | {"JWT_ISSUER": "none", "JWT_AUDIENCE": "none"},
    "debugging off": {"FLASK_DEBUG": "0"},
}


@pytest.mark.parametrize("change", SAFE_CHANGES.values(), ids=SAFE_CHANGES)
def test_a_safe_production_starts(change):
    assert Settings.from_environ(unsafe(**change)).production


PROCESSES = {"gunicorn": ["gunicorn", "wsgi:app"], "jobs": ["jobs"]}
every_process = pytest.mark.parametrize("command", PROCESSES.values(), ids=PROCESSES)
# Without the two in test_settings.py, and without cases that differ in a value alone.
IN_PROCESSES = [
    "a JWT_SECRET_KEY of 31 bytes",
    "a known JWT_SECRET_KEY",
    "a public key without issuer",
    "a key set without audience",
    "SQLite",
    "debugging",
]


def production(url, **changes):
    """The environment of a process that would start, but for the changes."""
    variables = unsafe(DATABASE_URL=url, HOST="127.0.0.1", PORT=str(free_port()), **changes)
    environ = child_environ(url, APP_ENV="production")
    kept = {name: value for name, value in environ.items() if name not in KEY_SOURCES}
    return kept | {"SECRET_KEY": ""} | variables


def start(command, environ):
    """Run a process that is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def check_refused(done, variable):
    assert done.returncode != 0
    assert done.stdout == ""
    (message,) = done.stderr.splitlines()
    check_named(message, variable)


@pytest.fixture(scope="module")
def good_url(postgresql):
    """A migrated PostgreSQL that nobody writes to."""
    name = postgresql.create()
    yield postgresql.at(name)
    postgresql.drop(name)


@every_process
@pytest.mark.parametrize("name", IN_PROCESSES)
@pytest.mark.slow
def test_an_unsafe_process_names_the_variable(good_url, command, name):
    """A process with an unsafe setting ends with one line that names the variable."""
    variable, change = UNSAFE[name]
    check_refused(start(command, production(**({"url": good_url} | renamed(change)))), variable)


def renamed(change):
    """DATABASE_URL goes to :func:`production` as its first argument."""
    return {"url" if key == "DATABASE_URL" else key: value for key, value in change.items()}


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request, tmp_path):
    """A database that was never migrated."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    postgresql = request.getfixturevalue("postgresql")
    name = postgresql.create("template0")
    yield postgresql.at(name)
    postgresql.drop(name)


@pytest.mark.parametrize("revision", ["base", "0001"])
def test_production_refuses_a_schema_that_is_not_current(empty_url, revision):
    """Production refuses a schema that is not current; development accepts it."""
    migrate(empty_url, "0001")
    migrate(empty_url, revision)
    changes = {"DATABASE_URL": empty_url, "ALLOW_SQLITE": "1"}
    with pytest.raises(SettingsError) as refused:
        refuse_other_schema(Settings.from_environ(unsafe(**changes)))
    check_named(str(refused.value), "DATABASE_URL")
    assert "flask db upgrade" in str(refused.value)
    refuse_other_schema(Settings.from_environ(unsafe(**changes, APP_ENV="development")))
    migrate(empty_url)
    refuse_other_schema(Settings.from_environ(unsafe(**changes)))


@pytest.mark.slow
def test_another_schema_stops_the_servers_and_not_the_upgrade(empty_url):
    if "postgresql" in empty_url:
        migrate(empty_url, "0001")
    environ = production(empty_url, ALLOW_SQLITE="1")
    for command in PROCESSES.values():
        check_refused(start(command, environ), "DATABASE_URL")
    upgraded = start(["flask", "db", "upgrade"], environ)
    assert (upgraded.returncode, upgraded.stderr) == (0, "")
    with process("gunicorn", "wsgi:app", environ=environ):
        url = f"http://127.0.0.1:{environ['PORT']}/ready"
        assert poll(lambda: call(url), bool) == (200, {"status": "ready"})


def test_the_scheduler_of_a_safe_production_starts(good_url):
    with process("jobs", environ=production(good_url)) as scheduler:
        poll(scheduler.log.read_text, lambda text: "scheduler started" in text)


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "[::1]", "localhost"])
def test_keys_may_come_without_tls_from_this_host(host):
    url = f"http://{host}/jwks"
    variables = unsafe(**JWKS | CLAIMS | {"JWT_JWKS_URL": url})
    assert Settings.from_environ(variables).jwt_jwks_url == url


@pytest.mark.slow
def test_a_reload_after_a_migration_does_not_end_the_service(postgresql_url):
    variables = production(postgresql_url)
    health = f"http://127.0.0.1:{variables['PORT']}/health"
    with process("gunicorn", "wsgi:app", environ=variables) as server:
        wait_for_workers(server, 2)
        with psycopg.connect(conninfo(postgresql_url)) as connection:
            connection.execute("UPDATE alembic_version SET version_num = 'newer'")
        server.send_signal(signal.SIGHUP)
        wait_for_workers(server, 4)
        assert poll(lambda: call(health), lambda answer: answer[0] == 200)[0] == 200


def wait_for_workers(server, count):
    """Until gunicorn has started so many workers."""
    poll(server.log.read_text, lambda text: text.count("Booting worker") == count)
    assert server.poll() is None
