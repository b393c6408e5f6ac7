"""Parsers for settings: the text of an environment variable as a value.

A parser raises ``ValueError`` with the problem. The caller puts the variable's name in front of it,
as in "PORT must be …". The problem does not repeat the text, which may be a secret.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from app.config.keys import PrivateKey, PublicKey, parse_private_key, parse_public_key

MIN_SECRET_BYTES = 32

# Production refuses these known texts: placeholders of templates, and examples from the
# documentation of Flask, PyJWT and jwt.io that are long enough for a key.
_KNOWN_SECRET = re.compile(
    r"change.?(me|this|it)|replace.?(me|this)|placeholder|insecure|your.{0,12}secret"
    r"|a-string-secret-at-least-256-bits-long|super.?secret"
    r"|192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf"
)
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?")
_BIND = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<host>[A-Za-z0-9.-]+)):(?P<port>[0-9]{1,5})")
# A path of a URL that needs no escape and no normalisation.
PREFIX = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)*")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?\.?")
_CLAIM = re.compile(r"[\x21-\x7e]{1,200}")
# An e-mail address without quotes, comments and the characters that a mailto: URL would escape.
ADDRESS = re.compile(
    r"(?=.{3,254}$)[A-Za-z0-9_+'=~-]+(\.[A-Za-z0-9_+'=~-]+){0,20}"
    r"@(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-)){0,20}"
)
# The colon that ends the claim is the first one that is not part of a URL's "://".
_CLAIM_RULE = re.compile(r"(?P<claim>(?:[^:]|:(?=//))+):(?!//)(?P<values>[^\x00-\x1f\x7f]{1,1000})")
# The characters that RFC 6749, appendix A, allows in a client id and in a scope.
_VISIBLE = re.compile(r"[\x20-\x7e]{1,1000}")
_SCOPES = re.compile(r"[!#-\[\]-~]+( [!#-\[\]-~]+)*")


class Bind(NamedTuple):
    """An address to listen on."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class PublicUrl(NamedTuple):
    """The service's address as its users write it: ``https://HOST/PREFIX``."""

    scheme: str
    host: str
    prefix: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}{self.prefix}"


@dataclass(frozen=True, slots=True)
class Provider:
    """The identity provider for sign-in, and this service's client there.

    ``metadata_url``: where the provider's metadata is.
    ``audience``, ``resource``: what a sign-in asks an access token for, if anything.
    """

    issuer: str
    client_id: str
    client_secret: str | None = field(repr=False)
    client_key: PrivateKey | None = field(repr=False)
    scope: str
    metadata_url: str
    audience: str | None = None
    resource: str | None = None


class ClaimRule(NamedTuple):
    """A claim, and the values that give its owner a scope."""

    claim: str
    values: frozenset[str]


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """The server that sends e-mail, and how this service speaks to it.

    ``security`` is ``tls``, ``starttls`` or ``none``.
    """

    host: str
    port: int
    security: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Introspection:
    """The identity provider's introspection endpoint, and this service's client there."""

    url: str = field(repr=False)
    client_id: str
    client_secret: str = field(repr=False)


def environment(text: str) -> bool:
    """``development`` or ``production``; true for the latter."""
    if text not in ("development", "production"):
        raise ValueError("must be development or production")
    return text == "production"


def flag(text: str) -> bool:
    """``1`` or ``0``."""
    if text not in ("0", "1"):
        raise ValueError("must be 1 or 0")
    return text == "1"


def flask_flag(text: str) -> bool:
    """A flag, read as Flask reads its own flags: false for ``0``, ``false`` and ``no``."""
    return text.lower() not in ("0", "false", "no")


def no_flask_flag(text: str) -> bool:
    """A flag of Flask that must be off in production."""
    if flask_flag(text):
        raise ValueError("must not be set in production")
    return False


def integer(low: int, high: int) -> Callable[[str], int]:
    """A parser of whole numbers from ``low`` to ``high``, in plain digits."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= 12 and low <= int(text) <= high):
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return parse


def choice(*words: str) -> Callable[[str], str]:
    """A parser of one of a few words, in any case."""

    def parse(text: str) -> str:
        for word in words:
            if word.lower() == text.lower():
                return word
        raise ValueError(f"must be one of {', '.join(words)}")

    return parse


def unless_none(text: str) -> str | None:
    """The text; ``None`` for the word ``none``, with which an operator turns a check off."""
    return None if text == "none" else text


def bind(text: str) -> Bind:
    """``HOST:PORT``, an IPv6 host in brackets."""
    found = _BIND.fullmatch(text)
    if not found or not 1 <= int(found["port"]) <= 65535:
        raise ValueError("must be HOST:PORT, as 127.0.0.1:9464")
    return Bind(found["six"] or found["host"], int(found["port"]))


def host(text: str) -> str:
    """The address or the name of this machine, without a port."""
    bare = text.removeprefix("[").removesuffix("]")
    try:
        ip_address(bare)
    except ValueError:
        if not _HOST.fullmatch(text):
            raise ValueError(
                "must be an address or a host name without a port, as 127.0.0.1"
            ) from None
    return text


def folder(text: str) -> Path:
    """A folder, as an absolute path."""
    if not text.startswith("/"):
        raise ValueError("must be an absolute path")
    return Path(text)


def claim(text: str) -> str:
    """The name of a claim. It may be a URL, as at Auth0."""
    if not _CLAIM.fullmatch(text):
        raise ValueError("must be a claim's name: printable ASCII without spaces")
    return text


def claim_rule(text: str) -> ClaimRule:
    """``CLAIM:VALUE[,VALUE]``. The claim may be a URL, and a value may have colons."""
    found = _CLAIM_RULE.fullmatch(text)
    values = frozenset(found["values"].split(",")) if found else frozenset()
    if found is None or "" in values:
        raise ValueError("must be CLAIM:VALUE, or CLAIM:VALUE,VALUE, as groups:admins")
    return ClaimRule(claim(found["claim"]), values)


def audiences(text: str) -> tuple[str, ...] | None:
    """Audiences, separated by commas; ``None`` for the word ``none``, which turns the check off."""
    if text == "none":
        return None
    found = tuple(filter(None, (one.strip() for one in text.split(","))))
    if not found:
        raise ValueError("must be audiences, separated by commas, or none")
    return found


def secrets_of(text: str) -> tuple[str, ...]:
    """Keys that signed before, separated by commas; each is long enough for a key."""
    return tuple(secret(one) for one in text.split(",")) if text else ()


def exact(text: str) -> str:
    """A secret. White space around it would be part of it, and is almost always a mistake."""
    if text != text.strip():
        raise ValueError(
            "must not begin or end with white space; often this is the line break of a file"
        )
    return text


def secret(text: str) -> str:
    """A key that signs, long enough for HS256."""
    if len(exact(text).encode()) < MIN_SECRET_BYTES:
        raise ValueError(f"must have at least {MIN_SECRET_BYTES} bytes")
    return text


def random_secret(text: str) -> str:
    """A key that signs in production: long enough, and no known example."""
    if _KNOWN_SECRET.search(secret(text).lower()):
        raise ValueError("is a known default; use a random one")
    return text


def public_key(text: str) -> PublicKey:
    """A public key as PEM text."""
    # A line break may be written as \n, because many sources of variables allow no line breaks.
    return parse_public_key(text.replace("\\n", "\n"))


def public_key_file(text: str) -> PublicKey:
    """The public key in a PEM file."""
    return public_key(_text_of(text))


def private_key_file(text: str) -> PrivateKey:
    """The private key in a PEM file."""
    return parse_private_key(_text_of(text))


def _text_of(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise ValueError("cannot be read: the file is not text") from None


def web_url(text: str) -> str:
    """An ``https://`` or ``http://`` URL."""
    try:
        url = urlsplit(text)
        host = url.hostname
        _ = url.port
    except ValueError:
        raise ValueError("is not a URL; write https://HOST/PATH") from None
    if url.scheme not in ("https", "http") or not host or not text.isprintable() or " " in text:
        raise ValueError("must be an https:// URL")
    return text


def https_url(text: str) -> str:
    """An ``https://`` URL. ``http://`` is allowed only for this host."""
    url = urlsplit(web_url(text))
    if url.scheme == "http" and not _is_this_host(url.hostname or ""):
        raise ValueError("must be an https:// URL: over http, others can replace its keys")
    return text


def public_url(text: str) -> PublicUrl:
    """The service's own URL; it may have a path."""
    url = urlsplit(web_url(text))
    prefix = url.path.rstrip("/")
    if "?" in text or "#" in text or "@" in url.netloc or not PREFIX.fullmatch(prefix):
        raise ValueError("must be https://HOST or https://HOST/PATH, without query and user")
    return PublicUrl(url.scheme, url.netloc.lower(), prefix)


def networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Networks in CIDR notation, separated by commas or spaces."""
    found = []
    for one in text.replace(",", " ").split():
        try:
            found.append(ip_network(one))
        except ValueError:
            raise ValueError(f"must be networks as 10.1.0.0/16, not {one!r}") from None
    return tuple(found)


def address(text: str) -> str:
    """An e-mail address, without a name."""
    if not ADDRESS.fullmatch(text):
        raise ValueError("must be an address, as analytics@example.com")
    return text


def smtp_url(text: str) -> SmtpServer:
    """``smtps://USER:PASSWORD@HOST:PORT``, or ``smtp://`` with STARTTLS or ``?starttls=0``."""
    try:
        url = urlsplit(text)
        name, port = url.hostname, url.port
    except ValueError:
        raise ValueError("is not a URL; write smtp://HOST:PORT") from None
    plain = url.query == "starttls=0"
    if url.scheme not in ("smtp", "smtps") or not name or url.path.strip("/") or url.fragment:
        raise ValueError("must be smtp://HOST:PORT or smtps://HOST:PORT")
    if url.query and not (plain and url.scheme == "smtp"):
        raise ValueError("may only have the query ?starttls=0, of smtp://")
    user = None if url.username is None else unquote(url.username)
    password = None if url.password is None else unquote(url.password)
    if (user is None) != (password is None):
        raise ValueError("must have both a user and a password, or neither")
    if plain and user is not None:
        raise ValueError("must use TLS if it has a password")
    if url.scheme == "smtps":
        return SmtpServer(name, port or 465, "tls", user, password)
    if plain:
        return SmtpServer(name, port or 25, "none")
    return SmtpServer(name, port or 587, "starttls", user, password)


def _is_this_host(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def issuer(text: str) -> str:
    """The URL of an OpenID Connect issuer."""
    if "?" in text or "#" in text:
        raise ValueError("must have neither query nor fragment")
    return web_url(text)


def https_issuer(text: str) -> str:
    """The URL of an OpenID Connect issuer, by the rule of :func:`https_url`."""
    return https_url(issuer(text))


def resource(text: str) -> str:
    """An absolute URI without a fragment (RFC 8707, 2)."""
    try:
        scheme = urlsplit(text).scheme
    except ValueError:
        scheme = ""
    if not scheme or "#" in text or not _CLAIM.fullmatch(text):
        raise ValueError("must be a URI, as https://analytics.example.com, without a fragment")
    return text


def client_id(text: str) -> str:
    """The id of an OAuth client."""
    if not _VISIBLE.fullmatch(text):
        raise ValueError("must be printable ASCII")
    return text


def openid_scope(text: str) -> str:
    """Scopes of a sign-in."""
    if not _SCOPES.fullmatch(text) or "openid" not in text.split(" "):
        raise ValueError("must be scopes separated by spaces, openid among them")
    return text


def origins(text: str) -> tuple[str, ...]:
    """Origins as browsers send them, separated by commas or spaces."""
    found = tuple(text.replace(",", " ").split())
    for origin in found:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(f"must be origins as https://app.example.com, not {origin!r}")
    return found


def rate_limit(text: str) -> str | None:
    """A rate as ``600/minute``, or several separated by semicolons."""
    rate = unless_none(text)
    if rate is not None:
        import limits  # noqa: PLC0415 - slow to import, and few commands need it

        try:
            limits.parse_many(rate)
        except ValueError:
            raise ValueError("must be a rate, as 600/minute") from None
    return rate


def rate_limit_storage(text: str) -> str:
    """``memory://``, for each worker process, or a Redis URL, shared by all."""
    if text != "memory://" and not text.startswith(("redis://", "rediss://", "redis+unix://")):
        raise ValueError("must be memory:// or redis://HOST")
    return text


def database_url(text: str) -> URL:
    """A SQLAlchemy URL of SQLite or PostgreSQL."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # The cause is dropped, because it contains the URL and its password.
        raise ValueError(
            "is not a database URL; write postgresql://HOST/NAME or sqlite:////FILE"
        ) from None
    if url.drivername in ("postgresql", "postgres"):  # hosting providers write the latter
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "sqlite+pysqlite", "postgresql+psycopg"):
        raise ValueError("must be postgresql://HOST/NAME or sqlite:////FILE")
    if url.drivername.startswith("sqlite") and url.database in (None, "", ":memory:"):
        raise ValueError("must name a file: the processes share no memory")
    return url
