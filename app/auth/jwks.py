"""JWKS: the public keys that an identity provider publishes, with their rotation.

The algorithm follows from the key, never from the token. A token's header is only compared with
the key (RFC 8725, 3.1).
"""

import json
import logging
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.request import Request

from cryptography.exceptions import UnsupportedAlgorithm
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from app.errors import UnavailableError
from app.provider_http import (
    FETCHED,
    NO_USABLE_KEY,
    NOT_A_KEY_SET,
    NOT_JSON,
    STATUS,
    FetchError,
    fetch,
)
from app.telemetry import logs, metrics

_RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
# The algorithms of a JWKS. Never HS256: its "oct" keys are secrets, and a JWKS is public.
ALGORITHMS = (*_RSA_ALGORITHMS, "ES256", "ES384", "ES512", "EdDSA")
FETCH_SECONDS = 3.0
# An unknown kid may belong to a new key, or it may be invented. So it starts a fetch, but at most
# one within this time. The time is below 5 s, within which a rotation must be noticed.
REFETCH_SECONDS = 4.0
# A key that the provider has withdrawn may be accepted for this time.
FRESH_SECONDS = 300.0
# While every fetch fails, the last keys are used for this time. Nobody can withdraw a key then.
MAX_AGE_SECONDS = 24 * 3600.0
MAX_FETCHES = 8  # at the same time, when the provider does not answer
# Every error that a single invalid key can cause.
_KEY_ERRORS = (PyJWTError, ValueError, TypeError, NotImplementedError, UnsupportedAlgorithm)

# A kid's keys, by their algorithm. An RSA key whose algorithm is not published has six.
Keys = Mapping[str, Mapping[str, PyJWK]]
log = logging.getLogger("app")


class KeySet:
    """The keys of a JWKS, by ``kid``.

    A fetch runs in its own thread. A slow provider therefore delays a request by at most
    FETCH_SECONDS, and a token with a known key does not wait. When a fetch fails, the last
    keys stay, up to MAX_AGE_SECONDS. After a fetch that succeeds, ``on_fetch`` is called.
    """

    def __init__(
        self,
        url: str,
        certificates: ssl.SSLContext,
        on_fetch: Callable[[], object] = lambda: None,
    ) -> None:
        self._url = url
        self._certificates = certificates
        self._on_fetch = on_fetch
        self._keys: Keys = {}
        self._lock = threading.Lock()
        self._began = self._fetched = float("-inf")
        self._running = 0
        self._failure: str | None = None
        self._done = threading.Event()
        self._done.set()

    def find(self, kid: str) -> Mapping[str, PyJWK] | None:
        """The keys with this ``kid``; fetches the JWKS again when it may have changed.

        Raises:
            UnavailableError: no keys have been fetched yet, or the last fetch is too long ago.
        """
        found = self._keys.get(kid)
        if found is not None and time.monotonic() - self._fetched < FRESH_SECONDS:
            return found
        began = self._begin_fetch()
        # A request waits for another request's fetch only when there are no keys at all.
        if (found is None and began) or self._is_too_old():
            self._done.wait(FETCH_SECONDS)
        if self._is_too_old():
            raise UnavailableError(
                "the identity provider's keys could not be fetched; try again in a few seconds",
                cause=f"key set: {self._failure or 'timeout'}",
            )
        return self._keys.get(kid)

    def _is_too_old(self) -> bool:
        return time.monotonic() - self._fetched > MAX_AGE_SECONDS

    def _begin_fetch(self) -> bool:
        """Start a fetch unless one has started recently; return whether this call did."""
        with self._lock:
            now = time.monotonic()
            # A fetch past its time no longer counts, although its thread may go on.
            pause = REFETCH_SECONDS if self._done.is_set() else max(REFETCH_SECONDS, FETCH_SECONDS)
            if now - self._began < pause or self._running >= MAX_FETCHES:
                return False
            self._began, self._done = now, threading.Event()
            self._running += 1
            arguments = (now, self._done)
        threading.Thread(target=self._fetch, args=arguments, name="jwks", daemon=True).start()
        return True

    def _fetch(self, began: float, done: threading.Event) -> None:
        try:
            self._accept(self._published_keys(), began)
            metrics.count_key_fetch(FETCHED)
        except FetchError as error:
            self._failure = str(error)
            metrics.count_key_fetch(error.outcome)
            logs.write(log, logging.WARNING, "jwks fetch failed", cause=str(error))
        finally:
            with self._lock:
                self._running -= 1
            done.set()

    def _published_keys(self) -> Keys:
        answer = fetch(Request(self._url), self._certificates, FETCH_SECONDS)  # noqa: S310 - http(s)
        if answer.status != HTTPStatus.OK:
            raise FetchError(STATUS, answer.status)
        try:
            return usable_keys(json.loads(answer.body))
        except (ValueError, RecursionError):
            raise FetchError(NOT_JSON) from None

    def _accept(self, keys: Keys, began: float) -> None:
        """Replace the keys by those of a fetch that began at ``began``.

        A set without a usable key withdraws the keys that there were. Without any, it is the
        mistake of a provider that is not ready.
        """
        with self._lock:
            if not keys and self._is_too_old():
                raise FetchError(NO_USABLE_KEY)
            # A late result must not replace the keys of a newer fetch.
            if began > self._fetched:
                is_changed = keys.keys() != self._keys.keys()
                self._keys, self._fetched, self._failure = keys, began, None
                self._on_fetch()
                if is_changed:
                    level = logging.INFO if keys else logging.WARNING
                    logs.write(log, level, "jwks changed", keys=len(keys))


def usable_keys(document: Any) -> Keys:
    """The keys of a JWKS that can verify a token, by ``kid``; invalid keys are left out.

    Raises:
        FetchError: the document is not a JWKS.
    """
    members = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(members, list):
        raise FetchError(NOT_A_KEY_SET)
    found: dict[str, dict[str, PyJWK]] = {}
    for member in members:
        for key in _usable_key(member):
            found.setdefault(str(key.key_id), {})[key.algorithm_name] = key
    return found


def _usable_key(member: Any) -> list[PyJWK]:
    """A member of a JWKS, once for each algorithm that it verifies."""
    kid = member.get("kid") if isinstance(member, dict) else None
    return verifying_keys(member) if isinstance(kid, str) and kid else []


def verifying_keys(member: Any) -> list[PyJWK]:
    """The same for a member whose ``kid`` does not matter."""
    if not isinstance(member, dict) or member.get("use", "sig") != "sig":
        return []
    if "d" in member:  # a private key: every reader of the set could sign with it
        return []
    # The algorithm of a curve is its own. An RSA key without one verifies all of RSA's.
    is_any_rsa = member.get("kty") == "RSA" and not member.get("alg")
    try:
        keys = [PyJWK(member, name) for name in (_RSA_ALGORITHMS if is_any_rsa else (None,))]
        weak = any(key.Algorithm.check_key_length(key.key) for key in keys)
    except _KEY_ERRORS:
        return []
    return [] if weak else [key for key in keys if key.algorithm_name in ALGORITHMS]
