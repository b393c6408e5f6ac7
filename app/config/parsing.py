"""The text of one environment variable as a value; what is wrong is refused by its name."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from app.config.keys import PublicKey, parse_public_key
from app.errors import SettingsError

Variables = Mapping[str, str]

MIN_SECRET_BYTES = 32
PROVIDER = ("OIDC_ISSUER", "OIDC_CLIENT_ID", "OIDC_CLIENT_SECRET")

# What templates have where a secret belongs, and the examples of Flask's, PyJWT's and
# jwt.io's own pages that are long enough to pass for one.
_KNOWN_DEFAULT = re.compile(
    r"change.?(me|this|it)|replace.?(me|this)|placeholder|insecure|your.{0,12}secret"
    r"|a-string-secret-at-least-256-bits-long|super.?secret"
    r"|192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf"
)
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?")
_BIND = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<host>[A-Za-z0-9.-]+)):(?P<port>[0-9]{1,5})")
_CLAIM = re.compile(r"[\x21-\x7e]{1,200}")
# RFC 6749, appendix A: what a client's id may hold, and a scope.
_VISIBLE = re.compile(r"[\x20-\x7e]{1,1000}")
_SCOPES = re.compile(r"[!#-\[\]-~]+( [!#-\[\]-~]+)*")


class Bind(NamedTuple):
    """Where to listen."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Provider:
    """Where people sign in, and as which client of it this service asks."""

    issuer: str
    client_id: str
    client_secret: str | None = field(repr=False)
    scope: str

    @property
    def metadata_url(self) -> str:
        """Where the provider describes itself (OpenID Connect Discovery, 4.1)."""
        return f"{self.issuer.removesuffix('/')}/.well-known/openid-configuration"


def bind(env: Variables, name: str) -> Bind | None:
    """``HOST:PORT``, an IPv6 host in brackets."""
    text = env.get(name)
    if text is None:
        return None
    found = _BIND.fullmatch(text)
    if not found or not 1 <= int(found["port"]) <= 65535:
        raise SettingsError(name, "must be HOST:PORT, as 127.0.0.1:9464")
    return Bind(found["six"] or found["host"], int(found["port"]))


def choice(env: Variables, name: str, default: str, choices: tuple[str, ...]) -> str:
    """One of a few words, in capitals or not."""
    text = env.get(name, default).lower()
    for word in choices:
        if word.lower() == text:
            return word
    raise SettingsError(name, f"must be one of {', '.join(choices)}")


def folder(env: Variables, name: str) -> Path | None:
    """A folder, as an absolute path."""
    text = env.get(name)
    if text is not None and not text.startswith("/"):
        raise SettingsError(name, "must be an absolute path")
    return Path(text) if text else None


def flag(env: Variables, name: str, *, default: bool = False) -> bool:
    """``1`` or ``0``."""
    text = env.get(name, str(int(default)))
    if text not in ("0", "1"):
        raise SettingsError(name, "must be 1 or 0")
    return text == "1"


def integer(env: Variables, name: str, default: int, low: int, high: int) -> int:
    """A whole number from ``low`` to ``high``, in plain digits."""
    text = env.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 12 and low <= int(text) <= high):
        raise SettingsError(name, f"must be a whole number from {low} to {high}")
    return int(text)


def unless_none(text: str | None) -> str | None:
    """The text, but for ``none``, which says explicitly that there is to be none."""
    return None if text == "none" else text


def claim(env: Variables, name: str) -> str | None:
    """The name of a claim; Auth0's are URLs."""
    text = env.get(name)
    if text is not None and not _CLAIM.fullmatch(text):
        raise SettingsError(name, "must be a claim's name: printable ASCII without spaces")
    return text


def secret(name: str, value: str, *, production: bool) -> str:
    """A secret for signing, long enough and, in production, not one that everybody knows."""
    if (name == "JWT_SECRET_KEY" or production) and len(value.encode()) < MIN_SECRET_BYTES:
        raise SettingsError(name, f"must have at least {MIN_SECRET_BYTES} bytes")
    if production and _KNOWN_DEFAULT.search(value.lower()):
        raise SettingsError(name, "is a known default; use a random one")
    return value


def public_key(env: Variables) -> PublicKey | None:
    """The key in ``JWT_PUBLIC_KEY``, or in the file that ``JWT_PUBLIC_KEY_FILE`` names."""
    name, pem = "JWT_PUBLIC_KEY", env.get("JWT_PUBLIC_KEY")
    if (path := env.get("JWT_PUBLIC_KEY_FILE")) is not None:
        name = "JWT_PUBLIC_KEY_FILE"
        try:
            pem = Path(path).read_text()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            raise SettingsError(name, f"cannot be read: {reason}") from None
    if pem is None:
        return None
    try:
        # Many places that variables come from cannot hold line breaks.
        return parse_public_key(pem.replace("\\n", "\n"))
    except ValueError as error:
        raise SettingsError(name, str(error)) from None


def provider(env: Variables, *, production: bool) -> Provider | None:
    """The identity provider for people; an issuer and a client of it belong together."""
    issuer = https_url(env, "OIDC_ISSUER", production=production)
    client_id, secret = env.get("OIDC_CLIENT_ID"), env.get("OIDC_CLIENT_SECRET")
    if issuer is None or client_id is None:
        given = [name for name in PROVIDER if name in env]
        missing = next(name for name in PROVIDER if name not in env)
        if given:
            raise SettingsError(given[0], f"needs {missing} beside it")
        return None
    if "?" in issuer or "#" in issuer:
        raise SettingsError("OIDC_ISSUER", "must have neither query nor fragment")
    if not _VISIBLE.fullmatch(client_id):
        raise SettingsError("OIDC_CLIENT_ID", "must be printable ASCII")
    scope = env.get("OIDC_SCOPE", "openid")
    if not _SCOPES.fullmatch(scope) or "openid" not in scope.split(" "):
        raise SettingsError("OIDC_SCOPE", "must be scopes separated by spaces, openid among them")
    return Provider(issuer, client_id, secret, scope)


def https_url(env: Variables, name: str, *, production: bool) -> str | None:
    """An https URL; http is for development and for this host."""
    text = env.get(name)
    if text is None:
        return None
    try:
        url = urlsplit(text)
        host = url.hostname
        _ = url.port
    except ValueError:
        raise SettingsError(name, "is not a URL") from None
    if url.scheme not in ("https", "http") or not host or not text.isprintable() or " " in text:
        raise SettingsError(name, "must be an https:// URL")
    if production and url.scheme == "http" and not _is_this_host(host):
        raise SettingsError(
            name, "must be an https:// URL: whoever changes keys on their way in is let in"
        )
    return text


def _is_this_host(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def origins(env: Variables) -> tuple[str, ...]:
    """Origins as browsers send them, separated by commas or spaces."""
    found = tuple(env.get("CORS_ORIGINS", "").replace(",", " ").split())
    for origin in found:
        if not _ORIGIN.fullmatch(origin):
            raise SettingsError(
                "CORS_ORIGINS", f"must be origins as https://app.example.com, not {origin!r}"
            )
    return found


def rate_limit(env: Variables) -> str | None:
    """A rate as ``600/minute``, or several separated by semicolons."""
    text = unless_none(env.get("RATE_LIMIT"))
    if text is not None:
        import limits  # noqa: PLC0415 - as in app.web.rate_limit: every command would wait for it

        try:
            limits.parse_many(text)
        except ValueError:
            raise SettingsError("RATE_LIMIT", "must be a rate, as 600/minute") from None
    return text


def rate_limit_storage(env: Variables) -> str:
    """``memory://``, each worker process by itself, or a Redis URL, shared by all."""
    text = env.get("RATE_LIMIT_STORAGE", "memory://")
    if text != "memory://" and not text.startswith(("redis://", "rediss://", "redis+unix://")):
        # Not repeated: it may hold a password.
        raise SettingsError("RATE_LIMIT_STORAGE", "must be memory:// or redis://…")
    return text


def database_url(text: str, name: str = "DATABASE_URL") -> URL:
    """A SQLAlchemy URL of a database that is supported; ``name`` is who is told when it is not."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # The cause holds the URL, and with it a password.
        raise SettingsError(name, "is not a database URL") from None
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "sqlite+pysqlite", "postgresql+psycopg"):
        raise SettingsError(name, "must be sqlite:///… or postgresql://…")
    if url.drivername.startswith("sqlite") and url.database in (None, "", ":memory:"):
        raise SettingsError(name, "must name a file: processes share no memory")
    return url
