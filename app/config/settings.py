"""Every setting, declared once: variable, parser, default and help.

``Settings.from_environ`` reads them into one frozen object. An invalid value raises
:class:`~app.errors.SettingsError`, which names the variable, and the process does not start. Only
this package reads environment variables. ``python -m app.config.document`` writes the documents
from the declarations.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

from app.config import parsing
from app.config.declaration import Computed, setting, variables
from app.config.instance import instance_folder, instance_secret
from app.config.keys import PrivateKey, PublicKey
from app.config.parsing import (
    Bind,
    ClaimRule,
    Introspection,
    Provider,
    PublicUrl,
    SmtpServer,
    integer,
)
from app.errors import SettingsError

ROOT = Path(__file__).resolve().parents[2]
KEY_SOURCES = ("JWT_SECRET_KEY", "JWT_PUBLIC_KEY", "JWT_PUBLIC_KEY_FILE", "JWT_JWKS_URL")
INTROSPECTION = (
    "INTROSPECTION_URL",
    "INTROSPECTION_CLIENT_ID",
    "INTROSPECTION_CLIENT_SECRET",
)
PROVIDER = (
    *("OIDC_ISSUER", "OIDC_CLIENT_ID", "OIDC_CLIENT_SECRET", "OIDC_CLIENT_KEY_FILE"),
    *("OIDC_METADATA_URL", "OIDC_RESOURCE", "OIDC_ORGANIZATION_CLAIM", "OIDC_ADMIN_CLAIM"),
    "OIDC_OPERATOR_CLAIM",
)


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one process; secrets stay out of its repr.

    At most one of ``jwt_secret_key``, ``jwt_public_key`` and ``jwt_jwks_url`` is not ``None``. If
    all are, ``introspection`` is not.
    """

    production: bool = setting(
        "APP_ENV",
        parsing.environment,
        "development",
        "`production` refuses to start with unsafe settings, and names each one",
    )
    database_url: URL = setting(
        "DATABASE_URL",
        parsing.database_url,
        Computed("a SQLite file in `instance/`"),
        "SQLite or PostgreSQL, as a SQLAlchemy URL; `postgresql://` and `postgres://` mean"
        " psycopg 3",
        secret=True,
    )
    allow_sqlite: bool = setting(
        "ALLOW_SQLITE", parsing.flag, "0", "`1` allows SQLite in production"
    )
    row_security: bool = setting(
        "DATABASE_ROW_SECURITY",
        parsing.flag,
        "0",
        "`1` sends PostgreSQL the tenant of each read, for"
        " [row-level security](operate/postgresql.md#row-level-security)",
    )
    citus_shard_count: int = setting(
        "CITUS_SHARD_COUNT",
        integer(1, 64_000),
        "32",
        "the number of shards that `flask db upgrade` makes in a [cluster](operate/scale.md)",
    )
    host: str = setting(
        "HOST", parsing.host, "127.0.0.1", "the address that gunicorn binds, without a port"
    )
    port: int = setting("PORT", integer(1, 65535), "3000", "the port that gunicorn binds")
    web_workers: int = setting(
        "WEB_WORKERS", integer(1, 1000), "2", "the number of gunicorn's processes"
    )
    web_threads: int = setting(
        "WEB_THREADS",
        integer(1, 1000),
        "4",
        "the requests that each process handles at once; each has a database connection; with 1, a"
        " client that reads a long report slowly keeps out all others",
    )
    public_url: PublicUrl | None = setting(
        "PUBLIC_URL",
        parsing.public_url,
        Computed("each request's own"),
        "the service's [own address](operate/deploying.md#own-address), as"
        " `https://analytics.example.com` or `https://example.com/analytics`; links, redirects"
        " and cookies follow it",
    )
    trusted_proxies: int = setting(
        "TRUSTED_PROXIES",
        integer(0, 10),
        "0",
        "the number of proxies in front that set `X-Forwarded-For`, `-Proto`, `-Host`, `-Port`"
        " and `-Prefix`; `0` ignores these headers; with `PUBLIC_URL` only `-For` counts",
    )
    cors_origins: tuple[str, ...] = setting(
        "CORS_ORIGINS",
        parsing.origins,
        "",
        "origins whose pages may call the API, as `https://app.example.com`, separated by commas",
    )
    share_frame_ancestors: tuple[str, ...] = setting(
        "SHARE_FRAME_ANCESTORS",
        parsing.origins,
        "",
        "origins whose pages may show a [share link](dashboard.md#share-links) inside a frame, as"
        " `https://intranet.example.com`, separated by commas; empty: none may",
    )
    secret_key: str = setting(
        "SECRET_KEY",
        parsing.exact,
        Computed("random, kept in `instance/`"),
        "signs cookies and forms; the same on every host; required in production, with 32"
        " bytes or more",
        secret=True,
        exact=True,
        in_production=parsing.random_secret,
    )
    secret_key_fallbacks: tuple[str, ...] = setting(
        "SECRET_KEY_FALLBACKS",
        parsing.secrets_of,
        "",
        "former values of `SECRET_KEY`, separated by commas, while it is being"
        " [changed](operate/runbook.md#key-rotation): what they signed stays valid",
        secret=True,
    )
    jwt_secret_key: str | None = setting(
        "JWT_SECRET_KEY",
        parsing.secret,
        Computed("random, kept in `instance/`"),
        "verifies access tokens (HS256), 32 bytes or more",
        secret=True,
        exact=True,
        in_production=parsing.random_secret,
    )
    jwt_public_key: PublicKey | None = setting(
        "JWT_PUBLIC_KEY",
        parsing.public_key,
        None,
        "instead of `JWT_SECRET_KEY`: a PEM public key; RSA (RS256), P-256 (ES256) or"
        " Ed25519 (EdDSA)",
    )
    jwt_public_key_file: PublicKey | None = setting(
        "JWT_PUBLIC_KEY_FILE",
        parsing.public_key_file,
        None,
        "instead of `JWT_SECRET_KEY`: the file of such a key",
    )
    jwt_jwks_url: str | None = setting(
        "JWT_JWKS_URL",
        parsing.web_url,
        None,
        "instead of `JWT_SECRET_KEY`: the"
        " [identity provider's](identity-providers/index.md) key set; the service follows its"
        " rotations",
        secret=True,
        in_production=parsing.https_url,
    )
    introspection_url: str | None = setting(
        "INTROSPECTION_URL",
        parsing.web_url,
        None,
        "instead of `JWT_SECRET_KEY`, or beside another source of keys: the identity provider's"
        " endpoint that says what an [opaque token](identity-providers/index.md#opaque-tokens) is"
        " (RFC 7662)",
        secret=True,
        in_production=parsing.https_url,
    )
    introspection_client_id: str | None = setting(
        "INTROSPECTION_CLIENT_ID",
        parsing.client_id,
        None,
        "this service's client for that endpoint",
    )
    introspection_client_secret: str | None = setting(
        "INTROSPECTION_CLIENT_SECRET",
        parsing.exact,
        None,
        "the secret of that client",
        secret=True,
        exact=True,
    )
    jwt_issuer: str | None = setting(
        "JWT_ISSUER",
        parsing.unless_none,
        Computed("not checked"),
        "the required value of `iss`; `none` states explicitly that it is not checked",
    )
    jwt_audiences: tuple[str, ...] | None = setting(
        "JWT_AUDIENCE",
        parsing.audiences,
        Computed("not checked"),
        "the values of `aud` of which a token needs one, separated by commas; `none` states"
        " explicitly that it is not checked",
    )
    jwt_organization_claim: str = setting(
        "JWT_ORGANIZATION_CLAIM",
        parsing.claim,
        "organization_id",
        "the claim that names the organization; `a.b` or the JSON pointer `/a/b` for a claim inside"
        " another",
    )
    jwt_scope_claim: str | None = setting(
        "JWT_SCOPE_CLAIM",
        parsing.claim,
        Computed("`scope`, else `scp`"),
        "the claim that holds the scopes, named in the same ways",
    )
    require_at_jwt: bool = setting(
        "REQUIRE_AT_JWT",
        parsing.flag,
        "0",
        "`1` accepts only tokens whose header has the type `at+jwt` (RFC 9068); see"
        " [security](security.md#kinds-of-token)",
    )
    ssl_cert_file: Path | None = setting(
        "SSL_CERT_FILE",
        Path,
        None,
        "a PEM file of certificate authorities that may sign the identity provider's certificate,"
        " beside the system's; for key set and sign-in",
    )
    requests_ca_bundle: Path | None = setting(
        "REQUESTS_CA_BUNDLE", Path, None, "the same, by a name that other programs use"
    )
    oidc_issuer: str | None = setting(
        "OIDC_ISSUER",
        parsing.issuer,
        None,
        "the identity provider for [sign-in to the dashboard](dashboard.md#signing-in)",
        in_production=parsing.https_issuer,
    )
    oidc_client_id: str | None = setting(
        "OIDC_CLIENT_ID", parsing.client_id, None, "this service's client at that provider"
    )
    oidc_client_secret: str | None = setting(
        "OIDC_CLIENT_SECRET",
        parsing.exact,
        None,
        "the secret of that client, unless it is a public client",
        secret=True,
        exact=True,
    )
    oidc_client_key: PrivateKey | None = setting(
        "OIDC_CLIENT_KEY_FILE",
        parsing.private_key_file,
        None,
        "instead of the secret: a PEM file with the client's private key (`private_key_jwt`)",
        secret=True,
    )
    oidc_metadata_url: str | None = setting(
        "OIDC_METADATA_URL",
        parsing.web_url,
        Computed("`OIDC_ISSUER/.well-known/openid-configuration`"),
        "where the provider's discovery document is, if it is elsewhere",
        in_production=parsing.https_url,
    )
    oidc_scope: str = setting(
        "OIDC_SCOPE",
        parsing.openid_scope,
        "openid",
        "the scopes that a sign-in requests, separated by spaces; `openid` is required;"
        " `offline_access` asks many providers for a refresh token",
    )
    oidc_resource: str | None = setting(
        "OIDC_RESOURCE",
        parsing.resource,
        None,
        "the `resource` (RFC 8707) that a sign-in names, for providers that issue a JWT for it",
    )
    oidc_organization_claim: str | None = setting(
        "OIDC_ORGANIZATION_CLAIM",
        parsing.claim,
        None,
        "the claim of the ID token, or of userinfo, that names a person's"
        " [organizations](dashboard.md#whose-numbers); without it, the access token must name one",
    )
    oidc_admin_claim: ClaimRule | None = setting(
        "OIDC_ADMIN_CLAIM",
        parsing.claim_rule,
        None,
        "`CLAIM:VALUE` or `CLAIM:VALUE,VALUE`, as `groups:analytics-admins`: people with such a"
        " value administer their organization (`analytics:admin`, `agents:write`)",
    )
    oidc_operator_claim: ClaimRule | None = setting(
        "OIDC_OPERATOR_CLAIM",
        parsing.claim_rule,
        None,
        "the same for people who may read every organization (`analytics:read:any`)",
    )
    session_hours: int = setting(
        "SESSION_HOURS",
        integer(1, 168),
        "12",
        "the longest that a person stays signed in; meanwhile the session is renewed at the"
        " provider",
    )
    token_login: bool = setting(
        "DASHBOARD_TOKEN_LOGIN",
        parsing.flag,
        Computed("`1`; `0` in production"),
        "`1` lets people sign in with a pasted access token",
    )
    rate_limit: str | None = setting(
        "RATE_LIMIT",
        parsing.rate_limit,
        None,
        "requests per tenant, as `600/minute`; further requests get 429",
    )
    rate_limit_storage: str = setting(
        "RATE_LIMIT_STORAGE",
        parsing.rate_limit_storage,
        "memory://",
        "`memory://` counts in each worker process; `redis://…` counts for all of them together,"
        " by the hosts' clocks, which must agree",
        secret=True,
    )
    max_body_bytes: int = setting(
        "MAX_BODY_BYTES",
        integer(1024, 1024**3),
        "8388608",
        "the largest body of a `POST` or `PUT`, both as sent and decompressed",
    )
    max_batch_events: int = setting(
        "MAX_BATCH_EVENTS",
        integer(1, 1_000_000),
        "10000",
        "the largest number of events in a batch",
    )
    max_event_bytes: int = setting(
        "MAX_EVENT_BYTES",
        integer(1024, 1024**2),
        "65536",
        "the largest event or name of an agent in a body, and the largest line or CSV record of an"
        " import",
    )
    max_document_bytes: int = setting(
        "MAX_DOCUMENT_BYTES",
        integer(1024, 1024**4),
        "268435456",
        "the largest JSON document with many records, such as an array, in an import; each of its"
        " records has at most `MAX_EVENT_BYTES`",
    )
    sources_file: Path | None = setting(
        "SOURCES_FILE",
        Path,
        None,
        "a TOML file: the [sources](identity-providers/following.md) that the jobs follow and pull,"
        " and your organization for each of a provider's",
    )
    rollup_interval_seconds: int = setting(
        "ROLLUP_INTERVAL_SECONDS", integer(1, 86_400), "15", "the seconds between two rollup runs"
    )
    rollup_wait_seconds: int = setting(
        "ROLLUP_WAIT_SECONDS",
        integer(0, 3_600),
        "30",
        "how many seconds a run waits for open writers before it leaves the rest to the next run",
    )
    rollup_window_ids: int = setting(
        "ROLLUP_WINDOW_IDS",
        integer(1, 100_000_000),
        "1000000",
        "the largest number of event ids in one transaction of a run",
    )
    event_retention_days: int = setting(
        "EVENT_RETENTION_DAYS",
        integer(1, 36_500),
        "90",
        "how many days after receipt a raw event is kept and its redelivery is recognised",
    )
    hourly_retention_days: int = setting(
        "HOURLY_RETENTION_DAYS",
        integer(0, 36_500),
        "800",
        "how many days the numbers of hours (`hourly_issuance`) are kept, by whole months; `0`"
        " keeps them for good, as all other numbers",
    )
    agent_daily_retention_days: int = setting(
        "AGENT_DAILY_RETENTION_DAYS",
        integer(0, 36_500),
        "800",
        "the same for the days of agents (`daily_agent_issuance`)",
    )
    token_lifetime_seconds: int = setting(
        "TOKEN_LIFETIME_SECONDS",
        integer(1, 31_622_400),
        "3600",
        "how many seconds an agent can keep a token, where neither the organization nor the agent"
        " has a [lifetime of its own](api.md#settings); an agent that asks ten times as often is"
        " named",
    )
    webhook_allow: tuple[IPv4Network | IPv6Network, ...] = setting(
        "WEBHOOK_ALLOW",
        parsing.networks,
        "",
        "private networks that [webhooks](webhooks.md#targets) may send to, as `10.1.0.0/16`,"
        " separated by commas; in them `http://` and every port are allowed, too",
    )
    smtp_url: SmtpServer | None = setting(
        "SMTP_URL",
        parsing.smtp_url,
        None,
        "the server that sends [e-mail](webhooks.md#e-mail), as"
        " `smtp://USER:PASSWORD@HOST:587` (with STARTTLS) or `smtps://…:465`",
        secret=True,
    )
    smtp_from: str | None = setting(
        "SMTP_FROM",
        parsing.address,
        None,
        "the address of the sender; required with `SMTP_URL`",
    )
    log_level: str = setting(
        "LOG_LEVEL",
        parsing.choice("DEBUG", "INFO", "WARNING", "ERROR"),
        "INFO",
        "`DEBUG`, `INFO`, `WARNING` or `ERROR`",
    )
    log_format: str = setting(
        "LOG_FORMAT",
        parsing.choice("auto", "text", "json"),
        "auto",
        "`json`, `text`, or `auto`: text on a terminal, else JSON",
    )
    metrics_bind: Bind | None = setting(
        "METRICS_BIND",
        parsing.bind,
        None,
        "the address that serves [metrics](operate/monitoring.md#metrics) to Prometheus, as"
        " `127.0.0.1:9464`; they need no token, so keep it on a private network",
    )
    jobs_metrics_bind: Bind | None = setting(
        "JOBS_METRICS_BIND",
        parsing.bind,
        Computed("`METRICS_BIND`"),
        "the same for the jobs, when they share a host with the web",
    )
    metrics_folder: Path | None = setting(
        "PROMETHEUS_MULTIPROC_DIR",
        parsing.folder,
        Computed("a new folder"),
        "the folder where gunicorn's workers share their metrics; must hold nothing else;"
        " used by the web only",
    )
    tracing: bool = setting(
        "TRACING",
        parsing.flag,
        "0",
        "`1` sends OpenTelemetry [traces](operate/monitoring.md#traces)",
    )
    flask_debug: bool = setting(
        "FLASK_DEBUG",
        parsing.flask_flag,
        "0",
        "Flask's own debug mode; production refuses it",
        in_production=parsing.no_flask_flag,
    )

    @property
    def table_retention_days(self) -> dict[str, int]:
        """For how many days each of these summary tables keeps its rows; 0 for good."""
        return {
            "hourly_issuance": self.hourly_retention_days,
            "daily_agent_issuance": self.agent_daily_retention_days,
        }

    @property
    def address(self) -> str:
        """``HOST:PORT``, an IPv6 host in brackets."""
        return str(Bind(self.bare_host, self.port))

    @property
    def bare_host(self) -> str:
        """``HOST``, an IPv6 address without brackets."""
        return self.host.strip("[]")

    @property
    def base_url(self) -> str:
        """The URL of the service's root, without a slash at its end."""
        return f"http://{self.address}" if self.public_url is None else str(self.public_url)

    @property
    def sign_in_link(self) -> bool:
        """Whether a link with a token behind its ``#`` may sign in: in development only."""
        return self.token_login and not self.production

    @property
    def provider(self) -> Provider | None:
        """The identity provider where people sign in, if there is one."""
        if self.oidc_issuer is None or self.oidc_client_id is None:
            return None
        well_known = f"{self.oidc_issuer.removesuffix('/')}/.well-known/openid-configuration"
        # An access token for this service is needed only where it names the organization.
        wanted = self.jwt_audiences if self.oidc_organization_claim is None else None
        return Provider(
            self.oidc_issuer,
            self.oidc_client_id,
            self.oidc_client_secret,
            self.oidc_client_key,
            self.oidc_scope,
            self.oidc_metadata_url or well_known,
            wanted[0] if wanted else None,
            self.oidc_resource,
        )

    @property
    def introspection(self) -> Introspection | None:
        """The endpoint that says what an opaque token is, if there is one."""
        url, client_id = self.introspection_url, self.introspection_client_id
        if url is None or client_id is None or self.introspection_client_secret is None:
            return None
        return Introspection(url, client_id, self.introspection_client_secret)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read and check every variable; an empty one counts as unset.

        White space around a value is removed, but not around a secret.

        Raises:
            SettingsError: a variable is invalid or missing; the message names it.
        """
        declared = variables(cls)
        texts = {one.name: one.text(environ) for one in declared.values()}
        env = {name: text for name, text in texts.items() if text is not None}
        production = declared["production"].read(env, production=False) is True
        _check_key_sources(env, production=production)
        env = _computed_defaults(env, production=production) | env
        values: dict[str, Any] = {
            name: one.read(env, production=production) for name, one in declared.items()
        }
        values["jwt_public_key"] = values["jwt_public_key"] or values["jwt_public_key_file"]
        settings = cls(**values)
        _check_together(env, settings)
        return settings


def child_environ(variables: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child process: that of this one, and ``variables``."""
    return {**os.environ, **variables}


def colours_wanted(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether ``NO_COLOR`` is unset or empty (https://no-color.org)."""
    return not environ.get("NO_COLOR")


def _computed_defaults(env: Mapping[str, str], *, production: bool) -> dict[str, str]:
    """The defaults that must be computed: token sign-in, database and secrets, if unset."""
    found = {"DASHBOARD_TOKEN_LOGIN": "0" if production else "1"}
    if "DATABASE_URL" not in env:
        found["DATABASE_URL"] = f"sqlite:///{instance_folder(ROOT) / 'analytics.db'}"
    if "SECRET_KEY" not in env:
        if production:
            raise SettingsError("SECRET_KEY", "must be set in production")
        found["SECRET_KEY"] = instance_secret(ROOT, "SECRET_KEY")
    if not any(name in env for name in (*KEY_SOURCES, INTROSPECTION[0])):
        found["JWT_SECRET_KEY"] = instance_secret(ROOT, "JWT_SECRET_KEY")
    return found


def _check_key_sources(env: Mapping[str, str], *, production: bool) -> None:
    """Allow at most one source of keys; production requires one, or introspection.

    With two sources it would be unclear which issuer is trusted.
    """
    given = [name for name in KEY_SOURCES if name in env]
    if len(given) > 1:
        raise SettingsError(" and ".join(given), "are set together; keep one source of keys")
    if production and not given and INTROSPECTION[0] not in env:
        others = ", ".join((*KEY_SOURCES[1:], INTROSPECTION[0]))
        raise SettingsError("JWT_SECRET_KEY", f"or one of {others} must be set")


def _check_together(env: Mapping[str, str], settings: Settings) -> None:
    """Check the rules that involve more than one variable."""
    _check_groups(env, settings)
    is_sqlite = settings.database_url.get_backend_name() == "sqlite"
    if is_sqlite and settings.row_security:
        raise SettingsError("DATABASE_ROW_SECURITY", "needs PostgreSQL")
    if not settings.production:
        return
    if is_sqlite and not settings.allow_sqlite:
        raise SettingsError(
            "DATABASE_URL", "must be PostgreSQL in production, unless ALLOW_SQLITE=1"
        )
    # With a public key both must be checked: a provider signs tokens for other services with the
    # same keys.
    unchecked = [name for name in ("JWT_ISSUER", "JWT_AUDIENCE") if name not in env]
    if unchecked and settings.jwt_secret_key is None:
        raise SettingsError(
            unchecked[0], "must be set with a public key; `none` turns the check off"
        )


def _check_groups(env: Mapping[str, str], settings: Settings) -> None:
    """Check variables of which one needs another, or excludes it."""
    groups = (
        (PROVIDER, PROVIDER[:2], settings.provider),
        (INTROSPECTION, INTROSPECTION, settings.introspection),
    )
    for names, needed, found in groups:
        given = [name for name in names if name in env]
        if given and found is None:
            missing = next(name for name in needed if name not in env)
            raise SettingsError(given[0], f"needs {missing} beside it")
    if settings.smtp_url is not None and settings.smtp_from is None:
        raise SettingsError("SMTP_URL", "needs SMTP_FROM beside it")
    if "OIDC_CLIENT_SECRET" in env and "OIDC_CLIENT_KEY_FILE" in env:
        raise SettingsError("OIDC_CLIENT_SECRET and OIDC_CLIENT_KEY_FILE", "are set; keep one")
