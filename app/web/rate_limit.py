"""Rate limit: how many requests one tenant may send to all routes together (``RATE_LIMIT``)."""

import logging
import math
import threading
import time
from collections import deque
from typing import Any

from flask import Flask, Response, current_app, g

from app.config.settings import Settings
from app.errors import RateLimitError

EXTENSION = "analytics_rate_limiter"
REDIS_RETRY_SECONDS = 5.0
REDIS_TIMEOUT_SECONDS = 1.0
SWEEP_SECONDS = 60.0

log = logging.getLogger("app")


def init_app(app: Flask, settings: Settings) -> None:
    """Prepare the rate limiter: in Redis for all processes, or in this process alone."""
    app.extensions[EXTENSION] = None
    if settings.rate_limit is not None:
        app.extensions[EXTENSION] = RateLimiter(settings.rate_limit, settings.rate_limit_storage)
        app.after_request(_add_headers)


def count_request() -> None:
    """Count the current request. Blueprints call it before a view, after authentication.

    Raises:
        RateLimitError: the tenant has sent too many requests.
    """
    limiter: RateLimiter | None = current_app.extensions[EXTENSION]
    if limiter is not None:
        limiter.count(_counted_as())


def count_request_of(caller: str) -> None:
    """Count the current request of a caller without a token, as a share link.

    Raises:
        RateLimitError: the caller has sent too many requests.
    """
    limiter: RateLimiter | None = current_app.extensions[EXTENSION]
    if limiter is not None:
        limiter.count(caller)


class MovingWindow:
    """The requests of each caller in this process, by a clock that nobody can set.

    The memory storage of ``limits`` uses the host's time. A host clock that is set back would stop
    each caller that has reached its limit, for as long as the clock was set back.
    """

    def __init__(self) -> None:
        # The rate is a part of the key: the same caller is counted once for each rate.
        self._requests: dict[tuple[Any, str], deque[float]] = {}
        self._sweep_at = time.monotonic()

    def test(self, rate: Any, caller: str) -> bool:
        """Whether one more request is within the rate."""
        return bool(len(self._recent(rate, caller)) < rate.amount)

    def hit(self, rate: Any, caller: str) -> bool:
        """Count a request; false if it is beyond the rate, and then not counted."""
        recent = self._recent(rate, caller)
        if len(recent) >= rate.amount:
            return False
        recent.append(time.monotonic())
        self._requests[rate, caller] = recent
        return True

    def get_window_stats(self, rate: Any, caller: str) -> tuple[float, int]:
        """The Unix time at which a request becomes free, and the number of free requests."""
        recent = self._recent(rate, caller)
        age = time.monotonic() - recent[0] if recent else 0.0
        return time.time() + rate.get_expiry() - age, rate.amount - len(recent)

    def _recent(self, rate: Any, caller: str) -> deque[float]:
        now = time.monotonic()
        self._sweep(now)
        found = self._requests.get((rate, caller)) or deque()
        while found and found[0] <= now - rate.get_expiry():
            found.popleft()
        return found

    def _sweep(self, now: float) -> None:
        """Forget callers that have sent nothing within their window, once in a while."""
        if now < self._sweep_at:
            return
        self._sweep_at = now + SWEEP_SECONDS
        for key, sent in list(self._requests.items()):
            if not sent or sent[-1] <= now - key[0].get_expiry():
                del self._requests[key]


class RateLimiter:
    """Counts requests against each rate, in Redis for all processes or in this process alone."""

    def __init__(self, rates: str, storage: str) -> None:
        # The import is slow, and commands that serve no request do not need it.
        from limits import parse_many, strategies  # noqa: PLC0415
        from limits.storage import storage_from_string  # noqa: PLC0415

        self._rates = parse_many(rates)
        self._own, self._lock = MovingWindow(), threading.Lock()
        self._shared = None
        if storage != "memory://":
            timeouts = dict.fromkeys(
                ("socket_timeout", "socket_connect_timeout"), REDIS_TIMEOUT_SECONDS
            )
            # A moving window: a fixed one would allow twice the rate around its end.
            counter = strategies.MovingWindowRateLimiter
            self._shared = counter(storage_from_string(storage, **timeouts))
        self._retry_redis_at = float("-inf")

    def count(self, caller: str) -> None:
        """Count one request of ``caller`` against each rate and set ``g.rate_limit``.

        While Redis is unavailable, each process counts alone. Requests are then still answered
        and still limited.

        Raises:
            RateLimitError: the caller has sent too many requests.
        """
        if self._shared is not None and time.monotonic() >= self._retry_redis_at:
            try:
                return self._count(self._shared, caller)
            except self._shared.storage.base_exceptions as error:
                # The message is not logged: it may hold a password.
                log.warning("rate limit: storage unavailable: %s", type(error).__name__)
                self._retry_redis_at = time.monotonic() + REDIS_RETRY_SECONDS
        with self._lock:
            return self._count(self._own, caller)

    def _count(self, counter: Any, caller: str) -> None:
        # Of several rates, all are tested before one is used: a refused request must use up none.
        several = self._rates if len(self._rates) > 1 else []
        full = next((rate for rate in several if not counter.test(rate, caller)), None)
        if full is None:
            # Another process may have used a rate since the test.
            full = next((rate for rate in self._rates if not counter.hit(rate, caller)), None)
        rate = full or self._rates[0]
        reset, remaining = counter.get_window_stats(rate, caller)
        g.rate_limit = (rate.amount, remaining, reset)
        if full is not None:
            # At least 1: "Retry-After: 0" would make the client send the request at once. At most
            # the window: after a clock was set, Redis may name a time that is far ahead.
            wait = min(math.ceil(reset - time.time()), rate.get_expiry())
            raise RateLimitError(max(1, wait))


def _counted_as() -> str:
    """The name that a request is counted under: its tenant, or without a tenant its client."""
    caller = g.caller
    return f"tenant {caller.tenant_id}" if caller.tenant_id else f"client {caller.client_id}"


def _add_headers(response: Response) -> Response:
    """Add the limit, the remaining requests, and the reset time in Unix seconds."""
    if (counted := g.get("rate_limit")) is not None:
        amount, remaining, reset = counted
        response.headers["X-RateLimit-Limit"] = str(amount)
        response.headers["X-RateLimit-Remaining"] = str(remaining)
        response.headers["X-RateLimit-Reset"] = str(math.ceil(reset))
    return response
