"""Every setting, read from the environment once, in one frozen object.

This module is the only reader of environment variables. A bad value stops the
start with a :class:`~app.errors.SettingsError` that names the variable.
"""

import os
import secrets
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.engine import URL, make_url

from app.config import parsing as variables
from app.config.keys import PublicKey
from app.config.parsing import Bind, Provider, Variables, integer
from app.errors import SettingsError

ROOT = Path(__file__).resolve().parents[2]
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
LOG_FORMATS = ("auto", "text", "json")
KEY_SOURCES = ("JWT_SECRET_KEY", "JWT_PUBLIC_KEY", "JWT_PUBLIC_KEY_FILE", "JWT_JWKS_URL")


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one process; secrets stay out of its repr.

    Exactly one of ``jwt_secret_key``, ``jwt_public_key`` and ``jwt_jwks_url`` is there.
    ``jwt_scope_claim`` is ``None`` for the usual ones, ``scope`` or else ``scp``. Without a
    ``provider`` nobody signs in by one; ``token_login`` lets people paste an access token.
    """

    production: bool
    database_url: URL = field(repr=False)
    row_security: bool
    citus_shard_count: int
    host: str
    port: int
    web_workers: int
    web_threads: int
    trusted_proxies: int
    cors_origins: tuple[str, ...]
    secret_key: str = field(repr=False)
    jwt_secret_key: str | None = field(repr=False)
    jwt_public_key: PublicKey | None
    jwt_jwks_url: str | None = field(repr=False)
    jwt_issuer: str | None
    jwt_audience: str | None
    jwt_organization_claim: str
    jwt_scope_claim: str | None
    provider: Provider | None
    token_login: bool
    rate_limit: str | None
    rate_limit_storage: str = field(repr=False)
    max_body_bytes: int
    max_batch_events: int
    rollup_interval_seconds: int
    rollup_wait_seconds: int
    rollup_window_ids: int
    event_retention_days: int
    log_level: str
    log_format: str
    metrics_bind: Bind | None
    jobs_metrics_bind: Bind | None
    metrics_folder: Path | None
    tracing: bool

    @property
    def address(self) -> str:
        """``HOST:PORT``, an IPv6 host in brackets."""
        return str(Bind(self.host.strip("[]"), self.port))

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
        _check_key_sources(env, production)
        settings = cls(
            production=production,
            database_url=_database_url(env),
            row_security=variables.flag(env, "DATABASE_ROW_SECURITY"),
            citus_shard_count=integer(env, "CITUS_SHARD_COUNT", 32, 1, 64_000),
            host=env.get("HOST", "127.0.0.1"),
            port=integer(env, "PORT", 3000, 1, 65535),
            web_workers=integer(env, "WEB_WORKERS", 2, 1, 1000),
            web_threads=integer(env, "WEB_THREADS", 4, 1, 1000),
            trusted_proxies=integer(env, "TRUSTED_PROXIES", 0, 0, 10),
            cors_origins=variables.origins(env),
            secret_key=_secret(env, "SECRET_KEY", production),
            jwt_secret_key=_jwt_secret_key(env, production),
            jwt_public_key=variables.public_key(env),
            jwt_jwks_url=variables.https_url(env, "JWT_JWKS_URL", production=production),
            jwt_issuer=variables.unless_none(env.get("JWT_ISSUER")),
            jwt_audience=variables.unless_none(env.get("JWT_AUDIENCE")),
            jwt_organization_claim=variables.claim(env, "JWT_ORGANIZATION_CLAIM")
            or "organization_id",
            jwt_scope_claim=variables.claim(env, "JWT_SCOPE_CLAIM"),
            provider=variables.provider(env, production=production),
            token_login=variables.flag(env, "DASHBOARD_TOKEN_LOGIN", default=not production),
            rate_limit=variables.rate_limit(env),
            rate_limit_storage=variables.rate_limit_storage(env),
            max_body_bytes=integer(env, "MAX_BODY_BYTES", 8 * 1024**2, 1024, 1024**3),
            max_batch_events=integer(env, "MAX_BATCH_EVENTS", 10_000, 1, 1_000_000),
            rollup_interval_seconds=integer(env, "ROLLUP_INTERVAL_SECONDS", 15, 1, 86_400),
            rollup_wait_seconds=integer(env, "ROLLUP_WAIT_SECONDS", 30, 0, 3_600),
            rollup_window_ids=integer(env, "ROLLUP_WINDOW_IDS", 1_000_000, 1, 100_000_000),
            event_retention_days=integer(env, "EVENT_RETENTION_DAYS", 90, 1, 36_500),
            log_level=variables.choice(env, "LOG_LEVEL", "INFO", LOG_LEVELS),
            log_format=variables.choice(env, "LOG_FORMAT", "auto", LOG_FORMATS),
            metrics_bind=variables.bind(env, "METRICS_BIND"),
            jobs_metrics_bind=variables.bind(env, "JOBS_METRICS_BIND"),
            metrics_folder=variables.folder(env, "PROMETHEUS_MULTIPROC_DIR"),
            tracing=variables.flag(env, "TRACING"),
        )
        if settings.row_security and settings.database_url.get_backend_name() == "sqlite":
            raise SettingsError("DATABASE_ROW_SECURITY", "needs PostgreSQL")
        if production:
            _check_production(env, settings)
        return settings


def instance_path() -> Path:
    """The folder for the default database and development keys, made when missing.

    Beside the code in a checkout; of an installed package, where Flask has it, too.
    """
    path = ROOT / "instance"
    if ROOT.name in ("site-packages", "dist-packages"):
        path = Path(sys.prefix) / "var" / "agentidp-analytics-instance"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.listdir(path)
    except OSError as error:
        raise SettingsError(
            "DATABASE_URL, SECRET_KEY and JWT_SECRET_KEY", f"must be set: {error}"
        ) from None
    return path


def colours_wanted(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the user has not switched colours off, as https://no-color.org has it."""
    return not environ.get("NO_COLOR")


def _check_key_sources(env: Variables, production: bool) -> None:
    """Two sources would leave it open whom the service trusts; production has to name one."""
    given = [name for name in KEY_SOURCES if name in env]
    if len(given) > 1:
        raise SettingsError(" and ".join(given), "are both set; one source of keys is trusted")
    if production and not given:
        raise SettingsError("JWT_SECRET_KEY", f"or one of {', '.join(KEY_SOURCES[1:])} must be set")


def _check_production(env: Variables, settings: Settings) -> None:
    """What is convenient in development and dangerous where others can reach it."""
    if settings.jwt_secret_key is None:
        for name in ("JWT_ISSUER", "JWT_AUDIENCE"):
            if name not in env:
                raise SettingsError(
                    name,
                    "must be set with a public key: the provider also signs for others; or none",
                )
    if settings.database_url.get_backend_name() == "sqlite" and not variables.flag(
        env, "ALLOW_SQLITE"
    ):
        raise SettingsError(
            "DATABASE_URL", "must be PostgreSQL in production, unless ALLOW_SQLITE=1"
        )
    if env.get("FLASK_DEBUG", "0").lower() not in ("0", "false", "no"):
        raise SettingsError("FLASK_DEBUG", "must not be set in production")


def _database_url(env: Variables) -> URL:
    text = env.get("DATABASE_URL")
    if text is None:
        return make_url(f"sqlite:///{instance_path() / 'analytics.db'}")
    return variables.database_url(text)


def _jwt_secret_key(env: Variables, production: bool) -> str | None:
    if any(name in env for name in KEY_SOURCES[1:]):
        return None
    return _secret(env, "JWT_SECRET_KEY", production)


def _secret(env: Variables, name: str, production: bool) -> str:
    value = env.get(name)
    if value is None:
        if production:
            raise SettingsError(name, "must be set in production")
        return _instance_secret(name)
    return variables.secret(name, value, production=production)


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
