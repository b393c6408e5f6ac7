"""JWKS: the public keys that an identity provider publishes, with their rotation.

The algorithm follows from the key, never from the token. A token's header is only compared with
the key (RFC 8725, 3.1).
"""

import http.client
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from jwt import PyJWK, PyJWKClient
from jwt.exceptions import PyJWTError

from app.errors import UnavailableError

# The algorithms of a JWKS. Never HS256: its "oct" keys are secrets, and a JWKS is public.
ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
FETCH_SECONDS = 3.0
# An unknown kid may belong to a new key, or it may be invented. So it starts a fetch, but at most
# one within this time. The time is below 5 s, within which a rotation must be noticed.
REFETCH_SECONDS = 4.0
# A key that the provider has withdrawn may be accepted for this time.
FRESH_SECONDS = 300.0
MAX_FETCHES = 8  # at the same time, when the provider does not answer
# Every error that a broken, slow or wrong server can cause.
_FETCH_ERRORS = (PyJWTError, OSError, ValueError, RecursionError, http.client.HTTPException)
# Every error that a single invalid key can cause.
_KEY_ERRORS = (PyJWTError, ValueError, TypeError, NotImplementedError, UnsupportedAlgorithm)
log = logging.getLogger("app")


class KeySet:
    """The keys of a JWKS, by ``kid``.

    A fetch runs in its own thread. A slow provider therefore delays a request by at most
    FETCH_SECONDS, and a token with a known key does not wait. When a fetch fails, the last
    valid keys stay. After a fetch that succeeds, ``on_fetch`` is called.
    """

    def __init__(self, url: str, on_fetch: Callable[[], object] = lambda: None) -> None:
        self._on_fetch = on_fetch
        self._client = PyJWKClient(url, cache_jwk_set=False, timeout=FETCH_SECONDS)
        self._keys: dict[str, PyJWK] = {}
        self._lock = threading.Lock()
        self._began = self._fetched = float("-inf")
        self._running = 0
        self._done = threading.Event()
        self._done.set()

    def find(self, kid: str) -> PyJWK | None:
        """The key with this ``kid``; fetches the JWKS again when it may have changed.

        Raises:
            UnavailableError: no keys have been fetched yet.
        """
        key = self._keys.get(kid)
        if key is not None and time.monotonic() - self._fetched < FRESH_SECONDS:
            return key
        began = self._begin_fetch()
        # A request waits for another request's fetch only when there are no keys at all.
        if key is None and (began or not self._keys):
            self._done.wait(FETCH_SECONDS)
        if not self._keys:
            raise UnavailableError(
                "the identity provider's keys could not be fetched; try again in a few seconds"
            )
        return self._keys.get(kid)

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
        keys: dict[str, PyJWK] = {}
        try:
            keys = usable_keys(self._client.fetch_data())
        except _FETCH_ERRORS as error:
            # The message is not logged: it may repeat text from an unknown server.
            log.warning("jwks fetch failed: %s", type(error).__name__)
        finally:
            with self._lock:
                self._running -= 1
                # A late result must not replace the keys of a newer fetch.
                if keys and began > self._fetched:
                    self._keys, self._fetched = keys, began
                    self._on_fetch()
            done.set()


def usable_keys(jwks: dict[str, Any]) -> dict[str, PyJWK]:
    """The keys of a JWKS that can verify a token, by ``kid``; invalid keys are left out."""
    members = jwks.get("keys")
    found = (_usable_key(member) for member in (members if isinstance(members, list) else []))
    return {str(key.key_id): key for key in found if key is not None}


def _usable_key(member: Any) -> PyJWK | None:
    kid = member.get("kid") if isinstance(member, dict) else None
    if not isinstance(kid, str) or not kid:
        return None
    if member.get("use", "sig") != "sig":
        return None
    try:
        key = PyJWK(member)
        weak = key.Algorithm.check_key_length(key.key)
    except _KEY_ERRORS:
        return None
    return key if key.algorithm_name in ALGORITHMS and not weak else None
