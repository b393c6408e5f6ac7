"""Every setting, read from the environment once, in one frozen object.

This module is the only reader of environment variables. A bad value stops the
start with a :class:`~app.errors.SettingsError` that names the variable.
"""

import os
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from app.errors import SettingsError

ROOT = Path(__file__).resolve().parents[1]
MIN_KEY_BYTES = 32

# Sources of verification keys that the contract names and this version does not
# read yet. Ignoring one would leave its owner with a service that trusts another key.
_NOT_YET = ("JWT_PUBLIC_KEY", "JWT_PUBLIC_KEY_FILE", "JWT_JWKS_URL")


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one process; secrets stay out of its repr."""

    production: bool
    database_url: URL = field(repr=False)
    host: str
    port: int
    secret_key: str = field(repr=False)
    jwt_secret_key: str = field(repr=False)
    jwt_issuer: str | None
    jwt_audience: str | None
    rollup_interval_seconds: int
    rollup_wait_seconds: int
    rollup_window_ids: int
    event_retention_days: int

    @property
    def address(self) -> str:
        """``HOST:PORT``, an IPv6 host in brackets."""
        host = f"[{self.host.strip('[]')}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read and check every variable; an empty one counts as unset.

        Raises:
            SettingsError: names the first variable that is wrong.
        """
        env = {name: value for name, value in environ.items() if value}
        mode = env.get("APP_ENV", "development")
        if mode not in ("development", "production"):
            raise SettingsError("APP_ENV", "must be development or production")
        production = mode == "production"
        for name in _NOT_YET:
            if name in env:
                raise SettingsError(name, "is not supported by this version; use JWT_SECRET_KEY")
        return cls(
            production=production,
            database_url=_database_url(env),
            host=env.get("HOST", "127.0.0.1"),
            port=_integer(env, "PORT", 3000, 1, 65535),
            secret_key=_secret(env, "SECRET_KEY", production),
            jwt_secret_key=_secret(env, "JWT_SECRET_KEY", production),
            jwt_issuer=_unless_none(env.get("JWT_ISSUER")),
            jwt_audience=_unless_none(env.get("JWT_AUDIENCE")),
            rollup_interval_seconds=_integer(env, "ROLLUP_INTERVAL_SECONDS", 15, 1, 86_400),
            rollup_wait_seconds=_integer(env, "ROLLUP_WAIT_SECONDS", 30, 0, 3_600),
            rollup_window_ids=_integer(env, "ROLLUP_WINDOW_IDS", 1_000_000, 1, 100_000_000),
            event_retention_days=_integer(env, "EVENT_RETENTION_DAYS", 90, 1, 36_500),
        )


def instance_path() -> Path:
    """The folder for the default database and development keys, made when missing."""
    path = ROOT / "instance"
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        os.listdir(path)
    except OSError as error:
        raise SettingsError(
            "DATABASE_URL, SECRET_KEY and JWT_SECRET_KEY", f"must be set: {error}"
        ) from None
    return path


def _integer(env: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = env.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 12 and low <= int(text) <= high):
        raise SettingsError(name, f"must be a whole number from {low} to {high}")
    return int(text)


def _unless_none(text: str | None) -> str | None:
    return None if text == "none" else text


def _database_url(env: Mapping[str, str]) -> URL:
    text = env.get("DATABASE_URL")
    if text is None:
        return make_url(f"sqlite:///{instance_path() / 'analytics.db'}")
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # The cause holds the URL, and with it a password.
        raise SettingsError("DATABASE_URL", "is not a database URL") from None
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "sqlite+pysqlite", "postgresql+psycopg"):
        raise SettingsError("DATABASE_URL", "must be sqlite:///… or postgresql://…")
    if url.drivername.startswith("sqlite") and url.database in (None, "", ":memory:"):
        raise SettingsError("DATABASE_URL", "must name a file: processes share no memory")
    return url


def _secret(env: Mapping[str, str], name: str, production: bool) -> str:
    value = env.get(name)
    if value is None:
        if production:
            raise SettingsError(name, "must be set in production")
        return _instance_secret(name)
    if (name == "JWT_SECRET_KEY" or production) and len(value.encode()) < MIN_KEY_BYTES:
        raise SettingsError(name, f"must have at least {MIN_KEY_BYTES} bytes")
    return value


def _instance_secret(name: str) -> str:
    """A random key that every process of this instance folder shares."""
    path = instance_path() / name.lower()
    if not path.exists():
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as draft:
            draft.write(secrets.token_urlsafe(48))
        try:
            # A link appears whole or not at all: of two processes one wins, both read it.
            os.link(draft.name, path)
        except FileExistsError:
            pass
        finally:
            os.unlink(draft.name)
    return path.read_text()
