"""Tokens that were verified a moment ago, so that a client's next request costs no signature.

By the hash of the whole token, for at most a minute and never past its expiry, and not beyond
new keys: whoever takes a key back is obeyed at the next fetch of the key set, which comes at
most that minute later. Bounded, since anybody with a key can sign many.
"""

import time
from hashlib import sha256
from typing import Generic, TypeVar

T = TypeVar("T")

SECONDS = 60.0
MOST = 4096


class Remembered(Generic[T]):
    """What verified tokens stand for, in one process."""

    def __init__(self) -> None:
        self._found: dict[bytes, tuple[T, float, float]] = {}

    def find(self, token: str) -> T | None:
        """What ``token`` stands for; ``None`` when it has to be verified."""
        found = self._found.get(_key(token))
        if found is None:
            return None
        value, expiry, until = found
        return value if time.time() < expiry and time.monotonic() < until else None

    def keep(self, token: str, value: T, expiry: float) -> None:
        """Remember a token that was verified just now; ``expiry`` is its ``exp``."""
        key = _key(token)
        self._found.pop(key, None)  # so that it counts as the newest again
        while len(self._found) >= MOST:
            # Another thread may be at the same one.
            self._found.pop(next(iter(self._found), b""), None)
        self._found[key] = (value, expiry, time.monotonic() + SECONDS)

    def forget(self) -> None:
        """Verify every token again: keys may have been taken back."""
        self._found.clear()


def _key(token: str) -> bytes:
    return sha256(token.encode()).digest()
