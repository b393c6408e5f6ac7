"""Settings: each variable's meaning, refused values, and no secret is shown."""

import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

import app.config.settings
from app.config.settings import ROOT, Settings
from app.errors import SettingsError
from tests.support.settings import KEY, child_environ

OTHER_KEY = "another key for the tests, longer than 32 bytes"
PASSWORD = "hunter2-of-the-operator"
FILE = "sqlite:////nowhere/analytics.db"
KEYS = {"SECRET_KEY": OTHER_KEY, "JWT_SECRET_KEY": KEY}
SERVER = "postgresql://db.example/analytics"
PRODUCTION = KEYS | {"APP_ENV": "production", "DATABASE_URL": SERVER}


def settings(**variables: str) -> Settings:
    return Settings.from_environ(KEYS | {"DATABASE_URL": FILE} | variables)


def refusal(variables: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as refused:
        Settings.from_environ(variables)
    return str(refused.value)


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of its own, where the instance folder goes."""
    monkeypatch.setattr(app.config.settings, "ROOT", tmp_path)
    return tmp_path


def test_everything_has_a_default_in_development(instance: Path) -> None:
    defaults = Settings.from_environ({})
    assert not defaults.production
    assert defaults.database_url.get_backend_name() == "sqlite"
    assert instance in Path(defaults.database_url.database or "").parents
    assert (defaults.host, defaults.port, defaults.address) == (
        "127.0.0.1",
        3000,
        "127.0.0.1:3000",
    )
    assert (defaults.jwt_issuer, defaults.jwt_audiences) == (None, None)
    assert (defaults.provider, defaults.token_login) == (None, True)
    assert defaults.rollup_interval_seconds == 15
    assert defaults.event_retention_days == 90


def test_random_keys_are_made_once_per_instance_folder(
    instance: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, again = Settings.from_environ({}), Settings.from_environ({})
    assert (first.secret_key, first.jwt_secret_key) == (again.secret_key, again.jwt_secret_key)
    assert first.secret_key != first.jwt_secret_key
    assert len(first.jwt_secret_key.encode()) >= 32
    monkeypatch.setattr(app.config.settings, "ROOT", instance / "elsewhere")
    (instance / "elsewhere").mkdir()
    assert Settings.from_environ({}).secret_key != first.secret_key


def test_random_keys_are_for_their_owner_only(instance: Path) -> None:
    made = Settings.from_environ({})
    for file in filter(Path.is_file, instance.rglob("*")):
        if {made.secret_key, made.jwt_secret_key} & {file.read_text().strip()}:
            assert file.stat().st_mode & 0o077 == 0


def test_every_variable_is_heeded() -> None:
    given = settings(
        APP_ENV="production",
        ALLOW_SQLITE="1",
        DATABASE_URL="sqlite:////srv/analytics.db",
        HOST="0.0.0.0",
        PORT="8080",
        JWT_ISSUER="https://idp.example",
        JWT_AUDIENCE="analytics",
        ROLLUP_INTERVAL_SECONDS="5",
        EVENT_RETENTION_DAYS="400",
    )
    assert given.production
    assert given.database_url.database == "/srv/analytics.db"
    assert (given.host, given.port, given.address) == ("0.0.0.0", 8080, "0.0.0.0:8080")
    assert (given.secret_key, given.jwt_secret_key) == (OTHER_KEY, KEY)
    assert (given.jwt_issuer, given.jwt_audiences) == ("https://idp.example", ("analytics",))
    assert (given.rollup_interval_seconds, given.event_retention_days) == (5, 400)


def test_an_ipv6_address_is_bound_in_brackets() -> None:
    assert settings(HOST="::1", PORT="3001").address == "[::1]:3001"


@pytest.mark.parametrize("space", [" ", "\n", "\r\n", "\t", "\u00a0"])
def test_white_space_around_a_value_is_removed(space: str) -> None:
    """A value may have been read from a file, with the line break at its end."""
    values = {"PORT": "8080", "JWT_ISSUER": "https://idp.example", "DATABASE_URL": SERVER}
    values |= {"APP_ENV": "production", "HOST": "::1", "PUBLIC_URL": "https://example.com/a"}
    given = settings(**{name: f"{space}{text}{space}" for name, text in values.items()})
    assert (given.port, given.host, given.production) == (8080, "::1", True)
    assert given.jwt_issuer == "https://idp.example"
    assert given.database_url.database == "analytics"
    assert str(given.public_url) == "https://example.com/a"
    assert settings(PORT=space, RATE_LIMIT=space).port == 3000


@pytest.mark.parametrize("environment", ["development", "production"])
@pytest.mark.parametrize("variable", ["SECRET_KEY", "JWT_SECRET_KEY", "OIDC_CLIENT_SECRET"])
@pytest.mark.parametrize("text", ["{}\n", "{} ", " {}", "\t{}", "{}\u00a0", " \n"])
def test_white_space_around_a_secret_is_refused(environment: str, variable: str, text: str) -> None:
    """White space would be a part of the secret, so it is neither kept nor removed in silence."""
    provider = {"OIDC_ISSUER": "https://idp.example", "OIDC_CLIENT_ID": "analytics"}
    given = PRODUCTION | provider | {"APP_ENV": environment, variable: text.format("s" * 40)}
    message = refusal(given)
    assert message.startswith(f"{variable} must not begin or end with white space")
    assert "s" * 40 not in message


@pytest.mark.parametrize(
    "text",
    [
        *("localhost:3000", "http://localhost", "127.0.0.1:80", "a b", "[::1]:3000", "-x", "x-"),
        *("unix:/tmp/x", "a/b", "[localhost]", "ü.example", "x" * 300, "*"),
    ],
)
def test_a_bad_host_is_refused_by_name(text: str) -> None:
    """HOST is an address or a name; a port belongs into PORT."""
    assert refusal(KEYS | {"DATABASE_URL": FILE, "HOST": text}).startswith("HOST must be ")


@pytest.mark.parametrize("text", ["127.0.0.1", "0.0.0.0", "::", "[::1]", "localhost", "a-b.c_d.e."])
def test_an_address_and_a_name_are_hosts(text: str) -> None:
    assert settings(HOST=text).host == text


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://example.com", "https://example.com"),
        ("https://Example.com/", "https://example.com"),
        ("http://127.0.0.1:8080/a/b-c/", "http://127.0.0.1:8080/a/b-c"),
        ("https://[::1]:8443/a", "https://[::1]:8443/a"),
    ],
)
def test_a_public_url_has_no_slash_at_its_end(text: str, url: str) -> None:
    assert str(settings(PUBLIC_URL=text).public_url) == settings(PUBLIC_URL=text).base_url == url


@pytest.mark.parametrize(
    "text",
    [
        *("example.com", "ftp://example.com", "https://", "https://example.com?a", "/a"),
        *("https://example.com/a#b", "https://u:p@example.com", "https://example.com/a//b"),
        *("https://example.com/a b", "https://example.com/../a", "https://example.com/%2e"),
    ],
)
def test_a_bad_public_url_is_refused_by_name(text: str) -> None:
    message = refusal(KEYS | {"DATABASE_URL": FILE, "PUBLIC_URL": text})
    assert message.startswith("PUBLIC_URL ")
    assert "u:p" not in message


@pytest.mark.parametrize("variable", ["JWT_ISSUER", "JWT_AUDIENCE"])
def test_none_says_that_a_claim_is_not_checked(variable: str) -> None:
    found = settings(**{variable: "none"})
    assert {"JWT_ISSUER": found.jwt_issuer, "JWT_AUDIENCE": found.jwt_audiences}[variable] is None


@pytest.mark.parametrize("variable", ["SECRET_KEY", "JWT_SECRET_KEY"])
@pytest.mark.parametrize("value", [None, ""], ids=["unset", "empty"])
def test_production_refuses_to_invent_a_key(variable: str, value: str | None) -> None:
    variables = PRODUCTION | {variable: value}
    assert re.search(
        rf"\b{variable}\b",
        refusal({name: text for name, text in variables.items() if text is not None}),
    )


def test_production_with_its_keys_starts() -> None:
    assert Settings.from_environ(PRODUCTION).production


@pytest.mark.parametrize("value", ["prod", "Production ", "staging"])
def test_a_misspelt_environment_is_never_taken_for_development(value: str) -> None:
    assert "APP_ENV" in refusal(PRODUCTION | {"APP_ENV": value})


@pytest.mark.parametrize("environment", ["development", "production"])
@pytest.mark.parametrize("key", ["x" * 31, "\u00e9" * 15 + "x", "short"])
def test_a_jwt_key_below_32_bytes_is_refused(environment: str, key: str) -> None:
    message = refusal(PRODUCTION | {"APP_ENV": environment, "JWT_SECRET_KEY": key})
    assert "JWT_SECRET_KEY" in message
    assert key not in message


@pytest.mark.parametrize("key", ["x" * 32, "\u00e9" * 16])
def test_a_jwt_key_of_32_bytes_is_enough(key: str) -> None:
    assert settings(JWT_SECRET_KEY=key).jwt_secret_key == key


@pytest.mark.parametrize(
    "value", ["abc", "-1", "65536", "9" * 30, "1.5", "80 81", "0x50", "127.0.0.1:80", "tcp://x:80"]
)
def test_a_bad_port_is_refused_by_name(value: str) -> None:
    assert "PORT" in refusal(KEYS | {"DATABASE_URL": FILE, "PORT": value})


@pytest.mark.parametrize("variable", ["ROLLUP_INTERVAL_SECONDS", "EVENT_RETENTION_DAYS"])
@pytest.mark.parametrize("value", ["abc", "-1", "1.5", "15s"])
def test_a_bad_number_is_refused_by_name(variable: str, value: str) -> None:
    assert variable in refusal(KEYS | {"DATABASE_URL": FILE, variable: value})


def test_nothing_else_reads_the_environment() -> None:
    """Only ``app/config`` reads variables; other modules at most set them for a library."""
    files = [*(ROOT / "app").rglob("*.py"), *(ROOT / "jobs").rglob("*.py")]
    files += [*(ROOT / "migrations").rglob("*.py"), ROOT / "wsgi.py", ROOT / "gunicorn.conf.py"]
    readers = {str(file.relative_to(ROOT)) for file in files if reads_environment(file)}
    assert readers == {"app/config/settings.py"}


def reads_environment(file: Path) -> bool:
    """Whether a module uses the environment, except to set or remove a variable."""
    writes = re.compile(r"^ *os\.environ(\[[^]]+\] = |\.pop\()", re.MULTILINE)
    text = writes.sub("", file.read_text())
    return bool(re.search(r"\bos\.(environ|getenv)\b|from os import", text))


# The database's address, and what is never shown


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg"])
def test_postgresql_means_psycopg_3(scheme: str) -> None:
    url = settings(
        DATABASE_URL=f"{scheme}://u:p%40ss@db.example:5433/a?sslmode=require"
    ).database_url
    assert url.drivername == "postgresql+psycopg"
    assert (url.username, url.password, url.host, url.port) == ("u", "p@ss", "db.example", 5433)
    assert (url.database, dict(url.query)) == ("a", {"sslmode": "require"})


@pytest.mark.parametrize(
    "url",
    [
        pytest.param(f"mysql://operator:{PASSWORD}@db/analytics", id="mysql"),
        pytest.param(f"mysql+pymysql://operator:{PASSWORD}@db/analytics", id="mysql with a driver"),
        pytest.param(f"postgresql://operator:{PASSWORD}@db:port/analytics", id="bad port"),
        pytest.param(f"nonsense+://operator:{PASSWORD}@db", id="nonsense"),
        pytest.param(PASSWORD, id="no URL"),
    ],
)
def test_a_database_url_of_another_kind_is_refused_by_name_only(url: str) -> None:
    message = refusal(KEYS | {"DATABASE_URL": url})
    assert "DATABASE_URL" in message
    assert PASSWORD not in message


@pytest.mark.parametrize(
    "url",
    [f"postgresql://u:{PASSWORD}@db/a", f"postgresql://db/a?user=u&password={PASSWORD}"],
    ids=["in the authority", "in the query"],
)
def test_settings_never_show_a_secret(url: str) -> None:
    given = settings(DATABASE_URL=url)
    for shown in (repr(given), str(given), f"{given}"):
        assert all(secret not in shown for secret in (KEY, OTHER_KEY, PASSWORD))


# The processes


PROCESSES = {
    "gunicorn": ["gunicorn", "wsgi:app"],
    "flask": ["flask", "rollup", "status"],
    "jobs": ["jobs"],
}
WRONG = {
    "no SECRET_KEY": ("SECRET_KEY", ""),
    "no JWT_SECRET_KEY": ("JWT_SECRET_KEY", ""),
    "bad PORT": ("PORT", "abc"),
}


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        pytest.param(*case, id=name, marks=pytest.mark.quick if name == "bad PORT" else ())
        for name, case in WRONG.items()
    ],
)
@pytest.mark.slow
def test_a_process_refuses_to_start_in_one_line(
    process: list[str], variable: str, value: str
) -> None:
    environ = child_environ(FILE, APP_ENV="production")
    environ |= {"HOST": "127.0.0.1", variable: value}
    done = subprocess.run(
        [sys.executable, "-m", *process],
        cwd=ROOT,
        env={name: text for name, text in environ.items() if text},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert done.stdout == ""
    (message,) = done.stderr.splitlines()
    assert re.search(rf"\b{variable}\b", message)
    assert KEY not in message


@pytest.mark.slow
def test_gunicorn_binds_where_the_settings_say_and_nowhere_else(sqlite_url: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    environ = child_environ(sqlite_url, PORT=str(port))
    environ.pop("HOST", None)
    server = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "wsgi:app"],
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            assert server.poll() is None
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                    assert answer.status == 200
                    break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
    finally:
        server.terminate()
        log = server.communicate(timeout=60)[0]
    assert re.findall(r"Listening at: (\S+)", log) == [f"http://127.0.0.1:{port}"]


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_every_name_of_postgresql_means_one_driver(scheme):
    """The schemes that operators and hosting providers write all mean psycopg 3."""
    url = settings(DATABASE_URL=f"{scheme}://u:p@db.example/analytics?sslmode=require").database_url
    assert (url.drivername, url.host, url.database) == (
        "postgresql+psycopg",
        "db.example",
        "analytics",
    )
    assert url.query == {"sslmode": "require"}


def test_several_hosts_are_parameters_of_the_url():
    """A URL with several hosts for failover reaches the driver as libpq reads it."""
    url = settings(
        DATABASE_URL="postgresql://u@/analytics?host=db1:5432&host=db2:5433"
        "&target_session_attrs=read-write"
    ).database_url
    _, options = url.get_dialect()().create_connect_args(url)
    assert (options["host"], options["port"]) == ("db1,db2", "5432,5433")
    assert options["target_session_attrs"] == "read-write"
