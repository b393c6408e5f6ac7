"""Credentials for the API of a provider: a token, or a client with which one is requested."""

import json
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request

import msgspec

from app.config import parsing
from app.errors import ValidationError
from app.intake.events import prepared
from app.provider_http import NOT_JSON, STATUS, Answer, FetchError

MAX_FILE_BYTES = 64 * 1024
# A token is requested anew so long before it expires.
EARLY_SECONDS = 60.0
# How long a token lasts if the provider does not say it.
DEFAULT_SECONDS = 300.0
MEMBERS = ("token", "client_id", "client_secret", "token_url", "scope", "audience")


class TokenError(Exception):
    """The provider refuses the client. To try again would not help, and may lock the client out."""


@prepared
class Secret(msgspec.Struct, forbid_unknown_fields=True):
    """The content of a secret file: ``token``, or ``client_id`` and ``client_secret``."""

    token: str | None = None
    client_id: str | None = None
    client_secret: str | None = None
    token_url: str | None = None
    scope: str | None = None
    audience: str | None = None

    def __repr__(self) -> str:
        return "Secret()"


def read_secret(path: Path) -> Secret:
    """The secret in a file: a TOML table, a JSON object, or one line that is a token.

    Raises:
        ValidationError: the file cannot be read or is invalid. The message holds nothing of it.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1).decode("utf-8-sig")
    except OSError as error:
        raise ValidationError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValidationError(f"{path} is not text") from None
    if len(text) > MAX_FILE_BYTES:
        raise ValidationError(f"{path} is larger than {MAX_FILE_BYTES} bytes")
    try:
        secret = msgspec.convert(_table(text), Secret)
    except (ValueError, RecursionError, msgspec.ValidationError):
        raise ValidationError(
            f"{path} must be a TOML table or a JSON object of {', '.join(MEMBERS)}, or one line"
            " that is a token"
        ) from None
    _check(path, secret)
    return secret


def _table(text: str) -> Any:
    bare = text.strip()
    if bare.startswith("{"):
        return json.loads(bare)
    if len(bare.splitlines()) == 1 and "=" not in bare.rstrip("="):
        return {"token": bare}
    return tomllib.loads(text)


def _check(path: Path, secret: Secret) -> None:
    if (secret.token is None) == (secret.client_id is None and secret.client_secret is None):
        raise ValidationError(f"{path} must have token, or client_id and client_secret")
    if secret.token is None and not (secret.client_id and secret.client_secret):
        raise ValidationError(f"{path} must have both client_id and client_secret")
    token = secret.token
    if token is not None and not (token.isascii() and token.isprintable() and token.strip()):
        raise ValidationError(f"{path} has a token with characters that no header can have")
    if secret.token_url is not None:
        try:
            parsing.web_url(secret.token_url)
        except ValueError as error:
            raise ValidationError(f"{path}: token_url {error}") from None


@dataclass(frozen=True)
class TokenEndpoint:
    """Where a provider gives tokens to a client, unless the secret file says it.

    Attributes:
        url: the endpoint; ``None`` if the provider has none that can be derived.
        fixed: the scheme of a token that was created by hand.
    """

    url: str | None
    scope: str | None = None
    audience: str | None = None
    fixed: str = "Bearer"


class Credentials:
    """The credentials of one source. A token is kept in memory until shortly before its end.

    Args:
        path: the secret file. It is read again for each new token, so it may be replaced.
        fetch: sends a request.
        check_url: refuses a URL that a secret must not be sent to.
    """

    def __init__(
        self,
        path: Path,
        endpoint: TokenEndpoint,
        fetch: Callable[[Request], Answer],
        check_url: Callable[[str], object] = parsing.web_url,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._endpoint = endpoint
        self._fetch = fetch
        self._check_url = check_url
        self._monotonic = monotonic
        self._value: str | None = None
        self._until = 0.0

    def header(self) -> str:
        """The value of the header ``Authorization``.

        Raises:
            ValidationError: the secret file is invalid.
            TokenError: the provider refuses the client.
            FetchError: the provider gave no token; try again later.
        """
        if self._value is None or self._monotonic() >= self._until:
            self._value = self._new()
        return self._value

    def forget(self) -> None:
        """Forget the token, which the provider has refused."""
        self._value = None

    def _new(self) -> str:
        secret = read_secret(self._path)
        if secret.token is not None:
            self._until = self._monotonic() + DEFAULT_SECONDS
            # A token of OAuth is a JWT at the providers that also have tokens made by hand.
            scheme = "Bearer" if secret.token.count(".") == 2 else self._endpoint.fixed
            return f"{scheme} {secret.token}"
        url = secret.token_url or self._endpoint.url
        if url is None:
            raise ValidationError(f"{self._path} must have token_url beside client_id")
        try:
            self._check_url(url)
        except ValueError as error:
            raise ValidationError(f"{self._path}: token_url {error}") from None
        answer = self._fetch(_token_request(url, secret, self._endpoint))
        if answer.status != HTTPStatus.OK:
            reason = f"{answer.status} for a token"
            if answer.status == HTTPStatus.TOO_MANY_REQUESTS or answer.status >= 500:
                raise FetchError(STATUS, reason)
            raise TokenError(f"status {reason}; check the client in the secret file")
        try:
            granted = msgspec.json.decode(answer.body, type=dict[str, Any])
            value, seconds = granted["access_token"], granted.get("expires_in", DEFAULT_SECONDS)
            lifetime = float(seconds)
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError, OverflowError):
            raise FetchError(NOT_JSON, "with access_token") from None
        if not (isinstance(value, str) and value.isascii() and value.isprintable() and value):
            raise FetchError(NOT_JSON, "with access_token")
        # A token that lasts shorter than the margin is used once, and not requested in a loop.
        self._until = self._monotonic() + max(lifetime - EARLY_SECONDS, min(lifetime / 2, 5))
        return f"Bearer {value}"


def _token_request(url: str, secret: Secret, endpoint: TokenEndpoint) -> Request:
    form: Mapping[str, str | None] = {
        "grant_type": "client_credentials",
        "client_id": secret.client_id,
        "client_secret": secret.client_secret,
        "scope": secret.scope or endpoint.scope,
        "audience": secret.audience or endpoint.audience,
    }
    body = urlencode({name: value for name, value in form.items() if value}).encode()
    request = Request(url, body, method="POST")  # noqa: S310 - checked to be http(s)
    request.add_header("Content-Type", "application/x-www-form-urlencoded")
    request.add_header("Accept", "application/json")
    return request
