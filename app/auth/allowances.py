"""Allowances: how many unknown credentials each client may still send.

An unknown API key costs a query, and an unknown opaque token a request to the identity provider. So
a client with too many different ones has to wait.
"""

import ipaddress
import math
import threading
import time

from app.errors import RateLimitError

# Unknown credentials that a client may send at once, and the time after which it may send one more.
UNKNOWN, SECONDS_EACH = 20, 3.0
MAX_CLIENTS = 4096


class Allowances:
    """The allowance of each client. A client is an address.

    Args:
        cause: the cause of a refusal, for the log.
    """

    def __init__(self, cause: str) -> None:
        self._cause = cause
        # When each client will have its whole allowance again, by time.monotonic().
        self._whole_at: dict[str, float] = {}
        self._lock = threading.Lock()

    def check(self, client: str) -> None:
        """Refuse a client that has used up its allowance.

        Raises:
            RateLimitError: says after which time it may send a credential.
        """
        wait = self._whole_at.get(_network(client), 0.0) - time.monotonic()
        if wait > (UNKNOWN - 1) * SECONDS_EACH:
            over = wait - (UNKNOWN - 1) * SECONDS_EACH
            raise RateLimitError(math.ceil(over), cause=self._cause)

    def use(self, client: str) -> None:
        """Count an unknown credential."""
        name, now = _network(client), time.monotonic()
        with self._lock:
            whole_at = max(self._whole_at.pop(name, now), now) + SECONDS_EACH
            while len(self._whole_at) >= MAX_CLIENTS:
                del self._whole_at[next(iter(self._whole_at))]
            self._whole_at[name] = whole_at


def _network(client: str) -> str:
    """The address, or of IPv6 its network: a client may have any address in that."""
    if ":" not in client:
        return client
    try:
        return str(ipaddress.ip_network(f"{client.partition('%')[0]}/64", strict=False))
    except ValueError:
        return client
