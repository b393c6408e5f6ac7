"""How many requests one tenant may send (``RATE_LIMIT``), over all routes together."""

import logging
import math
import time
from typing import Any

from flask import Flask, Response, current_app, g

from app.config.settings import Settings
from app.errors import RateLimitError

EXTENSION = "analytics_limit"
AWAY_SECONDS = 5.0
REDIS_SECONDS = 1.0

log = logging.getLogger("app")


def init_app(app: Flask, settings: Settings) -> None:
    """Prepare counting, in this process or, for all of them, in Redis."""
    app.extensions[EXTENSION] = None
    if settings.rate_limit is not None:
        app.extensions[EXTENSION] = Limits(settings.rate_limit, settings.rate_limit_storage)
        app.after_request(_tell)


def count_request() -> None:
    """Count the request; a blueprint's ``before_request``, after authentication.

    Raises:
        RateLimitError: too many.
    """
    limits: Limits | None = current_app.extensions[EXTENSION]
    if limits is not None:
        limits.count(_caller())


class Limits:
    """The rates, and who counts: Redis for all processes, or this one by itself."""

    def __init__(self, rates: str, storage: str) -> None:
        # Every command would wait for it that serves no request.
        from limits import parse_many, strategies  # noqa: PLC0415
        from limits.storage import MemoryStorage, storage_from_string  # noqa: PLC0415

        # The last minute, whenever it began: a fixed one lets twice as many through at its turn.
        counter = strategies.MovingWindowRateLimiter
        self._rates = parse_many(rates)
        self._own = self._shared = counter(MemoryStorage())
        if storage != "memory://":
            waits = {"socket_timeout": REDIS_SECONDS, "socket_connect_timeout": REDIS_SECONDS}
            self._shared = counter(storage_from_string(storage, **waits))
        self._away_until = float("-inf")

    def count(self, caller: str) -> None:
        """Count one request of ``caller`` against each rate, and note what is left.

        Without Redis each process counts by itself: better than no answers, or no limit.

        Raises:
            RateLimitError: it was one too many.
        """
        if time.monotonic() >= self._away_until:
            try:
                return self._count(self._shared, caller)
            except self._shared.storage.base_exceptions as error:
                # Not its words: they may hold a password.
                log.warning("rate limit: storage is away: %s", type(error).__name__)
                self._away_until = time.monotonic() + AWAY_SECONDS
        return self._count(self._own, caller)

    def _count(self, counter: Any, caller: str) -> None:
        allowed = [(counter.hit(rate, caller), rate) for rate in self._rates]
        _, rate = min(allowed, key=lambda one: one[0])
        reset, left = counter.get_window_stats(rate, caller)
        g.rate_limit = (rate.amount, left, reset)
        if not all(passed for passed, _ in allowed):
            # At least a second: in the last part of one there is none left to tell.
            raise RateLimitError(max(1, math.ceil(reset - time.time())))


def _caller() -> str:
    """The tenant, or the client that writes for all of them."""
    caller = g.caller
    return f"tenant {caller.tenant_id}" if caller.tenant_id else f"client {caller.subject}"


def _tell(response: Response) -> Response:
    """How many requests are left, and until when, in Unix seconds."""
    if (told := g.get("rate_limit")) is not None:
        amount, left, reset = told
        response.headers["X-RateLimit-Limit"] = str(amount)
        response.headers["X-RateLimit-Remaining"] = str(left)
        response.headers["X-RateLimit-Reset"] = str(math.ceil(reset))
    return response
