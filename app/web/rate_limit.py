"""Rate limit: how many requests one tenant may send to all routes together (``RATE_LIMIT``)."""

import logging
import math
import time
from typing import Any

from flask import Flask, Response, current_app, g

from app.config.settings import Settings
from app.errors import RateLimitError

EXTENSION = "analytics_rate_limiter"
REDIS_RETRY_SECONDS = 5.0
REDIS_TIMEOUT_SECONDS = 1.0

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


class RateLimiter:
    """Counts requests against each rate, in Redis for all processes or in this process alone."""

    def __init__(self, rates: str, storage: str) -> None:
        # The import is slow, and commands that serve no request do not need it.
        from limits import parse_many, strategies  # noqa: PLC0415
        from limits.storage import MemoryStorage, storage_from_string  # noqa: PLC0415

        # A moving window: a fixed one would allow twice the rate around its end.
        counter = strategies.MovingWindowRateLimiter
        self._rates = parse_many(rates)
        self._own = self._shared = counter(MemoryStorage())
        if storage != "memory://":
            timeouts = dict.fromkeys(
                ("socket_timeout", "socket_connect_timeout"), REDIS_TIMEOUT_SECONDS
            )
            self._shared = counter(storage_from_string(storage, **timeouts))
        self._retry_redis_at = float("-inf")

    def count(self, caller: str) -> None:
        """Count one request of ``caller`` against each rate and set ``g.rate_limit``.

        While Redis is unavailable, each process counts alone. Requests are then still answered
        and still limited.

        Raises:
            RateLimitError: the caller has sent too many requests.
        """
        if time.monotonic() >= self._retry_redis_at:
            try:
                return self._count(self._shared, caller)
            except self._shared.storage.base_exceptions as error:
                # The message is not logged: it may hold a password.
                log.warning("rate limit: storage unavailable: %s", type(error).__name__)
                self._retry_redis_at = time.monotonic() + REDIS_RETRY_SECONDS
        return self._count(self._own, caller)

    def _count(self, counter: Any, caller: str) -> None:
        allowed = [(counter.hit(rate, caller), rate) for rate in self._rates]
        _, rate = min(allowed, key=lambda one: one[0])
        reset, remaining = counter.get_window_stats(rate, caller)
        g.rate_limit = (rate.amount, remaining, reset)
        if not all(passed for passed, _ in allowed):
            # At least 1: "Retry-After: 0" would make the client send the request at once.
            raise RateLimitError(max(1, math.ceil(reset - time.time())))


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
