"""Token cache: tokens that were verified within a minute, so that they are not verified again.

API keys have caches of this kind, too. An entry is found by the hash of the whole token. It is
valid for at most a minute and never past the token's expiry. A fetch of the provider's keys empties
the cache, so a withdrawn key stops working at that fetch. Cached tokens delay such a fetch by at
most a minute. The cache has a maximum size, because the owner of a key can sign any number of
tokens. A value is small, because :class:`~app.auth.tokens.Caller` keeps only short texts of a
token.
"""

import threading
import time
from hashlib import sha256
from typing import Generic, TypeVar

T = TypeVar("T")

TTL_SECONDS = 60.0
MAX_TOKENS = 4096


class TokenCache(Generic[T]):
    """One value for each verified token, in one process.

    Args:
        seconds: how long a value is valid; ``TTL_SECONDS`` unless given.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = TTL_SECONDS if seconds is None else seconds
        self._entries: dict[bytes, tuple[T, float, float]] = {}
        self._lock = threading.Lock()
        self._generation = 0

    @property
    def generation(self) -> int:
        """A number that changes with each :meth:`clear`. Read it before a verification begins."""
        return self._generation

    def get(self, token: str) -> T | None:
        """The value of ``token``; ``None`` when the token must be verified."""
        entry = self._entries.get(_key(token))
        if entry is None:
            return None
        value, expiry, until = entry
        return value if time.time() < expiry and time.monotonic() < until else None

    def has_had(self, token: str) -> bool:
        """Whether there was a value of ``token``, even if it is no longer valid."""
        return _key(token) in self._entries

    def put(self, token: str, value: T, expiry: float, generation: int | None = None) -> None:
        """Store the value of a token that was just verified.

        Args:
            expiry: the token's ``exp``.
            generation: the cache's when the verification began. If the cache was cleared since
                then, the token may have been verified with a withdrawn key, and is not stored.
        """
        key = _key(token)
        with self._lock:
            if generation not in (None, self._generation):
                return
            # A dict keeps the order of insertion: a new entry must become the newest.
            self._entries.pop(key, None)
            while len(self._entries) >= MAX_TOKENS:
                del self._entries[next(iter(self._entries))]
            self._entries[key] = (value, expiry, time.monotonic() + self._seconds)

    def clear(self) -> None:
        """Remove every token, because keys may have been withdrawn."""
        with self._lock:
            self._generation += 1
            self._entries.clear()


def _key(token: str) -> bytes:
    return sha256(token.encode()).digest()
