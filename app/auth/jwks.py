"""Keys that verify access tokens: a public key from its PEM text, or the provider's JWKS.

The algorithm always follows from the key, never from the token: what a token's header says
is compared with it and decides nothing (RFC 8725, 3.1).
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

# What a key set may verify with. Never HS256: its "oct" keys are secrets, a key set is public.
ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
FETCH_SECONDS = 3.0
# An unknown kid may be a freshly rotated key or anybody's invention, so it leads to a fetch,
# but not to a second one within this time. Below the 5 s in which a rotation is noticed.
REFETCH_SECONDS = 4.0
# So long a key that the provider has taken back may still be accepted.
FRESH_SECONDS = 300.0
MAX_FETCHES = 8  # that a provider keeps hanging
# Whatever a server that is broken, slow or somebody else's may do to a request.
_FETCH_FAILED = (PyJWTError, OSError, ValueError, RecursionError, http.client.HTTPException)
# Whatever may be wrong with a single key.
_UNUSABLE = (PyJWTError, ValueError, TypeError, NotImplementedError, UnsupportedAlgorithm)
log = logging.getLogger("app")


class KeySet:
    """The public keys that an identity provider publishes, by ``kid``.

    A fetch runs in a thread of its own, so that neither a slow provider nor one that sends
    a byte a second keeps a request longer than FETCH_SECONDS, and a token with a known key
    waits for none at all. When a fetch fails, the last good keys stay; after one that does not,
    ``on_fetch`` is called.
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
        """The key called ``kid``, fetched anew when it may have been published since.

        Raises:
            UnavailableError: no keys could be fetched yet, so nothing can be said.
        """
        key = self._keys.get(kid)
        if key is not None and time.monotonic() - self._fetched < FRESH_SECONDS:
            return key
        began = self._begin_fetch()
        # Who finds a fetch under way waits for it only when there is nothing to go by.
        if key is None and (began or not self._keys):
            self._done.wait(FETCH_SECONDS)
        if not self._keys:
            raise UnavailableError("the identity provider's keys could not be fetched")
        return self._keys.get(kid)

    def _begin_fetch(self) -> bool:
        """Start a fetch unless there was one just now; whether this call did."""
        with self._lock:
            now = time.monotonic()
            # One that is over its time is given up, though its thread may go on.
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
        except _FETCH_FAILED as error:
            # The last good keys stay. Not the message: it may repeat what a stranger sent.
            log.warning("jwks fetch failed: %s", type(error).__name__)
        finally:
            with self._lock:
                self._running -= 1
                # A fetch that was given up and comes in late must not undo a later one.
                if keys and began > self._fetched:
                    self._keys, self._fetched = keys, began
                    self._on_fetch()
            done.set()


def usable_keys(jwks: dict[str, Any]) -> dict[str, PyJWK]:
    """The keys of a JWKS that can verify a token, by ``kid``; what is wrong with one of them
    spoils none of the others."""
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
    except _UNUSABLE:
        return None
    return key if key.algorithm_name in ALGORITHMS and not weak else None
